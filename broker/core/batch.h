// A batch: every durable change gathered since the last one was sealed, resolved (sequences, times
// and ids are chosen) and numbered. The store applies it in one transaction together with its
// number. Applying a batch to the same state gives the same state: it takes no clock and no chance.
//
// The records here are also what the store hands back at start (StoredState).

#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "core/block.h"
#include "protocol_generated.h"
#include "schema/queue_settings.h"

namespace holdfast::broker {

struct SequenceRange {
  Sequence first = 0;
  Sequence last = 0;  // inclusive
  bool operator==(const SequenceRange&) const = default;
};

struct QueueRecord {
  QueueId id;
  std::string name;
  QueueSettings settings;
  WallTime created_at;
  QueueId dead_queue;    // none for a dead-letter queue
  QueueId source_queue;  // of a dead-letter queue
  Sequence next_sequence = 1;
  std::uint64_t bytes = 0;  // stored_bytes of the messages that are not settled
  // That may be wrong, since damage left it open which messages are settled, or how large those
  // were that it cost. The next time that the queue is empty it has no bytes for certain.
  bool bytes_estimated = false;
  Sequence trim_below = 0;  // blocks that end below this are still to be removed; 0: none
  bool deleted = false;     // its name is free; its records are still being removed
  // The dedup window begins here, as its records are keyed: what is stored before has left it, and
  // is removed a few records at a time.
  std::uint64_t dedup_from_ms = 0;
  Sequence dedup_from = 0;
};

struct SubscriptionRecord {
  SubscriptionId id;
  QueueId queue;
  std::string name;           // "default"
  Sequence floor = 0;         // everything up to it is settled
  Sequence delivered_to = 0;  // watermark: up to it a first delivery may have happened
  bool paused = false;        // reserved, false
};

// The settled messages above the floor, by chunks of 4,096 sequences: chunk = sequence / 4096.
inline constexpr std::uint64_t kAckChunk = 4096;
struct AckRecord {
  SubscriptionId subscription;
  std::uint64_t chunk = 0;
  // A run of this many full chunks beginning with `chunk`; 0: `bitmap` holds this one chunk.
  std::uint64_t full_chunks = 0;
  std::array<std::uint64_t, kAckChunk / 64> bitmap{};  // bit s % 64 of word s % 4096 / 64
};
struct AckKey {
  SubscriptionId subscription;
  std::uint64_t chunk = 0;
};

struct AttemptRecord {
  std::uint32_t number = 0;
  wire::Cause cause = wire::Cause_None;
  WallTime delivered_at;  // epoch: not known
  WallTime ended_at;
  std::string consumer;
  std::string error;
};
// How many attempts a record keeps, the latest.
inline constexpr std::size_t kHistoryMax = 16;
// Of an attempt's error text this much is kept.
inline constexpr std::size_t kHistoryErrorBytesMax = 256;

struct RetryRecord {
  SubscriptionId subscription;
  Sequence sequence = 0;
  std::uint32_t attempts = 0;          // that count, the one under way included
  bool in_flight = false;              // the last of them was under way
  WallTime due;                        // waits until then, unless in_flight; epoch: is due
  std::vector<AttemptRecord> history;  // the ended ones, oldest first, at most kHistoryMax
};
// About what such a record takes in the store.
std::size_t retry_record_bytes(std::span<const AttemptRecord> history);
struct RetryKey {
  SubscriptionId subscription;
  Sequence sequence = 0;
};

struct BlockKey {
  QueueId queue;
  Sequence first = 0;
};

// Removes whole blocks from the head of a queue: those whose last sequence is below `below`, at
// most `limit`. The commit's result says whether more are left.
struct BlockTrim {
  QueueId queue;
  Sequence below = 0;
  std::uint32_t limit = 0;
};

struct MessageIdHash {
  std::uint64_t low = 0;
  std::uint64_t high = 0;
  bool operator==(const MessageIdHash&) const = default;
};
static_assert(sizeof(MessageIdHash) == 16);

// Ids of messages with the consecutive sequences first, first + 1, …
struct DedupRecord {
  QueueId queue;
  std::uint64_t time_ms = 0;  // Unix ms; never goes back within a queue
  Sequence first = 0;
  std::vector<MessageIdHash> hashes;
};
// Removes the records of a queue before (time_ms, first), at most `limit`.
struct DedupTrim {
  QueueId queue;
  std::uint64_t time_ms = 0;
  Sequence first = 0;
  std::uint32_t limit = 0;
};

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

// What the blocks of a queue hold: every message that is not settled, and some that are.
struct HeldSequences {
  QueueId queue;
  std::vector<SequenceRange> ranges;  // ascending
};

// Everything but messages and the dedup window, as read at start.
struct StoredState {
  std::string node_id;
  std::uint64_t batch_number = 0;
  // The one after it, where the store found it begun and not whole, and left it out; else 0.
  std::uint64_t batch_cut_short = 0;
  std::uint32_t next_id = 1;
  std::vector<QueueRecord> queues;
  std::vector<SubscriptionRecord> subscriptions;
  std::vector<AckRecord> acks;        // in key order
  std::vector<RetryRecord> retries;   // in key order
  std::uint64_t records_corrupt = 0;  // acks and retries that failed their checksum, left out
  // Their keys, as far as they are legible, whether or not there is such a subscription: to be
  // removed.
  std::vector<AckKey> acks_corrupt;
  std::vector<RetryKey> retries_corrupt;
  // Of the queues that lack acks for that reason: what no block holds was settled. Of all queues,
  // if it is not legible whose acks they were.
  std::vector<HeldSequences> held;
  SpaceReport space;
};

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
