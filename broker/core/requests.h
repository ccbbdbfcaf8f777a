// What the core is asked and what it answers. Plain values: the net room turns frames into requests
// and effects into frames; a simulator does without frames.
//
// Everything that a request refers to is valid only during the call.

#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "core/batch.h"
#include "core/block.h"
#include "core/reads.h"
#include "core/records.h"
#include "holdfast/status.h"
#include "protocol_generated.h"
#include "schema/queue_settings.h"

namespace holdfast::broker {

// What a session counts as waiting until its last answer.
// kBulk: a redrive, discard or purge.
enum class Waits : std::uint8_t { kNothing, kRequest, kPeek, kBulk };

// Whom to answer: the session, and the correlation that it gave its request.
struct Asker {
  SessionId session;
  std::uint64_t correlation = 0;
  Waits waits = Waits::kNothing;  // comes back with the answer
  std::uint32_t weight = 1;       // likewise: counts as so many requests
};

// Calls visit(sequence) for each in the ranges. The last may be the largest number there is, behind
// which counting begins anew.
template <typename Visit>
void for_each_sequence(std::span<const SequenceRange> ranges, Visit visit) {
  for (const SequenceRange& range : ranges) {
    if (range.first > range.last) continue;
    visit(range.first);
    for (Sequence sequence = range.first; sequence != range.last;) visit(++sequence);
  }
}

// Joins `sequence` to the last range if it follows; else it becomes a range of its own.
inline void add_to_ranges(std::vector<SequenceRange>& ranges, Sequence sequence) {
  if (!ranges.empty() && ranges.back().last + 1 == sequence) {
    ranges.back().last = sequence;
  } else {
    ranges.push_back({sequence, sequence});
  }
}

// ---- requests ----

struct PublishRequest {
  Asker asker;
  QueueId queue;
  std::string_view id;  // valid UTF-8, 1 to 128 bytes (checked by the caller)
  std::size_t body_bytes = 0;
  std::uint64_t message_checksum = 0;
  ByteSpan message;  // the whole message as the client sent it
};

struct SubscribeRequest {
  Asker asker;
  std::string_view queue;
  std::string_view subscription;   // "default" or empty
  std::string_view consumer_name;  // empty: the session's client name
  std::uint32_t credit_messages = 0;
  std::uint64_t credit_bytes = 0;  // 0: no bound by bytes
  std::uint32_t lease_ms = 0;      // 0: the queue's
};

struct SettleRequest {
  Asker asker;
  ConsumerId consumer;
  wire::SettleKind kind = wire::SettleKind_Ack;
  std::span<const SequenceRange> ranges;
  std::string_view reason;
  std::optional<Milliseconds> delay;  // nack only
};

struct ExtendRequest {
  Asker asker;
  ConsumerId consumer;
  std::span<const SequenceRange> ranges;
  std::uint32_t lease_ms = 0;  // 0: the consumer's
};

struct SettingChange {
  std::uint16_t setting = 0;
  std::uint64_t value = 0;
};

struct CreateQueueRequest {
  Asker asker;
  std::string_view name;
  std::span<const SettingChange> settings;
  bool if_not_exists = false;
};

struct EditQueueRequest {
  Asker asker;
  std::string_view name;
  std::span<const SettingChange> settings;
};

struct PeekRequest {
  Asker asker;
  std::string_view queue;
  Sequence from = 0;
  std::uint32_t limit = 0;
};

struct AttemptsRequest {
  Asker asker;
  std::string_view queue;
  Sequence sequence = 0;
};

// Redrive and discard: these dead letters.
struct LettersRequest {
  Asker asker;
  std::string_view queue;  // the source queue or its dead-letter queue
  std::span<const Sequence> sequences;
  bool all = false;
  Sequence from = 0;
  Sequence to = 0;  // 0: the last there is
  std::uint32_t limit = 0;
  bool dry_run = false;
};

// ---- effects ----

struct ErrorReply {
  Asker to;
  Status error;
  std::uint64_t bytes = 0;  // of a publish, as in ConfirmReply
};
struct OkReply {
  Asker to;
};
// Confirms `count` publishes with consecutive correlations from `to.correlation` on.
struct ConfirmReply {
  Asker to;
  std::uint32_t count = 0;
  Sequence sequence = 0;
  bool duplicate = false;
  std::uint64_t bytes = 0;  // of the messages, as counted against the session's unconfirmed bytes
};
struct SubscribedReply {
  Asker to;
  ConsumerId consumer;
  QueueId queue;
  std::uint32_t lease_ms = 0;
};
struct Delivery {
  SessionId session;
  ConsumerId consumer;
  QueueId queue;
  std::uint32_t attempt = 0;
  std::uint32_t lease_ms = 0;
  BlockEntry entry;  // its block is pinned by the Effects that hold this
};
// What a delivery takes of its session's room: the message as it is stored, and about what its
// frame adds.
constexpr std::uint64_t room_of(std::size_t stored_bytes) { return stored_bytes + 64; }
struct SettledReply {
  Asker to;
  std::uint32_t settled = 0;
  std::uint32_t late = 0;
  std::vector<SequenceRange> refused;
};
struct ExtendedReply {
  Asker to;
  std::uint32_t extended = 0;
  std::vector<SequenceRange> refused;
};
struct LeaseLostNotice {
  SessionId session;
  ConsumerId consumer;
  wire::Cause cause = wire::Cause_None;
  std::vector<SequenceRange> ranges;
};

// The consumer is no more, e.g. because its queue was deleted.
struct ConsumerEndedNotice {
  SessionId session;
  ConsumerId consumer;
  Status why;
};

struct QueueCounters {  // since the broker started
  std::uint64_t published = 0;
  std::uint64_t duplicates = 0;
  std::uint64_t delivered = 0;
  std::uint64_t redelivered = 0;
  std::uint64_t acked = 0;
  std::uint64_t late_acks = 0;
  std::uint64_t nacked = 0;
  std::uint64_t rejected = 0;
  std::uint64_t released = 0;
  std::uint64_t leases_expired = 0;
  std::uint64_t deliveries_lost = 0;
  std::uint64_t dead_lettered = 0;
  std::uint64_t redriven = 0;
  std::uint64_t discarded = 0;
  std::uint64_t purged = 0;
  std::uint64_t corrupt = 0;
  std::uint64_t refused = 0;
};
struct Rates {  // per second, over the last ten
  double publish = 0;
  double deliver = 0;
  double ack = 0;
};
struct QueueReport {
  QueueId id;
  std::string name;
  QueueSettings settings;
  std::string dead_queue;
  std::string source_queue;
  Sequence next_sequence = 1;
  Sequence floor = 0;
  std::uint64_t messages = 0;
  std::uint64_t bytes = 0;
  std::uint64_t ready = 0;
  std::uint64_t in_flight = 0;
  std::uint64_t waiting = 0;
  std::uint64_t moving = 0;
  bool stalled = false;  // some are ready, and outstanding-max keeps all of them
  std::uint64_t dead = 0;
  std::uint32_t consumers = 0;
  QueueCounters counters;
  std::uint64_t dedup_ids = 0;
  std::uint64_t dedup_cut_short = 0;
  Rates rates;
  WallTime created_at;
};
struct QueueReply {
  Asker to;
  std::shared_ptr<const QueueReport> report;
};
struct PeekReply {
  Asker to;
  QueueId queue;
  std::uint32_t attempts = 0;
  wire::MessageState state = wire::MessageState_Ready;
  BlockEntry entry;  // pinned likewise
};
struct AttemptsReport {
  Sequence sequence = 0;
  wire::MessageState state = wire::MessageState_Ready;
  std::uint32_t attempts = 0;
  std::string consumer;  // in flight: whose
  // Waiting: when it is ready again; in flight: when its lease ends; else the epoch.
  WallTime due_at;
  std::vector<AttemptRecord> history;
};
struct AttemptsReply {
  Asker to;
  std::shared_ptr<const AttemptsReport> report;
};
struct ListEndReply {
  Asker to;
  std::uint32_t count = 0;
  Sequence next = 0;
};
struct MovedReply {
  Asker to;
  std::uint64_t moved = 0;
  std::uint32_t skipped_in_flight = 0;
  std::uint32_t not_found = 0;
  Sequence not_found_first = 0;  // the lowest of them
  std::uint32_t refused = 0;
  Sequence next = 0;
  Status first_refusal;
};
struct ConsumerReport {
  ConsumerId id;
  SessionId session;
  std::string queue;
  std::string subscription;
  std::string name;
  std::uint32_t credit_messages = 0;
  std::uint64_t credit_bytes = 0;
  std::uint32_t in_flight = 0;
  std::uint64_t in_flight_bytes = 0;
  std::uint32_t lease_ms = 0;
  std::uint64_t delivered = 0;
  std::uint64_t acked = 0;
  std::uint64_t oldest_lease_ms = 0;
};
struct ConsumerReply {
  Asker to;
  std::shared_ptr<const ConsumerReport> report;
};

using Effect =
    std::variant<ConfirmReply, Delivery, SettledReply, ExtendedReply, LeaseLostNotice, ErrorReply,
                 OkReply, SubscribedReply, QueueReply, PeekReply, AttemptsReply, ListEndReply,
                 MovedReply, ConsumerReply, ConsumerEndedNotice>;

// What must now be said and read, in order. `pinned` keeps alive what the entries point into.
struct Effects {
  std::vector<Effect> said;
  std::vector<FetchRequest> fetches;
  std::vector<IdsRequest> ids_requests;
  std::vector<std::shared_ptr<const Block>> pinned;

  void clear() {
    said.clear();
    fetches.clear();
    ids_requests.clear();
    pinned.clear();
  }
};

// What was in flight, or about to be, when the broker ended: each counts as an attempt.
struct InterruptedAttempts {
  std::uint64_t messages = 0;
  std::uint64_t dead = 0;  // of these: it was the last one
};

// The core's part of StatusInfo.
struct CoreReport {
  std::uint32_t queues = 0;
  std::uint32_t consumers = 0;
  std::uint64_t ready = 0;
  std::uint64_t in_flight = 0;
  std::uint64_t waiting = 0;
  std::uint64_t moving = 0;
  std::uint64_t dead = 0;
  Rates rates;
  QueueCounters counters;
  SpaceReport space;
  bool draining = false;
  std::uint64_t batch_number = 0;
  std::uint64_t commits = 0;
  std::uint32_t commit_us_p50 = 0;
  std::uint32_t commit_us_p99 = 0;
};

}  // namespace holdfast::broker
