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

Result<std::vector<Delivery>> Receiver::receive(std::chrono::milliseconds wait) {
  const SteadyTime begun = std::chrono::steady_clock::now();
  const SteadyTime deadline = client_->deadline() + wait;
  client_->run_on_io([self = shared_from_this()](const Status& status) {
    if (!status.ok()) return self->ended(status);
    const std::uint64_t key = self->client_->subscriptions().add(self->options_, self);
    const std::lock_guard lock(self->mutex_);
    self->key_ = key;
    if (self->over_) self->client_->subscriptions().close(key);
  });
  const std::uint64_t answered_key = wait_for_first(begun + wait, deadline);
  Status heard = answered_key != 0 ? wait_for_coming(answered_key, deadline) : Status();
  if (answered_key != 0 && heard.ok()) heard = pause(answered_key, deadline);
  std::vector<Delivery> deliveries = take_all();
  std::unique_lock lock(mutex_);
  const std::uint64_t key = key_;  // one that comes only now finds that all is over, and closes
  lock.unlock();
  client_->run_on_io([client = client_, key](const Status& status) {
    if (status.ok() && key != 0) client->subscriptions().close(key);
  });
  lock.lock();
  if (!deliveries.empty()) return deliveries;
  if (!ended_.ok()) return ended_;
  if (answered_key == 0) return is_connection_lost_ ? no_connection(wait) : timed_out();
  if (!is_subscribed_) {
    return Status(ErrorCode::kConnectionLost,
                  fmt::format("The connection was lost while receiving from \"{}\": whether a "
                              "message is there is not known.",
                              options_.queue));
  }
  if (!heard.ok()) return heard;
  return deliveries;
}

std::uint64_t Receiver::wait_for_first(SteadyTime wait_over, SteadyTime deadline) {
  std::unique_lock lock(mutex_);
  changed_.wait_until(lock, wait_over, [this] { return !arrived_.empty() || !ended_.ok(); });
  has_waited_ = true;
  // From now on it is waited for an answer alone, and without a connection none comes in time. One
  // that is lost after this look is told of by connection_lost().
  is_connection_lost_ = !client_->connection_status().ok();
  const auto over = [this] { return answered_ || is_connection_lost_ || !ended_.ok(); };
  changed_.wait_until(lock, deadline, over);
  return answered_ ? key_ : 0;
}

Status Receiver::no_connection(std::chrono::milliseconds wait) const {
  return Status(ErrorCode::kConnectionLost,
                fmt::format("There was no connection after {} ms of receiving from \"{}\", so that "
                            "whether a message is there is not known: {}",
                            wait.count(), options_.queue, client_->connection_status().message()));
}

Status Receiver::wait_for_coming(std::uint64_t key, SteadyTime deadline) {
  const SteadyTime until = std::min(std::chrono::steady_clock::now() + kComingMax, deadline);
  for (auto interval = kComingInterval;; interval *= 2) {
    const auto over = [this] { return !arrived_.empty() || !ended_.ok() || !is_subscribed_; };
    {
      const std::lock_guard lock(mutex_);
      if (over()) return Status();
    }
    if (std::chrono::steady_clock::now() >= until) return Status();
    const Result<bool> coming = is_one_coming(key, deadline);
    if (!coming.ok()) return coming.status();
    if (!*coming) return Status();
    // Others may take it.
    std::unique_lock lock(mutex_);
    const SteadyTime next = std::chrono::steady_clock::now() + interval;
    changed_.wait_until(lock, std::min(next, until), over);
  }
}

Result<bool> Receiver::is_one_coming(std::uint64_t key, SteadyTime deadline) {
  const auto coming = std::make_shared<Call<Result<bool>>>();
  client_->run_on_io([client = client_, key, coming](const Status& status) {
    if (!status.ok()) return coming->finish(status);
    client->subscriptions().ask_for_coming(
        key, [coming](Result<bool> is) { coming->finish(std::move(is)); });
  });
  std::optional<Result<bool>> answer = coming->wait_until(deadline);
  if (answer.has_value()) return *std::move(answer);
  return timed_out();
}

Status Receiver::pause(std::uint64_t key, SteadyTime deadline) {
  const auto paused = std::make_shared<Call<bool>>();
  client_->run_on_io([client = client_, key, paused](const Status& status) {
    if (!status.ok()) return paused->finish(true);
    client->subscriptions().pause(key, [paused] { paused->finish(true); });
  });
  return paused->wait_until(deadline).has_value() ? Status() : timed_out();
}

Status Receiver::timed_out() const {
  return client_->timed_out(fmt::format("Receiving from \"{}\"", options_.queue));
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
    is_subscribed_ = !answered_ || !has_waited_;
    answered_ = true;
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
    is_connection_lost_ = true;
    arrived_.clear();
  }
  changed_.notify_all();  // for who waits for its answer, or for what the broker had
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
