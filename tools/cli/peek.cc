#include "cli/peek.h"

#include <utility>

#include "cli/message_listing.h"

namespace holdfast::cli {

std::shared_ptr<PeekArguments> take_peek_arguments(const Command& command) {
  constexpr std::uint64_t kCountMax = 1'000'000'000;
  auto arguments = std::make_shared<PeekArguments>();
  command.take({.name = "QUEUE", .meaning = "Which queue", .required = true}, arguments->queue);
  command.take_number({.name = "-n,--count", .meaning = "How many at most (default 10)"},
                      arguments->count, 1, kCountMax);
  command.take_number(
      {.name = "--from", .meaning = "The sequence to begin at (default: the oldest)"},
      arguments->from, 1, ~std::uint64_t{0});
  return arguments;
}

ExitCode peek(Session& session, const PeekArguments& arguments, std::string_view queue,
              MessageColumns columns, std::string_view none) {
  begin_messages(session.output(), columns);
  const Result<std::uint64_t> shown = for_each_message(
      session, queue, arguments.count, arguments.from, [&](const StoredMessage& message) {
        print_in_list(session.output(), columns, message);
        return session.output().status();
      });
  if (!shown.ok()) {
    return session.output().status().ok() ? session.fail(shown.status(), queue) : session.finish();
  }
  session.output().end_list();
  if (*shown == 0) session.console().note(none);
  return session.finish();
}

Result<std::optional<StoredMessage>> oldest_message(Session& session, std::string_view queue) {
  Result<PeekPage> page = session.admin().peek(queue, 1);
  if (!page.ok()) return page.status();
  if (page->messages.empty()) return std::optional<StoredMessage>();
  return std::optional<StoredMessage>(std::move(page->messages.front()));
}

}  // namespace holdfast::cli
