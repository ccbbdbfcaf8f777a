#include "cli/message_commands.h"

#include <fmt/format.h>

#include <memory>
#include <string>

#include "cli/message_view.h"
#include "cli/peek.h"
#include "cli/receive_command.h"
#include "cli/send_command.h"
#include "cli/session.h"

namespace holdfast::cli {
namespace {

ExitCode peek_messages(Session& session, const PeekArguments& arguments) {
  const Status connected = session.connect_for(arguments.queue);
  if (!connected.ok()) return session.fail(connected);
  return peek(session, arguments, arguments.queue, MessageColumns::kPeeked,
              fmt::format("Queue {} is empty there.", arguments.queue));
}

void add_peek(const Command& message) {
  const Command command =
      message.add("peek", "Shows messages and changes nothing: no attempt, no lease");
  const auto arguments = take_peek_arguments(command);
  command.does([arguments](Session& session) { return peek_messages(session, *arguments); });
}

struct GetArguments {
  std::string queue;
  std::uint64_t sequence = 0;
};

ExitCode get_message(Session& session, const GetArguments& arguments) {
  const Status connected = session.connect_for(arguments.queue);
  if (!connected.ok()) return session.fail(connected);
  const Result<StoredMessage> message = session.admin().get(arguments.queue, arguments.sequence);
  if (!message.ok()) return session.fail(message.status(), arguments.queue);
  const Result<AttemptsReport> attempts =
      session.admin().attempts(arguments.queue, arguments.sequence);
  if (!attempts.ok()) return session.fail(attempts.status(), arguments.queue);
  print_message(session.output(), *message, *attempts);
  return session.finish();
}

void add_get(const Command& message) {
  auto arguments = std::make_shared<GetArguments>();
  const Command command = message.add("get", "Shows one message with all that is known");
  command.take({.name = "QUEUE", .meaning = "Which queue", .required = true}, arguments->queue);
  command.take_number({.name = "SEQ", .meaning = "Its sequence", .required = true},
                      arguments->sequence, 1, ~std::uint64_t{0});
  command.does([arguments](Session& session) { return get_message(session, *arguments); });
}

}  // namespace

void add_message_commands(const Command& tool) {
  const Command message = tool.add_group("message", "Sends, receives and shows messages");
  add_send_command(message);
  add_receive_command(message);
  add_peek(message);
  add_get(message);
}

}  // namespace holdfast::cli
