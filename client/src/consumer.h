// A running consumer: the threads that call the program's handler, and what waits for them.

#pragma once

#include <condition_variable>
#include <deque>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

#include "call.h"
#include "holdfast/client.h"
#include "subscriptions.h"

namespace holdfast {

// Any thread; the sink's methods are called on the I/O thread.
class ConsumerImpl : public client::DeliverySink,
                     public std::enable_shared_from_this<ConsumerImpl> {
 public:
  using OnEnded = std::function<void(const Status&)>;

  ConsumerImpl(std::shared_ptr<ClientImpl> client, Handler handler, OnEnded on_ended);
  ~ConsumerImpl() override;

  // Waits until the broker has answered; then starts the threads.
  Status start(client::SubscribeOptions options, std::uint32_t concurrency);
  // Takes no more, and gives back what no handler has begun.
  void begin_stop();
  void stop();
  // After begin_stop(). From one of them, or on the I/O thread: waits for none.
  void wait_for_handlers();
  // Whether a handler of it is calling.
  bool on_own_thread() const;
  Status status() const;

  void subscribed() override;
  void deliver(std::vector<std::shared_ptr<DeliveryImpl>> deliveries) override;
  void give_back() override;
  void connection_lost() override;
  void ended(const Status& why) override;

 private:
  Status start_threads(std::uint32_t concurrency);
  void wait_for_on_ended();
  void run();
  void handle(std::shared_ptr<DeliveryImpl> delivery);
  std::deque<std::shared_ptr<DeliveryImpl>> take_ready();

  const std::shared_ptr<ClientImpl> client_;
  const Handler handler_;
  const OnEnded on_ended_;
  const std::shared_ptr<client::Call<Status>> started_;

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<std::shared_ptr<DeliveryImpl>> ready_;  // not yet handed to the handler
  std::size_t arrived_since_look_ = 0;               // since ready_ was rid of what was lost
  std::uint64_t key_ = 0;                            // of the subscription; 0: none
  bool stopping_ = false;
  bool is_telling_ = false;  // on_ended_ runs
  Status status_;

  bool was_subscribed_ = false;  // the I/O thread's

  std::mutex joining_;  // held while threads_ are joined
  std::vector<std::thread> threads_;
};

}  // namespace holdfast
