#include "cli/message_commands.h"

#include <fmt/format.h>

#include <memory>
#include <string>

#include "cli/message_listing.h"
#include "cli/message_view.h"
#include "cli/receive_command.h"
#include "cli/send_command.h"
#include "cli/session.h"

namespace holdfast::cli {
namespace {

struct PeekArguments {
  std::string queue;
  std::uint64_t count = 10;
  std::uint64_t from = 0;
};

ExitCode peek_messages(Session& session, const PeekArguments& arguments) {
  const Status connected = session.connect_for(arguments.queue);
  if (!connected.ok()) return session.fail(connected);
  begin_messages(session.output(), MessageColumns::kPeeked);
  const Result<std::uint64_t> shown = for_each_message(
      session, arguments.queue, arguments.count, arguments.from, [&](const StoredMessage& message) {
        print_in_list(session.output(), MessageColumns::kPeeked, message);
        return session.output().status();
      });
  if (!shown.ok()) {
    return session.output().status().ok() ? session.fail(shown.status(), arguments.queue)
                                          : session.finish();
  }
  session.output().end_list();
  if (*shown == 0) session.console().note(fmt::format("Queue {} is empty there.", arguments.queue));
  return session.finish();
}

void add_peek(const Command& message) {
  auto arguments = std::make_shared<PeekArguments>();
  const Command command =
      message.add("peek", "Shows messages and changes nothing: no attempt, no lease");
  command.take({.name = "QUEUE", .meaning = "Which queue", .required = true}, arguments->queue);
  constexpr std::uint64_t kCountMax = 1'000'000'000;
  command.take_number({.name = "-n,--count", .meaning = "How many at most (default 10)"},
                      arguments->count, 1, kCountMax);
  command.take_number(
      {.name = "--from", .meaning = "The sequence to begin at (default: the oldest)"},
      arguments->from, 1, ~std::uint64_t{0});
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
  print_message(session.output(), *message);
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
