// One Client::receive(): a subscription that lives until what it received is settled.
//
// Its credit is `count`, and is taken back as soon as the first delivery is there: what arrives
// until the broker has agreed belongs to the result, and nothing arrives afterwards.
//
// Without a connection it is waited for one as long as for the first delivery, and no longer.
//
// With the credit the broker takes back what waits for a commit; so before that it is asked whether
// anything does. That nothing came is said when it has answered; if it does not in time, or the
// connection is lost meanwhile, nobody knows, and the error says so.

#pragma once

#include <chrono>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <vector>

#include "call.h"
#include "holdfast/client.h"
#include "subscriptions.h"

namespace holdfast::client {

class Receiver : public DeliverySink, public std::enable_shared_from_this<Receiver> {
 public:
  Receiver(std::shared_ptr<ClientImpl> client, SubscribeOptions options)
      : client_(std::move(client)), options_(std::move(options)) {}

  // Called once, not on the I/O thread. Returns at the latest when the client's timeout and `wait`
  // have passed.
  Result<std::vector<Delivery>> receive(std::chrono::milliseconds wait);

  void subscribed() override;
  void deliver(std::vector<std::shared_ptr<DeliveryImpl>> deliveries) override;
  void give_back() override;
  void connection_lost() override;
  void ended(const Status& why) override;

 private:
  // Waits for a delivery until `wait_over`, then for the answer to the Subscribe while there is a
  // connection. The key; 0: it was not answered.
  std::uint64_t wait_for_first(SteadyTime wait_over, SteadyTime deadline);
  // Waits on while the broker has a delivery that has not come yet.
  Status wait_for_coming(std::uint64_t key, SteadyTime deadline);
  Result<bool> is_one_coming(std::uint64_t key, SteadyTime deadline);
  // Returns when the broker will deliver no more.
  Status pause(std::uint64_t key, SteadyTime deadline);
  std::vector<Delivery> take_all();
  Status timed_out() const;
  Status no_connection(std::chrono::milliseconds wait) const;

  const std::shared_ptr<ClientImpl> client_;
  const SubscribeOptions options_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<std::shared_ptr<DeliveryImpl>> arrived_;
  std::uint64_t key_ = 0;
  bool answered_ = false;    // the first Subscribe was
  bool has_waited_ = false;  // `wait` is over
  // On the connection that stands; since the end of the wait, or the first answer if that came
  // later, on one.
  bool is_subscribed_ = false;
  bool is_connection_lost_ = false;  // since the end of the wait
  bool over_ = false;                // the result was taken
  Status ended_;
};

}  // namespace holdfast::client
