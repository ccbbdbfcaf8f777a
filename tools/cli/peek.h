// What `message peek` and `dlq peek` have in common.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "cli/command.h"
#include "cli/message_view.h"
#include "cli/session.h"

namespace holdfast::cli {

struct PeekArguments {
  std::string queue;
  std::uint64_t count = 10;
  std::uint64_t from = 0;  // 0: the oldest
};

// Their options; valid as long as the command.
std::shared_ptr<PeekArguments> take_peek_arguments(const Command& command);

// Lists the messages of `queue`; with none it says `none`.
ExitCode peek(Session& session, const PeekArguments& arguments, std::string_view queue,
              MessageColumns columns, std::string_view none);

// The message at the head of the queue, empty if there is none.
Result<std::optional<StoredMessage>> oldest_message(Session& session, std::string_view queue);

}  // namespace holdfast::cli
