// What a harness and the shim in the broker share, in a mapped file: how slow the disk is, and how
// often it was. No longer than the run; both sides are built together.

#pragma once

#include <atomic>
#include <cstdint>

namespace holdfast::hostile {

inline constexpr char kSlowDiskVariable[] = "HOLDFAST_SLOW_DISK";  // names the file

struct SlowDiskControl {
  // Every flush takes at least as long. A flush under way ends early when it is lowered.
  std::atomic<std::uint32_t> delay_us;
  std::atomic<std::uint32_t> delayed_now;
  std::atomic<std::uint64_t> delayed_total;
};
static_assert(std::atomic<std::uint64_t>::is_always_lock_free);

}  // namespace holdfast::hostile
