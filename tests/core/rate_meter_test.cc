#include "core/rate_meter.h"

#include <doctest/doctest.h>

namespace holdfast::broker {
namespace {

TEST_CASE("no rate is shown before two seconds are known") {
  RateMeter meter;
  CHECK(meter.per_second() == 0);
  meter.tick(1000);
  CHECK(meter.per_second() == 0);
  meter.tick(1500);
  CHECK(meter.per_second() == 500);
}

TEST_CASE("the rate is that of the seconds known so far, then of the last ten") {
  RateMeter meter;
  std::uint64_t total = 0;
  meter.tick(total);
  for (int second = 0; second < 4; ++second) meter.tick(total += 100);
  CHECK(meter.per_second() == 100);
  for (int second = 0; second < 10; ++second) meter.tick(total += 7);
  CHECK(meter.per_second() == 7);
  meter.tick(total += 17);
  CHECK(meter.per_second() == 8);
  for (int second = 0; second < 9; ++second) meter.tick(total);
  CHECK_FALSE(meter.is_still());
  meter.tick(total);
  CHECK(meter.per_second() == 0);
  CHECK(meter.is_still());
  meter.tick(++total);
  CHECK_FALSE(meter.is_still());
}

}  // namespace
}  // namespace holdfast::broker
