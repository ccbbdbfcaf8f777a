// Time as the broker reckons with it. Nothing here reads a clock: main and net do, and hand a Now
// to whoever needs one; tests hand over whatever time they like.

#pragma once

#include <chrono>
#include <cstdint>

namespace holdfast {

using Milliseconds = std::chrono::milliseconds;

// Leases and backoff: never jumps, meaningless after a restart.
struct MonotonicClock {
  using duration = Milliseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<MonotonicClock>;
  static constexpr bool is_steady = true;
};
using MonotonicTime = MonotonicClock::time_point;

// Milliseconds since 1970-01-01T00:00Z as the system's clock shows it; may jump.
struct WallClock {
  using duration = Milliseconds;
  using rep = duration::rep;
  using period = duration::period;
  using time_point = std::chrono::time_point<WallClock>;
  static constexpr bool is_steady = false;
};
using WallTime = WallClock::time_point;

struct Now {
  MonotonicTime monotonic;
  WallTime wall;
};

constexpr std::uint64_t to_unix_ms(WallTime time) {
  return static_cast<std::uint64_t>(time.time_since_epoch().count());
}
constexpr WallTime from_unix_ms(std::uint64_t unix_ms) {
  return WallTime(Milliseconds(static_cast<std::int64_t>(unix_ms)));
}

}  // namespace holdfast
