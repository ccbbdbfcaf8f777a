// A set of page numbers, one bit each, that tells its longest runs.
//
// Free pages are counted while commits wait. Sorting their numbers took longest of that; marking
// them takes no order.

#pragma once

#include <cstdint>
#include <utility>
#include <vector>

namespace holdfast::broker {

class PageSet {
 public:
  // Of pages below `end_page`.
  explicit PageSet(std::uint64_t end_page)
      : end_page_(end_page), words_((end_page + kWordBits - 1) / kWordBits) {}

  // False: there is no such page.
  bool insert(std::uint64_t page) {
    if (page >= end_page_) return false;
    words_[page / kWordBits] |= std::uint64_t{1} << (page % kWordBits);
    return true;
  }

  // How many pages the longest and the next longest run of neighbours have; 0: there is none.
  std::pair<std::uint64_t, std::uint64_t> longest_runs() const;

 private:
  static constexpr std::uint64_t kWordBits = 64;

  std::uint64_t end_page_;
  std::vector<std::uint64_t> words_;
};

}  // namespace holdfast::broker
