// What the outside knows of a broker, and what it may expect of it: everything that was asked, said
// and made durable, as plain maps. It shares no code with the core. Each event is told to the
// model; what contradicts a promise becomes the finding.
//
// The promises, by the names they have in the checks:
//   lost       what is durable stays until it was acked, purged, discarded or moved (I1)
//   bytes      nothing is delivered or peeked that was not published, byte for byte (I2)
//   final      a durably confirmed ack, purge or move is final (I3)
//   early      nothing is said before it is durable (I4)
//   dedup      one stored message per id in the window; a duplicate names the first one (I5)
//   order      first deliveries of one run of the broker ascend (I6)
//   attempts   counted, never too low, after a crash at most one too high, never over the limit
//   held       a message is with one consumer at a time; leases end when they say
//   bounds     credit, outstanding-max, max-messages, max-bytes, waits before a retry
//   answers    every request is answered once
//   rest       when there is nothing left to do, no consumer waits for what is ready, and what is
//              reported is right to the byte
//   drain      when the faults stop, everything drains and the store is empty (I11)

#pragma once

#include <algorithm>
#include <cstdint>
#include <deque>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "core/core.h"
#include "support/memory_store.h"

namespace holdfast::broker::sim {

enum class End : std::uint8_t { kNone, kAcked, kPurged, kMoved, kDiscarded, kRedriven };

// A message in a queue, known since it is durable.
struct Message {
  std::uint64_t publish = 0;  // which one brought it
  std::uint64_t stored_bytes = 0;
  std::uint64_t story = 0;  // checksum of its provenance; 0: none
  End end = End::kNone;     // said, or seen in the store: final
  // Asked, and perhaps so.
  std::uint32_t acks_pending = 0;
  bool ack_perhaps = false;
  bool reject_asked = false;
  bool move_asked = false;  // redrive or discard
  bool discard_asked = false;
  bool discard_perhaps = false;  // before a crash
  bool rejected_in_run = false;
  bool delivered_ever = false;
  ConsumerId holder;
  MonotonicTime lease_end;
  MonotonicTime not_before = MonotonicTime::min();
  std::uint32_t attempts = 0;  // as the last delivery said, less what was released
  std::uint32_t crashes = 0;   // since then
  // What a restart may have forgotten because there was no room: retries that had begun, and, each
  // time, that the last one which was counted was given back.
  std::uint32_t retries_uncounted = 0;
  std::uint32_t restarts_without_room = 0;  // since the last delivery
  bool restarted = false;                   // likewise
  std::uint32_t attempts_least() const {
    return attempts - (restarted ? std::min(attempts, retries_uncounted) : 0);
  }
  std::uint32_t attempts_most() const { return attempts + crashes + restarts_without_room; }
};

struct QueueModel {
  std::string name;
  QueueId source;
  std::map<Sequence, Message> messages;
  std::set<Sequence> live;  // without an end
  std::map<std::string, Sequence> newest_of_id;
  Sequence last_first_delivery = 0;
  std::set<Sequence> purges_asked;  // up to where; those that perhaps were done
  bool delete_asked = false;
  bool delete_stored = false;
  bool deleted = false;
  std::uint64_t messages_at_start = 0;  // of this run of the broker; 0: made since
  // As the core has them now, and the extremes they ever had.
  std::map<QueueSetting, std::uint64_t> settings;
  std::uint64_t max_attempts_most = 0;  // 0: none yet
  bool unlimited_ever = false;
  std::uint64_t max_attempts_least = ~std::uint64_t{0};
  std::uint64_t outstanding_most = 0;
  std::uint64_t max_messages_most = 0;  // this and the next: the largest number there is, for none
  std::uint64_t max_bytes_most = 0;
  std::uint64_t dedup_window_least = ~std::uint64_t{0};
  std::uint64_t dedup_window_most = 0;

  void set(QueueSetting setting, std::uint64_t value);
};

struct ConsumerModel {
  SessionId session;
  QueueId queue;
  std::uint32_t lease_ms = 0;
  bool lease_is_the_queues = false;
  std::uint32_t credit = 0;
  std::uint64_t credit_bytes = 0;  // 0: no bound
  std::set<Sequence> held;
  std::set<Sequence> past;
  std::map<Sequence, std::uint32_t> failed;  // which attempt, the last one that failed here
};

struct Publish {
  QueueId queue;
  std::string id;
  std::uint64_t checksum = 0;
  std::size_t bytes = 0;
  MonotonicTime at;
  std::int64_t jumps_ms = 0;  // the wall clock's jumps forward, as the broker saw them until then
  bool refused = false;
  Sequence stored = 0;
  std::pair<QueueId, Sequence> live;  // where it is now
};

enum class Kind : std::uint8_t {
  kPublish,
  kSettle,
  kExtend,
  kPurge,
  kDelete,
  kMove,
  kPeek,
  kAttempts,
  kOther
};

struct Pending {
  Kind kind = Kind::kOther;
  SessionId session;
  std::uint64_t publish = 0;
  ConsumerId consumer;
  QueueId queue;
  wire::SettleKind settle = wire::SettleKind_Ack;
  std::vector<Sequence> sequences;
  std::set<Sequence> held;       // of those, when it was asked
  std::set<Sequence> late_acks;  // of those, likewise: not held, and to be accepted
  Sequence purge_to = 0;
  // kAttempts: the message as it was known then, none if it was not; when its lease was to end.
  std::optional<Message> asked_about;
  WallTime lease_end;
  bool redrive = false;
  MonotonicTime at;
  std::uint32_t lease_ms = 0;
  std::uint32_t credit = 0;
  std::uint64_t credit_bytes = 0;
};

// What a run may do besides.
struct Leeway {
  bool ids_are_dropped = false;  // before their time
  bool ids_are_read = false;     // meanwhile younger ones stay beyond their time
  // What a consumer held that is gone may be given back later, and waits as long as its queue's
  // settings say then.
  bool ends_wait = false;
};

class Model {
 public:
  explicit Model(Leeway leeway) : leeway_(leeway) {}

  // ---- what was asked, told before the core is ----
  void ask(std::uint64_t correlation, Pending pending) {
    pending_.emplace(correlation, std::move(pending));
  }
  std::uint64_t add_publish(Publish publish);
  void ask_settle(std::uint64_t correlation, Pending pending, std::optional<Milliseconds> delay,
                  Now now);
  void ask_purge(std::uint64_t correlation, SessionId session, QueueId queue, Sequence to);
  void ask_delete(std::uint64_t correlation, SessionId session, QueueId queue, Now now);
  void ask_attempts(std::uint64_t correlation, Pending pending, Sequence sequence, Now now);
  void ask_move(std::uint64_t correlation, Pending pending, bool all, bool dry_run);
  void ask_edit(QueueId queue, const std::vector<SettingChange>& settings);
  void set_credit(ConsumerId consumer, std::uint32_t credit);
  // Bytes that the session may be delivered from now on.
  void set_room(SessionId session, std::uint64_t bytes);
  // What it sends is left unread from now on, or not any more.
  void set_unread(SessionId session, bool unread, Now now);
  bool is_unread(SessionId session) const { return unread_since_.contains(session); }
  void end_consumer(ConsumerId consumer, Now now);
  void end_session(SessionId session, Now now);
  void begin_drain() { draining_ = true; }

  // ---- what happened ----
  void applied(const Batch& batch);
  // What the broker knows of its room, as of what it is about to say.
  void knows(const SpaceReport& space);
  void said(const Effect& effect, Now now);
  void advanced(Now now);
  // The broker sees it when it starts the next time.
  void wall_jumped(std::int64_t forward_ms) {
    if (forward_ms < 0) {
      jumped_back_ = true;
    } else {
      jumps_unseen_ms_ += forward_ms;
    }
  }
  void crashed(bool gracefully);
  // The broker's own list, at a moment when nothing but what is durable has happened.
  void check_counts(const QueueReport& report);
  void check_bounds(const QueueReport& report);
  // Likewise, when there is nothing to be done until time passes or somebody asks for something.
  // `is_roomy`: the disk has room for everything.
  void check_rest(const std::vector<QueueReport>& reports, bool is_roomy);
  // Nothing may be left.
  void check_drained();

  // ---- what is known ----
  const std::optional<std::string>& finding() const { return finding_; }
  void find(std::string promise, std::string what);
  QueueModel* queue(QueueId id);
  const std::map<QueueId, QueueModel>& queues() const { return queues_; }
  const std::map<ConsumerId, ConsumerModel>& consumers() const { return consumers_; }
  std::size_t held_count() const;
  bool has_pending() const { return !pending_.empty(); }

  struct Counts {
    std::uint64_t confirmed = 0;
    std::uint64_t duplicates = 0;
    std::uint64_t delivered = 0;
    std::uint64_t redelivered = 0;
    std::uint64_t acked = 0;
    std::uint64_t dead_lettered = 0;
    std::uint64_t redriven = 0;
    std::uint64_t crashes = 0;
  };
  const Counts& counts() const { return counts_; }

 private:
  void apply_queue(const QueueRecord& record);
  void apply_entry(QueueId queue, const BlockEntry& entry);
  void check_dead_letter(QueueModel& dead, const BlockEntry& entry, std::uint64_t publish);
  void check_stored_once(QueueModel& queue, Publish& publish, Sequence sequence);
  void check_duplicate(const Publish& publish, std::uint64_t number, Sequence sequence);
  void on(const ConfirmReply& reply);
  void on(const Delivery& delivery, Now now);
  void check_attempt(QueueModel& queue, const Message& message, const Delivery& delivery);
  void check_credit(const ConsumerModel& consumer, const Message& message,
                    const std::string& where);
  void check_contents(const QueueModel& queue, const QueueReport& report);
  void check_counters(const QueueModel& queue, const QueueReport& report,
                      const std::vector<QueueReport>& reports);
  void check_nobody_waits(const QueueModel& queue, const QueueReport& report);
  void on(const SettledReply& reply);
  void on(const ExtendedReply& reply);
  void on(const LeaseLostNotice& notice, Now now);
  // Whether a lease of its consumers that was to end then, and that time is over, goes on.
  bool is_spared(SessionId session, MonotonicTime lease_end, Now now) const;
  bool may_be_spared(SessionId session, MonotonicTime lease_end, Now now) const;
  void on(const ErrorReply& reply);
  void on(const SubscribedReply& reply);
  void on(const PeekReply& reply);
  void on(const AttemptsReply& reply);
  void check_not_told(const Pending& pending, const Status& error);
  void on(const MovedReply& reply);
  void on(const ConsumerEndedNotice& notice);
  // Of the queue and its dead-letter queue.
  void check_all_told(QueueId queue);
  // Null, and a finding, when nobody asked.
  std::optional<Pending> answered(Asker to, bool last);
  Message* message(QueueId queue, Sequence sequence);
  std::optional<std::uint64_t> publish_of(const BlockEntry& entry) const;
  void end(QueueModel& queue, Sequence sequence, End how);
  void let_go(QueueModel& queue, Message& message, Now now, std::optional<Milliseconds> delay);
  std::size_t held_count(QueueId queue) const;
  std::uint64_t held_bytes(const ConsumerModel& consumer) const;
  // Of what it held once, whose work may have been done.
  static bool may_ack_late(const ConsumerModel& consumer, Sequence sequence,
                           const Message& message);
  bool perhaps_gone(const QueueModel& queue, Sequence sequence, const Message& message) const;

  const Leeway leeway_;
  bool draining_ = false;
  std::int64_t jumps_ms_ = 0;
  std::int64_t jumps_unseen_ms_ = 0;
  bool jumped_back_ = false;
  bool retries_are_counted_ = true;
  bool was_short_of_room_ = false;  // since the last start
  bool was_full_ever_ = false;
  std::map<QueueId, QueueModel> queues_;
  std::map<ConsumerId, ConsumerModel> consumers_;
  // Those of queues whose deletion was asked for, until they are told.
  std::map<ConsumerId, ConsumerModel> ending_;
  std::map<SessionId, std::uint64_t> rooms_;  // bytes, of those that were told
  std::map<SessionId, MonotonicTime> unread_since_;
  // Of those that were left unread before: the time in which leases had to end to be spared, and
  // until when they are.
  struct Spared {
    MonotonicTime since{};
    MonotonicTime until{};
    MonotonicTime until_before{};  // those that were spared before may still be
  };
  std::map<SessionId, Spared> spared_;
  std::set<SessionId> ended_sessions_;
  std::map<std::uint64_t, Pending> pending_;
  std::deque<Publish> publishes_;
  std::unordered_map<std::uint64_t, std::uint64_t> publish_by_checksum_;
  std::optional<std::string> finding_;
  Counts counts_;
};

}  // namespace holdfast::broker::sim
