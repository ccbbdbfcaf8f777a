// For what must happen before a deadline, and what is to be seen at one: how long that has to be
// depends on the machine and on what else it does. So it is tried with a short one first, and with
// one twice as long until it is long enough. Where the code is wrong, none is.

#pragma once

#include <chrono>
#include <stdexcept>

namespace holdfast::test {

// Whether `attempt(deadline)` returns true for some deadline. Each attempt begins anew, and ends
// with false, or with a std::runtime_error as FakePeer and RawClient throw it (not within a CHECK,
// which would count it), when its deadline was too short.
template <typename Attempt>
bool holds_given_time(const Attempt& attempt) {
  constexpr std::chrono::milliseconds kFirst{20};
  constexpr std::chrono::milliseconds kLast{10'000};
  for (auto deadline = kFirst; deadline <= kLast; deadline *= 2) {
    try {
      if (attempt(deadline)) return true;
    } catch (const std::runtime_error&) {
    }
  }
  return false;
}

}  // namespace holdfast::test
