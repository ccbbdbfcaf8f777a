#include "cli/message_listing.h"

#include <algorithm>

namespace holdfast::cli {

Result<std::uint64_t> for_each_message(Session& session, std::string_view queue,
                                       std::uint64_t count_max, std::uint64_t from,
                                       const std::function<Status(const StoredMessage&)>& visit) {
  constexpr std::uint64_t kPageMessages = 64;
  std::uint64_t visited = 0;
  std::uint64_t next = from;
  do {
    const auto limit = static_cast<std::uint32_t>(std::min(kPageMessages, count_max - visited));
    const Result<PeekPage> page = session.admin().peek(queue, limit, next);
    if (!page.ok()) return page.status();
    for (const StoredMessage& message : page->messages) {
      const Status status = visit(message);
      if (!status.ok()) return status;
      ++visited;
    }
    next = page->next;
  } while (next != 0 && visited < count_max);
  return visited;
}

}  // namespace holdfast::cli
