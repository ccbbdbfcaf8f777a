// The inside of the core. One struct holds the state; its methods are told by topic in files of
// their own:
//
//   core.cc          start, sessions, time, the interface
//   committing.cc    what a batch takes from each queue, and what follows a commit
//   publishing.cc    publish, dedup
//   delivering.cc    subscribe, credit, first deliveries and retries
//   due.cc           consumers that end, leases and waits that are over
//   settling.cc      settle, extend, attempts that end otherwise
//   dead_letters.cc  moves to the dead-letter queue, corrupt messages
//   letters.cc       redrive, discard
//   reading.cc       fetches, open blocks, reads in turn, peek, attempts
//   rewriting.cc     blocks of which little is left
//   queues.cc        create, edit, delete, purge, reports

#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "core/block_cache.h"
#include "core/commit_pipeline.h"
#include "core/core.h"
#include "core/long_reads.h"
#include "core/provenance.h"
#include "core/queue.h"
#include "core/session_state.h"

namespace holdfast::broker {

// Messages that are not in a queue, and count as if they were.
struct Planned {
  std::uint64_t messages = 0;
  std::uint64_t bytes = 0;         // of the messages
  std::uint64_t stored_bytes = 0;  // likewise, as they would be stored
};

// A peek that waits, or is being answered.
struct PeekTask {
  Asker asker;
  Sequence next = 1;
  std::uint32_t left = 0;
  std::uint32_t count = 0;
  std::size_t bytes_left = 0;
};

// A redrive or discard that waits, or is being worked on.
struct LettersTask {
  MovedReply reply;
  bool redrive = false;
  bool dry_run = false;
  bool all = false;
  std::vector<Sequence> sequences;  // those still to do, descending: the next is at the back
  Sequence next = 1;                // with `all`
  Sequence stop = 0;                // last sequence there was when it was asked for
  std::uint32_t left = 0;           // with `all`
  Planned planned;                  // with `dry_run`: what would be in the queue by now

  // The next of the sequences is not there.
  void miss() {
    if (reply.not_found++ == 0) reply.not_found_first = sequences.back();
    sequences.pop_back();
  }
};

// A chunk of older ids, as read from the store.
struct IdChunk {
  QueueId queue;
  std::uint64_t chunk = 0;  // its number in the queue's window
  std::size_t ids = 0;      // that it had when it was asked for
  std::vector<DedupRecord> records;

  // The sequence of an id that is younger than `cutoff_ms`.
  std::optional<Sequence> find(const MessageIdHash& hash, std::uint64_t cutoff_ms) const;
};

struct Core::State {
  explicit State(const CoreOptions& core_options)
      : options(core_options),
        cache(core_options.cache_bytes_max),
        pipeline(core_options.batch_bytes_max) {}

  // ---- core.cc ----
  void load(const StoredState& state, Now now);
  void recover_outstanding(Queue& queue, std::vector<RetryRecord> records, Now now);
  // `record` is null for a message that was in its first attempt.
  Outstanding& recover_attempts(Queue& queue, Sequence sequence, RetryRecord* record, Now now);
  void session_closed(SessionId id, Now now);
  bool is_open(SessionId id) const;
  void session_room(SessionId id, std::uint64_t bytes, Now now);
  // There is room again: for each of those that were turned away, as long as there is.
  void serve(SessionState& session, Now now);
  void advance(Now now);
  void once_a_second(Now now);
  // Of a queue something happens, or it has ids that expire.
  void enliven(Queue& queue);
  std::optional<MonotonicTime> next_wake() const;
  std::optional<MonotonicTime> next_timed_wake() const;
  void say(Effect effect) { effects.said.push_back(std::move(effect)); }
  void refuse(Asker asker, Status error);
  void refuse(Asker asker, ErrorCode code, std::string sentence);
  // For what a queue was just created or deleted for.
  void refuse_when_durable(Asker asker, ErrorCode code, std::string sentence);
  Queue* find_queue(QueueId id) const;
  Queue* find_queue(std::string_view name) const;  // not a deleted one
  // Answers with kQueueNotFound and returns null if there is none.
  Queue* queue_or_refuse(Asker asker, std::string_view name);
  // Broker time for what must survive a restart and must not jump: the wall clock of the start, or
  // the newest stored time if that is later, plus what has passed since.
  std::uint64_t log_time_ms(Now now) const;

  // ---- committing.cc ----
  void touch(Queue& queue);
  // Says it when what has been gathered so far is durable; at once if everything is.
  void say_after_commit(Effect effect);
  // Seals the gathering if it has grown to the size of a batch.
  void seal_if_full();
  void seal();
  void seal_queue(Queue& queue, Sealed& next);
  void seal_retries(Queue& queue, Sealed& next);
  void seal_retry(Subscription& subscription, const Outstanding& entry, Sealed& next);
  void seal_ids(Queue& queue, Batch& batch);
  void seal_removal(Queue& queue, Batch& batch);
  Sequence watermark_target(const Queue& queue) const;
  Sequence watermark_max(const Queue& queue) const;
  static std::uint64_t credit_in_messages(const Queue& queue, const Consumer& consumer);
  static bool room_is_a_bound(const Queue& queue);
  static std::uint64_t room_in_messages(const Queue& queue, const SessionState& session);
  std::unique_ptr<Batch> take_batch();
  void committed(const CommitResult& result, Now now);
  void batch_committed(Sealed done, const CommitResult& result, Now now);
  // Goes on with what was put off because commits lagged, or for want of room.
  void go_on(Now now);

  // ---- publishing.cc ----
  void publish(const PublishRequest& request, Now now);
  // Returns false if ids must be read first. `waited` is null for one that has just come.
  bool decide_publish(Queue& queue, const PublishRequest& request, const WaitingPublish* waited,
                      Now now);
  Status check_publish(const Queue& queue, const PublishRequest& request,
                       const WaitingPublish* waited) const;
  Status check_room(const Queue& queue, std::size_t message_bytes,
                    const Planned& planned = Planned()) const;
  // Keeps it until ids have been read.
  void put_off(Queue& queue, const PublishRequest& request, Now now);
  // Whether no more messages may wait to be stored.
  bool too_much_pends() const;
  Sequence append(Queue& queue, WallTime published_at, std::uint64_t message_checksum,
                  ByteSpan message, ByteSpan provenance);
  void remember_id(Queue& queue, const MessageIdHash& hash, Sequence sequence, Now now);
  void cut_window_short(Queue& publishing);
  void confirm(Asker asker, Sequence sequence, std::uint64_t bytes);
  // Ids of that time or earlier are too old for the window.
  std::uint64_t dedup_cutoff_ms(const Queue& queue, std::uint64_t now_ms) const;
  void expire_dedup(Queue& queue, Now now);
  enum class Lookup { kDone, kLater };
  // Looks for it among the older ids, as of a time. kLater: some are being read first.
  Lookup find_older(Queue& queue, const MessageIdHash& hash, std::uint64_t as_of_ms,
                    std::optional<Sequence>* first);
  void read_ids(Queue& queue, std::uint64_t chunk, const OlderIds::ChunkKeys& keys);
  void ids_fetched(const IdsResult& result, Now now);
  void continue_publishes(Queue& queue, Now now);
  void refuse_waiting_publishes(Queue& queue);

  // ---- delivering.cc ----
  static Status check_lease(std::uint32_t lease_ms);
  void subscribe(const SubscribeRequest& request, Now now);
  void unsubscribe(Asker asker, ConsumerId id, Now now);
  void set_credit(Asker asker, ConsumerId id, std::uint32_t messages, std::uint64_t bytes, Now now);
  // Delivers what can be delivered.
  void pump(Queue& queue, Now now);
  Consumer* next_consumer(Subscription& subscription);
  // False: none of those that are due can be sent yet.
  bool start_retry(Queue& queue, Consumer& consumer, Now now);
  struct RetryPlace {
    Sequence sequence = 0;
    std::shared_ptr<const Block> block;  // null: is not in memory
    std::size_t index = 0;
  };
  std::vector<RetryPlace> retries_in_turn(Queue& queue);
  void choose_retry(Queue& queue, Consumer& consumer, Outstanding& entry, const RetryPlace& place,
                    Now now);
  enum class FirstDelivery { kDone, kLater };
  FirstDelivery deliver_next(Queue& queue, Consumer& consumer, Now now);
  // How many first deliveries outstanding-max allows.
  std::uint64_t places_left(const Queue& queue) const;
  // So that the next messages can be delivered to the consumer.
  void note_watermark(Queue& queue, const Consumer& consumer);
  bool find_current(Queue& queue);
  // Makes it the block that is delivered from.
  void use_block(Queue& queue, std::shared_ptr<const Block> block);
  void let_go_of_block(Queue& queue);
  void deliver_all(Queue& queue, Now now);
  void read_ahead(Queue& queue, Sequence from);
  void send_started(const StartedRetry& started, std::uint64_t batch, Now now);
  void send_retry(Queue& queue, Consumer& consumer, Outstanding& entry,
                  const std::shared_ptr<const Block>& block, std::size_t index, Now now);
  void hand_over(Queue& queue, Consumer& consumer, Outstanding& entry, const BlockEntry& message,
                 Now now);
  // A retry that had been chosen is taken from its consumer before it was delivered.
  void no_longer_starting(Consumer& consumer, const Outstanding& entry);
  // Gives back what is not sent yet until the consumer holds no more than this many.
  void give_back_starting(Consumer& consumer, std::uint32_t held_max, Now now);
  static void leave_line(Consumer& consumer);
  void make_available(Consumer& consumer);
  static void turn_away(Consumer& consumer);
  static void forget_turn(Consumer& consumer);
  // Those that are not ending.
  std::size_t consumer_count() const { return consumers.size() - consumers_ending; }
  Consumer* find_consumer(Asker asker, ConsumerId id);  // refuses if it is not the asker's
  void pin(const std::shared_ptr<const Block>& block);

  // ---- due.cc ----
  void arm(Queue& queue, MonotonicTime when);
  void disarm(Queue& queue);
  // The consumer has it in flight, until its deadline at most.
  static void hold(Consumer& consumer, Outstanding& entry);
  static void look_at(Consumer& consumer, MonotonicTime when);
  void session_unread(SessionId id, bool unread, Now now);
  // The consumer takes part in nothing any more; what it holds is taken from it when its queue sees
  // it off.
  void leave(Consumer& consumer);
  // Those that have left; what cannot be done at once becomes overdue.
  void see_off(Queue& queue, Now now);
  void be_overdue(Queue& queue);
  // Of each queue that is overdue what may end now.
  void run_overdue(Now now);
  // These return whether nothing of that is left.
  bool end_consumers(Queue& queue, Now now);
  bool end_leases(Queue& queue, Now now);
  bool end_leases_of(Consumer& consumer, Now now);
  void end_waits(Queue& queue, Now now);
  void forget_consumer(Consumer& consumer);
  // After a commit that took so long.
  void renew_ends(std::uint32_t commit_us);

  // ---- settling.cc ----
  bool settle(const SettleRequest& request, Now now);
  void settle_one(Consumer& consumer, Outstanding& entry, const SettleRequest& request,
                  const std::shared_ptr<SettleOperation>& operation, Now now);
  bool accept_late_ack(Consumer& consumer, Outstanding& entry);
  void extend(const ExtendRequest& request, Now now);
  // The consumer holds the entry, whose block is open, from now on.
  void give_to(Consumer& consumer, Outstanding& entry);
  // Takes the entry from its holder.
  void take_back(Queue& queue, Outstanding& entry);
  // The attempt ended without an ack: waits for the next one, or goes to the dead-letter queue.
  void end_attempt(Queue& queue, Outstanding& entry, wire::Cause cause, std::string_view error,
                   std::optional<Milliseconds> delay,
                   const std::shared_ptr<SettleOperation>& operation, Now now);
  void record_attempt(Queue& queue, Outstanding& entry, wire::Cause cause, std::string_view error,
                      Now now);
  // Given back unstarted: ready again, without the attempt.
  void give_back(Queue& queue, Outstanding& entry, Now now);
  Milliseconds backoff(const Queue& queue, Sequence sequence, std::uint32_t attempts) const;
  void touch_retry(Queue& queue, Outstanding& entry);
  // The entry's message is done: out of every structure, its block removed if it was the last. If
  // it was moving, whoever waited for that may be answered.
  void finish(Queue& queue, Outstanding& entry);
  // Likewise for a message that need not be outstanding; its block is open unless it is lost.
  void settle_sequence(Queue& queue, Sequence sequence, std::size_t stored_bytes);
  void take_off_bytes(Queue& queue, std::size_t stored_bytes);
  // From now on what the queue counts may be wrong, until it is empty.
  void estimate_bytes(Queue& queue);
  void settled_in_block(Queue& queue, OpenBlock& block, std::size_t stored_bytes);

  // ---- dead_letters.cc ----
  // The source queue's; of a dead-letter queue itself.
  Queue& dead_queue_of(Queue& queue);
  void start_move(Queue& queue, Outstanding& entry, wire::Cause reason, std::string_view error,
                  const std::shared_ptr<SettleOperation>& operation, Now now);
  enum class MoveStep { kDone, kPutOff, kNotRead };
  // kPutOff: it waits for commits or for room. kNotRead: the block that it is in must be read
  // first.
  MoveStep move_from_cache(Queue& queue, const Outstanding& entry, Now now);
  // Those in the block, until one is put off.
  void finish_moves(Queue& queue, const Block& block, Now now);
  void move_to_dead(Queue& queue, Outstanding& entry, const BlockEntry& message, Now now);
  void moves_done(const std::shared_ptr<SettleOperation>& operation);
  void set_aside(Queue& queue, const Block& block, std::size_t index, Now now);
  void set_aside_unreadable(Queue& queue, const UnreadableBlock& block, Now now);
  // Counts and settles a message whose bytes are set aside, or lost.
  void drop_unreadable(Queue& queue, Sequence sequence, std::size_t stored_bytes);
  void append_corrupt(Queue& queue, Sequence sequence, ByteSpan raw, std::string_view error,
                      Now now);
  // As append(), of a message that was stored before.
  void append_moved(Queue& queue, WallTime published_at, std::uint64_t message_checksum,
                    ByteSpan message, ByteSpan provenance);
  void go_on_moving(Queue& queue, Now now);

  // ---- letters.cc ----
  void take_letters(const LettersRequest& request, bool redrive);
  // Nothing: all is done, and it is answered.
  std::optional<LongRead::Range> next_letters(Queue& dead, LettersTask& task);
  void letters_read(Queue& dead, LettersTask& task, const FetchResult& result, Now now);
  void take_letter(LettersTask& task, Queue& dead, const Block& block, std::size_t index, Now now);
  Status redrive_one(Queue& dead, const BlockEntry& letter, LettersTask& task, Now now);

  // ---- reading.cc ----
  // Called only while the queue exists and is not deleted.
  using FetchDone = std::function<void(Queue&, const FetchResult&, Now)>;
  // `gone` (may be empty) is called instead of `done` when the queue was deleted meanwhile.
  void fetch(Queue& queue, Sequence from, Sequence to, std::size_t bytes_max, FetchDone done,
             std::function<void()> gone = {});
  // For a message whose block is needed: fetched once at a time.
  void fetch_for(Queue& queue, Sequence sequence);
  // `known_by`: what stands for it among those that are being fetched.
  void fetch_block_of(Queue& queue, Sequence sequence, Sequence to, Sequence known_by);
  void fetched(const FetchResult& result, Now now);
  // Takes note of blocks that were read to be delivered from: opens them, caches them, sets corrupt
  // messages aside, makes the moves that waited for them.
  void blocks_read(Queue& queue, const FetchResult& result, Now now);
  OpenBlock* open_block_of(Queue& queue, Sequence sequence);
  // Sequences in [first, last] that are not settled and in no block: counted and set aside.
  void report_lost(Queue& queue, Sequence first, Sequence last, Now now);
  // Null if nothing in it is unsettled.
  OpenBlock* open(Queue& queue, const Block& block);
  static void close_unread(Queue& queue, const Block& block);
  void remove_block(Queue& queue, OpenBlock& block);
  // When it is its turn.
  void read_in_turn(LongRead read);
  // Those whose turn it is.
  void start_long_reads();
  void long_read_gone(const LongRead& read);
  void peek(const PeekRequest& request);
  // Nothing: all was said, and its end is.
  std::optional<LongRead::Range> next_to_peek(Queue& queue, const PeekTask& task);
  void peek_read(Queue& queue, PeekTask& task, const FetchResult& result);
  void tell_attempts(const AttemptsRequest& request, Now now);

  // ---- rewriting.cc ----
  void rewrite_if_sparse(Queue& queue, OpenBlock& block);
  // Looks again at blocks whose turn did not come.
  void rewrite_put_off();
  bool is_sparse(const Queue& queue, const OpenBlock& block) const;
  bool may_rewrite(const OpenBlock& block) const;
  void rewrite(Queue& queue, OpenBlock& open_block, const Block& block);
  // Takes back a rewritten block that has not been sealed.
  void drop_rewritten(QueueId queue, Sequence first);
  // Of messages, that the next batch takes in with rewritten blocks.
  std::size_t rewritten_bytes() const {
    return pipeline.gathering().rewritten_bytes + rewrites_read_bytes;
  }

  // ---- queues.cc ----
  void create_queue(const CreateQueueRequest& request, Now now);
  // Whether there may be one more.
  Status check_new_queue(std::string_view name, std::string_view dead_name) const;
  Queue& add_queue(std::string name, const QueueSettings& settings, QueueId source, Now now);
  void edit_queue(const EditQueueRequest& request);
  void delete_queue(Asker asker, std::string_view name, Now now);
  void purge_queue(Asker asker, std::string_view name);
  // Settles everything; returns how many messages that were.
  std::uint64_t empty_queue(Queue& queue);
  void list_queues(Asker asker, bool dead_only, QueueId from);
  void list_consumers(Asker asker, std::string_view name, ConsumerId from, Now now);
  static std::shared_ptr<const ConsumerReport> report(const Consumer& consumer, Now now);
  std::shared_ptr<const QueueReport> report(const Queue& queue) const;
  CoreReport report() const;

  const CoreOptions options;
  BlockCache cache;
  CommitPipeline pipeline;
  Effects effects;

  DedupTotals dedup_totals;  // outlives the queues
  QueueId most_ids;          // of all queues, when they were last looked at
  std::map<QueueId, std::unique_ptr<Queue>> queues;
  std::map<std::string, Queue*, std::less<>> queues_by_name;
  std::vector<QueueId> lively_queues;  // may be gone meanwhile
  std::uint32_t source_queues = 0;     // not deleted, dead-letter queues not counted
  std::map<SessionId, SessionState> sessions;
  std::map<ConsumerId, std::unique_ptr<Consumer>> consumers;
  std::size_t consumers_ending = 0;
  std::size_t current_bytes = 0;  // of the blocks that queues are delivered from
  std::uint64_t last_consumer = 0;
  std::uint64_t last_fetch = 0;
  struct PendingFetch {
    QueueId queue;
    FetchDone done;
    std::function<void()> gone;
  };
  std::map<FetchId, PendingFetch> fetches;
  LongReads long_reads;
  std::map<FetchId, IdChunk> ids_under_way;  // asked for, still without records
  std::deque<IdChunk> id_chunks;             // that were read lately
  std::size_t publishes_waiting = 0;         // over all queues
  std::uint64_t waiting_bytes = 0;           // that they keep
  std::vector<std::uint64_t> chunks_found;   // of the look-up under way

  std::uint32_t next_id = 1;

  // What was put off because commits lag, or there is little room; may be gone meanwhile.
  std::set<QueueId> moves_put_off;
  // Records of attempts that wait for room, retries that need one, and reads that wait for commits.
  std::set<QueueId> deliveries_put_off;
  std::deque<BlockKey> rewrites_put_off;
  std::size_t rewrites_read_bytes = 0;  // of the messages left in blocks that are read for that

  bool draining = false;
  Now started_at{};
  bool loaded = false;
  std::uint64_t newest_log_time_ms = 0;
  MonotonicTime next_second;
  std::uint64_t in_flight = 0;  // over all subscriptions
  std::uint64_t corrupt_found = 0;
  std::string corrupt_last;
  std::uint64_t room_refusals = 0;  // of publishes while they are allowed
  std::uint64_t moves_held_up = 0;  // for want of room
  std::uint64_t ids_cut_short = 0;
  std::string ids_cut_short_last;  // the queue
  InterruptedAttempts interrupted;

  std::vector<SessionId> sessions_to_serve;  // by the next advance(); may be gone meanwhile
  std::deque<QueueId> overdue;               // in turn; may be gone meanwhile
  std::size_t ends_left = 0;  // attempts that may still be ended before the next commit
  // Wakes asked for by queues, earliest first, one for each.
  std::set<std::pair<MonotonicTime, QueueId>> wakes;
};

}  // namespace holdfast::broker
