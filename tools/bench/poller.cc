#include "bench/poller.h"

#include <sys/epoll.h>
#include <unistd.h>

#include <array>
#include <ctime>
#include <utility>

namespace holdfast::bench {

namespace {
constexpr int kEventsMax = 128;
}

Poller::Poller() : epoll_(::epoll_create1(EPOLL_CLOEXEC)) {}
Poller::~Poller() { ::close(epoll_); }

void Poller::add(Link& link, std::function<void()> on_progress) {
  entries_.push_back({&link, std::move(on_progress), false});
  epoll_event event{};
  event.events = EPOLLIN;
  event.data.ptr = &entries_.back();
  ::epoll_ctl(epoll_, EPOLL_CTL_ADD, link.descriptor(), &event);
}

void Poller::go_on_all() {
  for (Entry& entry : entries_) go_on(entry);
}

bool Poller::turn(std::uint64_t timeout_ns) {
  constexpr std::uint64_t kSecond = 1'000'000'000;
  const timespec timeout{static_cast<time_t>(timeout_ns / kSecond),
                         static_cast<long>(timeout_ns % kSecond)};
  std::array<epoll_event, kEventsMax> events{};
  const int count = ::epoll_pwait2(epoll_, events.data(), kEventsMax, &timeout, nullptr);
  for (int i = 0; i < count; ++i) {
    const epoll_event& event = events[static_cast<std::size_t>(i)];
    Entry& entry = *static_cast<Entry*>(event.data.ptr);
    if ((event.events & ~static_cast<std::uint32_t>(EPOLLOUT)) != 0) entry.link->receive();
    go_on(entry);
  }
  return count > 0;
}

void Poller::go_on(Entry& entry) {
  entry.on_progress();
  entry.link->flush();
  if (entry.link->has_output() == entry.wants_write) return;
  entry.wants_write = !entry.wants_write;
  epoll_event event{};
  event.events = entry.wants_write ? EPOLLIN | EPOLLOUT : EPOLLIN;
  event.data.ptr = &entry;
  ::epoll_ctl(epoll_, EPOLL_CTL_MOD, entry.link->descriptor(), &event);
}

Status Poller::status() const {
  for (const Entry& entry : entries_) {
    if (!entry.link->status().ok()) return entry.link->status();
  }
  return Status();
}

}  // namespace holdfast::bench
