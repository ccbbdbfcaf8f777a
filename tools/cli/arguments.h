// What people type after a command, and the shapes that commands share.

#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/command.h"
#include "holdfast/admin.h"
#include "holdfast/status.h"

namespace holdfast::cli {

// "name=value" split at the first "="; kInvalidArgument naming `what` if there is none, or no name.
Result<std::pair<std::string, std::string>> parse_assignment(std::string_view text,
                                                             std::string_view what);

// One setting by its name on the command line. "backoff" with "1s..10m" stands for backoff-min and
// backoff-max. An unknown name is answered with the nearest one.
Result<SettingList> parse_setting(std::string_view name, std::string_view value);
// The names that parse_setting() takes, in the order of the table, "backoff" last.
std::vector<std::string_view> setting_names();

// The messages that a command is about: SEQ… or --all.
struct Selection {
  std::vector<std::string> typed;  // sequences
  bool all = false;
};
void take_selection(const Command& command, Selection& selection);
// The sequences, empty with --all. kInvalidArgument if neither or both were given.
Result<std::vector<std::uint64_t>> selected_sequences(const Selection& selection);

}  // namespace holdfast::cli
