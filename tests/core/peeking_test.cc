// Peeks, redrives and discards of many sessions at once.

#include <doctest/doctest.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "support/core_fixture.h"

namespace holdfast::broker {
namespace {

constexpr std::uint64_t kFirstSession = 10;

// A core whose reads a test answers one by one, with the queues "q", of ten messages, and "dead",
// of ten dead letters, each of which takes a read.
struct Readers {
  static constexpr std::uint64_t kLetters = 10;

  explicit Readers(std::uint64_t sessions) {
    f.create_queue("q");
    for (int i = 0; i < 10; ++i) f.publish("q", "m" + std::to_string(i));
    f.create_queue("dead", {{QueueSetting::kMaxAttempts, 1}});
    const std::string large(1 << 20, 'x');
    for (std::uint64_t i = 0; i < kLetters; ++i) f.publish("dead", std::to_string(i), large);
    const ConsumerId consumer = f.subscribe("dead", kLetters, 600'000);
    f.settle(consumer, wire::SettleKind_Reject, {{1, kLetters}});
    REQUIRE(letters() == kLetters);
    for (std::uint64_t n = 0; n < sessions; ++n) {
      f.core().session_opened(SessionId(kFirstSession + n), "curious");
    }
  }
  std::uint64_t letters() { return f.report("dead.dead").messages; }
  void peek(std::uint64_t session, std::uint64_t correlation) {
    const SessionId id(kFirstSession + session);
    f.core().peek({{id, correlation, Waits::kPeek}, "q", 0, 3}, f.now());
    take();
  }
  enum class Move { kDryRun, kRedrive, kDiscard };
  // Of all dead letters, or of these.
  void move(std::uint64_t session, std::uint64_t correlation, Move how,
            const std::vector<Sequence>& sequences = {}) {
    LettersRequest request;
    request.asker = {SessionId(kFirstSession + session), correlation, Waits::kBulk};
    request.queue = "dead";
    request.sequences = sequences;
    request.all = sequences.empty();
    request.limit = request.all ? 256 : 0;
    request.dry_run = how == Move::kDryRun;
    if (how == Move::kDiscard) {
      f.core().discard(request, f.now());
    } else {
      f.core().redrive(request, f.now());
    }
    take();
  }
  void close(std::uint64_t session) {
    f.core().session_closed(SessionId(kFirstSession + session), f.now());
    take();
  }
  // Answers the reads that were asked for, and returns how many those were.
  std::size_t read() {
    CHECK(asked.size() <= 2);
    const std::vector<FetchRequest> now = std::exchange(asked, {});
    for (const FetchRequest& request : now) f.core().fetched(f.store.fetch(request), f.now());
    take();
    return now.size();
  }
  std::size_t read_all() {
    std::size_t reads = 0;
    while (!asked.empty()) reads += read();
    return reads;
  }
  void commit() {
    for (;;) {
      const Batches batches = f.core().take_batches(f.now());
      if (batches.empty()) return;
      f.core().committed(f.store.apply(batches), f.now());
      take();
    }
  }
  void take() {
    Effects& effects = f.core().effects();
    asked.insert(asked.end(), effects.fetches.begin(), effects.fetches.end());
    for (const Effect& effect : effects.said) {
      if (const auto* end = std::get_if<ListEndReply>(&effect)) {
        CHECK(end->count == 3);
        ended.emplace_back(end->to.session.value - kFirstSession, end->to.correlation);
      } else if (const auto* moved = std::get_if<MovedReply>(&effect)) {
        ended.emplace_back(moved->to.session.value - kFirstSession, moved->to.correlation);
      } else if (const auto* error = std::get_if<ErrorReply>(&effect)) {
        CHECK(error->error.code() == ErrorCode::kQueueNotFound);
        ++refused;
      }
    }
    effects.clear();
  }
  bool has_ended(std::uint64_t session, std::uint64_t correlation) const {
    return std::find(ended.begin(), ended.end(), std::pair(session, correlation)) != ended.end();
  }

  CoreFixture f;
  std::vector<FetchRequest> asked;
  std::vector<std::pair<std::uint64_t, std::uint64_t>> ended;  // session and correlation
  int refused = 0;
};

TEST_CASE("peeks of many sessions were all read for at once") {
  Readers readers(100);
  for (std::uint64_t session = 0; session < 100; ++session) {
    for (std::uint64_t n = 1; n <= 4; ++n) readers.peek(session, n);
  }
  CHECK(readers.read_all() == 400);
  REQUIRE(readers.ended.size() == 400);
  // Each session has its turn, and its peeks are in their order.
  std::map<std::uint64_t, std::uint64_t> peeks_of;
  for (const auto& [session, correlation] : readers.ended) {
    CHECK(correlation == ++peeks_of[session]);
  }
  for (std::size_t i = 100; i < 400; i += 100) {
    CHECK(readers.ended[i].second <= readers.ended[i - 100].second + 1);
  }
}

TEST_CASE("peeks that wait go with their session, or are refused with their queue") {
  Readers readers(3);
  for (std::uint64_t session = 0; session < 3; ++session) {
    for (std::uint64_t n = 1; n <= 4; ++n) readers.peek(session, n);
  }
  readers.f.core().session_closed(SessionId(kFirstSession), readers.f.now());
  readers.f.core().session_closed(SessionId(kFirstSession + 1), readers.f.now());
  SUBCASE("of the session") {
    CHECK(readers.read_all() <= 6);  // two were under way
    CHECK(readers.ended.size() == 4);
    readers.peek(2, 5);
    CHECK(readers.read() == 1);
  }
  SUBCASE("of the queue") {
    readers.f.core().delete_queue({SessionId(kFirstSession + 2), 9}, "q", readers.f.now());
    CHECK(readers.read_all() == 2);
    CHECK(readers.ended.empty());
    CHECK(readers.refused == 0);  // the deletion is not durable yet
    readers.commit();
    CHECK(readers.refused >= 4);
  }
}

using Move = Readers::Move;

TEST_CASE("redrives and discards of many sessions were all read for at once, before all else") {
  Readers readers(100);
  for (std::uint64_t session = 0; session < 100; ++session) {
    readers.move(session, 1, Move::kDryRun);
    readers.move(session, 2, Move::kDryRun, {1, 2});
    readers.peek(session, 3);
    readers.move(session, 4, Move::kDiscard, {77});
  }
  CHECK(readers.read_all() == 100 * (Readers::kLetters + 2 + 1));
  readers.commit();
  CHECK(readers.ended.size() == 400);
  CHECK(readers.letters() == Readers::kLetters);
}

TEST_CASE("a session that asked for little waited for all that others had asked for") {
  Readers readers(3);
  for (std::uint64_t n = 1; n <= 4; ++n) {
    readers.move(0, n, Move::kDryRun);
    readers.move(1, n, Move::kDryRun);
  }
  SUBCASE("with a peek") { readers.peek(2, 1); }
  SUBCASE("with a redrive") { readers.move(2, 1, Move::kDryRun, {5}); }
  std::size_t reads = 0;
  while (!readers.has_ended(2, 1) && !readers.asked.empty()) reads += readers.read();
  CHECK(reads <= 6);
}

TEST_CASE("redrives and discards went on after their session was gone") {
  Readers readers(2);
  Move how = Move::kRedrive;
  SUBCASE("of a redrive") {}
  SUBCASE("of a discard") { how = Move::kDiscard; }
  readers.move(0, 1, how);
  readers.move(0, 2, how);
  readers.move(0, 3, Move::kDryRun);
  readers.move(0, 4, how, {9});
  CHECK(readers.read() == 2);
  readers.close(0);
  CHECK(readers.read_all() <= 2);  // they were under way
  readers.commit();
  CHECK(readers.ended.empty());
  // What was moved stays moved, and the others stay.
  CHECK(readers.letters() == Readers::kLetters - 1);
  readers.move(1, 1, how, {10});
  CHECK(readers.read() == 1);
  readers.commit();
  CHECK(readers.has_ended(1, 1));
}

TEST_CASE("redrives that wait for commits keep their place, and hold up nobody else's peeks") {
  Readers readers(4);
  readers.move(0, 1, Move::kRedrive);
  CHECK(readers.read_all() == 8);  // then commits lag
  readers.move(1, 1, Move::kRedrive, {10});
  readers.move(2, 1, Move::kDryRun);
  readers.peek(3, 1);
  CHECK(readers.read_all() == 1);
  REQUIRE(readers.has_ended(3, 1));
  SUBCASE("and go on after one") {
    for (std::uint64_t n = 2; n <= 4; ++n) readers.peek(3, n);
    readers.commit();
    CHECK(readers.read() == 2);  // the third peek comes after those that waited
    REQUIRE(readers.asked.size() == 2);
    CHECK(readers.asked[0].from == 9);
    CHECK(readers.asked[1].from == 10);
    readers.read_all();
    readers.commit();
    for (std::uint64_t session = 0; session < 3; ++session) CHECK(readers.has_ended(session, 1));
    CHECK(readers.letters() == 0);
  }
  SUBCASE("and end with their session") {
    readers.close(0);
    readers.close(2);
    readers.commit();
    CHECK(readers.read_all() == 1);
    readers.commit();
    CHECK(readers.ended.size() == 2);
    CHECK(readers.letters() == 1);
  }
  SUBCASE("and are refused with their queue") {
    readers.f.core().delete_queue({SessionId(kFirstSession + 3), 9}, "dead", readers.f.now());
    readers.commit();
    CHECK(readers.asked.empty());
    CHECK(readers.refused == 3);
  }
}

}  // namespace
}  // namespace holdfast::broker
