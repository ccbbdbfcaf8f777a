// holdfast message send

#pragma once

#include <optional>
#include <string>
#include <vector>

#include "cli/command.h"

namespace holdfast::cli {

struct SendArguments {
  std::string queue;
  std::optional<std::string> body;  // text, "-" or "@FILE"; none: standard input
  std::optional<std::string> id;    // with lines: "ID-1", "ID-2", …
  std::vector<std::string> headers;
  bool lines = false;
  bool jsonl = false;
};

void add_send_command(const Command& message);
ExitCode send_message(Session& session, const SendArguments& arguments);

}  // namespace holdfast::cli
