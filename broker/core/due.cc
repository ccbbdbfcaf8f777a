// What is due in a queue: consumers that have ended give up what they hold, leases end, retries
// have waited long enough.
//
// One consumer may hold very many messages, and each attempt that ends is a record to be stored. So
// only some of them end between two commits, or in a second where a commit takes longer, and the
// queue is overdue meanwhile: what others ask for comes in between.

#include <algorithm>
#include <utility>

#include "core/state.h"

namespace holdfast::broker {

namespace {
// Of the commit's time for each attempt that may end until the next one: storing its record takes a
// tenth of that, so that on a slow disk, too, it does not make the commits longer.
constexpr std::uint32_t kCommitUsPerEnd = 10;
// Of a commit that waited for room, or for a device that hung, no more counts.
constexpr std::uint32_t kCommitUsMax = 1'000'000;
// Retries of one queue that become ready in one go; it takes some 0.3 µs each.
constexpr int kWaitsMax = 16'384;
constexpr Milliseconds kWaitsPause{1};
// Consumers of one queue that are looked at in one go for leases that are over.
constexpr int kLooksMax = 4'096;
}  // namespace

// ---- when ----

void Core::State::arm(Queue& queue, MonotonicTime when) {
  if (when >= queue.subscription.armed_at) return;
  disarm(queue);
  queue.subscription.armed_at = when;
  wakes.emplace(when, queue.record.id);
}

void Core::State::disarm(Queue& queue) {
  const MonotonicTime armed_at = std::exchange(queue.subscription.armed_at, MonotonicTime::max());
  if (armed_at != MonotonicTime::max()) wakes.erase({armed_at, queue.record.id});
}

void Core::State::be_overdue(Queue& queue) {
  if (!std::exchange(queue.overdue, true)) overdue.push_back(queue.record.id);
}

// Each once: one of which something is left comes after the others, also when the next commit is
// done.
void Core::State::run_overdue(Now now) {
  if (ends_left == 0 && pipeline.idle()) renew_ends(0);
  for (std::size_t left = overdue.size(); left > 0 && ends_left > 0; --left) {
    Queue* const queue = find_queue(overdue.front());
    overdue.pop_front();
    if (queue == nullptr) continue;
    queue->overdue = false;
    if (queue->record.deleted) continue;
    if (!end_consumers(*queue, now) || !end_leases(*queue, now)) be_overdue(*queue);
    pump(*queue, now);
  }
}

void Core::State::renew_ends(std::uint32_t commit_us) {
  ends_left = std::max(options.ends_max, std::min(commit_us, kCommitUsMax) / kCommitUsPerEnd);
}

// Where the lease that ends first is taken back, the consumer stays where it is until it is looked
// at: it would have to be moved with each message otherwise.
void Core::State::hold(Consumer& consumer, Outstanding& entry) {
  consumer.link(entry);
  if (entry.deadline < consumer.look_at) look_at(consumer, entry.deadline);
}

void Core::State::look_at(Consumer& consumer, MonotonicTime when) {
  auto& holders = consumer.queue->subscription.holders;
  if (consumer.look_at == when) return;
  holders.erase({consumer.look_at, consumer.id});
  consumer.look_at = when;
  if (when != MonotonicTime::max()) holders.emplace(std::pair(when, consumer.id), &consumer);
}

void Core::State::session_unread(SessionId id, bool unread, Now now) {
  const auto found = sessions.find(id);
  if (found == sessions.end()) return;
  SessionState& session = found->second;
  if (unread == session.unread_since.has_value()) return;
  if (unread) {
    session.unread_since = now.monotonic;
    return;
  }
  const MonotonicTime since = *std::exchange(session.unread_since, std::nullopt);
  const MonotonicTime until =
      now.monotonic + std::min<Milliseconds>(now.monotonic - since, Core::kUnreadTimeMax);
  if (until > session.spared_until) {
    session.spared_since = since;
    session.spared_until = until;
  }
  for (const ConsumerId one : std::exchange(session.leases_over, {})) {
    Consumer& consumer = *consumers.at(one);
    look_at(consumer, std::min(consumer.look_at, session.spared_until));
    arm(*consumer.queue, consumer.look_at);
  }
}

// ---- what ----

void Core::State::leave(Consumer& consumer) {
  if (std::exchange(consumer.ending, true)) return;
  forget_turn(consumer);
  leave_line(consumer);
  look_at(consumer, MonotonicTime::max());
  consumer.session->leases_over.erase(consumer.id);
  Subscription& subscription = consumer.queue->subscription;
  subscription.watermark_asked = 0;  // others ask again
  std::vector<Consumer*>& among = subscription.consumers;
  among[consumer.place] = among.back();
  among[consumer.place]->place = consumer.place;
  among.pop_back();
  subscription.ending.push_back(&consumer);
  ++consumers_ending;
}

void Core::State::see_off(Queue& queue, Now now) {
  if (!end_consumers(queue, now)) be_overdue(queue);
  pump(queue, now);
}

bool Core::State::end_consumers(Queue& queue, Now now) {
  std::list<Consumer*>& ending = queue.subscription.ending;
  for (; !ending.empty(); ending.pop_front()) {
    Consumer& consumer = *ending.front();
    for (; consumer.held > 0; --ends_left) {
      if (ends_left == 0) return false;
      if (Outstanding* const entry = consumer.earliest()) {
        ++queue.counters.deliveries_lost;
        end_attempt(queue, *entry, wire::Cause_ConnectionLost, "", std::nullopt, nullptr, now);
        seal_if_full();
      } else {
        give_back_starting(consumer, consumer.held - 1, now);
      }
    }
    forget_consumer(consumer);
  }
  return true;
}

void Core::State::forget_consumer(Consumer& consumer) {
  SessionState& session = *consumer.session;
  if (consumer.unsubscriber) say_after_commit(OkReply{*consumer.unsubscriber});
  session.consumers.erase(consumer.id);
  consumers.erase(consumer.id);
  --consumers_ending;
  if (session.is_closed && session.consumers.empty()) sessions.erase(SessionId(session.id));
}

// A queue may have very many consumers, and most of its wakes have nothing to do with their leases:
// only those are looked at of which one may be over.
bool Core::State::end_leases(Queue& queue, Now now) {
  const auto& holders = queue.subscription.holders;
  for (int left = kLooksMax; !holders.empty(); --left) {
    const MonotonicTime next = holders.begin()->first.first;
    if (next > now.monotonic) {
      arm(queue, next);
      break;
    }
    if (left == 0 || !end_leases_of(*holders.begin()->second, now)) return false;
  }
  return true;
}

bool Core::State::end_leases_of(Consumer& consumer, Now now) {
  SessionState& session = *consumer.session;
  Queue& queue = *consumer.queue;
  LeaseLostNotice notice{session.id, consumer.id, wire::Cause_LeaseExpired, {}};
  Outstanding* entry = consumer.earliest();
  const auto end = [&] {
    return entry == nullptr ? MonotonicTime::max() : session.end_of_lease(entry->deadline);
  };
  for (; end() <= now.monotonic; entry = consumer.earliest()) {
    if (ends_left == 0) break;
    --ends_left;
    add_to_ranges(notice.ranges, entry->sequence);
    ++queue.counters.leases_expired;
    end_attempt(queue, *entry, wire::Cause_LeaseExpired, "", std::nullopt, nullptr, now);
    seal_if_full();
  }
  if (!notice.ranges.empty()) say(std::move(notice));
  if (entry != nullptr && end() == MonotonicTime::max()) session.leases_over.insert(consumer.id);
  look_at(consumer, end());
  return consumer.look_at > now.monotonic;
}

void Core::State::end_waits(Queue& queue, Now now) {
  Subscription& subscription = queue.subscription;
  for (int left = kWaitsMax; !subscription.waiting.empty(); --left) {
    const auto [due, sequence] = *subscription.waiting.begin();
    if (due > now.monotonic) return arm(queue, due);
    if (left == 0) return arm(queue, now.monotonic + kWaitsPause);
    subscription.outstanding.find(sequence)->state = OutstandingState::kReady;
    subscription.waiting.erase(subscription.waiting.begin());
    subscription.ready.insert(sequence);
  }
}

}  // namespace holdfast::broker
