// The subscriptions of one client: what it has asked to be delivered, what it holds, and how that
// is settled.
//
// Happy path: add() asks the broker; its deliveries go to the subscription's sink, those of one
// read together; settle() sends the settles of one turn as ranges; leases are extended at a third
// of their length while a delivery is held.
//
// Failures: when the connection is lost, everything held is lost and the subscription is asked for
// again. A delivery that arrives damaged is nacked. A subscription that the broker no longer knows
// is asked for again; if its queue is gone, it ends.
//
// End: close() stops new deliveries (credit 0), gives back those that still arrive, and
// unsubscribes once everything held is settled, because unsubscribing loses what is held; and once
// nothing is left whose lease ended and which the program may still ack.
//
// Belongs to the I/O thread.

#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <unordered_map>
#include <vector>

#include "delivery.h"
#include "requests.h"
#include "schema/sequence_ranges.h"

namespace holdfast::client {

// Where deliveries go. Called on the I/O thread; must not block.
class DeliverySink {
 public:
  virtual ~DeliverySink() = default;
  virtual void subscribed() = 0;
  virtual void deliver(std::vector<std::shared_ptr<DeliveryImpl>> deliveries) = 0;
  // The broker drains: what has not been started is to be released.
  virtual void give_back() = 0;
  // What was delivered is lost; what has not been started is to be forgotten. Also before it is
  // subscribed.
  virtual void connection_lost() = 0;
  // There will be no more deliveries. Not called after close().
  virtual void ended(const Status& why) = 0;
};

struct SubscribeOptions {
  std::string queue;
  std::string consumer_name;
  std::uint32_t credit_messages = 0;
  std::uint64_t credit_bytes = 0;
  std::uint32_t lease_ms = 0;
  bool extend_leases = true;
};

struct SettleItem {
  std::shared_ptr<DeliveryImpl> delivery;
  wire::SettleKind kind = wire::SettleKind_Ack;
  std::string reason;
  std::int64_t delay_ms = -1;
  Delivery::SettleDone done;  // may be empty
};

class Subscriptions {
 public:
  // Each delivery keeps `client` alive, which owns all this: so it is asked for when needed.
  Subscriptions(Requests& requests, std::function<std::shared_ptr<ClientImpl>()> client)
      : requests_(requests), client_(std::move(client)) {}

  // A key for the calls below.
  std::uint64_t add(SubscribeOptions options, std::shared_ptr<DeliverySink> sink);
  // No new deliveries; `done` is called once none can arrive any more.
  void pause(std::uint64_t key, std::function<void()> done);
  void close(std::uint64_t key);
  // Asks whether there is a delivery for this subscription that has not come yet, because it waits
  // for a commit or to be read from disk. False as well if it is not subscribed at the moment.
  void ask_for_coming(std::uint64_t key, std::function<void(Result<bool>)> done);

  // The program has let go of a delivery whose lease was lost.
  void late_ack_given_up(std::uint64_t key);

  void settle(std::vector<SettleItem> items);
  void extend(const std::shared_ptr<DeliveryImpl>& delivery, std::uint32_t lease_ms,
              std::uint64_t now_ms, std::function<void(const Status&)> done);

  // False: the frame is malformed in a way that breaks the conversation.
  bool on_deliver(const Frame& frame);
  void on_lease_lost(const Frame& frame);
  void on_consumer_ended(const Frame& frame);
  // Hands what was delivered to the sinks.
  void read_done();

  void connected(std::uint64_t now_ms);
  void connection_lost();
  void draining();
  void fail_all(const Status& why);

  // Does what is due; the time at which there will be something to do, 0: never.
  std::uint64_t advance(std::uint64_t now_ms);
  bool holds_nothing() const { return held_count_ == 0; }
  // Calls `done` once no settle is under way and nothing can arrive for what was closed: before the
  // end of a turn in which that is so. So what arrived last is given back, too.
  void when_quiet(std::function<void()> done) { quiet_waiters_.push_back(std::move(done)); }

 private:
  enum class Stage { kUnsubscribed, kSubscribing, kSubscribed };
  struct Subscription {
    std::uint64_t key = 0;
    SubscribeOptions options;
    std::shared_ptr<DeliverySink> sink;
    Stage stage = Stage::kUnsubscribed;
    bool was_subscribed = false;
    bool closing = false;
    bool paused = false;         // the broker has taken the credit of 0
    std::uint64_t consumer = 0;  // the broker's number for it; 0: none
    std::uint32_t lease_ms = 0;
    std::uint64_t retry_at_ms = 0;
    std::uint64_t extend_at_ms = 0;
    std::map<std::uint64_t, std::shared_ptr<DeliveryImpl>> held;  // by sequence
    std::vector<std::shared_ptr<DeliveryImpl>> arrived;           // for the sink
    std::vector<std::weak_ptr<DeliveryImpl>> late;                // whose lease was lost
  };
  using Group = std::shared_ptr<std::vector<SettleItem>>;

  bool is_quiet() const;
  Subscription* find(std::uint64_t key);
  Subscription* find_consumer(std::uint64_t consumer);
  // The subscription that the delivery came to, if it came on this connection.
  Subscription* find_holder(const DeliveryImpl& delivery);
  DeliveryOrigin origin_of(const Subscription& subscription) const {
    return {connection_number_, subscription.key, subscription.consumer};
  }
  void forget_consumer(Subscription& subscription);
  void subscribe(Subscription& subscription);
  void subscribed(std::uint64_t key, const wire::Subscribed& answer);
  void subscribe_failed(std::uint64_t key, const Status& why);
  void end(Subscription& subscription, const Status& why);
  void finish_if_settled(Subscription& subscription);
  void ask_for_starting(const Subscription& subscription, std::function<void(Result<bool>)> done);
  void send_credit(const Subscription& subscription, std::uint32_t messages,
                   std::function<void(const Status&)> done);
  void send_extensions(Subscription& subscription);
  void send_extend(std::uint64_t key, std::uint64_t consumer, const SequenceRanges& ranges,
                   std::uint32_t lease_ms, std::function<void(const Status&)> done);
  void send_settle(Group group, const SequenceRanges& ranges);
  void settle_finished(const Group& group, const wire::Settled* settled, const Status& failure);
  void unknown_to_broker(std::uint64_t key, std::uint64_t consumer);
  void hold(Subscription& subscription, std::shared_ptr<DeliveryImpl> delivery);
  void release_held(Subscription& subscription, std::uint64_t sequence,
                    const DeliveryImpl* delivery);
  // What is held is lost in this way.
  void lose_held(Subscription& subscription, void (DeliveryImpl::*lost)());
  void lose_lease(Subscription& subscription, const std::shared_ptr<DeliveryImpl>& delivery);
  Status not_found(const DeliveryImpl& delivery) const;
  void nack_damaged(Subscription& subscription, std::uint64_t sequence, const Status& why);

  Requests& requests_;
  std::function<std::shared_ptr<ClientImpl>()> client_;
  std::unordered_map<std::uint64_t, std::unique_ptr<Subscription>> subscriptions_;
  std::unordered_map<std::uint64_t, Subscription*> by_consumer_;
  std::uint64_t next_key_ = 1;
  std::uint64_t now_ms_ = 0;
  std::size_t held_count_ = 0;
  std::size_t settles_under_way_ = 0;
  std::uint64_t connection_number_ = 0;  // the broker's numbers for consumers are a connection's
  bool connected_ = false;
  bool draining_ = false;
  std::vector<std::uint64_t> arrived_at_;  // subscriptions with deliveries for their sinks
  std::vector<std::function<void()>> quiet_waiters_;
};

}  // namespace holdfast::client
