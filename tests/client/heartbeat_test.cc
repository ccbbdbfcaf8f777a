#include "heartbeat.h"

#include <doctest/doctest.h>

namespace holdfast::client {
namespace {

constexpr std::uint64_t kInterval = 10'000;

// A connection that has just got its Welcome.
struct Standing : Heartbeat {
  Standing() {
    set_interval(kInterval);
    said(now_ms);
    heard(now_ms);
  }
  // What all looks find until `until_ms` is reached: the last of them if none is kSilent.
  Due look_until(std::uint64_t until_ms) {
    Due due = Due::kNothing;
    while (now_ms < until_ms && due != Due::kSilent) due = look(now_ms += look_ms());
    return due;
  }

  std::uint64_t now_ms = 1'000'000;
};

TEST_CASE_FIXTURE(Standing, "a broker that says nothing for three intervals is silent") {
  const std::uint64_t heard_at_ms = now_ms;
  CHECK(look_until(heard_at_ms + 3 * kInterval) != Due::kSilent);
  CHECK(look_until(heard_at_ms + 4 * kInterval) == Due::kSilent);
  CHECK(silent_ms(now_ms) == 3 * kInterval + look_ms());
}

TEST_CASE_FIXTURE(Standing, "a client that was held up itself looks once more for its broker") {
  now_ms += 60 * kInterval;
  CHECK(look(now_ms) != Due::kSilent);
  SUBCASE("and finds what it said meanwhile") {
    heard(now_ms);
    CHECK(look(now_ms += look_ms()) != Due::kSilent);
    // The doubt is over: it is heard of again or found silent twice.
    now_ms += 60 * kInterval;
    CHECK(look(now_ms) != Due::kSilent);
    CHECK(look(now_ms += look_ms()) == Due::kSilent);
  }
  SUBCASE("and finds nothing") { CHECK(look(now_ms += look_ms()) == Due::kSilent); }
}

TEST_CASE_FIXTURE(Standing, "a client that has nothing to say says Ping within an interval") {
  const std::uint64_t said_at_ms = now_ms;
  while (look(now_ms += look_ms()) == Due::kNothing) continue;
  CHECK(now_ms > said_at_ms + kInterval / 2);
  CHECK(now_ms <= said_at_ms + kInterval);
  said(now_ms);
  CHECK(look(now_ms += look_ms()) == Due::kNothing);
}

TEST_CASE_FIXTURE(Standing, "the shortest interval has looks as well") {
  set_interval(1);
  CHECK(look_ms() == 1);
}

}  // namespace
}  // namespace holdfast::client
