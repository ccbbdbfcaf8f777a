#include "subscriptions.h"

#include <fmt/format.h>

#include <algorithm>
#include <tuple>
#include <utility>

#include "client_impl.h"
#include "message_codec.h"

namespace holdfast::client {

namespace {

// A subscription that was refused for a reason that may pass is asked for again after this.
constexpr std::uint64_t kRetryMs = 1'000;
// Deliveries whose lease was lost, before it is looked for the first time which are gone.
constexpr std::size_t kLateMin = 64;
// Leases are extended when this part of them has passed.
constexpr std::uint32_t kExtendParts = 3;

Status malformed(std::string_view what) {
  return Status(ErrorCode::kFrameMalformed, fmt::format("The broker's {} is malformed.", what));
}

Status not_held(const DeliveryImpl& delivery) {
  return Status(ErrorCode::kNotHeld,
                fmt::format("Message {} of queue \"{}\" is no longer held by this consumer: its "
                            "lease has ended, or it was settled elsewhere.",
                            delivery.sequence(), delivery.message().queue));
}

Status not_extended() {
  return Status(ErrorCode::kNotHeld,
                "The lease cannot be extended: it has ended, or the message is settled.");
}

auto settle_order(const SettleItem& item) {
  return std::make_tuple(item.delivery->consumer(), item.kind, item.delay_ms,
                         std::string_view(item.reason), item.delivery->sequence());
}
bool same_frame(const SettleItem& a, const SettleItem& b) {
  return a.delivery->consumer() == b.delivery->consumer() && a.kind == b.kind &&
         a.delay_ms == b.delay_ms && a.reason == b.reason;
}

}  // namespace

// ---- subscribing ----

Subscriptions::Subscription* Subscriptions::find(std::uint64_t key) {
  const auto found = subscriptions_.find(key);
  return found == subscriptions_.end() ? nullptr : found->second.get();
}

Subscriptions::Subscription* Subscriptions::find_consumer(std::uint64_t consumer) {
  const auto found = by_consumer_.find(consumer);
  return found == by_consumer_.end() ? nullptr : found->second;
}

Subscriptions::Subscription* Subscriptions::find_holder(const DeliveryImpl& delivery) {
  if (!connected_ || delivery.connection() != connection_number_) return nullptr;
  Subscription* const subscription = find_consumer(delivery.consumer());
  const bool is_its = subscription != nullptr && subscription->key == delivery.subscription();
  return is_its ? subscription : nullptr;
}

// Why it has no holder.
Status Subscriptions::not_found(const DeliveryImpl& delivery) const {
  if (connected_ && delivery.connection() == connection_number_) {
    return delivery.why_lease_lost();
  }
  return delivery.why_connection_lost();
}

std::uint64_t Subscriptions::add(SubscribeOptions options, std::shared_ptr<DeliverySink> sink) {
  auto subscription = std::make_unique<Subscription>();
  const std::uint64_t key = next_key_++;
  subscription->key = key;
  subscription->options = std::move(options);
  subscription->sink = std::move(sink);
  subscriptions_.emplace(key, std::move(subscription));
  return key;  // advance() subscribes it
}

void Subscriptions::subscribe(Subscription& subscription) {
  const SubscribeOptions& options = subscription.options;
  subscription.stage = Stage::kSubscribing;
  flatbuffers::FlatBufferBuilder builder(256);
  const auto queue = builder.CreateString(options.queue);
  const auto name = builder.CreateString(options.consumer_name);
  builder.Finish(wire::CreateSubscribe(builder, queue, 0, name, options.credit_messages,
                                       options.credit_bytes, options.lease_ms));
  Request request;
  request.type = wire::FrameType_Subscribe;
  request.body = table_bytes(builder);
  request.when_lost = WhenLost::kFail;
  request.on_frame = [this, key = subscription.key](const Frame& frame) -> Result<bool> {
    const auto* answer = frame.type == wire::FrameType_Subscribed
                             ? read_table<wire::Subscribed>(frame.body)
                             : nullptr;
    if (answer == nullptr || answer->consumer() == 0) return malformed("Subscribed");
    subscribed(key, *answer);
    return true;
  };
  request.on_failed = [this, key = subscription.key](const Status& why) {
    subscribe_failed(key, why);
  };
  requests_.add(std::move(request));
}

void Subscriptions::subscribed(std::uint64_t key, const wire::Subscribed& answer) {
  Subscription* const subscription = find(key);
  if (subscription == nullptr) return;
  subscription->stage = Stage::kSubscribed;
  subscription->was_subscribed = true;
  subscription->consumer = answer.consumer();
  subscription->lease_ms = answer.lease_ms();
  by_consumer_[answer.consumer()] = subscription;
  if (subscription->closing) {
    pause(key, {});
  } else {
    subscription->sink->subscribed();
  }
}

void Subscriptions::subscribe_failed(std::uint64_t key, const Status& why) {
  Subscription* const subscription = find(key);
  if (subscription == nullptr) return;
  subscription->stage = Stage::kUnsubscribed;
  if (subscription->closing) {
    subscriptions_.erase(key);
  } else if (why.code() == ErrorCode::kConnectionLost) {
    // Asked for again on the next connection.
  } else if (why.code() == ErrorCode::kDraining) {
    draining_ = true;
  } else if (why.retryable() && subscription->was_subscribed) {
    subscription->retry_at_ms = now_ms_ + kRetryMs;
  } else {
    end(*subscription, why);
  }
}

void Subscriptions::forget_consumer(Subscription& subscription) {
  by_consumer_.erase(std::exchange(subscription.consumer, 0));
}

void Subscriptions::end(Subscription& subscription, const Status& why) {
  lose_held(subscription, &DeliveryImpl::lease_lost);
  forget_consumer(subscription);
  const std::shared_ptr<DeliverySink> sink = subscription.sink;
  const bool closing = subscription.closing;
  subscriptions_.erase(subscription.key);
  if (!closing) sink->ended(why);
}

void Subscriptions::send_credit(const Subscription& subscription, std::uint32_t messages,
                                std::function<void(const Status&)> done) {
  flatbuffers::FlatBufferBuilder builder(128);
  builder.Finish(wire::CreateCredit(builder, subscription.consumer, messages,
                                    subscription.options.credit_bytes));
  Request request;
  request.type = wire::FrameType_Credit;
  request.body = table_bytes(builder);
  request.when_lost = WhenLost::kFail;
  request.on_frame = [done](const Frame&) -> Result<bool> {
    done(Status());
    return true;
  };
  request.on_failed = std::move(done);
  requests_.add(std::move(request));
}

void Subscriptions::pause(std::uint64_t key, std::function<void()> done) {
  Subscription* const subscription = find(key);
  if (subscription == nullptr || subscription->stage != Stage::kSubscribed ||
      subscription->paused) {
    if (done) done();
    return;
  }
  send_credit(
      *subscription, 0,
      [this, key, consumer = subscription->consumer, done = std::move(done)](const Status& status) {
        if (status.code() == ErrorCode::kConsumerNotFound) unknown_to_broker(key, consumer);
        if (Subscription* const of = find(key);
            status.ok() && of != nullptr && of->consumer == consumer) {
          of->paused = true;
          read_done();  // what arrived before the answer is there when `done` looks
          finish_if_settled(*of);
        }
        if (done) done();
      });
}

void Subscriptions::close(std::uint64_t key) {
  Subscription* const subscription = find(key);
  if (subscription == nullptr || subscription->closing) return;
  subscription->closing = true;
  if (subscription->stage == Stage::kUnsubscribed) {
    subscriptions_.erase(key);
  } else if (subscription->paused) {
    finish_if_settled(*subscription);
  } else {
    pause(key, {});  // or, while it is subscribing, when that is answered
  }
}

void Subscriptions::finish_if_settled(Subscription& subscription) {
  if (!subscription.closing || !subscription.paused || !subscription.held.empty()) return;
  auto& late = subscription.late;
  while (!late.empty() && late.back().expired()) late.pop_back();
  // From the end: of very many that are given up one after the other, few are looked at each time.
  const bool waits = std::any_of(late.rbegin(), late.rend(), [](const auto& one) {
    const std::shared_ptr<DeliveryImpl> delivery = one.lock();
    return delivery != nullptr && delivery->may_be_acked_late();
  });
  if (waits) return;
  if (subscription.stage == Stage::kSubscribed) {
    flatbuffers::FlatBufferBuilder builder(64);
    builder.Finish(wire::CreateUnsubscribe(builder, subscription.consumer));
    Request request;
    request.type = wire::FrameType_Unsubscribe;
    request.body = table_bytes(builder);
    request.when_lost = WhenLost::kFail;
    request.on_frame = [](const Frame&) -> Result<bool> { return true; };
    requests_.add(std::move(request));
  }
  forget_consumer(subscription);
  subscriptions_.erase(subscription.key);
}

// What waits for the commit that lets the queue deliver on, or to be read, is ready still; what
// waits for the commit of its own attempt is in flight, and its consumer's.
void Subscriptions::ask_for_coming(std::uint64_t key, std::function<void(Result<bool>)> done) {
  const Subscription* const subscription = find(key);
  if (subscription == nullptr || subscription->stage != Stage::kSubscribed) return done(false);
  flatbuffers::FlatBufferBuilder builder(256);
  builder.Finish(wire::CreateQueueOpen(builder, builder.CreateString(subscription->options.queue)));
  Request request;
  request.type = wire::FrameType_QueueOpen;
  request.body = table_bytes(builder);
  request.when_lost = WhenLost::kFail;
  request.on_failed = done;
  request.on_frame = [this, key, done = std::move(done)](const Frame& frame) -> Result<bool> {
    const auto* info =
        frame.type == wire::FrameType_QueueInfo ? read_table<wire::QueueInfo>(frame.body) : nullptr;
    if (info == nullptr) return malformed("QueueInfo");
    const Subscription* const of = find(key);
    if (of == nullptr) {
      done(false);
    } else if (info->ready() > 0 && !info->stalled()) {
      done(true);
    } else {
      ask_for_starting(*of, done);
    }
    return true;
  };
  requests_.add(std::move(request));
}

void Subscriptions::ask_for_starting(const Subscription& subscription,
                                     std::function<void(Result<bool>)> done) {
  const std::uint64_t consumer = subscription.consumer;
  flatbuffers::FlatBufferBuilder builder(256);
  const auto queue = builder.CreateString(subscription.options.queue);
  builder.Finish(wire::CreateConsumerList(builder, queue, consumer));
  Request request;
  request.type = wire::FrameType_ConsumerList;
  request.body = table_bytes(builder);
  request.when_lost = WhenLost::kFail;
  request.on_failed = done;
  request.on_frame = [consumer, done = std::move(done),
                      is_coming = false](const Frame& frame) mutable -> Result<bool> {
    if (frame.type == wire::FrameType_ListEnd) {
      done(is_coming);
      return true;
    }
    const auto* info = frame.type == wire::FrameType_ConsumerInfo
                           ? read_table<wire::ConsumerInfo>(frame.body)
                           : nullptr;
    if (info == nullptr) return malformed("ConsumerInfo");
    if (info->consumer() == consumer && info->in_flight() > 0) is_coming = true;
    return false;
  };
  requests_.add(std::move(request));
}

// ---- deliveries ----

bool Subscriptions::on_deliver(const Frame& frame) {
  Result<DeliverFrame> read = read_deliver(frame);
  if (!read.ok()) {
    // The envelope has a checksum of its own, which holds: it says whose and which message it is.
    if (read.status().code() != ErrorCode::kMessageCorrupt) return false;
    const auto* envelope = reinterpret_cast<const wire::DeliverEnvelope*>(frame.body.data());
    if (Subscription* const of = find_consumer(envelope->consumer()); of != nullptr) {
      nack_damaged(*of, envelope->sequence(), read.status());
    }
    return true;
  }
  Subscription* const subscription = find_consumer(read->envelope.consumer());
  if (subscription == nullptr) return true;  // it was on its way when the subscription ended
  auto delivery = std::make_shared<DeliveryImpl>(
      client_(), origin_of(*subscription),
      decode_message(*read, subscription->options.queue,
                     message_state_name(wire::MessageState_InFlight)));
  // An edit of the queue's lease is heard of here.
  if (read->envelope.lease_ms() > 0) subscription->lease_ms = read->envelope.lease_ms();
  const std::uint64_t extend_at_ms = now_ms_ + subscription->lease_ms / kExtendParts;
  if (subscription->held.empty() || extend_at_ms < subscription->extend_at_ms) {
    subscription->extend_at_ms = extend_at_ms;
  }
  hold(*subscription, delivery);
  if (subscription->closing || draining_) {
    delivery->release();
  } else {
    if (subscription->arrived.empty()) arrived_at_.push_back(subscription->key);
    subscription->arrived.push_back(std::move(delivery));
  }
  return true;
}

void Subscriptions::hold(Subscription& subscription, std::shared_ptr<DeliveryImpl> delivery) {
  auto& held = subscription.held[delivery->sequence()];
  if (held == nullptr) {
    ++held_count_;
  } else {
    held->lease_lost();  // the same message came again: the delivery before is over
  }
  held = std::move(delivery);
}

void Subscriptions::nack_damaged(Subscription& subscription, std::uint64_t sequence,
                                 const Status& why) {
  StoredMessage message;
  message.queue = subscription.options.queue;
  message.sequence = sequence;
  auto delivery =
      std::make_shared<DeliveryImpl>(client_(), origin_of(subscription), std::move(message));
  hold(subscription, delivery);
  delivery->settle(wire::SettleKind_Nack, why.message(), std::nullopt, {});
}

void Subscriptions::read_done() {
  for (const std::uint64_t key : std::exchange(arrived_at_, {})) {
    Subscription* const subscription = find(key);
    if (subscription == nullptr || subscription->arrived.empty()) continue;
    subscription->sink->deliver(std::exchange(subscription->arrived, {}));
  }
}

void Subscriptions::on_lease_lost(const Frame& frame) {
  const auto* lost = read_table<wire::LeaseLost>(frame.body);
  if (lost == nullptr) return;
  Subscription* const subscription = find_consumer(lost->consumer());
  if (subscription == nullptr) return;
  if (lost->ranges() != nullptr) {
    for (const wire::SequenceRange* range : *lost->ranges()) {
      auto& held = subscription->held;
      for (auto at = held.lower_bound(range->first());
           at != held.end() && at->first <= range->last();) {
        lose_lease(*subscription, at->second);
        at = held.erase(at);
      }
    }
  }
  finish_if_settled(*subscription);
}

void Subscriptions::on_consumer_ended(const Frame& frame) {
  const auto* ended = read_table<wire::ConsumerEnded>(frame.body);
  if (ended == nullptr) return;
  Subscription* const subscription = find_consumer(ended->consumer());
  if (subscription == nullptr) return;
  if (subscription->closing) {
    unknown_to_broker(subscription->key, subscription->consumer);
  } else {
    end(*subscription,
        Status(static_cast<ErrorCode>(ended->code()), std::string(view(ended->message()))));
  }
}

void Subscriptions::release_held(Subscription& subscription, std::uint64_t sequence,
                                 const DeliveryImpl* delivery) {
  const auto held = subscription.held.find(sequence);
  if (held == subscription.held.end() || held->second.get() != delivery) return;
  subscription.held.erase(held);
  --held_count_;
}

void Subscriptions::lose_lease(Subscription& subscription,
                               const std::shared_ptr<DeliveryImpl>& delivery) {
  delivery->lease_lost();
  auto& late = subscription.late;
  // Not for each: a purge takes the leases of all that is held at once.
  if (late.size() == late.capacity()) {
    std::erase_if(late, [](const auto& one) { return one.expired(); });
    late.reserve(std::max(kLateMin, 2 * late.size()));
  }
  late.push_back(delivery);
  --held_count_;
}

void Subscriptions::late_ack_given_up(std::uint64_t key) {
  if (Subscription* const of = find(key); of != nullptr) finish_if_settled(*of);
}

void Subscriptions::lose_held(Subscription& subscription, void (DeliveryImpl::*lost)()) {
  for (const auto& [sequence, delivery] : subscription.held) ((*delivery).*lost)();
  held_count_ -= subscription.held.size();
  subscription.held.clear();
  subscription.arrived.clear();
}

// ---- settling ----

void Subscriptions::settle(std::vector<SettleItem> items) {
  const auto before = [](const SettleItem& a, const SettleItem& b) {
    return settle_order(a) < settle_order(b);
  };
  if (!std::is_sorted(items.begin(), items.end(), before)) {
    std::sort(items.begin(), items.end(), before);
  }
  Group group;
  SequenceRanges ranges;
  const auto send = [&] {
    if (group != nullptr && !group->empty()) send_settle(group, ranges);
    group = std::make_shared<std::vector<SettleItem>>();
    ranges.clear();
  };
  send();
  for (SettleItem& item : items) {
    if (find_holder(*item.delivery) == nullptr) {
      const Status lost = not_found(*item.delivery);
      item.delivery->settle_not_sent(lost);
      if (item.done) item.done(lost);
      continue;
    }
    if (!group->empty() && !same_frame(group->back(), item)) send();
    if (!ranges.add(item.delivery->sequence())) {
      send();
      ranges.add(item.delivery->sequence());
    }
    group->push_back(std::move(item));
  }
  send();
}

void Subscriptions::send_settle(Group group, const SequenceRanges& ranges) {
  const SettleItem& item = group->front();
  flatbuffers::FlatBufferBuilder builder(256 + item.reason.size() +
                                         ranges.ranges().size() * sizeof(wire::SequenceRange));
  const auto vector = builder.CreateVectorOfStructs(ranges.ranges());
  const auto reason = item.reason.empty() ? 0 : builder.CreateString(item.reason);
  builder.Finish(wire::CreateSettle(builder, item.delivery->consumer(), item.kind, vector, reason,
                                    item.delay_ms));
  Request request;
  request.type = wire::FrameType_Settle;
  request.body = table_bytes(builder);
  request.when_lost = WhenLost::kFail;
  request.on_frame = [this, group](const Frame& frame) -> Result<bool> {
    const auto* settled =
        frame.type == wire::FrameType_Settled ? read_table<wire::Settled>(frame.body) : nullptr;
    if (settled == nullptr) return malformed("Settled");
    settle_finished(group, settled, Status());
    return true;
  };
  request.on_failed = [this, group](const Status& why) { settle_finished(group, nullptr, why); };
  ++settles_under_way_;
  requests_.add(std::move(request));
}

void Subscriptions::settle_finished(const Group& group, const wire::Settled* settled,
                                    const Status& failure) {
  --settles_under_way_;
  const std::uint64_t key = group->front().delivery->subscription();
  const std::uint64_t consumer = group->front().delivery->consumer();
  const bool unknown = failure.code() == ErrorCode::kConsumerNotFound;
  const SequenceSet refused(settled == nullptr ? nullptr : settled->refused());
  for (SettleItem& item : *group) {
    const DeliveryImpl& delivery = *item.delivery;
    Status status = failure;
    if (unknown || refused.contains(delivery.sequence())) {
      status = not_held(delivery);
    }
    item.delivery->settle_answered(item.kind, status);
    // What was refused for a passing reason is held still.
    if (Subscription* const of = find(key); of != nullptr && !delivery.is_held()) {
      release_held(*of, delivery.sequence(), &delivery);
    }
    if (item.done) item.done(std::move(status));
  }
  if (unknown) unknown_to_broker(key, consumer);
  if (Subscription* const of = find(key); of != nullptr) finish_if_settled(*of);
}

// The queue was deleted, or the broker dropped the consumer. Asking again tells which.
void Subscriptions::unknown_to_broker(std::uint64_t key, std::uint64_t consumer) {
  Subscription* const subscription = find(key);
  if (subscription == nullptr || subscription->stage != Stage::kSubscribed ||
      subscription->consumer != consumer) {
    return;
  }
  lose_held(*subscription, &DeliveryImpl::lease_lost);
  forget_consumer(*subscription);
  subscription->stage = Stage::kUnsubscribed;
  subscription->paused = false;
  if (subscription->closing) {
    subscriptions_.erase(key);
  } else {
    subscription->sink->connection_lost();
  }
}

bool Subscriptions::is_quiet() const {
  return settles_under_way_ == 0 &&
         std::none_of(subscriptions_.begin(), subscriptions_.end(), [](const auto& entry) {
           return entry.second->closing && !entry.second->paused;
         });
}

// ---- leases ----

void Subscriptions::send_extend(std::uint64_t key, std::uint64_t consumer,
                                const SequenceRanges& ranges, std::uint32_t lease_ms,
                                std::function<void(const Status&)> done) {
  flatbuffers::FlatBufferBuilder builder(128 +
                                         ranges.ranges().size() * sizeof(wire::SequenceRange));
  const auto vector = builder.CreateVectorOfStructs(ranges.ranges());
  builder.Finish(wire::CreateExtend(builder, consumer, vector, lease_ms));
  Request request;
  request.type = wire::FrameType_Extend;
  request.body = table_bytes(builder);
  request.when_lost = WhenLost::kFail;
  request.on_frame = [this, key, consumer, done](const Frame& frame) -> Result<bool> {
    const auto* extended =
        frame.type == wire::FrameType_Extended ? read_table<wire::Extended>(frame.body) : nullptr;
    if (extended == nullptr) return malformed("Extended");
    const SequenceSet refused(extended->refused());
    Subscription* const of = find(key);
    if (of != nullptr && of->consumer == consumer && !refused.empty()) {
      // A settle that overtook the extension is no loss: lease_lost() spares what is settling.
      std::erase_if(of->held, [this, of, &refused](const auto& entry) {
        if (!entry.second->is_held() || !refused.contains(entry.first)) return false;
        lose_lease(*of, entry.second);
        return true;
      });
      finish_if_settled(*of);
    }
    if (done) {
      done(refused.empty() ? Status() : not_extended());
    }
    return true;
  };
  request.on_failed = [this, key, consumer, done](const Status& why) {
    const bool unknown = why.code() == ErrorCode::kConsumerNotFound;
    if (unknown) unknown_to_broker(key, consumer);
    if (done) done(unknown ? not_extended() : why);
  };
  requests_.add(std::move(request));
}

void Subscriptions::extend(const std::shared_ptr<DeliveryImpl>& delivery, std::uint32_t lease_ms,
                           std::uint64_t now_ms, std::function<void(const Status&)> done) {
  if (const Status held = delivery->check_held(); !held.ok()) return done(held);
  if (find_holder(*delivery) == nullptr) return done(not_found(*delivery));
  delivery->lease_asked_for(lease_ms > 0 ? now_ms + lease_ms : 0);
  SequenceRanges ranges;
  ranges.add(delivery->sequence());
  send_extend(delivery->subscription(), delivery->consumer(), ranges, lease_ms, std::move(done));
}

void Subscriptions::send_extensions(Subscription& subscription) {
  SequenceRanges ranges;
  const auto send = [&] {
    // By the lease that it reckons with, whatever the queue's has become.
    if (!ranges.empty()) {
      send_extend(subscription.key, subscription.consumer, ranges, subscription.lease_ms, {});
    }
    ranges.clear();
  };
  for (const auto& [sequence, delivery] : subscription.held) {
    // What the program asked for is not made shorter.
    if (delivery->lease_asked_until_ms() > now_ms_ + subscription.lease_ms) continue;
    if (!delivery->is_held() || ranges.add(sequence)) continue;
    send();
    ranges.add(sequence);
  }
  send();
}

std::uint64_t Subscriptions::advance(std::uint64_t now_ms) {
  now_ms_ = now_ms;
  if (!quiet_waiters_.empty() && is_quiet()) {
    for (const auto& done : std::exchange(quiet_waiters_, {})) done();
  }
  std::uint64_t next = 0;
  const auto wake_at = [&next](std::uint64_t at) { next = next == 0 ? at : std::min(next, at); };
  for (auto& [key, subscription] : subscriptions_) {
    if (!connected_ || draining_) break;
    Subscription& of = *subscription;
    if (of.stage == Stage::kUnsubscribed) {
      if (of.retry_at_ms <= now_ms) {
        subscribe(of);
      } else {
        wake_at(of.retry_at_ms);
      }
    }
  }
  for (auto& [key, subscription] : subscriptions_) {
    Subscription& of = *subscription;
    if (of.stage != Stage::kSubscribed) continue;
    if (of.options.extend_leases && of.lease_ms > 0 && !of.held.empty()) {
      if (of.extend_at_ms <= now_ms) {
        of.extend_at_ms = now_ms + std::max(1u, of.lease_ms / kExtendParts);
        send_extensions(of);
      }
      wake_at(of.extend_at_ms);
    }
  }
  return next;
}

// ---- connections ----

void Subscriptions::connected(std::uint64_t now_ms) {
  now_ms_ = now_ms;
  ++connection_number_;
  connected_ = true;
  draining_ = false;
}

void Subscriptions::connection_lost() {
  connected_ = false;
  draining_ = false;
  std::erase_if(subscriptions_, [this](auto& entry) {
    Subscription& subscription = *entry.second;
    lose_held(subscription, &DeliveryImpl::connection_lost);
    forget_consumer(subscription);  // the next connection has other numbers
    if (subscription.closing) return true;
    if (subscription.stage == Stage::kSubscribed) subscription.stage = Stage::kUnsubscribed;
    subscription.sink->connection_lost();
    subscription.paused = false;
    subscription.retry_at_ms = 0;
    return false;
  });
}

void Subscriptions::draining() {
  if (std::exchange(draining_, true)) return;
  read_done();
  for (auto& [key, subscription] : subscriptions_) {
    if (!subscription->closing) subscription->sink->give_back();
  }
}

void Subscriptions::fail_all(const Status& why) {
  connection_lost();
  const auto subscriptions = std::exchange(subscriptions_, {});
  for (const auto& [key, subscription] : subscriptions) subscription->sink->ended(why);
  for (const auto& done : std::exchange(quiet_waiters_, {})) done();
}

}  // namespace holdfast::client
