#include <doctest/doctest.h>

#include "support/core_fixture.h"

namespace holdfast::broker {
namespace {

TEST_CASE("an ack is answered only after the commit that holds it, and is final") {
  CoreFixture f;
  f.create_queue("q");
  f.publish("q", "a");
  const ConsumerId consumer = f.subscribe("q", 10);
  f.hold_commits();
  f.ack(consumer, 1);
  CHECK(f.last_settled().settled == 0);
  f.release_commits();
  CHECK(f.last_settled().settled == 1);
  f.crash();
  f.subscribe("q", 10);
  CHECK(f.delivered().empty() == true);
  CHECK(f.report("q").messages == 0);
}

TEST_CASE("an ack that was not committed is forgotten by a crash") {
  CoreFixture f;
  f.create_queue("q");
  f.publish("q", "a");
  const ConsumerId consumer = f.subscribe("q", 10);
  f.hold_commits();
  f.ack(consumer, 1);
  f.crash();
  f.subscribe("q", 10);
  const auto again = f.deliveries();
  REQUIRE(again.size() == 1);
  CHECK(again[0].attempt == 2);
}

TEST_CASE("acks in any order survive a restart, and the blocks go when nothing of them is left") {
  CoreFixture f;
  f.create_queue("q");
  for (int i = 0; i < 20; ++i) f.publish("q", "m" + std::to_string(i));
  const ConsumerId consumer = f.subscribe("q", 100);
  for (const Sequence sequence : {20u, 3u, 7u, 5u, 6u, 19u}) f.ack(consumer, sequence);
  CHECK(f.store.block_count() == 14);
  f.restart();
  f.delivered();
  const ConsumerId next = f.subscribe("q", 100);
  const auto again = f.delivered();
  CHECK(again == std::vector<Sequence>{1, 2, 4, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18});
  for (const Sequence sequence : again) f.ack(next, sequence);
  CHECK(f.report("q").messages == 0);
  CHECK(f.report("q").floor == 20);
  CHECK(f.store.block_count() == 0);
  CHECK(f.store.ack_record_count() == 0);
  CHECK(f.store.retry_count() == 0);
}

TEST_CASE("one message left unsettled does not pin its successors on disk") {
  CoreFixture f;
  f.create_queue("q");
  f.publish("q", "straggler");
  const ConsumerId consumer = f.subscribe("q", 100, 12 * 3'600'000);
  f.delivered();
  for (int i = 0; i < 10'000; ++i) {
    f.publish("q", "m" + std::to_string(i));
    f.ack(consumer, static_cast<Sequence>(i) + 2);
  }
  CHECK(f.store.block_count() == 1);
  CHECK(f.store.ack_record_count() <= 3);
  CHECK(f.report("q").messages == 1);
  f.restart();
  CHECK(f.report("q").messages == 1);
  f.subscribe("q", 1);
  CHECK(f.deliveries().at(0).id == "straggler");
}

TEST_CASE("settling what one does not hold is refused and changes nothing") {
  CoreFixture f;
  f.create_queue("q");
  f.publish("q", "a");
  f.publish("q", "b");
  const ConsumerId one = f.subscribe("q", 1, 0, SessionId(2));
  f.subscribe("q", 1, 0, SessionId(3));
  f.settle(one, wire::SettleKind_Ack, {{1, 3}});
  CHECK(f.last_settled().settled == 1);
  CHECK(f.last_settled().refused == std::vector<SequenceRange>{{2, 3}});
  CHECK(f.report("q").messages == 1);
  f.ack(one, 1);
  CHECK(f.last_settled().settled == 0);
  CHECK(f.last_settled().refused == std::vector<SequenceRange>{{1, 1}});
}

TEST_CASE("a consumer of another session is not found") {
  CoreFixture f;
  f.create_queue("q");
  f.publish("q", "a");
  const ConsumerId one = f.subscribe("q", 1, 0, SessionId(2));
  f.subscribe("q", 1, 0, SessionId(3));
  f.settle(one, wire::SettleKind_Ack, {{1, 1}}, "", std::nullopt, SessionId(3));
  CHECK(f.last_error().code() == ErrorCode::kConsumerNotFound);
  CHECK(f.report("q").in_flight == 1);
}

TEST_CASE("a late ack is accepted while the message is unsettled, and reported as late") {
  CoreFixture f;
  f.create_queue("q");
  f.publish("q", "a");
  const ConsumerId consumer = f.subscribe("q", 10, 1'000);
  f.pass(Milliseconds(1'001));
  f.ack(consumer, 1);
  CHECK(f.last_settled().settled == 1);
  CHECK(f.last_settled().late == 1);
  CHECK(f.report("q").messages == 0);
  CHECK(f.report("q").counters.late_acks == 1);
  f.pass(Milliseconds(10'000));
  CHECK(f.delivered().size() == 1);
}

TEST_CASE("a late ack takes the message from its new holder, who is told") {
  CoreFixture f;
  f.create_queue("q");
  f.publish("q", "a");
  const ConsumerId slow = f.subscribe("q", 1, 1'000, SessionId(2));
  f.pass(Milliseconds(1'001));
  f.set_credit(slow, 0);
  const ConsumerId other = f.subscribe("q", 1, 60'000, SessionId(3));
  f.pass(Milliseconds(1'300));
  f.lost_leases();
  CHECK(f.report("q").in_flight == 1);
  f.ack(slow, 1);
  CHECK(f.last_settled().late == 1);
  const auto lost = f.lost_leases();
  REQUIRE(lost.size() == 1);
  CHECK(lost[0].consumer == other);
  CHECK(lost[0].cause == wire::Cause_SettledElsewhere);
  CHECK(f.report("q").messages == 0);
}

// Message 1 has two attempts, and failed in the one that a slow consumer had; another holds it for
// the last time, on a full disk.
struct LastAttempt : CoreFixture {
  LastAttempt() {
    create_queue("q", {{QueueSetting::kMaxAttempts, 2}});
    publish("q", "a");
    slow = subscribe("q", 1, 1'000);
    pass(Milliseconds(1'001));
    set_credit(slow, 0);
    last = subscribe("q", 1, 5'000);
    pass(Milliseconds(1'300));
    REQUIRE(delivered().size() == 2);
    no_room();
  }
  void no_room() {
    store.space.publishes_allowed = false;
    store.space.reserve_room_bytes = 0;
    tell_space();
  }
  void room() {
    store.space = MemoryStore().space;
    tell_space();
    run();
  }
  // What it came to, of the two things that it can have come to.
  void check_end(std::uint64_t dead_letters) {
    room();
    for (int i = 0; i < 2; ++i) {
      CHECK(report("q").messages == 0);
      CHECK(report("q").moving == 0);
      CHECK(report("q.dead").messages == dead_letters);
      crash();
    }
  }

  ConsumerId slow;
  ConsumerId last;
};

TEST_CASE_FIXTURE(LastAttempt,
                  "a late ack was refused on a full disk, and its message became a dead letter") {
  bool room_comes_first = false;
  SUBCASE("after its last lease had ended") { pass(Milliseconds(5'000)); }
  SUBCASE("after its last attempt was nacked") { nack(last, 1); }
  SUBCASE("with room before the ack was durable") {
    pass(Milliseconds(5'000));
    room_comes_first = true;
  }
  CHECK(report("q").moving == 1);
  hold_commits();
  ack(slow, 1);
  CHECK(last_settled().settled == 0);
  if (room_comes_first) room();
  release_commits();
  CHECK(last_settled().settled == 1);
  CHECK(last_settled().late == 1);
  CHECK(report("q").counters.acked == 1);
  CHECK(report("q").counters.late_acks == 1);
  CHECK(report("q").counters.dead_lettered == 0);
  CHECK(store.retry_count() == 0);
  check_end(0);
}

TEST_CASE_FIXTURE(LastAttempt, "a nack does not wait for a dead letter that was acked late") {
  room();
  edit_queue("q", {{QueueSetting::kMaxAttempts, 1}});
  publish("q", "b");
  set_credit(last, 2);
  no_room();
  settle(last, wire::SettleKind_Nack, {{1, 2}});
  CHECK(report("q").moving == 2);
  ack(slow, 1);
  CHECK(last_settled().late == 1);
  CHECK(report("q").moving == 1);
  room();
  CHECK(last_settled().settled == 2);
  CHECK(last_settled().late == 0);
  check_end(1);
}

TEST_CASE_FIXTURE(LastAttempt, "a late ack of a dead letter to be that a crash undid") {
  pass(Milliseconds(5'000));
  hold_commits();
  ack(slow, 1);
  crash();
  release_commits();
  CHECK(report("q").messages == 1);
  check_end(1);
}

TEST_CASE_FIXTURE(LastAttempt, "what was rejected is not acked late, for that was decided") {
  settle(last, wire::SettleKind_Reject, {{1, 1}});
  CHECK(report("q").moving == 1);
  ack(slow, 1);
  CHECK(last_settled().refused == std::vector<SequenceRange>{{1, 1}});
  CHECK(report("q").moving == 1);
  check_end(1);
}

TEST_CASE_FIXTURE(LastAttempt, "a dead letter that is not durable yet is not acked late") {
  room();
  hold_commits();
  pass(Milliseconds(5'000));
  CHECK(report("q").moving == 0);
  ack(slow, 1);
  CHECK(last_settled().refused.empty());
  release_commits();
  CHECK(last_settled().refused == std::vector<SequenceRange>{{1, 1}});
  check_end(1);
}

TEST_CASE("a message that is acked late while it is read to be moved is not moved") {
  CoreOptions options;
  options.cache_bytes_max = 1;
  CoreFixture f(options);
  f.create_queue("q", {{QueueSetting::kMaxAttempts, 1}});
  for (int i = 0; i < 10; ++i) f.publish("q", std::to_string(i));
  const ConsumerId consumer = f.subscribe("q", 10, 1'000);
  f.hold_fetches();
  f.settle(consumer, wire::SettleKind_Ack, {{3, 10}});
  f.pass(Milliseconds(1'001));
  CHECK(f.report("q").moving == 2);
  f.ack(consumer, 1);
  CHECK(f.last_settled().late == 1);
  f.release_fetches();
  f.run();
  CHECK(f.report("q").messages == 0);
  CHECK(f.report("q").counters.corrupt == 0);
  CHECK(f.report("q").counters.dead_lettered == 1);
  CHECK(f.dead_letters("q").size() == 1);
}

TEST_CASE("an ack by someone who never held the message is not a late ack") {
  CoreFixture f;
  f.create_queue("q");
  f.publish("q", "a");
  f.subscribe("q", 1, 1'000, SessionId(3));
  f.pass(Milliseconds(1'001));
  const ConsumerId stranger = f.subscribe("q", 0, 0, SessionId(2));
  f.ack(stranger, 1);
  CHECK(f.last_settled().settled == 0);
  CHECK(f.report("q").messages == 1);
}

TEST_CASE("backoff doubles from its minimum to its maximum, with at most a fifth of jitter") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kBackoffMin, 1'000}, {QueueSetting::kBackoffMax, 5'000}});
  f.publish("q", "a");
  const ConsumerId consumer = f.subscribe("q", 1);
  for (const int expected_ms : {1'000, 2'000, 4'000, 5'000, 5'000}) {
    f.delivered();
    f.nack(consumer, 1);
    const MonotonicTime from = f.now().monotonic;
    while (f.delivered().empty()) f.pass(Milliseconds(10));
    const auto waited_ms = (f.now().monotonic - from).count();
    CHECK(waited_ms >= expected_ms * 8 / 10);
    CHECK(waited_ms <= expected_ms * 12 / 10 + 10);
  }
}

TEST_CASE("a nack may name its own delay") {
  CoreFixture f;
  f.create_queue("q");
  f.publish("q", "a");
  const ConsumerId consumer = f.subscribe("q", 1);
  f.delivered();
  f.settle(consumer, wire::SettleKind_Nack, {{1, 1}}, "later", Milliseconds(77'000));
  f.pass(Milliseconds(76'999));
  CHECK(f.delivered().empty());
  f.pass(Milliseconds(1));
  CHECK(f.delivered().size() == 1);
}

TEST_CASE("a release costs no attempt and the message comes again at once") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxAttempts, 2}});
  f.publish("q", "a");
  const ConsumerId consumer = f.subscribe("q", 1);
  for (int i = 0; i < 5; ++i) {
    const auto received = f.deliveries();
    REQUIRE(received.size() == 1);
    CHECK(received[0].attempt == 1);
    f.settle(consumer, wire::SettleKind_Release, {{1, 1}});
  }
  CHECK(f.report("q.dead").messages == 0);
}

TEST_CASE("a released message starts with its first attempt after a restart") {
  CoreFixture f;
  f.create_queue("q");
  f.publish("q", "a");
  const ConsumerId consumer = f.subscribe("q", 1);
  f.set_credit(consumer, 0);
  f.settle(consumer, wire::SettleKind_Release, {{1, 1}});
  f.restart();
  f.subscribe("q", 1);
  CHECK(f.deliveries().at(0).attempt == 1);
}

TEST_CASE("a lost connection costs an attempt and its messages wait for the backoff") {
  CoreFixture f;
  f.create_queue("q");
  f.publish("q", "a");
  f.publish("q", "b");
  f.subscribe("q", 10);
  f.delivered();
  f.disconnect();
  CHECK(f.report("q").waiting == 2);
  CHECK(f.report("q").counters.deliveries_lost == 2);
  f.subscribe("q", 10);
  CHECK(f.delivered().empty());
  f.pass(Milliseconds(1'250));
  for (const Received& received : f.deliveries()) CHECK(received.attempt == 2);
}

TEST_CASE("on a full disk failed attempts are counted, without their reasons") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxAttempts, 2}, {QueueSetting::kBackoffMin, 0}});
  f.publish("q", "a");
  const ConsumerId consumer = f.subscribe("q", 1);
  f.store.space.publishes_allowed = false;
  f.tell_space();
  f.nack(consumer, 1, "no space left on device");
  f.store.space.publishes_allowed = true;
  f.tell_space();
  f.pass(Milliseconds(10));
  f.nack(consumer, 1, "broken");
  const auto letters = f.dead_letters("q");
  REQUIRE(letters.size() == 1);
  REQUIRE(letters[0].history_errors.size() == 2);
  CHECK(letters[0].history_errors[0].empty());
  CHECK(letters[0].history_errors[1] == "broken");
}

TEST_CASE("the text of an attempt's error was cut within a character") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxAttempts, 1}});
  f.publish("q", "a");
  std::string error(255, 'x');
  error += "ü";
  f.nack(f.subscribe("q", 1), 1, error);
  const auto letters = f.dead_letters("q");
  REQUIRE(letters.size() == 1);
  REQUIRE(letters[0].history_errors.size() == 1);
  CHECK(letters[0].history_errors[0] == std::string(255, 'x'));
}

TEST_CASE("a delay out of bounds is refused") {
  CoreFixture f;
  f.create_queue("q");
  f.publish("q", "a");
  const ConsumerId consumer = f.subscribe("q", 1);
  f.settle(consumer, wire::SettleKind_Nack, {{1, 1}}, "", Milliseconds(8LL * 86'400'000));
  CHECK(f.last_error().code() == ErrorCode::kInvalidArgument);
  CHECK(f.report("q").in_flight == 1);
}

TEST_CASE("settling and extending the largest sequence there is comes to an end") {
  CoreFixture f;
  f.create_queue("q");
  f.publish("q", "m1");
  const ConsumerId consumer = f.subscribe("q", 10);
  f.delivered();
  constexpr Sequence kLargest = ~Sequence{0};
  f.settle(consumer, wire::SettleKind_Ack, {{1, 1}, {kLargest - 1, kLargest}});
  CHECK(f.last_settled().settled == 1);
  CHECK(f.last_settled().refused == std::vector<SequenceRange>{{kLargest - 1, kLargest}});
  f.extend(consumer, kLargest, 30'000);
  CHECK(f.report("q").messages == 0);
}

}  // namespace
}  // namespace holdfast::broker
