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
  if (publishes_stopped_) return closed_status();
  if (waiting_for_room_.empty() && fits(bytes)) {
    unconfirmed_bytes_ += bytes;
  } else if (!may_wait) {
    return Status(
        ErrorCode::kLimitReached,
        fmt::format("{} bytes of messages are unconfirmed, and {} publishes wait; the "
                    "client's limit is {} bytes. Publish again when some are confirmed.",
                    unconfirmed_bytes_, waiting_for_room_.size(), unconfirmed_bytes_max_));
  } else if (Status waited = wait_for_room(lock, bytes, deadline); !waited.ok()) {
    return waited;
  }
  contents_.publishes.push_back(std::move(publish));
  added(lock);
  return Status();
}

Status Mailbox::wait_for_room(std::unique_lock<std::mutex>& lock, std::size_t bytes,
                              std::optional<SteadyTime> deadline) {
  Waiting own{bytes};
  waiting_for_room_.push_back(&own);
  const auto over = [&] { return own.has_room || publishes_stopped_; };
  if (deadline.has_value()) {
    room_.wait_until(lock, *deadline, over);
  } else {
    room_.wait(lock, over);
  }
  if (!own.has_room) {
    std::erase(waiting_for_room_, &own);
    if (give_room()) room_.notify_all();  // those behind it may need less
  }
  if (publishes_stopped_) return closed_status();
  if (own.has_room) return Status();
  return Status(ErrorCode::kTimeout,
                fmt::format("{} bytes of messages stayed unconfirmed; the client's limit is {}.",
                            unconfirmed_bytes_, unconfirmed_bytes_max_));
}

bool Mailbox::give_room() {
  bool given = false;
  while (!waiting_for_room_.empty() && fits(waiting_for_room_.front()->bytes)) {
    Waiting& first = *waiting_for_room_.front();
    waiting_for_room_.pop_front();
    unconfirmed_bytes_ += first.bytes;
    first.has_room = given = true;
  }
  return given;
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
    notify = give_room();
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
