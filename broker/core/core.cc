#include "core/core.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "core/state.h"
#include "holdfast/text.h"

namespace holdfast::broker {

namespace {
constexpr Milliseconds kSecond{1000};
// The longest that a nack can ask for, and more than any backoff.
constexpr Milliseconds kWaitMax{7LL * 86'400'000};
}  // namespace

// ---- start ----

void Core::State::load(const StoredState& state, Now now) {
  CHECK(!loaded);
  loaded = true;
  started_at = now;
  newest_log_time_ms = to_unix_ms(now.wall);
  next_second = now.monotonic + kSecond;
  pipeline.start(state.batch_number, state.space);
  next_id = state.next_id;
  renew_ends(0);

  std::map<QueueId, SubscriptionRecord> subscriptions;
  for (const SubscriptionRecord& record : state.subscriptions) {
    subscriptions.emplace(record.queue, record);
  }
  std::map<SubscriptionId, Queue*> owners;
  for (const QueueRecord& record : state.queues) {
    const auto subscription = subscriptions.find(record.id);
    CHECK(subscription != subscriptions.end(), "queue {} has no subscription", record.name);
    auto queue = std::make_unique<Queue>(record, subscription->second, options.dedup,
                                         options.hash_key, dedup_totals);
    owners[subscription->second.id] = queue.get();
    if (!record.deleted) {
      newest_log_time_ms = std::max(newest_log_time_ms, record.dedup_from_ms);
      queues_by_name.emplace(record.name, queue.get());
      if (!record.source_queue) ++source_queues;
    }
    queues.emplace(record.id, std::move(queue));
  }
  for (const AckRecord& record : state.acks) {
    const auto owner = owners.find(record.subscription);
    if (owner != owners.end()) owner->second->subscription.settled.load(record);
  }
  // In the first batch, which stores what is made of them.
  pipeline.gathering().acks_removed = state.acks_corrupt;
  pipeline.gathering().retries_removed = state.retries_corrupt;
  for (const HeldSequences& held : state.held) {
    Queue& queue = *find_queue(held.queue);
    queue.subscription.settled.settle_all_but(held.ranges, queue.last_sequence());
    estimate_bytes(queue);
  }
  std::map<Queue*, std::vector<RetryRecord>> retries;
  for (const RetryRecord& record : state.retries) {
    const auto owner = owners.find(record.subscription);
    if (owner != owners.end()) retries[owner->second].push_back(record);
  }
  for (const auto& [id, queue] : queues) {
    if (queue->record.deleted || queue->record.trim_below > 0) {
      queue->trim_blocks = true;
      queue->trim_dedup = queue->record.deleted;
      touch(*queue);
    }
    recover_outstanding(*queue, std::move(retries[queue.get()]), now);
    seal_if_full();
  }
}

// Every unsettled message up to the watermark was delivered, or was about to be, when the broker
// stopped: what has a record goes on from it, the others were in their first attempt.
void Core::State::recover_outstanding(Queue& queue, std::vector<RetryRecord> records, Now now) {
  Subscription& subscription = queue.subscription;
  subscription.delivered_to_durable = subscription.record.delivered_to;
  subscription.read_next = subscription.record.delivered_to + 1;
  std::map<Sequence, RetryRecord*> by_sequence;
  for (RetryRecord& record : records) {
    subscription.stored_retries.insert(record.sequence);
    by_sequence.emplace(record.sequence, &record);
    if (queue.record.deleted || subscription.settled.contains(record.sequence)) {
      subscription.touched_retries.push_back(record.sequence);
      touch(queue);
    }
  }
  if (queue.record.deleted) return;
  std::vector<Outstanding*> exhausted;
  const Sequence watermark = std::min(subscription.record.delivered_to, queue.last_sequence());
  std::vector<Sequence> unsettled;
  subscription.settled.for_each_unsettled(
      subscription.settled.floor() + 1, watermark,
      [&unsettled](Sequence sequence) { unsettled.push_back(sequence); });
  for (const Sequence sequence : unsettled) {
    const auto found = by_sequence.find(sequence);
    RetryRecord* const record = found == by_sequence.end() ? nullptr : found->second;
    const bool was_interrupted = record == nullptr || record->in_flight;
    Outstanding& entry = recover_attempts(queue, sequence, record, now);
    if (was_interrupted) ++interrupted.messages;
    // Also when its last attempt had ended: a stop may have come between the commit that says so
    // and the one that moves it.
    if (queue.is_over_after(entry.attempts)) {
      exhausted.push_back(&entry);
      if (was_interrupted) ++interrupted.dead;
    } else {
      const bool due = entry.deadline <= now.monotonic;
      entry.state = due ? OutstandingState::kReady : OutstandingState::kWaiting;
      if (due) {
        subscription.ready.insert(subscription.ready.end(), sequence);
      } else {
        subscription.waiting.emplace(entry.deadline, sequence);
        arm(queue, entry.deadline);
      }
    }
    seal_if_full();
  }
  for (Outstanding* entry : exhausted) {
    start_move(queue, *entry, wire::Cause_RetryLimit, entry->last_error(), nullptr, now);
  }
}

Outstanding& Core::State::recover_attempts(Queue& queue, Sequence sequence, RetryRecord* record,
                                           Now now) {
  Outstanding& entry = queue.subscription.outstanding.insert(sequence);
  entry.attempts = 1;
  entry.deadline = now.monotonic;
  if (record != nullptr) {
    entry.has_record = true;
    entry.attempts = record->attempts;
    entry.ensure_history().attempts = std::move(record->history);
    if (!record->in_flight && record->due > now.wall) {
      // Not longer than was chosen when the last attempt ended, however far the wall clock was set
      // back since.
      std::vector<AttemptRecord>& ended = entry.history->attempts;
      const Milliseconds chosen = ended.empty() ? kWaitMax : record->due - ended.back().ended_at;
      entry.span_ms =
          static_cast<std::uint32_t>(std::clamp(chosen, Milliseconds(0), kWaitMax).count());
      entry.deadline += std::min(record->due - now.wall, Milliseconds(entry.span_ms));
      // Then the wait begins now, and is stored so: the next start would begin it once more.
      if (!ended.empty() && ended.back().ended_at > now.wall) {
        ended.back().ended_at = now.wall;
        touch_retry(queue, entry);
      }
    }
  }
  if (record == nullptr || record->in_flight) {
    entry.delivered_at = WallTime();
    record_attempt(queue, entry, wire::Cause_BrokerRestarted, "", now);
  }
  return entry;
}

// ---- sessions ----

void Core::State::session_closed(SessionId id, Now now) {
  const auto found = sessions.find(id);
  if (found == sessions.end()) return;
  SessionState& session = found->second;
  session.is_closed = true;
  long_reads.session_closed(id);
  if (session.consumers.empty()) {
    sessions.erase(found);
    return;
  }
  // What one of them gives back must not go to another.
  std::set<QueueId> left;
  for (const ConsumerId id_of_one : session.consumers) {
    Consumer& consumer = *consumers.at(id_of_one);
    leave(consumer);
    left.insert(consumer.queue->record.id);
  }
  for (const QueueId queue : left) see_off(*find_queue(queue), now);
}

bool Core::State::is_open(SessionId id) const {
  const auto found = sessions.find(id);
  return found != sessions.end() && !found->second.is_closed;
}

void Core::State::session_room(SessionId id, std::uint64_t bytes, Now now) {
  const auto found = sessions.find(id);
  if (found == sessions.end()) return;
  SessionState& session = found->second;
  const bool had_room = session.has_room();
  session.room_bytes = session.room_told = bytes;
  if (had_room || !session.has_room()) return;
  serve(session, now);
}

void Core::State::serve(SessionState& session, Now now) {
  // Each once: who is turned away again comes after those who wait.
  for (std::size_t left = session.turned_away.size(); left > 0 && session.has_room(); --left) {
    Consumer& consumer = *session.turned_away.begin()->second;
    forget_turn(consumer);
    make_available(consumer);
    if (consumer.available) pump(*consumer.queue, now);
  }
}

// ---- time ----

void Core::State::advance(Now now) {
  while (!wakes.empty() && wakes.begin()->first <= now.monotonic) {
    Queue& queue = *find_queue(wakes.begin()->second);
    disarm(queue);
    end_waits(queue, now);
    pump(queue, now);
    be_overdue(queue);
  }
  run_overdue(now);
  for (const SessionId id : std::exchange(sessions_to_serve, {})) {
    const auto found = sessions.find(id);
    if (found == sessions.end()) continue;
    found->second.is_to_be_served = false;
    serve(found->second, now);
  }
  if (next_second <= now.monotonic) {
    next_second = now.monotonic + kSecond;
    once_a_second(now);
  }
}

void Core::State::once_a_second(Now now) {
  // A commit may hang, or wait for room, for long.
  renew_ends(0);
  std::size_t ids = 0;
  std::erase_if(lively_queues, [&](QueueId id) {
    Queue* const queue = find_queue(id);
    if (queue == nullptr) return true;
    queue->tick_rates();
    expire_dedup(*queue, now);
    seal_if_full();
    if (queue->dedup.size() > ids) {
      ids = queue->dedup.size();
      most_ids = id;
    }
    queue->lively = !queue->is_still();
    return !queue->lively;
  });
}

void Core::State::enliven(Queue& queue) {
  if (std::exchange(queue.lively, true)) return;
  queue.tick_rates();  // what comes now is of the first second
  lively_queues.push_back(queue.record.id);
}

std::optional<MonotonicTime> Core::State::next_wake() const {
  const bool may_go_on = !overdue.empty() && (ends_left > 0 || pipeline.idle());
  if (may_go_on || !sessions_to_serve.empty()) return MonotonicTime();
  return next_timed_wake();
}

std::optional<MonotonicTime> Core::State::next_timed_wake() const {
  if (!loaded) return std::nullopt;
  return wakes.empty() ? next_second : std::min(next_second, wakes.begin()->first);
}

std::uint64_t Core::State::log_time_ms(Now now) const {
  const Milliseconds passed = now.monotonic - started_at.monotonic;
  return newest_log_time_ms + static_cast<std::uint64_t>(passed.count());
}

// ---- finding and refusing ----

void Core::State::refuse(Asker asker, Status error) { say(ErrorReply{asker, std::move(error)}); }

void Core::State::refuse(Asker asker, ErrorCode code, std::string sentence) {
  refuse(asker, Status(code, std::move(sentence)));
}

void Core::State::refuse_when_durable(Asker asker, ErrorCode code, std::string sentence) {
  say_after_commit(ErrorReply{asker, Status(code, std::move(sentence))});
}

Queue* Core::State::find_queue(QueueId id) const {
  const auto found = queues.find(id);
  return found == queues.end() ? nullptr : found->second.get();
}

Queue* Core::State::find_queue(std::string_view name) const {
  const auto found = queues_by_name.find(name);
  return found == queues_by_name.end() ? nullptr : found->second;
}

Queue* Core::State::queue_or_refuse(Asker asker, std::string_view name) {
  Queue* const queue = find_queue(name);
  if (queue == nullptr) {
    const std::string hint =
        is_dead_queue_name(name)      ? ": a dead-letter queue comes with its queue."
        : check_queue_name(name).ok() ? fmt::format(". To make it: holdfast queue create {}", name)
                                      : ".";
    refuse_when_durable(asker, ErrorCode::kQueueNotFound,
                        fmt::format("There is no queue {}{}", quoted(name), hint));
  }
  return queue;
}

// ---- the interface ----

Core::Core(const CoreOptions& options) : state_(std::make_unique<State>(options)) {}
Core::~Core() = default;

void Core::load(const StoredState& state, Now now) { state_->load(state, now); }

void Core::load_dedup(QueueId queue, std::uint64_t time_ms, Sequence first,
                      std::span<const MessageIdHash> hashes, Now now) {
  Queue* const found = state_->find_queue(queue);
  if (found == nullptr || found->record.deleted) return;
  // The clock may have been set back since: what is stored stays in order, and time goes on from
  // it.
  state_->newest_log_time_ms = std::max(state_->newest_log_time_ms, time_ms);
  // What has left the window is removed a few records at a time: some may still be there, also of
  // ids that came again since.
  if (IdKey(time_ms, first) < found->dedup_begin()) {
    found->trim_dedup = true;
    state_->touch(*found);
  } else {
    state_->enliven(*found);
    found->dedup.load(hashes, first, time_ms);
    found->dedup.age(found->committed_to);
    state_->expire_dedup(*found, now);
  }
  state_->seal_if_full();
}

void Core::session_opened(SessionId session, std::string_view client_name) {
  const auto [at, inserted] = state_->sessions.try_emplace(session, session, client_name);
  CHECK(inserted, "session {} was opened twice", session.value);
}
void Core::session_closed(SessionId session, Now now) { state_->session_closed(session, now); }
void Core::session_room(SessionId session, std::uint64_t bytes, Now now) {
  state_->session_room(session, bytes, now);
}
void Core::session_unread(SessionId session, bool unread, Now now) {
  state_->session_unread(session, unread, now);
}

void Core::publish(const PublishRequest& request, Now now) { state_->publish(request, now); }
void Core::subscribe(const SubscribeRequest& request, Now now) { state_->subscribe(request, now); }
void Core::unsubscribe(Asker asker, ConsumerId consumer, Now now) {
  state_->unsubscribe(asker, consumer, now);
}
void Core::set_credit(Asker asker, ConsumerId consumer, std::uint32_t messages, std::uint64_t bytes,
                      Now now) {
  state_->set_credit(asker, consumer, messages, bytes, now);
}
bool Core::settle(const SettleRequest& request, Now now) { return state_->settle(request, now); }
void Core::extend(const ExtendRequest& request, Now now) { state_->extend(request, now); }

void Core::open_queue(Asker asker, std::string_view name, Now /*now*/) {
  if (Queue* const queue = state_->queue_or_refuse(asker, name)) {
    state_->say_after_commit(QueueReply{asker, state_->report(*queue)});
  }
}
void Core::create_queue(const CreateQueueRequest& request, Now now) {
  state_->create_queue(request, now);
}
void Core::edit_queue(const EditQueueRequest& request, Now /*now*/) { state_->edit_queue(request); }
void Core::delete_queue(Asker asker, std::string_view name, Now now) {
  state_->delete_queue(asker, name, now);
}
void Core::purge_queue(Asker asker, std::string_view name, Now /*now*/) {
  state_->purge_queue(asker, name);
}
void Core::list_queues(Asker asker, bool dead_only, QueueId from, Now /*now*/) {
  state_->list_queues(asker, dead_only, from);
}
void Core::peek(const PeekRequest& request, Now /*now*/) { state_->peek(request); }
void Core::tell_attempts(const AttemptsRequest& request, Now now) {
  state_->tell_attempts(request, now);
}
void Core::redrive(const LettersRequest& request, Now /*now*/) {
  state_->take_letters(request, true);
}
void Core::discard(const LettersRequest& request, Now /*now*/) {
  state_->take_letters(request, false);
}
void Core::list_consumers(Asker asker, std::string_view queue, ConsumerId from, Now now) {
  state_->list_consumers(asker, queue, from, now);
}
CoreReport Core::report(Now /*now*/) const { return state_->report(); }
std::uint64_t Core::corrupt_found() const { return state_->corrupt_found; }
const std::string& Core::corrupt_last() const { return state_->corrupt_last; }
std::uint64_t Core::room_refusals() const { return state_->room_refusals; }
std::uint64_t Core::moves_held_up() const { return state_->moves_held_up; }
std::uint64_t Core::ids_cut_short() const { return state_->ids_cut_short; }
const std::string& Core::ids_cut_short_last() const { return state_->ids_cut_short_last; }
InterruptedAttempts Core::interrupted() const { return state_->interrupted; }

void Core::committed(const CommitResult& result, Now now) { state_->committed(result, now); }
void Core::ids_fetched(const IdsResult& result, Now now) { state_->ids_fetched(result, now); }
void Core::fetched(const FetchResult& result, Now now) { state_->fetched(result, now); }

void Core::space_changed(const SpaceReport& space, Now now) {
  state_->pipeline.set_space(space);
  state_->go_on(now);
}

void Core::advance(Now now) { state_->advance(now); }
std::optional<MonotonicTime> Core::next_wake() const { return state_->next_wake(); }
std::optional<MonotonicTime> Core::next_timed_wake() const { return state_->next_timed_wake(); }

std::unique_ptr<Batch> Core::take_batch(Now /*now*/) { return state_->take_batch(); }
Batches Core::take_batches(Now now) {
  Batches batches;
  while (std::unique_ptr<Batch> batch = take_batch(now)) batches.push_back(std::move(batch));
  return batches;
}
std::uint64_t Core::pending_bytes() const { return state_->pipeline.pending_bytes(); }
std::uint64_t Core::answers_bytes() const { return state_->pipeline.answers_bytes(); }
Effects& Core::effects() { return state_->effects; }

void Core::begin_drain() {
  state_->draining = true;
  // What the watermark covers and will not be delivered any more must not count as delivered when
  // the broker is back.
  for (const auto& [id, queue] : state_->queues) {
    Subscription& subscription = queue->subscription;
    if (queue->record.deleted || subscription.record.delivered_to < subscription.read_next)
      continue;
    subscription.record.delivered_to = subscription.read_next - 1;
    queue->subscription_touched = true;
    state_->touch(*queue);
    state_->seal_if_full();
  }
}
bool Core::drained() const {
  return state_->in_flight == 0 && state_->pipeline.idle() && state_->publishes_waiting == 0 &&
         state_->fetches.empty();
}

}  // namespace holdfast::broker
