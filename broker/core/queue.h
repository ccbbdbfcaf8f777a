// A queue in memory: its log's head and tail, the blocks that are being worked on, its dedup
// window, and the delivery state of its subscription. Plain state; what happens to it is in the
// files that work on Core::State.

#pragma once

#include <algorithm>
#include <cstdint>
#include <list>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

#include "core/consumer.h"
#include "core/dedup_window.h"
#include "core/outstanding.h"
#include "core/rate_meter.h"
#include "core/records.h"
#include "core/requests.h"
#include "core/settled_set.h"

namespace holdfast::broker {

// A block that was read, for deliveries or to move what is in it, and still has unsettled messages.
// Dropped, and removed from the store, when the last of them is settled.
struct OpenBlock {
  Sequence first = 0;
  Sequence last = 0;
  std::uint32_t bytes = 0;
  std::uint32_t live = 0;        // unsettled messages
  std::uint32_t live_bytes = 0;  // theirs
  std::uint32_t held = 0;        // of those, by consumers
  bool rewriting = false;        // its bytes are being fetched for that
  bool put_off = false;          // it is to be looked at again whether it should be rewritten
};

// A settle request whose answer waits for moves to the dead-letter queue.
struct SettleOperation {
  SettledReply reply;
  std::uint32_t moves_left = 0;
  bool looked_through = false;  // every range of the request has been dealt with
};

// A message on its way to the dead-letter queue, while its bytes are read.
struct PendingMove {
  wire::Cause reason = wire::Cause_None;
  std::string error;
  std::shared_ptr<SettleOperation> operation;  // may be null
};

struct Subscription {
  Subscription(SubscriptionRecord stored, const HashKey& key)
      : record(std::move(stored)), settled(record.id, record.floor), outstanding(key) {}

  SubscriptionRecord record;  // as of the last sealed batch
  SettledSet settled;
  OutstandingTable outstanding;
  std::set<std::pair<MonotonicTime, Sequence>> waiting;  // retries not yet due
  std::set<Sequence> ready;                              // retries that are due
  Sequence retry_next = 1;                               // the next of those, going round
  std::map<Sequence, PendingMove> moves;

  Sequence read_next = 1;                // the next first delivery, unless settled
  Sequence delivered_to_durable = 0;     // the watermark as committed
  Sequence watermark_asked = 0;          // for the next batch, by consumers that had room
  std::shared_ptr<const Block> current;  // where read_next is, once read
  std::size_t current_index = 0;
  OpenBlock* current_open = nullptr;
  bool reading = false;  // a fetch for read_next is under way
  // Fetches for retries and moves that are under way: the first sequence of the block, or the one
  // that is wanted of a block that was not read yet.
  std::set<Sequence> fetching;

  std::vector<Consumer*> consumers;  // each knows its place
  std::list<Consumer*> ending;       // no longer among them, and perhaps still holding something
  std::list<Consumer*> available;    // those that may have credit, next in turn first
  // Those with something in flight, and perhaps some that had, each under its look_at; but not
  // those in their sessions' leases_over.
  std::map<std::pair<MonotonicTime, ConsumerId>, Consumer*> holders;
  std::uint64_t in_flight = 0;  // starting included

  std::size_t starts = 0;  // retries chosen for consumers since the last commit

  std::vector<Sequence> touched_retries;          // whose records change, with repeats
  std::set<Sequence> retries_put_off;             // outstanding, whose records wait for room
  std::unordered_set<Sequence> stored_retries;    // that have a record after the last sealed batch
  MonotonicTime armed_at = MonotonicTime::max();  // earliest wake asked for
};

// A publish that waits, with bytes of its own. Without them where it may be confirmed as a
// duplicate and is refused otherwise, because too much was pending when it came.
struct WaitingPublish {
  Asker asker;
  std::string id;
  std::uint64_t body_bytes = 0;
  std::uint64_t message_checksum = 0;
  std::uint64_t message_bytes = 0;
  std::vector<std::uint8_t> message;
  // In broker time: what the dedup window held then decides.
  std::uint64_t arrived_ms = 0;
};

class Queue {
 public:
  Queue(QueueRecord stored, SubscriptionRecord subscription_record,
        const DedupOptions& dedup_options, const HashKey& key, DedupTotals& dedup_totals)
      : record(std::move(stored)),
        subscription(std::move(subscription_record), key),
        builder(record.id),
        committed_to(record.next_sequence - 1),
        dedup(dedup_options, key, dedup_totals) {}

  bool is_dead_queue() const { return static_cast<bool>(record.source_queue); }
  std::uint64_t setting(QueueSetting which) const { return record.settings.get(which); }
  // Whether no attempt follows so many.
  bool is_over_after(std::uint32_t attempts) const {
    const std::uint64_t attempts_max = setting(QueueSetting::kMaxAttempts);
    return attempts_max > 0 && attempts >= attempts_max;
  }
  Sequence last_sequence() const { return record.next_sequence - 1; }
  // Where the dedup window begins: it never goes back, not by a restart either.
  IdKey dedup_begin() const {
    return std::max(IdKey(record.dedup_from_ms, record.dedup_from), dedup.begin_key());
  }
  // Stored and not settled, those of the gathering batch included.
  std::uint64_t messages() const { return subscription.settled.unsettled_count(last_sequence()); }
  // Of those what can be delivered.
  std::uint64_t ready() const {
    return messages() - subscription.in_flight - subscription.waiting.size() -
           subscription.moves.size();
  }

  QueueRecord record;
  Subscription subscription;
  BlockBuilder builder;                                        // what the gathering batch appends
  Sequence committed_to;                                       // last sequence that is durable
  std::map<Sequence, std::unique_ptr<OpenBlock>> open_blocks;  // by first sequence
  DedupWindow dedup;
  std::vector<DedupRecord> dedup_gathered;
  // In the order of their coming, behind one that cannot be decided before ids are read.
  std::list<WaitingPublish> publishes_waiting;
  // Chunks that do not hold the id of the first of them, and how many ids they had.
  std::map<std::uint64_t, std::size_t> chunks_ruled_out;
  std::uint64_t dedup_cut_short = 0;

  std::uint64_t touched_in = 0;  // number of the batch whose gathering lists it
  bool removal_sealed = false;   // deleted, and a sealed batch removes the last of it
  bool record_touched = false;
  bool subscription_touched = false;
  bool trim_blocks = false;  // the next batch removes blocks below record.trim_below
  bool trim_dedup = false;   // the next batch removes expired dedup records
  // Sealed and not committed: whether they left anything is not known yet.
  std::uint32_t dedup_trims_under_way = 0;

  bool lively = false;   // is looked at once a second
  bool overdue = false;  // more is due than was done at once

  QueueCounters counters;
  RateMeter publish_rate;
  RateMeter deliver_rate;
  RateMeter ack_rate;

  void tick_rates() {
    publish_rate.tick(counters.published);
    deliver_rate.tick(counters.delivered);
    ack_rate.tick(counters.acked);
  }
  // Nothing of it changes with time alone.
  bool is_still() const {
    return publish_rate.is_still() && deliver_rate.is_still() && ack_rate.is_still() &&
           dedup.size() == 0;
  }
};

}  // namespace holdfast::broker
