#include "cli/arguments.h"

#include <fmt/format.h>

#include "holdfast/text.h"
#include "schema/queue_settings.h"

namespace holdfast::cli {
namespace {

constexpr std::string_view kBackoff = "backoff";

Status invalid(std::string message) {
  return Status(ErrorCode::kInvalidArgument, std::move(message));
}

Result<SettingList> parse_backoff(std::string_view value) {
  const std::size_t dots = value.find("..");
  if (dots == std::string_view::npos) {
    return invalid(
        fmt::format("Setting backoff cannot be {}: write the shortest and the longest "
                    "wait, e.g. 1s..10m.",
                    quoted(value)));
  }
  const Result<SettingList> shortest = parse_setting("backoff-min", value.substr(0, dots));
  if (!shortest.ok()) return shortest.status();
  const Result<SettingList> longest = parse_setting("backoff-max", value.substr(dots + 2));
  if (!longest.ok()) return longest.status();
  return SettingList{shortest->front(), longest->front()};
}

}  // namespace

Result<std::pair<std::string, std::string>> parse_assignment(std::string_view text,
                                                             std::string_view what) {
  const std::size_t equals = text.find('=');
  if (equals == std::string_view::npos || equals == 0) {
    return invalid(fmt::format("{} is not a {}: write name=value.", quoted(text), what));
  }
  return std::pair(std::string(text.substr(0, equals)), std::string(text.substr(equals + 1)));
}

Result<SettingList> parse_setting(std::string_view name, std::string_view value) {
  if (name == kBackoff) return parse_backoff(value);
  const QueueSettingInfo* info = find_queue_setting(name);
  if (info == nullptr) {
    const std::string_view nearest = nearest_word(name, setting_names());
    return invalid(nearest.empty() ? fmt::format("There is no queue setting {}; there are {}.",
                                                 quoted(name), fmt::join(setting_names(), ", "))
                                   : fmt::format("There is no queue setting {}. Did you mean {}?",
                                                 quoted(name), nearest));
  }
  const Result<std::uint64_t> number = parse_setting_value(*info, value);
  if (!number.ok()) return number.status();
  return SettingList{{std::string(name), *number}};
}

std::vector<std::string_view> setting_names() {
  std::vector<std::string_view> names;
  for (const QueueSettingInfo& info : queue_setting_table()) names.push_back(info.name);
  names.push_back(kBackoff);
  return names;
}

void take_selection(const Command& command, Selection& selection) {
  command.take({.name = "SEQ", .meaning = "Sequences of the messages"}, selection.typed);
  command.take_flag("--all", selection.all, "All of them");
}

Result<std::vector<std::uint64_t>> selected_sequences(const Selection& selection) {
  if (selection.all != selection.typed.empty()) {
    return invalid("Say which messages: either their sequences, or --all.");
  }
  std::vector<std::uint64_t> sequences;
  for (const std::string& text : selection.typed) {
    const Result<std::uint64_t> sequence = parse_count(text);
    if (!sequence.ok()) return sequence.status();
    if (*sequence == 0) return invalid("0 is not a sequence: they begin at 1.");
    sequences.push_back(*sequence);
  }
  return sequences;
}

}  // namespace holdfast::cli
