// Peeks of many sessions at once.

#include <doctest/doctest.h>

#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "support/core_fixture.h"

namespace holdfast::broker {
namespace {

constexpr std::uint64_t kFirstSession = 10;

// A core with a queue of ten messages, whose reads a test answers one by one.
struct Peeking {
  explicit Peeking(std::uint64_t sessions) {
    f.create_queue("q");
    for (int i = 0; i < 10; ++i) f.publish("q", "m" + std::to_string(i));
    for (std::uint64_t n = 0; n < sessions; ++n) {
      f.core().session_opened(SessionId(kFirstSession + n), "curious");
    }
  }
  void peek(std::uint64_t session, std::uint64_t correlation) {
    const SessionId id(kFirstSession + session);
    f.core().peek({{id, correlation, Waits::kPeek}, "q", 0, 3}, f.now());
    take();
  }
  // Answers the reads that were asked for, and returns how many those were.
  std::size_t read() {
    const std::vector<FetchRequest> now = std::exchange(asked, {});
    for (const FetchRequest& request : now) f.core().fetched(f.store.fetch(request), f.now());
    take();
    return now.size();
  }
  void commit() {
    const Batches batches = f.core().take_batches(f.now());
    f.core().committed(f.store.apply(batches), f.now());
    take();
  }
  void take() {
    Effects& effects = f.core().effects();
    asked.insert(asked.end(), effects.fetches.begin(), effects.fetches.end());
    for (const Effect& effect : effects.said) {
      if (const auto* end = std::get_if<ListEndReply>(&effect)) {
        CHECK(end->count == 3);
        ended.emplace_back(end->to.session.value - kFirstSession, end->to.correlation);
      } else if (const auto* error = std::get_if<ErrorReply>(&effect)) {
        CHECK(error->error.code() == ErrorCode::kQueueNotFound);
        ++refused;
      }
    }
    effects.clear();
  }

  CoreFixture f;
  std::vector<FetchRequest> asked;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> ended;  // session and correlation
  int refused = 0;
};

TEST_CASE("peeks of many sessions were all read for at once") {
  Peeking peeking(100);
  for (std::uint64_t session = 0; session < 100; ++session) {
    for (std::uint64_t n = 1; n <= 4; ++n) peeking.peek(session, n);
  }
  std::size_t reads = 0;
  while (!peeking.asked.empty()) {
    CHECK(peeking.asked.size() <= 2);
    reads += peeking.read();
  }
  CHECK(reads == 400);
  REQUIRE(peeking.ended.size() == 400);
  // Each session has its turn, and its peeks are in their order.
  std::map<std::uint64_t, std::uint64_t> peeks_of;
  for (const auto& [session, correlation] : peeking.ended) {
    CHECK(correlation == ++peeks_of[session]);
  }
  for (std::size_t i = 100; i < 400; i += 100) {
    CHECK(peeking.ended[i].second <= peeking.ended[i - 100].second + 1);
  }
}

TEST_CASE("peeks that wait go with their session, or are refused with their queue") {
  Peeking peeking(3);
  for (std::uint64_t session = 0; session < 3; ++session) {
    for (std::uint64_t n = 1; n <= 4; ++n) peeking.peek(session, n);
  }
  peeking.f.core().session_closed(SessionId(kFirstSession), peeking.f.now());
  peeking.f.core().session_closed(SessionId(kFirstSession + 1), peeking.f.now());
  std::size_t reads = 0;
  SUBCASE("of the session") {
    while (!peeking.asked.empty()) reads += peeking.read();
    CHECK(reads <= 6);  // two were under way
    CHECK(peeking.ended.size() == 4);
    peeking.peek(2, 5);
    CHECK(peeking.read() == 1);
  }
  SUBCASE("of the queue") {
    peeking.f.core().delete_queue({SessionId(kFirstSession + 2), 9}, "q", peeking.f.now());
    while (!peeking.asked.empty()) reads += peeking.read();
    CHECK(reads == 2);
    CHECK(peeking.ended.empty());
    CHECK(peeking.refused == 0);  // the deletion is not durable yet
    peeking.commit();
    CHECK(peeking.refused >= 4);
  }
}

}  // namespace
}  // namespace holdfast::broker
