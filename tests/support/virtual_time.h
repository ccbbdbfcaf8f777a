// Time that passes as a test wants it.

#pragma once

#include <algorithm>
#include <optional>

#include "core/core.h"

namespace holdfast::test {

// When the core wants to be woken; neither before `now` nor after `end`.
inline MonotonicTime next_stop(const broker::Core& core, Now now, MonotonicTime end) {
  const std::optional<MonotonicTime> wake = core.next_wake();
  return wake ? std::clamp(*wake, now.monotonic, end) : end;
}

// Both clocks go on until `when`.
inline void set_clock(MonotonicTime when, Now* now) {
  now->wall += when - now->monotonic;
  now->monotonic = when;
}

}  // namespace holdfast::test
