#include "mailbox.h"

#include <fmt/format.h>

#include <utility>

namespace holdfast::client {

Status Mailbox::closed_status() const {
  return Status(ErrorCode::kCancelled, "The client was closed.");
}

void Mailbox::added(std::unique_lock<std::mutex>& lock) {
  const bool wake = std::exchange(sleeping_, false);
  lock.unlock();
  if (wake) wake_();
}

Status Mailbox::add(Task& task) {
  std::unique_lock lock(mutex_);
  if (closed_) return closed_status();
  contents_.tasks.push_back(std::move(task));
  added(lock);
  return Status();
}

Status Mailbox::add(SettleItem& item) {
  std::unique_lock lock(mutex_);
  if (closed_) return closed_status();
  contents_.settles.push_back(std::move(item));
  added(lock);
  return Status();
}

Status Mailbox::add(Publish& publish, bool may_wait, std::optional<SteadyTime> deadline) {
  const std::size_t bytes = publish.publication.bytes();
  std::unique_lock lock(mutex_);
  const auto fits = [&] {
    return publishes_stopped_ || unconfirmed_bytes_ == 0 ||
           unconfirmed_bytes_ + bytes <= unconfirmed_bytes_max_;
  };
  if (!fits()) {
    if (!may_wait) {
      return Status(ErrorCode::kLimitReached,
                    fmt::format("{} bytes of messages are unconfirmed; the client's limit is {}. "
                                "Publish again when some are confirmed.",
                                unconfirmed_bytes_, unconfirmed_bytes_max_));
    }
    ++waiting_for_room_;
    bool there_is_room = true;
    if (deadline.has_value()) {
      there_is_room = room_.wait_until(lock, *deadline, fits);
    } else {
      room_.wait(lock, fits);
    }
    --waiting_for_room_;
    if (!there_is_room) {
      return Status(ErrorCode::kTimeout,
                    fmt::format("{} bytes of messages stayed unconfirmed; the client's limit is "
                                "{}.",
                                unconfirmed_bytes_, unconfirmed_bytes_max_));
    }
  }
  if (publishes_stopped_) return closed_status();
  unconfirmed_bytes_ += bytes;
  contents_.publishes.push_back(std::move(publish));
  added(lock);
  return Status();
}

void Mailbox::stop_publishes() {
  {
    const std::lock_guard lock(mutex_);
    publishes_stopped_ = true;
  }
  room_.notify_all();
}

bool Mailbox::pause(std::chrono::milliseconds duration) {
  std::unique_lock lock(mutex_);
  return !room_.wait_for(lock, duration, [this] { return publishes_stopped_; });
}

void Mailbox::take(Contents* contents, std::size_t completed_bytes) {
  bool notify = false;
  {
    const std::lock_guard lock(mutex_);
    std::swap(*contents, contents_);
    unconfirmed_bytes_ -= completed_bytes;
    notify = completed_bytes > 0 && waiting_for_room_ > 0;
  }
  if (notify) room_.notify_all();
}

bool Mailbox::try_sleep() {
  const std::lock_guard lock(mutex_);
  sleeping_ = contents_.empty();
  return sleeping_;
}

void Mailbox::close(Contents* contents) {
  {
    const std::lock_guard lock(mutex_);
    closed_ = publishes_stopped_ = true;
    std::swap(*contents, contents_);
  }
  room_.notify_all();
}

}  // namespace holdfast::client
