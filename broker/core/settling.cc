// How deliveries end: settled by their consumer, or otherwise.

#include <fmt/format.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <limits>

#include "base/check.h"
#include "core/state.h"
#include "holdfast/text.h"
#include "schema/field_limits.h"

namespace holdfast::broker {

namespace {
// An answer that waits for its messages to be moved counts if it has more ranges to tell than this.
constexpr std::size_t kRefusedLetGoMax = 16;

bool held_by(const Consumer& consumer, const Outstanding& entry) {
  return entry.holder == &consumer && entry.state == OutstandingState::kInFlight;
}

bool is_rejected(const Subscription& subscription, const Outstanding& entry) {
  return entry.state == OutstandingState::kMoving &&
         subscription.moves.at(entry.sequence).reason == wire::Cause_Rejected;
}

Status check_delay(const SettleRequest& request) {
  if (!request.delay) return {};
  const std::int64_t delay_ms = request.delay->count();
  if (request.kind == wire::SettleKind_Nack && delay_ms >= 0 && delay_ms <= kNackDelayMsMax) {
    return {};
  }
  return {ErrorCode::kInvalidArgument,
          fmt::format("A delay of {} ms is refused: only a nack has one, of 0 to {} ms, or -1 for "
                      "the backoff.",
                      delay_ms, kNackDelayMsMax)};
}
}  // namespace

bool Core::State::settle(const SettleRequest& request, Now now) {
  if (Status status = check_delay(request); !status.ok()) {
    refuse(request.asker, std::move(status));
    return false;
  }
  Consumer* const consumer = find_consumer(request.asker, request.consumer);
  if (consumer == nullptr) return false;
  Queue& queue = *consumer->queue;
  auto operation = std::make_shared<SettleOperation>();
  operation->reply.to = request.asker;
#ifdef HOLDFAST_BREAK_DROP_SETTLE_WHEN_FULL
  const bool is_dropped = !pipeline.space().publishes_allowed;
#else
  constexpr bool is_dropped = false;
#endif
  for_each_sequence(request.ranges, [&](Sequence sequence) {
    Outstanding* const entry = queue.subscription.outstanding.find(sequence);
    if (entry != nullptr && held_by(*consumer, *entry)) {
      ++operation->reply.settled;
      if (is_dropped) return;
      settle_one(*consumer, *entry, request, operation, now);
      seal_if_full();
    } else if (entry != nullptr && request.kind == wire::SettleKind_Ack &&
               accept_late_ack(*consumer, *entry)) {
      ++operation->reply.settled;
      ++operation->reply.late;
    } else {
      add_to_ranges(operation->reply.refused, sequence);
    }
  });
  operation->looked_through = true;
  SettledReply& reply = operation->reply;
  const bool is_let_go = operation->moves_left > 0 && reply.refused.size() <= kRefusedLetGoMax;
  if (is_let_go) reply.to.waits = Waits::kNothing;
  if (operation->moves_left == 0) say_after_commit(std::move(reply));
  make_available(*consumer);
  pump(queue, now);
  return is_let_go;
}

void Core::State::settle_one(Consumer& consumer, Outstanding& entry, const SettleRequest& request,
                             const std::shared_ptr<SettleOperation>& operation, Now now) {
  Queue& queue = *consumer.queue;
  switch (request.kind) {
    case wire::SettleKind_Ack:
      ++queue.counters.acked;
      ++consumer.acked;
      take_back(queue, entry);
      finish(queue, entry);
      break;
    case wire::SettleKind_Nack:
      ++queue.counters.nacked;
      end_attempt(queue, entry, wire::Cause_Nacked, request.reason, request.delay, operation, now);
      break;
    case wire::SettleKind_Reject:
      ++queue.counters.rejected;
      record_attempt(queue, entry, wire::Cause_Rejected, request.reason, now);
      take_back(queue, entry);
      start_move(queue, entry, wire::Cause_Rejected, request.reason, operation, now);
      break;
    case wire::SettleKind_Release:
      ++queue.counters.released;
      give_back(queue, entry, now);
      break;
  }
}

// The work was done, though the lease had ended: whoever held the message once may still ack it. A
// consumer that holds it meanwhile is told. What waits to be a dead letter is not one yet, unless
// it was rejected: that is answered when it is one.
bool Core::State::accept_late_ack(Consumer& consumer, Outstanding& entry) {
  Queue& queue = *consumer.queue;
  if (!entry.history || is_rejected(queue.subscription, entry)) return false;
  const std::vector<ConsumerId>& holders = entry.history->past_holders;
  if (std::find(holders.begin(), holders.end(), consumer.id) == holders.end()) return false;
  if (entry.holder != nullptr) {
    if (entry.state == OutstandingState::kInFlight && entry.holder != &consumer &&
        !entry.holder->ending) {
      say(LeaseLostNotice{entry.holder->session->id,
                          entry.holder->id,
                          wire::Cause_SettledElsewhere,
                          {{entry.sequence, entry.sequence}}});
    }
    take_back(queue, entry);
  }
  ++queue.counters.late_acks;
  ++queue.counters.acked;
  ++consumer.acked;
  finish(queue, entry);
  return true;
}

void Core::State::extend(const ExtendRequest& request, Now now) {
  if (Status status = check_lease(request.lease_ms); !status.ok()) {
    return refuse(request.asker, std::move(status));
  }
  Consumer* const consumer = find_consumer(request.asker, request.consumer);
  if (consumer == nullptr) return;
  const Milliseconds lease =
      request.lease_ms == 0 ? consumer->lease : Milliseconds(request.lease_ms);
  Queue& queue = *consumer->queue;
  ExtendedReply reply{request.asker, 0, {}};
  for_each_sequence(request.ranges, [&](Sequence sequence) {
    Outstanding* const entry = queue.subscription.outstanding.find(sequence);
    if (entry == nullptr || !held_by(*consumer, *entry)) {
      add_to_ranges(reply.refused, sequence);
      return;
    }
    consumer->unlink(*entry);
    const std::int64_t span_ms = (entry->age(now.monotonic) + lease).count();
    constexpr std::int64_t kSpanMsMax = std::numeric_limits<std::uint32_t>::max();
    entry->span_ms = static_cast<std::uint32_t>(std::min(span_ms, kSpanMsMax));
    entry->deadline = now.monotonic + lease;
    hold(*consumer, *entry);
    ++reply.extended;
  });
  if (reply.extended > 0) arm(queue, now.monotonic + lease);
  say(std::move(reply));
}

void Core::State::give_to(Consumer& consumer, Outstanding& entry) {
  entry.holder = &consumer;
  ++entry.block->held;
  ++consumer.held;
  consumer.held_bytes += entry.bytes;
  ++consumer.queue->subscription.in_flight;
  ++in_flight;
}

void Core::State::take_back(Queue& queue, Outstanding& entry) {
  Consumer& consumer = *entry.holder;
  if (entry.state == OutstandingState::kInFlight) {
    consumer.unlink(entry);
  } else {
    no_longer_starting(consumer, entry);
  }
  --consumer.held;
  consumer.held_bytes -= entry.bytes;
  --queue.subscription.in_flight;
  --in_flight;
  --entry.block->held;
  entry.holder = nullptr;
#ifndef HOLDFAST_BREAK_FORGET_FREE_CREDIT
  make_available(consumer);
#endif
}

void Core::State::record_attempt(Queue& queue, Outstanding& entry, wire::Cause cause,
                                 std::string_view error, Now now) {
  History& history = entry.ensure_history();
  AttemptRecord attempt;
  attempt.number = entry.attempts;
  attempt.cause = cause;
  attempt.delivered_at = entry.delivered_at;
  attempt.ended_at = now.wall;
  if (entry.holder != nullptr) {
    attempt.consumer = entry.holder->name;
    history.past_holders.push_back(entry.holder->id);
    if (history.past_holders.size() > kHistoryMax) {
      history.past_holders.erase(history.past_holders.begin());
    }
  }
  // On a full disk the reserve is for what must be stored: the count. Handlers that fail because
  // the disk is full, each with its reason, would use it up.
  if (pipeline.space().publishes_allowed) attempt.error = cut_utf8(error, kHistoryErrorBytesMax);
  history.attempts.push_back(std::move(attempt));
  if (history.attempts.size() > kHistoryMax) history.attempts.erase(history.attempts.begin());
  touch_retry(queue, entry);
}

void Core::State::end_attempt(Queue& queue, Outstanding& entry, wire::Cause cause,
                              std::string_view error, std::optional<Milliseconds> delay,
                              const std::shared_ptr<SettleOperation>& operation, Now now) {
  record_attempt(queue, entry, cause, error, now);
  take_back(queue, entry);
  if (queue.is_over_after(entry.attempts)) {
    start_move(queue, entry, wire::Cause_RetryLimit, error, operation, now);
    return;
  }
  entry.state = OutstandingState::kWaiting;
  const Milliseconds wait = delay.value_or(backoff(queue, entry.sequence, entry.attempts));
  entry.span_ms = static_cast<std::uint32_t>(wait.count());
  entry.deadline = now.monotonic + wait;
  queue.subscription.waiting.emplace(entry.deadline, entry.sequence);
  arm(queue, entry.deadline);
  rewrite_if_sparse(queue, *entry.block);
}

void Core::State::give_back(Queue& queue, Outstanding& entry, Now now) {
  take_back(queue, entry);
  --entry.attempts;
  entry.state = OutstandingState::kReady;
  entry.deadline = now.monotonic;
  queue.subscription.ready.insert(entry.sequence);
  touch_retry(queue, entry);
}

// min × 2^(attempts − 1), at most max, then ±20 % chosen by a hash of sequence and attempt: retries
// of messages that failed together spread out, and a replay finds the same times.
Milliseconds Core::State::backoff(const Queue& queue, Sequence sequence,
                                  std::uint32_t attempts) const {
  const std::uint64_t longest = queue.setting(QueueSetting::kBackoffMax);
  std::uint64_t wait = queue.setting(QueueSetting::kBackoffMin);
  for (std::uint32_t i = 1; i < attempts && wait > 0 && wait < longest; ++i) wait *= 2;
  wait = std::min(wait, longest);
  const std::uint64_t salt[2] = {sequence, attempts};
  const std::uint64_t permille = 800 + XXH3_64bits(salt, sizeof(salt)) % 401;
  return Milliseconds(static_cast<std::int64_t>(wait * permille / 1000));
}

void Core::State::touch_retry(Queue& queue, Outstanding& entry) {
  entry.has_record = true;
  queue.subscription.touched_retries.push_back(entry.sequence);
  const std::size_t bytes = entry.record_bytes();
  Gathering& gathering = pipeline.gathering();
  gathering.bytes += bytes;
  gathering.retry_bytes += bytes;
  touch(queue);
}

void Core::State::finish(Queue& queue, Outstanding& entry) {
  Subscription& subscription = queue.subscription;
  const Sequence sequence = entry.sequence;
  const std::size_t stored_bytes = entry.bytes;
  std::shared_ptr<SettleOperation> operation;
  if (entry.state == OutstandingState::kReady) {
    subscription.ready.erase(sequence);
  } else if (entry.state == OutstandingState::kWaiting) {
    subscription.waiting.erase({entry.deadline, sequence});
  } else if (entry.state == OutstandingState::kMoving) {
    operation = std::move(subscription.moves.extract(sequence).mapped().operation);
  }
  if (entry.has_record) subscription.touched_retries.push_back(sequence);
  OpenBlock* const block = entry.block;
  subscription.outstanding.erase(entry);
  subscription.settled.settle(sequence);
  take_off_bytes(queue, stored_bytes);
  if (block != nullptr) settled_in_block(queue, *block, stored_bytes);
  moves_done(operation);
}

// Whatever was estimated: an empty queue has no bytes.
void Core::State::take_off_bytes(Queue& queue, std::size_t stored_bytes) {
  queue.record.bytes -= std::min<std::uint64_t>(queue.record.bytes, stored_bytes);
  if (queue.messages() == 0) {
    queue.record.bytes = 0;
    queue.record.bytes_estimated = false;
  }
  queue.record_touched = true;
  touch(queue);
}

void Core::State::estimate_bytes(Queue& queue) {
  queue.record.bytes_estimated = true;
  take_off_bytes(queue, 0);
}

void Core::State::settle_sequence(Queue& queue, Sequence sequence, std::size_t stored_bytes) {
  if (!queue.subscription.settled.settle(sequence)) return;
  take_off_bytes(queue, stored_bytes);
  if (OpenBlock* const block = open_block_of(queue, sequence)) {
    settled_in_block(queue, *block, stored_bytes);
  }
}

void Core::State::settled_in_block(Queue& queue, OpenBlock& block, std::size_t stored_bytes) {
  CHECK(block.live > 0, "block {} of queue {} has nothing left to settle", block.first,
        queue.record.name);
  --block.live;
  block.live_bytes -= std::min(block.live_bytes, static_cast<std::uint32_t>(stored_bytes));
  if (block.live == 0) {
    remove_block(queue, block);
  } else {
    rewrite_if_sparse(queue, block);
  }
}

}  // namespace holdfast::broker
