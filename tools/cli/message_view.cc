#include "cli/message_view.h"

#include <fmt/format.h>

#include <string>

#include "cli/cell.h"
#include "cli/json_form.h"

namespace holdfast::cli {
namespace {

std::string attempt_line(const AttemptReport& attempt) {
  std::string line = timestamp(attempt.delivered_at);
  if (!line.empty()) line += " to ";
  line += fmt::format("{}  {}", timestamp(attempt.ended_at), attempt.cause);
  if (!attempt.consumer.empty()) line += fmt::format(" by {}", attempt.consumer);
  if (!attempt.error.empty()) line += fmt::format(": {}", attempt.error);
  return line;
}

// `place` is put behind "Attempt 1".
void add_history(const std::vector<AttemptReport>& history, std::string_view place,
                 Fields& fields) {
  for (const AttemptReport& attempt : history) {
    fields.emplace_back(fmt::format("Attempt {}{}", attempt.number, place), attempt_line(attempt));
  }
}

std::string state_line(const AttemptsReport& attempts) {
  std::string line = attempts.state;
  if (!attempts.consumer.empty()) line += fmt::format(", held by {}", attempts.consumer);
  const std::string due_at = timestamp(attempts.due_at);
  if (!due_at.empty()) line += fmt::format(", until {}", due_at);
  return line;
}

// The first part of the body is enough for any table.
std::string body_cell(const std::string& body) {
  constexpr std::size_t kCellBytesMax = 4'096;
  return body.substr(0, kCellBytesMax);
}

}  // namespace

void begin_messages(Output& output, MessageColumns columns) {
  constexpr std::size_t kTimeWidth = 24;
  constexpr std::size_t kIdWidth = 26;
  switch (columns) {
    case MessageColumns::kDelivered:
      output.begin_list({{"SEQUENCE", Align::kRight},
                         {"ATTEMPT", Align::kRight},
                         {"PUBLISHED", Align::kLeft, kTimeWidth},
                         {"ID", Align::kLeft, kIdWidth},
                         {"BODY"}});
      return;
    case MessageColumns::kPeeked:
      output.begin_list({{"SEQUENCE", Align::kRight},
                         {"STATE", Align::kLeft},
                         {"ATTEMPTS", Align::kRight},
                         {"PUBLISHED", Align::kLeft, kTimeWidth},
                         {"ID", Align::kLeft, kIdWidth},
                         {"BODY"}});
      return;
    case MessageColumns::kDead:
      output.begin_list({{"SEQUENCE", Align::kRight},
                         {"REASON", Align::kLeft},
                         {"ATTEMPTS", Align::kRight},
                         {"DEAD SINCE", Align::kLeft, kTimeWidth},
                         {"ID", Align::kLeft, kIdWidth},
                         {"ERROR", Align::kLeft},
                         {"BODY"}});
      return;
  }
}

void print_in_list(Output& output, MessageColumns columns, const StoredMessage& message) {
  if (!output.is_table()) {
    output.object(message_json(message));
    return;
  }
  const std::string sequence = fmt::format("{}", message.sequence);
  const std::string attempt = fmt::format("{}", message.attempt);
  const std::string published = timestamp(published_at(message));
  const Provenance& provenance = message.provenance;
  switch (columns) {
    case MessageColumns::kDelivered:
      output.row({sequence, attempt, published, message.id, body_cell(message.body)});
      return;
    case MessageColumns::kPeeked:
      output.row(
          {sequence, message.state, attempt, published, message.id, body_cell(message.body)});
      return;
    case MessageColumns::kDead:
      output.row({sequence, provenance.reason, fmt::format("{}", provenance.attempts),
                  timestamp(provenance.dead_at), message.id, cut(provenance.error, 32),
                  body_cell(message.body)});
      return;
  }
}

void print_message(Output& output, const StoredMessage& message, const AttemptsReport& attempts) {
  if (!output.is_table()) {
    output.single(message_json(message, attempts));
    return;
  }
  Fields fields = {
      {"Queue", message.queue},
      {"Sequence", fmt::format("{}", message.sequence)},
      {"Id", message.id},
      {"State", state_line(attempts)},
      {"Attempts", fmt::format("{}", attempts.attempts)},
  };
  add_history(attempts.history, "", fields);
  const Provenance& provenance = message.provenance;
  fields.emplace_back("Published", timestamp(published_at(message)));
  for (const auto& [name, value] : message.headers) {
    fields.emplace_back("Header", fmt::format("{}={}", name, value));
  }
  if (message.is_dead_letter) {
    fields.emplace_back(
        "Source", fmt::format("{}, sequence {}", provenance.source, provenance.source_sequence));
    fields.emplace_back("Reason", provenance.reason);
    fields.emplace_back("Error", provenance.error);
    fields.emplace_back("Dead since", timestamp(provenance.dead_at));
    fields.emplace_back("Attempts there", fmt::format("{}", provenance.attempts));
    add_history(provenance.history, " there", fields);
  }
  fields.emplace_back("Body", message.body);
  output.text(render_fields(fields));
}

}  // namespace holdfast::cli
