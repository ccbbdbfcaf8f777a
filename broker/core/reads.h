// What the core asks the store to read while it runs, and what comes back.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

#include "base/ids.h"
#include "core/block.h"
#include "core/records.h"

namespace holdfast::broker {

// Reads the records of a queue's dedup window with (time_ms, first) from `begin` to before `end`.
struct IdsRequest {
  FetchId id;
  QueueId queue;
  std::pair<std::uint64_t, Sequence> begin;
  std::pair<std::uint64_t, Sequence> end;
};

struct IdsResult {
  FetchId id;
  QueueId queue;
  std::vector<DedupRecord> records;   // ascending
  std::uint64_t records_corrupt = 0;  // left out
};

// A cold read: the blocks that hold `from` or what follows it, in order.
struct FetchRequest {
  FetchId id;
  QueueId queue;
  Sequence from = 1;
  Sequence to = 0;            // blocks that begin after it are not wanted
  std::size_t bytes_max = 0;  // stops after the block that reaches it
};

// A block whose header cannot be trusted: its messages are lost, its bytes are kept.
struct UnreadableBlock {
  Sequence first = 0;  // from the key
  Sequence last = 0;   // one before the next block's first, or the end of what was asked for
  std::vector<std::uint8_t> raw;
};

struct FetchResult {
  FetchId id;
  Sequence from = 1;
  // Ascending, each holding at least one sequence >= from. Empty: there is none up to `to`.
  std::vector<std::shared_ptr<const Block>> blocks;
  std::vector<UnreadableBlock> unreadable;
};

}  // namespace holdfast::broker
