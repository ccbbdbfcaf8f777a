// Waits for any of the links and lets its owner go on after each read. One thread.

#pragma once

#include <cstdint>
#include <deque>
#include <functional>

#include "bench/link.h"

namespace holdfast::bench {

class Poller {
 public:
  Poller();
  ~Poller();
  Poller(const Poller&) = delete;
  Poller& operator=(const Poller&) = delete;

  // `link` outlives the poller's last turn. `on_progress` may fill the link's output.
  void add(Link& link, std::function<void()> on_progress);
  // Lets all owners go on and sends what they want to send.
  void go_on_all();
  // False: nothing happened within `timeout_ns`.
  bool turn(std::uint64_t timeout_ns);
  // The first failure of a link.
  Status status() const;

 private:
  struct Entry {
    Link* link = nullptr;
    std::function<void()> on_progress;
    bool wants_write = false;
  };
  void go_on(Entry& entry);

  int epoll_;
  std::deque<Entry> entries_;
};

}  // namespace holdfast::bench
