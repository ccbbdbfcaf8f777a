#include "cli/send_command.h"

#include <fmt/format.h>

#include <future>
#include <memory>
#include <utility>

#include "cli/arguments.h"
#include "cli/input.h"
#include "cli/interrupt.h"
#include "cli/json_form.h"
#include "cli/json_message.h"
#include "cli/line_sender.h"
#include "cli/session.h"
#include "holdfast/text.h"

namespace holdfast::cli {
namespace {

// What is typed in another encoding: an id and a header alike.
Status check_encoding(std::string_view option, std::string_view text) {
  if (is_valid_utf8(text)) return Status();
  return Status(
      ErrorCode::kInvalidArgument,
      fmt::format("{} {} is not UTF-8, as ids and headers must be: give it in that encoding.",
                  option, quoted(text)));
}

Result<Headers> parse_headers(const std::vector<std::string>& typed) {
  Headers headers;
  for (const std::string& text : typed) {
    if (Status status = check_encoding("-H", text); !status.ok()) return status;
    auto header = parse_assignment(text, "header");
    if (!header.ok()) return header.status();
    headers.push_back(std::move(header).value());
  }
  return headers;
}

Result<Message> message_without_body(const SendArguments& arguments) {
  Message message;
  Result<Headers> headers = parse_headers(arguments.headers);
  if (!headers.ok()) return headers.status();
  message.headers = std::move(headers).value();
  if (arguments.id && arguments.id->empty()) {
    return Status(
        ErrorCode::kMessageIdInvalid,
        "--id names no id, so that sending again would store the message again. Give one, "
        "or leave --id out.");
  }
  message.id = arguments.id.value_or("");
  if (Status status = check_encoding("--id", message.id); !status.ok()) return status;
  return message;
}

// The file that the body argument names; empty if it is the body itself.
std::string body_path(const SendArguments& arguments) {
  if (!arguments.body || *arguments.body == "-") return "-";
  return arguments.body->starts_with('@') ? arguments.body->substr(1) : std::string();
}

// Every line of the input is a message.
bool sends_lines(const SendArguments& arguments) { return arguments.lines || arguments.jsonl; }

std::size_t line_bytes_max(const SendArguments& arguments) {
  return arguments.jsonl ? kJsonMessageBytesMax : kMessageBodyBytesMax;
}

// `typed` has the headers that all get.
Result<Message> message_of_line(const SendArguments& arguments, const Message& typed,
                                Input::Line& line) {
  if (line.is_too_long) {
    return Status(
        ErrorCode::kMessageTooLarge,
        fmt::format(
            "The line has more than {} bytes, the most that {}.", line_bytes_max(arguments),
            arguments.jsonl ? "a message of the largest size takes as JSON" : "any queue takes"));
  }
  if (arguments.jsonl) {
    Result<Message> message = parse_message_json(line.text);
    if (!message.ok()) return message;
    message->headers.insert(message->headers.end(), typed.headers.begin(), typed.headers.end());
    return message;
  }
  Message message = typed;
  message.body = std::move(line.text);
  if (arguments.id) message.id = fmt::format("{}-{}", *arguments.id, line.number);
  return message;
}

constexpr std::string_view kNotRead = ". Lines after them were not read.";

std::string counts_of(const LineSender::Outcome& outcome, std::uint64_t lines_read) {
  std::string sentence = fmt::format("{} of {} lines are stored", outcome.stored, lines_read);
  if (outcome.refused > 0) sentence += fmt::format(", {} are not", outcome.refused);
  if (outcome.not_known > 0) sentence += fmt::format(", of {} it is not known", outcome.not_known);
  return sentence;
}

ExitCode report_lines(Session& session, const LineSender::Outcome& outcome,
                      std::uint64_t lines_read, bool is_cut_short) {
  session.output().end_list();
  std::string counts = counts_of(outcome, lines_read);
  counts += is_cut_short ? kNotRead : ".";
  const ExitCode code =
      outcome.stored > 0 ? ExitCode::kPartly : exit_code_for(outcome.first_failure);
  if (outcome.refused > 0 || outcome.not_known > 0) {
    session.console().error(counts);
    return session.finish(code);
  }
  // Nothing but standard output ends it before the last line, then.
  if (is_cut_short || !session.output().status().ok()) return session.finish(code, counts);
  session.console().note(fmt::format("{} messages are stored; {} of them were before.",
                                     outcome.stored, outcome.duplicates));
  return session.finish();
}

ExitCode send_lines(Session& session, const SendArguments& arguments, Input& input,
                    const Message& typed) {
  const Status connected = session.connect(Reconnect::kYes);
  if (!connected.ok()) return session.fail(connected);
  session.output().begin_list(
      {{"SEQUENCE", Align::kRight}, {"DUPLICATE", Align::kLeft}, {"ID", Align::kLeft}});
  catch_first_interrupt();
  LineSender sender(session, arguments.queue);
  Input::Line line;
  Status read_failure;
  std::uint64_t lines_read = 0;
  bool is_cut_short = false;
  while (!is_cut_short) {
    const Result<bool> more = input.read_line(line, line_bytes_max(arguments));
    if (!more.ok()) {
      read_failure = more.status();
      break;
    }
    if (!*more) break;
    const Result<Message> message = message_of_line(arguments, typed, line);
    is_cut_short = message.ok() ? !sender.send(line.number, *message)
                                : !sender.refuse(line.number, message.status());
    if (!is_cut_short) lines_read = line.number;
  }
  const LineSender::Outcome outcome = sender.finish();
  if (read_failure.code() == ErrorCode::kCancelled) {
    session.output().end_list();
    return session.finish_interrupted(counts_of(outcome, lines_read), kNotRead);
  }
  if (!read_failure.ok()) {
    const ExitCode code = session.fail(read_failure);
    return outcome.stored > 0 ? ExitCode::kPartly : code;
  }
  return report_lines(session, outcome, lines_read, is_cut_short);
}

ExitCode send_one(Session& session, const SendArguments& arguments, const Message& message) {
  const Status connected = session.connect();
  if (!connected.ok()) return session.fail(connected);
  // Asynchronous, because a full queue is to be reported at once instead of tried again.
  std::future<Result<PublishReceipt>> receipt_future =
      session.client().publish_future(arguments.queue, message);
  if (receipt_future.wait_for(session.options().timeout) != std::future_status::ready) {
    return session.fail(Status(
        ErrorCode::kTimeout,
        fmt::format(
            "Queue {} did not confirm the message within {}. Whether it is stored is not "
            "known; with --id it can be sent again and is stored once.",
            arguments.queue,
            format_duration_ms(static_cast<std::uint64_t>(session.options().timeout.count())))));
  }
  const Result<PublishReceipt> receipt = receipt_future.get();
  if (!receipt.ok()) return session.fail(receipt.status(), arguments.queue);
  Output& output = session.output();
  if (output.is_table()) {
    output.text(render_fields({{"Queue", arguments.queue},
                               {"Sequence", fmt::format("{}", receipt->sequence)},
                               {"Id", receipt->id},
                               {"Duplicate", receipt->duplicate ? "yes" : "no"}}));
  } else {
    output.single(receipt_json(arguments.queue, *receipt));
  }
  return session.finish(
      ExitCode::kDone,
      fmt::format("The message is stored in queue {} with sequence {} and id {}{}.",
                  arguments.queue, receipt->sequence, quoted(receipt->id),
                  receipt->duplicate ? ", and was before" : ""));
}

}  // namespace

ExitCode send_message(Session& session, const SendArguments& arguments) {
  const Status name = check_queue_name(arguments.queue);
  if (!name.ok()) return session.fail(name);
  if (arguments.jsonl && (arguments.lines || arguments.id)) {
    return session.fail(
        Status(ErrorCode::kInvalidArgument,
               "--jsonl goes with neither --lines nor --id: the lines have the ids."));
  }
  Result<Message> typed = message_without_body(arguments);
  if (!typed.ok()) return session.fail(typed.status());
  Message message = std::move(typed).value();

  if (arguments.body == "@") {
    return session.fail(Status(ErrorCode::kInvalidArgument,
                               "@ names no file: say @FILE. A text that begins with @ is sent from "
                               "standard input, with - in its place."));
  }
  const std::string path = body_path(arguments);
  if (path.empty()) {
    if (sends_lines(arguments)) {
      return session.fail(Status(ErrorCode::kInvalidArgument,
                                 fmt::format("{} takes its lines from standard input (-) or a file "
                                             "(@FILE), not from the command line.",
                                             arguments.jsonl ? "--jsonl" : "--lines")));
    }
    message.body = *arguments.body;
    return send_one(session, arguments, message);
  }
  if (path == "-" && session.console().input_is_terminal()) {
    session.console().note("Reading from the terminal; Ctrl-D ends the input.");
  }
  Result<Input> input = Input::open(path);
  if (!input.ok()) return session.fail(input.status());
  if (sends_lines(arguments)) return send_lines(session, arguments, *input, message);
  Result<std::string> body = input->read_body();
  if (!body.ok()) return session.fail(body.status());
  message.body = std::move(body).value();
  return send_one(session, arguments, message);
}

void add_send_command(const Command& message) {
  auto arguments = std::make_shared<SendArguments>();
  const Command command = message.add("send", "Publishes a message, or every line of a text");
  command.take({.name = "QUEUE", .meaning = "Where to", .required = true}, arguments->queue);
  command.take(
      {.name = "BODY",
       .meaning = "The body; @FILE: a file's content; - or nothing: standard input, also of "
                  "a text that begins with @"},
      arguments->body);
  command.take({.name = "--id",
                .meaning = "The message's id; with --lines each line's, with -1, -2, … after it"},
               arguments->id);
  command.take(
      {.name = "-H,--header", .meaning = "A header, as often as needed", .value = "NAME=VALUE"},
      arguments->headers);
  command.take_flag("--lines", arguments->lines, "Every line of the input is a message");
  command.take_flag("--jsonl", arguments->jsonl,
                    "Every line is a message as JSON, as peek and dlq export print it");
  command.does([arguments](Session& session) { return send_message(session, *arguments); });
}

}  // namespace holdfast::cli
