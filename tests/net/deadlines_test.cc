#include "net/deadlines.h"

#include <doctest/doctest.h>

namespace holdfast::broker {
namespace {

MonotonicTime at(std::int64_t ms) { return MonotonicTime(Milliseconds(1'000'000 + ms)); }

// A connection whose handshake is done at 0, with a heartbeat of ten seconds.
struct Established {
  DeadlineOptions options;
  Deadlines deadlines{options, at(-100)};
  Established() { deadlines.established(Milliseconds(10'000), at(0)); }
};

TEST_CASE("a connection without Hello misses its handshake after five seconds") {
  const DeadlineOptions options;
  Deadlines deadlines(options, at(0));
  CHECK(deadlines.next() == at(5'000));
  CHECK(deadlines.check(at(4'999)) == Due::kNothing);
  CHECK(deadlines.check(at(5'000)) == Due::kHandshakeMissed);
  SUBCASE("bytes that are no Hello do not put it off") {
    deadlines.received(false, 1, at(4'000));
    CHECK(deadlines.check(at(5'000)) == Due::kHandshakeMissed);
  }
}

TEST_CASE("a heartbeat is due when nothing was sent for one interval") {
  Established one;
  CHECK(one.deadlines.check(at(9'999)) == Due::kNothing);
  CHECK(one.deadlines.check(at(10'000)) == Due::kHeartbeat);
  SUBCASE("what is sent puts it off") {
    one.deadlines.output(100, false, at(6'000));
    CHECK(one.deadlines.check(at(15'999)) == Due::kNothing);
    CHECK(one.deadlines.next() == at(16'000));
    CHECK(one.deadlines.check(at(16'000)) == Due::kHeartbeat);
  }
  SUBCASE("pending output is a heartbeat on its way") {
    one.deadlines.output(0, true, at(6'000));
    CHECK(one.deadlines.check(at(20'000)) == Due::kNothing);
  }
}

TEST_CASE("a peer that is silent for three intervals counts as dead") {
  Established one;
  one.deadlines.output(100, false, at(29'000));
  CHECK(one.deadlines.check(at(29'999)) == Due::kNothing);
  CHECK(one.deadlines.check(at(30'000)) == Due::kPeerSilent);
  SUBCASE("a byte puts it off") {
    one.deadlines.received(true, 0, at(29'000));
    one.deadlines.output(200, false, at(58'000));
    CHECK(one.deadlines.check(at(58'999)) == Due::kNothing);
    CHECK(one.deadlines.check(at(59'000)) == Due::kPeerSilent);
  }
  SUBCASE("while the broker does not read, silence does not count") {
    one.deadlines.reading(false, at(20'000));
    one.deadlines.output(200, false, at(99'000));
    CHECK(one.deadlines.check(at(100'000)) == Due::kNothing);
    one.deadlines.reading(true, at(100'000));
    one.deadlines.output(300, false, at(125'000));
    CHECK(one.deadlines.check(at(129'999)) == Due::kNothing);
    CHECK(one.deadlines.check(at(130'000)) == Due::kPeerSilent);
  }
}

TEST_CASE("a frame that was begun must be complete after ten seconds") {
  Established one;
  one.deadlines.received(false, 1, at(1'000));
  CHECK(one.deadlines.next() == at(10'000));
  one.deadlines.output(1, false, at(9'000));
  CHECK(one.deadlines.next() == at(11'000));
  SUBCASE("trickling bytes of the same frame do not put it off") {
    one.deadlines.received(false, 1, at(10'900));
    CHECK(one.deadlines.check(at(11'000)) == Due::kFrameUnfinished);
  }
  SUBCASE("its end does") {
    one.deadlines.received(true, 0, at(10'900));
    CHECK(one.deadlines.check(at(11'000)) == Due::kNothing);
  }
  SUBCASE("64 KiB more of it do: a large message on a slow line was never complete in time") {
    one.deadlines.received(false, kFrameStepBytes, at(10'900));
    CHECK(one.deadlines.check(at(11'000)) == Due::kFrameUnfinished);
    one.deadlines.received(false, 1 + kFrameStepBytes, at(10'950));
    CHECK(one.deadlines.check(at(20'949)) != Due::kFrameUnfinished);
    CHECK(one.deadlines.check(at(20'950)) == Due::kFrameUnfinished);
  }
  SUBCASE("the next frame has its own ten seconds") {
    one.deadlines.received(true, 1, at(10'900));
    CHECK(one.deadlines.check(at(11'000)) == Due::kNothing);
    one.deadlines.output(2, false, at(18'000));
    CHECK(one.deadlines.check(at(20'899)) == Due::kNothing);
    CHECK(one.deadlines.check(at(20'900)) == Due::kFrameUnfinished);
  }
  SUBCASE("time in which the broker does not read does not count") {
    one.deadlines.reading(false, at(2'000));
    CHECK(one.deadlines.check(at(11'000)) == Due::kNothing);
    one.deadlines.reading(true, at(12'000));
    one.deadlines.output(2, false, at(18'000));
    CHECK(one.deadlines.check(at(21'999)) == Due::kNothing);
    CHECK(one.deadlines.check(at(22'000)) == Due::kFrameUnfinished);
  }
}

TEST_CASE("a peer that takes nothing of what is pending is too slow after thirty seconds") {
  Established one;
  one.deadlines.received(true, 0, at(10'000));
  one.deadlines.output(0, true, at(10'000));
  one.deadlines.received(true, 0, at(39'000));
  CHECK(one.deadlines.check(at(39'999)) == Due::kNothing);
  CHECK(one.deadlines.check(at(40'000)) == Due::kPeerNotReading);
  SUBCASE("one byte taken puts it off") {
    one.deadlines.output(1, true, at(39'000));
    CHECK(one.deadlines.check(at(40'000)) == Due::kNothing);
    one.deadlines.received(true, 0, at(68'000));
    CHECK(one.deadlines.check(at(69'000)) == Due::kPeerNotReading);
  }
  SUBCASE("more output without progress does not") {
    one.deadlines.output(0, true, at(39'000));
    CHECK(one.deadlines.check(at(40'000)) == Due::kPeerNotReading);
  }
}

TEST_CASE("an ending connection lingers for one second, whatever happens") {
  Established one;
  one.deadlines.output(0, true, at(1'000));
  one.deadlines.lingering(at(2'000));
  one.deadlines.received(true, 1, at(2'900));
  CHECK(one.deadlines.next() == at(3'000));
  CHECK(one.deadlines.check(at(2'999)) == Due::kNothing);
  CHECK(one.deadlines.check(at(3'000)) == Due::kLingerOver);
}

}  // namespace
}  // namespace holdfast::broker
