// Going through the messages of a queue page by page.

#pragma once

#include <cstdint>
#include <functional>
#include <string_view>

#include "cli/session.h"

namespace holdfast::cli {

// Calls `visit` for at most `count_max` messages of the queue in the order of their sequences, from
// sequence `from` on (0: the oldest). Keeps one page of them in memory. Ends with the first error,
// of the broker or of `visit`; otherwise returns how many there were.
Result<std::uint64_t> for_each_message(Session& session, std::string_view queue,
                                       std::uint64_t count_max, std::uint64_t from,
                                       const std::function<Status(const StoredMessage&)>& visit);

}  // namespace holdfast::cli
