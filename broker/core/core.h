// The core: the state machine of queues, subscriptions, consumers and messages.
//
// It is told an event and the time, and answers with effects (what to say, what to read), a batch
// (what to store) and the time at which it wants to be woken. It does no I/O, reads no clock and
// rolls no dice, so that a simulator can drive it through years and replay a run.
//
// Happy path of one message: publish() puts it into the gathering batch; take_batch() hands that to
// the store; committed() answers the publisher and delivers to a consumer with credit; settle()
// takes it out again in a later batch, whose committed() answers the consumer.
//
// Rules that hold everywhere:
// - What depends on a batch is said in committed() of that batch, not before.
// - At most one commit is under way; meanwhile the next batch gathers.
// - A request that is refused changes nothing and is answered with an ErrorReply.
// - Every event is told with its time, whether or not it depends on it; `now.monotonic` never goes
//   back from call to call.
//
// One thread owns a Core. After every call the owner takes the effects, and the batch if there is
// one.

#pragma once

#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "base/clock.h"
#include "core/batch.h"
#include "core/dedup_window.h"
#include "core/reads.h"
#include "core/records.h"
#include "core/requests.h"
#include "core/stored_state.h"

namespace holdfast::broker {

struct CoreOptions {
  // Dead-letter queues not counted; as many more may be deleted and not yet removed.
  std::uint32_t queues_max = 100'000;
  std::uint32_t consumers_max = 100'000;
  std::size_t cache_bytes_max = 32u << 20;  // recent blocks kept in memory
  // A batch is closed when it has so many bytes of messages. Past this a device that is not slow
  // flushes no more bytes a second.
  std::size_t batch_bytes_max = 1 << 20;
  // With so many bytes of messages not yet stored a publish is refused, whoever it comes from.
  std::uint64_t pending_bytes_max = std::numeric_limits<std::uint64_t>::max();
  // Records of a queue that one batch removes, so that removing a large one takes many short
  // commits and not one long one.
  std::uint32_t trim_limit = 256;
  // Attempts that the broker ends between two commits, because their consumer is gone or their
  // lease is over: each is a record to store, and a consumer may hold a million. More on a slow
  // disk. So many and their commit take about 5 ms.
  std::uint32_t ends_max = 2'048;
  DedupOptions dedup;
  HashKey hash_key;
};

class Core {
 public:
  explicit Core(const CoreOptions& options);
  ~Core();
  Core(const Core&) = delete;
  Core& operator=(const Core&) = delete;

  // ---- start: load() once, then load_dedup() for each record, then any event ----
  void load(const StoredState& state, Now now);
  void load_dedup(QueueId queue, std::uint64_t time_ms, Sequence first,
                  std::span<const MessageIdHash> hashes, Now now);

  // ---- sessions ----
  void session_opened(SessionId session, std::string_view client_name);
  // Its consumers end; what they hold counts as lost, a piece at a time if it is much.
  void session_closed(SessionId session, Now now);
  // From now on the session may be delivered so many bytes, as room_of() counts them, and the rest
  // of the message with which it passes them; then nothing until it is told again. Retries count
  // from when they are chosen, a commit before they are delivered: what is chosen is delivered even
  // if there is no room any more, and leaves its room to others if it is not. Until it is told for
  // the first time a session has room for everything.
  void session_room(SessionId session, std::uint64_t bytes, Now now);
  // From now on what the session sends is left unread, though it takes what it is sent; or it is
  // read again. A lease that would end meanwhile ends when it has been read again for as long as it
  // was not, up to kUnreadTimeMax, even if it is left unread again: so do those that would end in
  // that time. Acks that came in time may lie there.
  void session_unread(SessionId session, bool unread, Now now);
  static constexpr Milliseconds kUnreadTimeMax{1'000};

  // ---- requests ----
  void publish(const PublishRequest& request, Now now);
  void subscribe(const SubscribeRequest& request, Now now);
  // Likewise; answered when it holds nothing any more.
  void unsubscribe(Asker asker, ConsumerId consumer, Now now);
  void set_credit(Asker asker, ConsumerId consumer, std::uint32_t messages, std::uint64_t bytes,
                  Now now);
  // Returns whether its answer waits for messages to be moved, perhaps until there is room for
  // them, and no longer counts: it comes with Waits::kNothing. There are no more of these than
  // messages that are moved.
  bool settle(const SettleRequest& request, Now now);
  void extend(const ExtendRequest& request, Now now);
  void open_queue(Asker asker, std::string_view name, Now now);
  void create_queue(const CreateQueueRequest& request, Now now);
  void edit_queue(const EditQueueRequest& request, Now now);
  void delete_queue(Asker asker, std::string_view name, Now now);
  void purge_queue(Asker asker, std::string_view name, Now now);
  // A page of the queues, or of the dead-letter queues, by number; the answer tells whether to go
  // on.
  void list_queues(Asker asker, bool dead_only, QueueId from, Now now);
  void peek(const PeekRequest& request, Now now);
  // How far one message came, once what was asked before is durable.
  void tell_attempts(const AttemptsRequest& request, Now now);
  void redrive(const LettersRequest& request, Now now);
  void discard(const LettersRequest& request, Now now);
  // Likewise of the consumers of a queue; of all, if it is empty.
  void list_consumers(Asker asker, std::string_view queue, ConsumerId from, Now now);
  CoreReport report(Now now) const;
  // Messages found damaged or lost since the start, of all queues there ever were.
  std::uint64_t corrupt_found() const;
  // The last of them, as a sentence names it.
  const std::string& corrupt_last() const;
  // Publishes since the start that were refused because the store had no room for them, though it
  // was allowed to take some.
  std::uint64_t room_refusals() const;
  // Messages since the start that had to wait for room before they could be dead letters.
  std::uint64_t moves_held_up() const;
  // Ids since the start that left dedup windows before their time, for there were more than
  // `dedup.ids_max`, and the queue of the last of them.
  std::uint64_t ids_cut_short() const;
  const std::string& ids_cut_short_last() const;
  // Of what was loaded.
  InterruptedAttempts interrupted() const;

  // ---- the store's answers ----
  // Of all batches that were taken, up to the one with that number.
  void committed(const CommitResult& result, Now now);
  void fetched(const FetchResult& result, Now now);
  void ids_fetched(const IdsResult& result, Now now);
  // The store looked at its room between two commits, or the commit under way waits for some.
  void space_changed(const SpaceReport& space, Now now);

  // ---- time ----
  // Does what is due.
  void advance(Now now);
  // When advance() has something to do, perhaps at once; nullopt: not before another event.
  std::optional<MonotonicTime> next_wake() const;
  // Likewise, without what is to be done at once.
  std::optional<MonotonicTime> next_timed_wake() const;

  // ---- what must now be done ----
  // The next batch to commit; null when nothing changed, or while others are under way. But those
  // that were taken before may be committed together with this one, if their commit has not begun:
  // while the disk is slow there is one more for each call, up to kJoinedBytesMax.
  std::unique_ptr<Batch> take_batch(Now now);
  // All that are to be committed together; none where take_batch() gives none.
  Batches take_batches(Now now);
  // Of messages that are not durable yet, those under way included.
  std::uint64_t pending_bytes() const;
  // About the memory that answers take which wait for a commit, those to sessions that are gone
  // included. Confirms of new messages do not count: their messages do.
  std::uint64_t answers_bytes() const;
  // What was said since the last call. The reference is valid until the next call of any method;
  // the caller clears it.
  Effects& effects();

  // ---- drain ----
  // From now on publishes and subscriptions are refused with kDraining, nothing is delivered any
  // more; settles, extensions and reads go on.
  void begin_drain();
  // No delivery is in flight and nothing waits for a commit or a read.
  bool drained() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

}  // namespace holdfast::broker
