#include "consumer.h"

#include <fmt/format.h>

#include <utility>

#include "client_impl.h"

namespace holdfast {

using client::SubscribeOptions;

namespace {

// Whose handler this thread calls. An id would not tell: a later thread may get that of one that
// ended.
thread_local const ConsumerImpl* handler_thread_of = nullptr;

}  // namespace

ConsumerImpl::ConsumerImpl(std::shared_ptr<ClientImpl> client, Handler handler, OnEnded on_ended)
    : client_(std::move(client)),
      handler_(std::move(handler)),
      on_ended_(std::move(on_ended)),
      started_(std::make_shared<client::Call<Status>>()) {}

// The last owner may be one of its own threads, which cannot wait for itself.
ConsumerImpl::~ConsumerImpl() {
  for (std::thread& thread : threads_) {
    if (!thread.joinable()) continue;
    if (thread.get_id() == std::this_thread::get_id()) {
      thread.detach();
    } else {
      thread.join();
    }
  }
}

Status ConsumerImpl::start(SubscribeOptions options, std::uint32_t concurrency) {
  const std::string queue = options.queue;
  client_->run_on_io([self = shared_from_this(), options](const Status& status) {
    if (!status.ok()) return self->started_->finish(status);
    const std::uint64_t key = self->client_->subscriptions().add(options, self);
    const std::lock_guard lock(self->mutex_);
    self->key_ = key;
    if (self->stopping_) self->client_->subscriptions().close(key);
  });
  std::optional<Status> answer = started_->wait_until(client_->deadline());
  if (!answer.has_value()) answer = client_->timed_out(fmt::format("Consuming \"{}\"", queue));
  if (!answer->ok()) {
    stop();
    return *answer;
  }
  if (Status started = start_threads(concurrency); !started.ok()) {
    stop();
    return started;
  }
  return Status();
}

Status ConsumerImpl::start_threads(std::uint32_t concurrency) {
  const std::lock_guard joining(joining_);
  const std::lock_guard lock(mutex_);
  for (std::uint32_t i = 0; i < concurrency && !stopping_; ++i) {
    Result<std::thread> thread =
        client::start_quiet_thread([self = shared_from_this()] { self->run(); });
    if (!thread.ok()) return thread.status();
    threads_.push_back(*std::move(thread));
  }
  return Status();
}

bool ConsumerImpl::on_own_thread() const { return handler_thread_of == this; }

std::deque<std::shared_ptr<DeliveryImpl>> ConsumerImpl::take_ready() {
  const std::lock_guard lock(mutex_);
  return std::exchange(ready_, {});
}

// Of two that do so, each goes on only when the broker is about to be asked.
void ConsumerImpl::begin_stop() {
  std::uint64_t key = 0;
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
    key = key_;
  }
  changed_.notify_all();
  for (const auto& delivery : take_ready()) delivery->release();
  // For a start() that still waits.
  started_->finish(Status(ErrorCode::kCancelled, "The consumer was stopped."));
  if (key != 0) {
    client_->run_on_io([client = client_, key](const Status& status) {
      if (status.ok()) client->subscriptions().close(key);
    });
  }
}

void ConsumerImpl::stop() {
  if (client_->is_forked()) {
    for (std::thread& thread : threads_) {
      if (thread.joinable()) thread.detach();
    }
    return;
  }
  begin_stop();
  wait_for_on_ended();
  if (const auto turn = client_->turn_to_wait(); turn.has_value()) wait_for_handlers();
}

// It may use what the program destroys next.
void ConsumerImpl::wait_for_on_ended() {
  if (client_->on_io_thread()) return;
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return !is_telling_; });
}

void ConsumerImpl::wait_for_handlers() {
  if (on_own_thread() || client_->on_io_thread()) return;
  const std::lock_guard joining(joining_);
  for (std::thread& thread : threads_) {
    if (thread.joinable()) thread.join();
  }
}

Status ConsumerImpl::status() const {
  if (Status checked = client_->check_process(); !checked.ok()) return checked;
  const std::lock_guard lock(mutex_);
  return status_;
}

// ---- the handler's threads ----

void ConsumerImpl::run() {
  handler_thread_of = this;
  for (;;) {
    std::shared_ptr<DeliveryImpl> delivery;
    {
      std::unique_lock lock(mutex_);
      changed_.wait(lock, [this] { return stopping_ || !ready_.empty(); });
      if (stopping_) return;
      delivery = std::move(ready_.front());
      ready_.pop_front();
    }
    // A lease that ended, or a connection that was lost, before the work began: it comes again.
    if (delivery->is_held()) handle(std::move(delivery));
  }
}

void ConsumerImpl::handle(std::shared_ptr<DeliveryImpl> delivery) {
  delivery->handler_begins();
  std::optional<std::string> failure;
  try {
    handler_(DeliveryImpl::make_handle(delivery));
  } catch (const std::exception& thrown) {
    failure = thrown.what();
  } catch (...) {
    failure = "The handler threw something that is not a std::exception.";
  }
  delivery->handler_ended(failure);
}

// ---- the sink ----

void ConsumerImpl::subscribed() {
  was_subscribed_ = true;
  started_->finish(Status());
}

void ConsumerImpl::deliver(std::vector<std::shared_ptr<DeliveryImpl>> deliveries) {
  bool stopping = false;
  {
    const std::lock_guard lock(mutex_);
    stopping = stopping_;
    arrived_since_look_ += deliveries.size();
    // What lost its lease while the handlers were busy has given its credit back, and comes again.
    // Not looked for with each read: very many may wait, and the handlers wait for the mutex.
    if (2 * arrived_since_look_ >= ready_.size()) {
      std::erase_if(ready_, [](const auto& delivery) { return !delivery->is_held(); });
      arrived_since_look_ = 0;
    }
    if (!stopping) ready_.insert(ready_.end(), deliveries.begin(), deliveries.end());
  }
  if (stopping) {
    for (const auto& delivery : deliveries) delivery->release();
  } else if (deliveries.size() == 1) {
    changed_.notify_one();
  } else {
    changed_.notify_all();
  }
}

void ConsumerImpl::give_back() {
  for (const auto& delivery : take_ready()) delivery->release();
}

void ConsumerImpl::connection_lost() { take_ready(); }

void ConsumerImpl::ended(const Status& why) {
  take_ready();
  bool tell = false;
  {
    const std::lock_guard lock(mutex_);
    status_ = why;
    tell = is_telling_ = was_subscribed_ && !stopping_ && on_ended_;
  }
  started_->finish(why);
  if (!tell) return;
  on_ended_(why);
  {
    const std::lock_guard lock(mutex_);
    is_telling_ = false;
  }
  changed_.notify_all();
}

// ---- the public object ----

Consumer::Consumer(std::shared_ptr<ConsumerImpl> impl) : impl_(std::move(impl)) {}
Consumer::Consumer(Consumer&&) noexcept = default;

Consumer& Consumer::operator=(Consumer&& other) noexcept {
  if (this == &other) return *this;
  if (impl_ != nullptr) impl_->stop();
  impl_ = std::move(other.impl_);
  return *this;
}

Consumer::~Consumer() {
  if (impl_ != nullptr) impl_->stop();
}

void Consumer::stop() {
  if (impl_ != nullptr) impl_->stop();
}

Status Consumer::status() const {
  if (impl_ != nullptr) return impl_->status();
  return Status(ErrorCode::kInvalidArgument,
                "This Consumer was moved from. Use the one that it was moved to.");
}

}  // namespace holdfast
