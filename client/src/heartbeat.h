// The heartbeat of a connection that stands: whether the broker still says something, and whether
// it is time to say something to it.
//
// A client whose thread was held up (a stopped process, a slow callback) may find what the broker
// said only after it has looked at the clock. So a broker is silent when it was found so twice:
// between two looks the sockets are read.
//
// Told the time, in ms of one monotonic clock.

#pragma once

#include <algorithm>
#include <cstdint>

#include "schema/field_limits.h"

namespace holdfast::client {

class Heartbeat {
 public:
  enum class Due { kNothing, kPing, kSilent };

  // After the Welcome.
  void set_interval(std::uint64_t interval_ms) { interval_ms_ = interval_ms; }
  // How long after one look the next one is.
  std::uint64_t look_ms() const { return std::max<std::uint64_t>(1, interval_ms_ / 4); }

  void heard(std::uint64_t now_ms) {
    heard_at_ms_ = now_ms;
    overdue_ = false;
  }
  void said(std::uint64_t now_ms) { said_at_ms_ = now_ms; }

  Due look(std::uint64_t now_ms) {
    if (silent_ms(now_ms) >= kHeartbeatsMissedMax * interval_ms_) {
      if (overdue_) return Due::kSilent;
      overdue_ = true;
    }
    return now_ms - said_at_ms_ + interval_ms_ / 4 >= interval_ms_ ? Due::kPing : Due::kNothing;
  }
  std::uint64_t silent_ms(std::uint64_t now_ms) const { return now_ms - heard_at_ms_; }

 private:
  std::uint64_t interval_ms_ = 0;
  std::uint64_t said_at_ms_ = 0;
  std::uint64_t heard_at_ms_ = 0;
  bool overdue_ = false;  // it was found silent once
};

}  // namespace holdfast::client
