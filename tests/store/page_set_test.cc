#include "store/page_set.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <set>
#include <utility>
#include <vector>

#include "support/test_seed.h"

namespace holdfast::broker {
namespace {

using Runs = std::pair<std::uint64_t, std::uint64_t>;

Runs runs_of(std::uint64_t end_page, const std::set<std::uint64_t>& pages) {
  PageSet set(end_page);
  for (const std::uint64_t page : pages) CHECK(set.insert(page));
  return set.longest_runs();
}

TEST_CASE("the longest runs of pages are found across words, at the ends and when all are in") {
  CHECK(runs_of(0, {}) == Runs{0, 0});
  CHECK(runs_of(200, {}) == Runs{0, 0});
  CHECK(runs_of(200, {0}) == Runs{1, 0});
  CHECK(runs_of(200, {62, 63, 64, 65, 130, 131}) == Runs{4, 2});
  CHECK(runs_of(128, {126, 127, 0}) == Runs{2, 1});
  std::set<std::uint64_t> all;
  for (std::uint64_t page = 0; page < 192; ++page) all.insert(page);
  CHECK(runs_of(192, all) == Runs{192, 0});
  all.erase(64);
  CHECK(runs_of(192, all) == Runs{127, 64});
}

TEST_CASE("two runs of the same length are the longest and the next longest") {
  CHECK(runs_of(100, {3, 4, 5, 90, 91, 92, 40}) == Runs{3, 3});
}

TEST_CASE("a page behind the end is not in the set") {
  for (const std::uint64_t end_page : {std::uint64_t{64}, std::uint64_t{100}}) {
    PageSet set(end_page);
    CHECK_FALSE(set.insert(end_page));
    CHECK_FALSE(set.insert(~std::uint64_t{0}));
    CHECK(set.longest_runs() == Runs{0, 0});
    CHECK(set.insert(end_page - 1));
    CHECK(set.longest_runs() == Runs{1, 0});
  }
}

TEST_CASE("the runs of random pages are those of their sorted list") {
  std::mt19937 random(test::test_seed());
  for (int trial = 0; trial < 200; ++trial) {
    CAPTURE(trial);
    const std::uint64_t end_page = 1 + random() % 500;
    const std::uint64_t share = 1 + random() % 99;
    std::set<std::uint64_t> pages;
    for (std::uint64_t page = 0; page < end_page; ++page) {
      if (random() % 100 < share) pages.insert(page);
    }
    std::vector<std::uint64_t> lengths{0, 0};
    std::uint64_t last = ~std::uint64_t{1};
    for (const std::uint64_t page : pages) {
      if (page == last + 1) {
        ++lengths.back();
      } else {
        lengths.push_back(1);
      }
      last = page;
    }
    std::sort(lengths.rbegin(), lengths.rend());
    CHECK(runs_of(end_page, pages) == Runs{lengths[0], lengths[1]});
  }
}

}  // namespace
}  // namespace holdfast::broker
