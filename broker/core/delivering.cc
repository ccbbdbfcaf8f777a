// Consumers and deliveries.
//
// A message's first delivery goes out in sequence order once the watermark that covers it is
// durable. A retry that is due goes before unread messages; it is counted in a commit before it is
// sent, so that no crash makes an attempt uncounted.

#include <fmt/format.h>

#include <algorithm>
#include <list>
#include <utility>

#include "base/check.h"
#include "core/state.h"
#include "holdfast/text.h"
#include "schema/field_limits.h"

namespace holdfast::broker {

namespace {
// A cold read: about as much as a batch has.
constexpr std::size_t kReadBytes = 1 << 20;
// Retries of one queue that one commit starts. Those given back before it count: giving back and
// taking again costs, and ends here.
constexpr std::size_t kStartsMax = 65'536;
// The blocks that queues are in the middle of have so many times what the cache has. While there is
// room, who has little credit comes back to its block and need not have it read again for each
// message; beyond it a queue lets go of its own rather than of another's, because where many take
// turns the one that was used least lately is the next one to be used.
constexpr std::size_t kCurrentPerCacheByte = 8;
// Blocks with retries that are due are looked through for one that is in memory.
constexpr std::size_t kRetryLookahead = 16;

Milliseconds lease_of(const Queue& queue, std::uint32_t lease_ms) {
  return Milliseconds(lease_ms > 0 ? lease_ms : queue.setting(QueueSetting::kLease));
}

Status check_credit(std::uint32_t messages) {
  if (messages <= kCreditMessagesMax) return {};
  return {ErrorCode::kInvalidArgument,
          fmt::format("A credit of {} messages is out of bounds: it is 0 to {}.", messages,
                      kCreditMessagesMax)};
}
}  // namespace

// ---- consumers ----

Status Core::State::check_lease(std::uint32_t lease_ms) {
  if (lease_ms == 0 || (lease_ms >= kLeaseMsMin && lease_ms <= kLeaseMsMax)) return {};
  return {ErrorCode::kInvalidArgument,
          fmt::format("A lease of {} ms is out of bounds: it is {} to {} ms, or 0 for the one that "
                      "is set.",
                      lease_ms, kLeaseMsMin, kLeaseMsMax)};
}

void Core::State::subscribe(const SubscribeRequest& request, Now now) {
  Queue* const queue = queue_or_refuse(request.asker, request.queue);
  if (queue == nullptr) return;
  if (!request.subscription.empty() && request.subscription != queue->subscription.record.name) {
    refuse(request.asker, ErrorCode::kNotSupported,
           fmt::format("Queue \"{}\" has no subscription {}; it has \"{}\".", request.queue,
                       quoted(request.subscription), queue->subscription.record.name));
    return;
  }
  if (draining) {
    refuse(
        request.asker, ErrorCode::kDraining,
        "The broker is shutting down and takes no new consumers. Subscribe again when it is back.");
    return;
  }
  Status status = check_credit(request.credit_messages);
  if (status.ok()) status = check_lease(request.lease_ms);
  if (!status.ok()) return refuse(request.asker, std::move(status));
  if (consumer_count() >= options.consumers_max) {
    refuse(
        request.asker, ErrorCode::kLimitReached,
        fmt::format("The broker has {} consumers, its limit (consumers_max).", consumer_count()));
    return;
  }
  SessionState& session = sessions.at(request.asker.session);
  auto owned = std::make_unique<Consumer>();
  Consumer& consumer = *owned;
  consumer.id = ConsumerId(++last_consumer);
  consumer.session = &session;
  consumer.queue = queue;
  consumer.name = request.consumer_name.empty() ? session.client_name : request.consumer_name;
  consumer.credit_messages = request.credit_messages;
  consumer.credit_bytes = request.credit_bytes;
  consumer.lease_is_the_queues = request.lease_ms == 0;
  consumer.lease = lease_of(*queue, request.lease_ms);
  session.consumers.insert(consumer.id);
  consumer.place = queue->subscription.consumers.size();
  queue->subscription.consumers.push_back(&consumer);
  consumers.emplace(consumer.id, std::move(owned));
  say(SubscribedReply{request.asker, consumer.id, queue->record.id,
                      static_cast<std::uint32_t>(consumer.lease.count())});
  make_available(consumer);
  pump(*queue, now);
}

Consumer* Core::State::find_consumer(Asker asker, ConsumerId id) {
  const auto found = consumers.find(id);
  if (found != consumers.end() && found->second->session->id == asker.session &&
      !found->second->ending) {
    return found->second.get();
  }
  refuse(
      asker, ErrorCode::kConsumerNotFound,
      fmt::format("This connection has no consumer {}: it was ended. Subscribe again.", id.value));
  return nullptr;
}

void Core::State::unsubscribe(Asker asker, ConsumerId id, Now now) {
  Consumer* const consumer = find_consumer(asker, id);
  if (consumer == nullptr) return;
  consumer->unsubscriber = asker;
  Queue& queue = *consumer->queue;
  leave(*consumer);
  see_off(queue, now);
}

void Core::State::set_credit(Asker asker, ConsumerId id, std::uint32_t messages,
                             std::uint64_t bytes, Now now) {
  Consumer* const consumer = find_consumer(asker, id);
  if (consumer == nullptr) return;
  if (Status status = check_credit(messages); !status.ok()) {
    return refuse(asker, std::move(status));
  }
  consumer->credit_messages = messages;
  consumer->credit_bytes = bytes;
  consumer->queue->subscription.watermark_asked = 0;  // whoever has credit asks again
  give_back_starting(*consumer, messages, now);
  say(OkReply{asker});
  make_available(*consumer);
  pump(*consumer->queue, now);
}

void Core::State::give_back_starting(Consumer& consumer, std::uint32_t held_max, Now now) {
  Queue& queue = *consumer.queue;
  while (consumer.held > held_max && !consumer.starting.empty()) {
    const Sequence latest = std::prev(consumer.starting.end())->first;
    give_back(queue, *queue.subscription.outstanding.find(latest), now);
    seal_if_full();
  }
}

// Consumers whose session had no room for that reason are served by the next advance(): this is in
// the middle of something else.
void Core::State::no_longer_starting(Consumer& consumer, const Outstanding& entry) {
  SessionState& session = *consumer.session;
  const bool had_room = session.has_room();
  consumer.starting.erase(entry.sequence);
  session.starting_bytes -= room_of(entry.bytes);
  if (had_room || !session.has_room() || session.is_to_be_served) return;
  session.is_to_be_served = true;
  sessions_to_serve.push_back(session.id);
}

void Core::State::make_available(Consumer& consumer) {
  if (consumer.available || consumer.free_credit() == 0) return;
  if (!consumer.session->has_room()) return turn_away(consumer);
  std::list<Consumer*>& line = consumer.queue->subscription.available;
  consumer.available = true;
  consumer.in_line = line.insert(line.end(), &consumer);
}

void Core::State::leave_line(Consumer& consumer) {
  if (!std::exchange(consumer.available, false)) return;
  consumer.queue->subscription.available.erase(consumer.in_line);
}

void Core::State::turn_away(Consumer& consumer) {
  if (consumer.turn != 0) return;
  consumer.turn = ++consumer.session->last_turn;
  consumer.session->turned_away.emplace(consumer.turn, &consumer);
}

void Core::State::forget_turn(Consumer& consumer) {
  consumer.session->turned_away.erase(std::exchange(consumer.turn, 0));
}

// ---- deliveries ----

Consumer* Core::State::next_consumer(Subscription& subscription) {
  while (!subscription.available.empty()) {
    Consumer* const consumer = subscription.available.front();
    const bool has_credit = consumer->free_credit() > 0;
    if (has_credit && consumer->session->has_room()) return consumer;
    leave_line(*consumer);
    if (has_credit) turn_away(*consumer);
  }
  return nullptr;
}

void Core::State::pump(Queue& queue, Now now) {
  if (draining || queue.record.deleted) return;
  deliver_all(queue, now);
  seal_if_full();
  if (current_bytes > kCurrentPerCacheByte * options.cache_bytes_max) let_go_of_block(queue);
}

void Core::State::deliver_all(Queue& queue, Now now) {
  Subscription& subscription = queue.subscription;
  bool retries = true;
  while (Consumer* const consumer = next_consumer(subscription)) {
    if (retries && !subscription.ready.empty()) {
      // Retries whose blocks are being read hold up nothing else.
      retries = start_retry(queue, *consumer, now);
      if (!retries) continue;
      seal_if_full();
    } else if (deliver_next(queue, *consumer, now) == FirstDelivery::kLater) {
      return;
    }
    // The next one is another's turn.
    if (subscription.available.size() > 1 && subscription.available.front() == consumer) {
      std::list<Consumer*>& line = subscription.available;
      line.splice(line.end(), line, line.begin());
    }
  }
}

bool Core::State::start_retry(Queue& queue, Consumer& consumer, Now now) {
  Subscription& subscription = queue.subscription;
  // Those that are left find their turn when the commit is done, which the others have asked for.
  if (subscription.starts >= kStartsMax) return false;
  if (!pipeline.may_count_retry() && pipeline.space().retries_allowed) {
    deliveries_put_off.insert(queue.record.id);
    return false;
  }
  bool has_moved = false;
  for (const RetryPlace& place : retries_in_turn(queue)) {
    Outstanding& entry = *subscription.outstanding.find(place.sequence);
    // The limit may have been lowered since its last attempt ended.
    if (queue.is_over_after(entry.attempts)) {
      subscription.ready.erase(place.sequence);
      start_move(queue, entry, wire::Cause_RetryLimit, entry.last_error(), nullptr, now);
      seal_if_full();
      has_moved = true;
      continue;
    }
    if (place.block == nullptr) {
      fetch_for(queue, place.sequence);
      continue;
    }
    if (place.block->is_corrupt(place.index)) {
      set_aside(queue, *place.block, place.index, now);
      has_moved = true;
      continue;
    }
    choose_retry(queue, consumer, entry, place, now);
    return true;
  }
  return has_moved;  // others are behind those
}

// From the cursor on, going round: those whose blocks are not in memory, the first of each, up to
// the first whose block is. So each block that was read serves all of its retries that are due.
std::vector<Core::State::RetryPlace> Core::State::retries_in_turn(Queue& queue) {
  Subscription& subscription = queue.subscription;
  const std::set<Sequence>& ready = subscription.ready;
  std::vector<RetryPlace> places;
  std::size_t ahead_bytes = 0;
  auto at = ready.lower_bound(subscription.retry_next);
  if (at == ready.end()) at = ready.begin();
  subscription.retry_next = *at;
  bool has_gone_round = false;
  while (places.size() < kRetryLookahead) {
    const Sequence sequence = *at;
    RetryPlace place{sequence, cache.find(queue.record.id, sequence), 0};
    const std::optional<std::size_t> index =
        place.block ? place.block->find(sequence) : std::nullopt;
    if (index) {
      place.index = *index;
      places.push_back(std::move(place));
      break;
    }
    place.block.reset();
    const OpenBlock* const block = open_block_of(queue, sequence);
    // What is read ahead should still be there when its turn comes.
    if (block != nullptr) ahead_bytes += block->bytes;
    if (!places.empty() && ahead_bytes > options.cache_bytes_max / 2) break;
    places.push_back(std::move(place));
    at = block != nullptr ? ready.upper_bound(block->last) : std::next(at);
    if (at == ready.end()) {
      if (std::exchange(has_gone_round, true)) break;
      at = ready.begin();
    }
    if (has_gone_round && *at >= subscription.retry_next) break;
  }
  return places;
}

void Core::State::choose_retry(Queue& queue, Consumer& consumer, Outstanding& entry,
                               const RetryPlace& place, Now now) {
  Subscription& subscription = queue.subscription;
  OpenBlock* const open_block = open(queue, *place.block);
  CHECK(open_block != nullptr && entry.block == open_block);
  subscription.ready.erase(place.sequence);
  // Those before it whose blocks are being read are the next ones.
  if (subscription.retry_next == place.sequence) ++subscription.retry_next;
  ++entry.attempts;
  give_to(consumer, entry);
  if (!pipeline.may_count_retry()) {
    entry.has_record = true;
    subscription.retries_put_off.insert(place.sequence);
    deliveries_put_off.insert(queue.record.id);
    send_retry(queue, consumer, entry, place.block, place.index, now);
    return;
  }
  entry.state = OutstandingState::kStarting;
  consumer.starting.emplace(place.sequence, pipeline.number());
  consumer.session->starting_bytes += room_of(entry.bytes);
  ++subscription.starts;
  touch_retry(queue, entry);
  pipeline.gathering().promises.started.push_back(
      {queue.record.id, place.sequence, consumer.id, place.block, place.index});
}

void Core::State::send_started(const StartedRetry& started, std::uint64_t batch, Now now) {
  Queue* const queue = find_queue(started.queue);
  if (queue == nullptr) return;
  Outstanding* const entry = queue->subscription.outstanding.find(started.sequence);
  if (entry == nullptr || entry->state != OutstandingState::kStarting ||
      entry->holder->id != started.consumer ||
      entry->holder->starting.at(started.sequence) != batch) {
    return;  // purged, or given back
  }
  if (draining || entry->holder->ending) {
    give_back(*queue, *entry, now);
    return;
  }
  entry->holder->starting.erase(started.sequence);
  // It takes the room when it is handed over.
  entry->holder->session->starting_bytes -= room_of(entry->bytes);
  send_retry(*queue, *entry->holder, *entry, started.block, started.index, now);
}

void Core::State::send_retry(Queue& queue, Consumer& consumer, Outstanding& entry,
                             const std::shared_ptr<const Block>& block, std::size_t index,
                             Now now) {
  pin(block);
  if (entry.attempts > 1) ++queue.counters.redelivered;
  hand_over(queue, consumer, entry, block->entry(index), now);
}

void Core::State::hand_over(Queue& queue, Consumer& consumer, Outstanding& entry,
                            const BlockEntry& message, Now now) {
  entry.state = OutstandingState::kInFlight;
  entry.deadline = now.monotonic + consumer.lease;
  entry.span_ms = static_cast<std::uint32_t>(consumer.lease.count());
  entry.delivered_at = now.wall;
  hold(consumer, entry);
  consumer.session->take_room(room_of(entry.bytes));
  ++consumer.delivered;
  ++queue.counters.delivered;
  enliven(queue);
  arm(queue, entry.deadline);
  say(Delivery{consumer.session->id, consumer.id, queue.record.id, entry.attempts,
               static_cast<std::uint32_t>(consumer.lease.count()), message});
}

void Core::State::pin(const std::shared_ptr<const Block>& block) {
  if (effects.pinned.empty() || effects.pinned.back() != block) effects.pinned.push_back(block);
}

// Finds the block that read_next is in; false if it must be read first.
bool Core::State::find_current(Queue& queue) {
  Subscription& subscription = queue.subscription;
  if (subscription.current != nullptr &&
      subscription.read_next <= subscription.current->last_sequence()) {
    return true;
  }
  std::shared_ptr<const Block> cached = cache.find(queue.record.id, subscription.read_next);
  if (cached == nullptr) {
    let_go_of_block(queue);
    read_ahead(queue, subscription.read_next);
    return false;
  }
  use_block(queue, std::move(cached));
  const Sequence following = subscription.current->last_sequence() + 1;
  if (following <= queue.committed_to && !cache.find(queue.record.id, following)) {
    read_ahead(queue, following);
  }
  return true;
}

void Core::State::use_block(Queue& queue, std::shared_ptr<const Block> block) {
  let_go_of_block(queue);
  Subscription& subscription = queue.subscription;
  subscription.current_open = open(queue, *block);
  subscription.current_index = block->lower_bound(subscription.read_next);
  current_bytes += block->bytes().size();
  subscription.current = std::move(block);
}

void Core::State::let_go_of_block(Queue& queue) {
  Subscription& subscription = queue.subscription;
  if (subscription.current == nullptr) return;
  current_bytes -= subscription.current->bytes().size();
  subscription.current.reset();
  subscription.current_open = nullptr;
}

void Core::State::read_ahead(Queue& queue, Sequence from) {
  if (queue.subscription.reading) return;
  // Each block that is read may be damaged, and is stored once more then.
  if (pipeline.lags()) {
    deliveries_put_off.insert(queue.record.id);
    return;
  }
  queue.subscription.reading = true;
  const Sequence to = queue.committed_to;
  fetch(queue, from, to, kReadBytes,
        [this, to](Queue& read_queue, const FetchResult& result, Now now) {
          read_queue.subscription.reading = false;
          blocks_read(read_queue, result, now);
          // What lies between the blocks is settled, or the store has lost it.
          Sequence next = result.from;
          for (const auto& block : result.blocks) {
            report_lost(read_queue, next, block->first_sequence() - 1, now);
            next = block->last_sequence() + 1;
          }
          // Nothing is there up to where was looked; with an unreadable block it may just go on
          // behind that.
          const bool nothing = result.blocks.empty() && result.unreadable.empty();
          if (result.blocks.empty()) {
            const Sequence last = nothing ? to : result.unreadable.front().first - 1;
            report_lost(read_queue, next, last, now);
          }
          Subscription& subscription = read_queue.subscription;
          if (subscription.read_next == result.from) {
            subscription.read_next =
                nothing ? to + 1
                : result.blocks.empty()
                    ? result.unreadable.back().last + 1
                    : std::max(result.from, result.blocks.front()->first_sequence());
            // However small the cache: what was read for this place is used for it.
            if (!result.blocks.empty()) use_block(read_queue, result.blocks.front());
          }
          pump(read_queue, now);
        });
}

// On a full disk messages that are to be dead letters wait for as long as it is full. As many of
// them again are left out of the count then, so that others can be taken away.
std::uint64_t Core::State::places_left(const Queue& queue) const {
  const Subscription& subscription = queue.subscription;
  const std::uint64_t outstanding_max = queue.setting(QueueSetting::kOutstandingMax);
  std::uint64_t taken = subscription.outstanding.size();
  if (!pipeline.space().publishes_allowed) {
    taken -= std::min<std::uint64_t>(subscription.moves.size(), outstanding_max);
  }
  return outstanding_max - std::min(outstanding_max, taken);
}

Core::State::FirstDelivery Core::State::deliver_next(Queue& queue, Consumer& consumer, Now now) {
  Subscription& subscription = queue.subscription;
  if (places_left(queue) == 0) return FirstDelivery::kLater;
  for (;; ++subscription.read_next) {
    if (subscription.read_next > queue.committed_to) return FirstDelivery::kLater;
    if (subscription.settled.contains(subscription.read_next)) continue;
    if (!find_current(queue)) return FirstDelivery::kLater;
    const Block& block = *subscription.current;
    std::size_t& index = subscription.current_index;
    BlockEntry message = block.entry(index);
    while (message.sequence < subscription.read_next) message = block.entry(++index);
    // A rewritten block lacks only what is settled.
    if (message.sequence > subscription.read_next) {
      subscription.read_next = message.sequence - 1;
      continue;
    }
    if (block.is_corrupt(index)) {
      const std::shared_ptr<const Block> kept = subscription.current;
      set_aside(queue, *kept, index, now);
      continue;
    }
    if (subscription.read_next > subscription.delivered_to_durable) {
      if (subscription.record.delivered_to < subscription.read_next) {
        note_watermark(queue, consumer);
        touch(queue);
      }
      return FirstDelivery::kLater;
    }
    CHECK(subscription.current_open != nullptr, "queue {} reads a block with nothing unsettled",
          queue.record.name);
    Outstanding& entry = subscription.outstanding.insert(message.sequence);
    entry.attempts = 1;
    entry.block = subscription.current_open;
    entry.bytes = static_cast<std::uint32_t>(message.stored_bytes());
    give_to(consumer, entry);
    pin(subscription.current);
    hand_over(queue, consumer, entry, message, now);
    ++subscription.read_next;
    // What there will be room for next need not wait for a commit then.
    if (!consumer.session->has_room()) note_watermark(queue, consumer);
    return FirstDelivery::kDone;
  }
}

// The consumer may have no room when the batch is sealed: what it could take is kept in mind until
// then.
void Core::State::note_watermark(Queue& queue, const Consumer& consumer) {
  Subscription& subscription = queue.subscription;
  std::uint64_t messages = credit_in_messages(queue, consumer);
  if (room_is_a_bound(queue)) {
    messages = std::min(messages, room_in_messages(queue, *consumer.session));
  }
  const Sequence wanted = std::min(watermark_max(queue), subscription.read_next - 1 + messages);
  subscription.watermark_asked = std::max(subscription.watermark_asked, wanted);
}

}  // namespace holdfast::broker
