// How often something happened per second, over the last ten seconds. Fed with a running total once
// a second, as long as it is not still; what was told before it was still stands.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>

namespace holdfast::broker {

class RateMeter {
 public:
  // Called once a second with the total so far.
  void tick(std::uint64_t total) {
    totals_[next_ % totals_.size()] = total;
    ++next_;
  }
  // Nothing happened in any of the seconds that it shows.
  bool is_still() const {
    return next_ > totals_.size() && newest() == totals_[next_ % totals_.size()];
  }
  double per_second() const {
    if (next_ < 2) return 0;
    const std::size_t seconds = next_ < totals_.size() ? next_ - 1 : totals_.size() - 1;
    const std::uint64_t oldest = totals_[(next_ - 1 - seconds) % totals_.size()];
    return static_cast<double>(newest() - oldest) / static_cast<double>(seconds);
  }

 private:
  std::uint64_t newest() const { return totals_[(next_ - 1) % totals_.size()]; }

  std::array<std::uint64_t, 11> totals_{};
  std::size_t next_ = 0;
};

}  // namespace holdfast::broker
