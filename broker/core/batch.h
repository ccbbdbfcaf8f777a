// A batch: every durable change gathered since the last one was sealed, resolved (sequences, times
// and ids are chosen) and numbered. The store applies it in one transaction together with its
// number. Applying a batch to the same state gives the same state: it takes no clock and no chance.

#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/ids.h"
#include "core/block.h"
#include "core/records.h"

namespace holdfast::broker {

struct Batch {
  std::uint64_t number = 0;

  // Applied in this order.
  std::uint32_t next_id = 0;  // the next queue or subscription id; 0: unchanged
  std::vector<QueueRecord> queues;
  std::vector<SubscriptionRecord> subscriptions;
  std::vector<BlockKey> blocks_removed;
  std::vector<std::shared_ptr<const Block>> blocks;  // new and rewritten
  std::vector<BlockTrim> block_trims;
  std::vector<AckKey> acks_removed;
  std::vector<AckRecord> acks;
  std::vector<RetryKey> retries_removed;
  std::vector<RetryRecord> retries;
  std::vector<DedupTrim> dedup_trims;
  std::vector<DedupRecord> dedup;
  std::vector<SubscriptionId> subscriptions_removed;
  std::vector<QueueId> queues_removed;  // every other record of it is gone already

  bool empty() const;
  // About what it adds to the store.
  std::size_t bytes() const;
};

// Consecutive batches that one commit makes durable, all of them or none; oldest first.
using Batches = std::vector<std::unique_ptr<Batch>>;
// Several have at most so many bytes together, about what one with a large message may have: the
// store keeps room in its file for that.
inline constexpr std::size_t kJoinedBytesMax = 16 << 20;

// What the store knows about its room, told to the core at start, after every commit, and when a
// commit begins to wait for space.
struct SpaceReport {
  bool publishes_allowed = true;
  bool commits_wait = false;          // the commit under way found no room, and is tried again
  bool retries_allowed = true;        // publishes or not, retries may start that are counted first
  std::uint64_t used_bytes = 0;       // pages in use
  std::uint64_t file_bytes = 0;       // claimed on disk
  std::uint64_t disk_free_bytes = 0;  // of the file system
  std::uint64_t room_bytes = 0;       // that publishes may still add before they are refused
  // That messages which are moved or rewritten may add, publishes or not: some of it the reserve's.
  // 0 when little of that is left.
  std::uint64_t reserve_room_bytes = 0;
  std::string reason;  // a sentence, when publishes are not allowed
};

// What a commit reports back. A failed commit does not report: the broker stops.
struct CommitResult {
  std::uint64_t number = 0;          // of the last batch in it
  std::uint32_t duration_us = 0;     // at most that many, however long it waited for room
  std::vector<QueueId> blocks_left;  // trims that hit their limit
  std::vector<QueueId> dedup_left;
  SpaceReport space;
};

}  // namespace holdfast::broker
