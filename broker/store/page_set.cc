#include "store/page_set.h"

#include <algorithm>
#include <bit>

namespace holdfast::broker {

std::pair<std::uint64_t, std::uint64_t> PageSet::longest_runs() const {
  std::uint64_t longest = 0;
  std::uint64_t second = 0;
  std::uint64_t run = 0;  // up to here
  const auto end_run = [&] {
    second = std::max(second, std::min(run, longest));
    longest = std::max(longest, run);
    run = 0;
  };
  for (std::uint64_t word : words_) {
    // Its bits from the lowest on: pages of the set, then pages that are not.
    for (std::uint64_t left = kWordBits; left > 0;) {
      const auto in = static_cast<std::uint64_t>(std::countr_one(word));
      run += in;
      left -= in;
      if (left == 0) break;
      end_run();
      word >>= in;
      const auto out = std::min(left, static_cast<std::uint64_t>(std::countr_zero(word)));
      left -= out;
      if (left > 0) word >>= out;
    }
  }
  end_run();
  return {longest, second};
}

}  // namespace holdfast::broker
