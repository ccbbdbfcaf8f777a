// What callers leave for the I/O thread, and when that has to be woken.
//
// A caller takes the lock once, adds its item, and wakes the loop only if it sleeps: a publisher
// that keeps the loop busy makes no system call. The I/O thread takes everything in one go per
// turn.
//
// Publishes that wait for room get it in the order in which they came, and none goes before them:
// else a large one would find none as long as small ones come.

#pragma once

#include <condition_variable>
#include <deque>
#include <functional>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "call.h"
#include "publisher.h"
#include "subscriptions.h"

namespace holdfast::client {

using Task = std::function<void(const Status&)>;

class Mailbox {
 public:
  struct Publish {
    std::string queue;
    Publication publication;
  };
  struct Contents {
    std::vector<Publish> publishes;
    std::vector<SettleItem> settles;
    std::vector<Task> tasks;
    bool empty() const { return publishes.empty() && settles.empty() && tasks.empty(); }
  };

  // `wake` is called, under no lock, when something was added and the loop sleeps.
  Mailbox(std::size_t unconfirmed_bytes_max, std::function<void()> wake)
      : unconfirmed_bytes_max_(unconfirmed_bytes_max), wake_(std::move(wake)) {}

  // ---- any thread ----
  // Each leaves its argument untouched when it refuses. kCancelled: closed.
  Status add(Task& task);
  Status add(SettleItem& item);
  // Waits while too many bytes are unconfirmed or others wait, until the deadline if there is one
  // (kTimeout), or not at all if `may_wait` is false (kLimitReached). One message always fits.
  Status add(Publish& publish, bool may_wait, std::optional<SteadyTime> deadline);
  // Publishes are refused with kCancelled from now on, also those that wait.
  void stop_publishes();
  // Waits this long, or until stop_publishes(): then false.
  bool pause(std::chrono::milliseconds duration);

  // ---- the I/O thread ----
  // Everything that was added; `completed_bytes` of messages have left the client.
  void take(Contents* contents, std::size_t completed_bytes);
  // True: nothing is left, the next add() wakes the loop.
  bool try_sleep();
  // From now on everything is refused; what was added before goes to `contents`.
  void close(Contents* contents);

 private:
  // A publish that waits for room. Lives on its caller's stack.
  struct Waiting {
    std::size_t bytes = 0;
    bool has_room = false;  // counted as unconfirmed, and no longer in waiting_for_room_
  };

  Status closed_status() const;
  bool fits(std::size_t bytes) const {
    return unconfirmed_bytes_ == 0 || unconfirmed_bytes_ + bytes <= unconfirmed_bytes_max_;
  }
  Status wait_for_room(std::unique_lock<std::mutex>& lock, std::size_t bytes,
                       std::optional<SteadyTime> deadline);
  // True: somebody got some, and is to be notified.
  bool give_room();
  void added(std::unique_lock<std::mutex>& lock);

  const std::size_t unconfirmed_bytes_max_;
  const std::function<void()> wake_;
  std::mutex mutex_;
  std::condition_variable room_;
  Contents contents_;
  std::size_t unconfirmed_bytes_ = 0;
  std::deque<Waiting*> waiting_for_room_;  // in the order in which they came
  bool sleeping_ = false;
  bool publishes_stopped_ = false;
  bool closed_ = false;
};

}  // namespace holdfast::client
