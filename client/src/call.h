// One synchronous call: a caller waits on its own thread for what the I/O thread answers.

#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <optional>
#include <utility>

namespace holdfast::client {

using SteadyTime = std::chrono::steady_clock::time_point;

// Shared by the caller and the answer's callback, because either may outlive the other. Any thread.
template <typename T>
class Call {
 public:
  // The first answer counts.
  void finish(T value) {
    {
      const std::lock_guard lock(mutex_);
      if (!value_.has_value()) value_ = std::move(value);
    }
    answered_.notify_all();
  }

  // Empty: the deadline passed first. Called once.
  std::optional<T> wait_until(SteadyTime deadline) {
    std::unique_lock lock(mutex_);
    answered_.wait_until(lock, deadline, [this] { return value_.has_value(); });
    if (!value_.has_value()) abandoned.store(true);
    return std::exchange(value_, std::nullopt);
  }

  // The caller has gone; what has not been sent for it need not be sent.
  std::atomic<bool> abandoned{false};

 private:
  std::mutex mutex_;
  std::condition_variable answered_;
  std::optional<T> value_;
};

}  // namespace holdfast::client
