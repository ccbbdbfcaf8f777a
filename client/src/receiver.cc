#include "receiver.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "client_impl.h"

namespace holdfast::client {

namespace {

// How long a delivery that the broker has may take to come, beyond what the program waits; and how
// long the first pause is before it is asked again whether it has one.
constexpr std::chrono::milliseconds kComingMax{2'000};
constexpr std::chrono::milliseconds kComingInterval{20};

}  // namespace

Result<std::vector<Delivery>> Receiver::receive(const SubscribeOptions& options,
                                                std::chrono::milliseconds wait) {
  client_->run_on_io([self = shared_from_this(), options](const Status& status) {
    if (!status.ok()) return self->ended(status);
    const std::uint64_t key = self->client_->subscriptions().add(options, self);
    const std::lock_guard lock(self->mutex_);
    self->key_ = key;
    if (self->over_) self->client_->subscriptions().close(key);
  });

  std::unique_lock lock(mutex_);
  const bool answered =
      changed_.wait_until(lock, client_->deadline(), [this] { return answered_ || !ended_.ok(); });
  if (answered && ended_.ok()) {
    changed_.wait_for(lock, wait, [this] { return !arrived_.empty() || !ended_.ok(); });
  }
  const std::uint64_t answered_key = answered ? key_ : 0;
  lock.unlock();
  if (answered_key != 0) {
    wait_for_coming(answered_key);
    pause(answered_key);
  }
  std::vector<Delivery> deliveries = take_all();
  lock.lock();
  const std::uint64_t key = key_;  // one that comes only now finds that all is over, and closes
  lock.unlock();
  client_->run_on_io([client = client_, key](const Status& status) {
    if (status.ok() && key != 0) client->subscriptions().close(key);
  });
  if (!answered) {
    return client_->timed_out(fmt::format("Receiving from \"{}\"", options.queue));
  }
  lock.lock();
  if (deliveries.empty() && !ended_.ok()) return ended_;
  if (deliveries.empty() && !is_subscribed_) {
    return Status(ErrorCode::kConnectionLost,
                  fmt::format("The connection was lost while receiving from \"{}\": whether a "
                              "message is there is not known.",
                              options.queue));
  }
  return deliveries;
}

void Receiver::wait_for_coming(std::uint64_t key) {
  const SteadyTime until = std::chrono::steady_clock::now() + kComingMax;
  for (auto interval = kComingInterval;; interval *= 2) {
    const auto over = [this] { return !arrived_.empty() || !ended_.ok() || !is_subscribed_; };
    {
      const std::lock_guard lock(mutex_);
      if (over()) return;
    }
    // Others may take it.
    if (std::chrono::steady_clock::now() >= until || !is_one_coming(key)) return;
    std::unique_lock lock(mutex_);
    const SteadyTime next = std::chrono::steady_clock::now() + interval;
    changed_.wait_until(lock, std::min(next, until), over);
  }
}

bool Receiver::is_one_coming(std::uint64_t key) {
  const auto coming = std::make_shared<Call<bool>>();
  client_->run_on_io([client = client_, key, coming](const Status& status) {
    if (!status.ok()) return coming->finish(false);
    client->subscriptions().ask_for_coming(key, [coming](bool is) { coming->finish(is); });
  });
  return coming->wait_until(client_->deadline()).value_or(false);
}

void Receiver::pause(std::uint64_t key) {
  const auto paused = std::make_shared<Call<bool>>();
  client_->run_on_io([client = client_, key, paused](const Status& status) {
    if (!status.ok()) return paused->finish(true);
    client->subscriptions().pause(key, [paused] { paused->finish(true); });
  });
  paused->wait_until(client_->deadline());
}

std::vector<Delivery> Receiver::take_all() {
  std::vector<std::shared_ptr<DeliveryImpl>> arrived;
  {
    const std::lock_guard lock(mutex_);
    over_ = true;
    arrived = std::exchange(arrived_, {});
  }
  std::vector<Delivery> deliveries;
  deliveries.reserve(arrived.size());
  for (auto& delivery : arrived)
    deliveries.push_back(DeliveryImpl::make_handle(std::move(delivery)));
  return deliveries;
}

void Receiver::subscribed() {
  {
    const std::lock_guard lock(mutex_);
    answered_ = is_subscribed_ = true;
  }
  changed_.notify_all();
}

void Receiver::deliver(std::vector<std::shared_ptr<DeliveryImpl>> deliveries) {
  {
    const std::lock_guard lock(mutex_);
    if (!over_) {
      arrived_.insert(arrived_.end(), std::make_move_iterator(deliveries.begin()),
                      std::make_move_iterator(deliveries.end()));
      deliveries.clear();
    }
  }
  changed_.notify_all();
  for (const auto& delivery : deliveries) delivery->release();
}

// What has arrived is the program's already, or will be in a moment.
void Receiver::give_back() {}

void Receiver::connection_lost() {
  {
    const std::lock_guard lock(mutex_);
    is_subscribed_ = false;
    arrived_.clear();
  }
  changed_.notify_all();  // for who waits for what the broker had
}

void Receiver::ended(const Status& why) {
  {
    const std::lock_guard lock(mutex_);
    ended_ = why;
    arrived_.clear();
  }
  changed_.notify_all();
}

}  // namespace holdfast::client
