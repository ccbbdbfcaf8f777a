// The records of the store, blocks aside: what batches write, and what the store hands back at
// start.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "protocol_generated.h"
#include "schema/queue_settings.h"

namespace holdfast::broker {

// What a small record costs in the store, key and page overhead included; an estimate.
inline constexpr std::size_t kRecordBytes = 128;

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

}  // namespace holdfast::broker
