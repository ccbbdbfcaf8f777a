// What a batch takes from each queue, and what follows a commit.
//
// Changes mark their queue as touched; sealing asks each touched queue what differs from what was
// sealed before. So a message that came and went between two commits costs nothing but its block,
// and a batch is a function of state.

#include <algorithm>
#include <map>
#include <set>
#include <utility>

#include "core/state.h"

namespace holdfast::broker {

// A queue whose removal is sealed is gone when that commit is done, perhaps before the next one.
void Core::State::touch(Queue& queue) {
  enliven(queue);  // a slow commit may outlast the liveliness of what it gathered
  if (queue.touched_in == pipeline.number() || queue.removal_sealed) return;
  queue.touched_in = pipeline.number();
  pipeline.gathering().queues.push_back(&queue);
}

void Core::State::say_after_commit(Effect effect) {
  if (!pipeline.say_when_durable(effect)) say(std::move(effect));
}

void Core::State::go_on(Now now) {
  rewrite_put_off();
  // A queue that is put off once more is for the next commit.
  for (const QueueId id : std::exchange(moves_put_off, {})) {
    if (Queue* const queue = find_queue(id)) go_on_moving(*queue, now);
  }
  for (const QueueId id : std::exchange(deliveries_put_off, {})) {
    Queue* const queue = find_queue(id);
    if (queue == nullptr) continue;
    if (!queue->subscription.retries_put_off.empty()) {
      if (pipeline.retry_bytes_max() > 0) {
        touch(*queue);
      } else {
        deliveries_put_off.insert(id);
      }
    }
    pump(*queue, now);
  }
  long_reads.go_on();
  start_long_reads();
}

void Core::State::seal_if_full() {
  if (pipeline.is_full()) seal();
}

void Core::State::seal() {
  Sealed next = pipeline.begin_sealing();
  for (Queue* queue : pipeline.gathering().queues) seal_queue(*queue, next);
  if (pipeline.end_sealing(next)) return;
  // Nothing changed after all; what was promised is as true as the batch before, and retries that
  // were chosen were given back or lost again.
  for (const Sealed::Advance& advance : next.advances) {
    if (Queue* const queue = find_queue(advance.queue)) {
      queue->touched_in = 0;
      queue->subscription.starts = 0;
    }
  }
  for (Effect& effect : next.promises.said) say_after_commit(std::move(effect));
}

void Core::State::seal_queue(Queue& queue, Sealed& next) {
  Batch& batch = *next.batch;
  if (queue.record.deleted) {
    seal_removal(queue, batch);
    if (!batch.queues_removed.empty() && batch.queues_removed.back() == queue.record.id) {
      next.queues_removed.push_back(queue.record.id);
      return;
    }
  }
  Subscription& subscription = queue.subscription;
  Sealed::Advance advance{queue.record.id, queue.last_sequence(), 0, nullptr, 0, false};
  if (!queue.builder.empty()) {
    advance.block = queue.builder.finish();
    batch.blocks.push_back(advance.block);
  }
  const Sequence watermark = watermark_target(queue);
  subscription.watermark_asked = 0;
  if (queue.subscription_touched || watermark > subscription.record.delivered_to ||
      subscription.settled.floor() > subscription.record.floor) {
    queue.subscription_touched = false;
    subscription.record.delivered_to = std::max(watermark, subscription.record.delivered_to);
    subscription.record.floor = subscription.settled.floor();
    batch.subscriptions.push_back(subscription.record);
  }
  advance.delivered_to = subscription.record.delivered_to;
  if (!queue.record.deleted) subscription.settled.collect(batch.acks_removed, batch.acks);
  seal_retries(queue, next);
  if (queue.trim_blocks) {
    advance.trimmed_below = queue.record.trim_below;
    batch.block_trims.push_back({queue.record.id, queue.record.trim_below, options.trim_limit});
    queue.trim_blocks = false;
  }
  advance.trims_dedup = queue.trim_dedup;
  seal_ids(queue, batch);
  if (queue.record_touched) {
    batch.queues.push_back(queue.record);
    queue.record_touched = false;
  }
  next.advances.push_back(std::move(advance));
}

void Core::State::seal_ids(Queue& queue, Batch& batch) {
  for (DedupRecord& record : queue.dedup_gathered) {
    // On a slow disk the window may have moved past what still waits to be stored.
    if (IdKey(record.time_ms, record.first) < queue.dedup_begin()) continue;
    batch.dedup.push_back(std::move(record));
  }
  queue.dedup_gathered.clear();
  if (!queue.trim_dedup) return;
  const auto [time_ms, first] = queue.dedup_begin();
  const std::uint64_t before_ms = queue.record.deleted ? ~std::uint64_t{0} : time_ms;
  batch.dedup_trims.push_back({queue.record.id, before_ms, first, options.trim_limit});
  ++queue.dedup_trims_under_way;
  queue.trim_dedup = false;
  queue.record.dedup_from_ms = before_ms;
  queue.record.dedup_from = first;
  queue.record_touched = true;
}

// A retry is counted before it is sent. What is remembered of attempts that ended waits where the
// reserve is short: the count is right after a crash all the same, by the watermark or the record
// that counted the attempt. So does what was given back, which then counts.
void Core::State::seal_retries(Queue& queue, Sealed& next) {
  Batch& batch = *next.batch;
  Subscription& subscription = queue.subscription;
  std::vector<Sequence> touched = std::exchange(subscription.touched_retries, {});
  std::sort(touched.begin(), touched.end());
  touched.erase(std::unique(touched.begin(), touched.end()), touched.end());
  std::set<Sequence>& put_off = subscription.retries_put_off;
  for (const Sequence sequence : touched) {
    const Outstanding* const entry = subscription.outstanding.find(sequence);
    if (entry == nullptr) {
      put_off.erase(sequence);
      if (subscription.stored_retries.erase(sequence) > 0) {
        batch.retries_removed.push_back({subscription.record.id, sequence});
      }
    } else if (next.retry_bytes_left == 0 && entry->state != OutstandingState::kStarting) {
      put_off.insert(sequence);
    } else {
      put_off.erase(sequence);
      seal_retry(subscription, *entry, next);
    }
  }
  while (next.retry_bytes_left > 0 && !put_off.empty()) {
    seal_retry(subscription, *subscription.outstanding.find(*put_off.begin()), next);
    put_off.erase(put_off.begin());
  }
  if (!put_off.empty()) deliveries_put_off.insert(queue.record.id);
}

void Core::State::seal_retry(Subscription& subscription, const Outstanding& entry, Sealed& next) {
  next.retry_bytes_left -= std::min(next.retry_bytes_left, entry.record_bytes());
  RetryRecord record;
  record.subscription = subscription.record.id;
  record.sequence = entry.sequence;
  record.attempts = entry.attempts;
  record.in_flight =
      entry.state == OutstandingState::kInFlight || entry.state == OutstandingState::kStarting;
  const std::span<const AttemptRecord> ended = entry.ended_attempts();
  record.history.assign(ended.begin(), ended.end());
  // Reckoned from a wall time that is stored beside it, so that a restart knows how long it was.
  if (entry.state == OutstandingState::kWaiting) {
    record.due = record.history.back().ended_at + Milliseconds(entry.span_ms);
  }
#ifdef HOLDFAST_BREAK_FORGET_ATTEMPT
  record.attempts = 1;
  record.history.clear();
#endif
  next.batch->retries.push_back(std::move(record));
  subscription.stored_retries.insert(entry.sequence);
}

// A deleted queue goes in steps: acks, retries and the ids' window at once, blocks and stored ids a
// few at a time, its own records last.
void Core::State::seal_removal(Queue& queue, Batch& batch) {
  Subscription& subscription = queue.subscription;
  subscription.settled.collect_removal(batch.acks_removed);
  if (!queue.trim_blocks && !queue.trim_dedup && queue.dedup_trims_under_way == 0 &&
      queue.record.trim_below == 0) {
    batch.subscriptions_removed.push_back(subscription.record.id);
    batch.queues_removed.push_back(queue.record.id);
    queue.removal_sealed = true;
  }
}

// As far as the credit of consumers reaches, and where there is but one attempt their room, so that
// what this batch appends can be delivered as soon as it is committed; never further, because after
// a crash what lies up to the watermark counts as delivered once.
Sequence Core::State::watermark_target(const Queue& queue) const {
  const Subscription& subscription = queue.subscription;
  if (draining) return subscription.record.delivered_to;
  const Sequence furthest = watermark_max(queue);
  std::uint64_t messages = 0;
  std::map<SessionId, std::uint64_t> room_left;  // in messages, where room is a bound
  for (const Consumer* consumer : subscription.available) {
    if (subscription.read_next - 1 + messages >= furthest) break;
    std::uint64_t more = credit_in_messages(queue, *consumer);
    if (room_is_a_bound(queue)) {
      const SessionState& session = *consumer->session;
      std::uint64_t& left =
          room_left.try_emplace(session.id, room_in_messages(queue, session)).first->second;
      more = std::min(more, left);
      left -= more;
    }
    messages += more;
  }
  const Sequence wanted =
      std::max(subscription.watermark_asked, subscription.read_next - 1 + messages);
  return std::max(subscription.record.delivered_to, std::min(furthest, wanted));
}

namespace {
// Of a queue's messages; 1 at least.
std::uint64_t mean_bytes(const Queue& queue) {
  const std::uint64_t messages = std::max<std::uint64_t>(1, queue.messages());
  return std::max<std::uint64_t>(1, queue.record.bytes / messages);
}
}  // namespace

// Only where what was not sent would be a dead letter after a crash: elsewhere consumers need not
// wait for a commit, which takes seconds on a slow disk, each time that they have read what there
// was room for.
bool Core::State::room_is_a_bound(const Queue& queue) { return queue.is_over_after(1); }

// Bounds by bytes are reckoned in messages of the queue's mean size, and one more.
std::uint64_t Core::State::room_in_messages(const Queue& queue, const SessionState& session) {
  return 1 + session.room_told / room_of(mean_bytes(queue));
}

std::uint64_t Core::State::credit_in_messages(const Queue& queue, const Consumer& consumer) {
  const std::uint64_t free = consumer.free_credit();
  if (free == 0 || consumer.credit_bytes == 0) return free;
  const std::uint64_t bytes =
      consumer.credit_bytes - std::min(consumer.credit_bytes, consumer.held_bytes);
  return std::min(free, 1 + bytes / mean_bytes(queue));
}

// What may be delivered at most: up to the queue's end, and to outstanding-max.
Sequence Core::State::watermark_max(const Queue& queue) const {
  return std::min(queue.last_sequence(), queue.subscription.read_next - 1 + places_left(queue));
}

std::unique_ptr<Batch> Core::State::take_batch() {
  if (!pipeline.may_take()) return nullptr;
  if (!pipeline.has_sealed() && !pipeline.gathering().empty()) seal();
  return pipeline.take();
}

void Core::State::committed(const CommitResult& result, Now now) {
  renew_ends(result.duration_us);
  for (Sealed& batch : pipeline.committed(result)) batch_committed(std::move(batch), result, now);
  go_on(now);
}

void Core::State::batch_committed(Sealed done, const CommitResult& result, Now now) {
  const std::set<QueueId> blocks_left(result.blocks_left.begin(), result.blocks_left.end());
  const std::set<QueueId> ids_left(result.dedup_left.begin(), result.dedup_left.end());
  for (Effect& effect : done.promises.said) say(std::move(effect));
  for (const Sealed::Advance& advance : done.advances) {
    Queue* const queue = find_queue(advance.queue);
    if (queue == nullptr) continue;
    Subscription& subscription = queue->subscription;
    queue->committed_to = advance.committed_to;
    subscription.delivered_to_durable = advance.delivered_to;
    subscription.starts = 0;
    queue->dedup.age(queue->committed_to);
    bool removal_goes_on = queue->record.deleted;
    if (blocks_left.contains(advance.queue)) {
      queue->trim_blocks = removal_goes_on = true;
    } else if (queue->record.trim_below > 0 && !queue->trim_blocks &&
               advance.trimmed_below == queue->record.trim_below) {
      queue->record.trim_below = 0;
      queue->record_touched = true;
      touch(*queue);
    }
    if (advance.trims_dedup) --queue->dedup_trims_under_way;
    if (ids_left.contains(advance.queue)) {
      queue->trim_dedup = removal_goes_on = true;
    }
    // When the broker is about to end, the next start goes on with it: it finds the mark.
    if (removal_goes_on && !draining) touch(*queue);
    // Kept for readers that are about to come to it.
    if (advance.block && !subscription.consumers.empty() &&
        advance.block->first_sequence() <=
            subscription.read_next + queue->setting(QueueSetting::kOutstandingMax)) {
      cache.insert(advance.block);
    }
    seal_if_full();
  }
  for (const StartedRetry& started : done.promises.started) send_started(started, done.number, now);
  for (const Sealed::Advance& advance : done.advances) {
    if (Queue* const queue = find_queue(advance.queue)) pump(*queue, now);
  }
  for (const QueueId id : done.queues_removed) {
    disarm(*find_queue(id));
    queues.erase(id);
  }
}

}  // namespace holdfast::broker
