#include <doctest/doctest.h>

#include <map>
#include <string>

#include "support/core_fixture.h"

namespace holdfast::broker {
namespace {

TEST_CASE("first deliveries go out in sequence order") {
  CoreFixture f;
  f.create_queue("q");
  for (int i = 0; i < 50; ++i) f.publish("q", "m" + std::to_string(i));
  f.subscribe("q", 100);
  CHECK(f.delivered() == range(1, 50));
  f.publish("q", "next");
  CHECK(f.delivered() == range(51, 51));
}

TEST_CASE("a message is not delivered before it is committed") {
  CoreFixture f;
  f.create_queue("q");
  f.subscribe("q", 10);
  f.hold_commits();
  f.publish("q", "a");
  CHECK(f.delivered().empty());
  f.release_commits();
  CHECK(f.delivered() == range(1, 1));
}

TEST_CASE("a consumer never holds more than its credit") {
  CoreFixture f;
  f.create_queue("q");
  for (int i = 0; i < 10; ++i) f.publish("q", "m" + std::to_string(i));
  const ConsumerId consumer = f.subscribe("q", 3);
  CHECK(f.delivered() == range(1, 3));
  f.ack(consumer, 2);
  CHECK(f.delivered() == range(4, 4));
  f.set_credit(consumer, 0);
  f.ack(consumer, 1);
  CHECK(f.delivered().empty());
  f.set_credit(consumer, 5);
  CHECK(f.delivered() == range(5, 7));
}

TEST_CASE("consumers with credit take turns") {
  CoreFixture f;
  f.create_queue("q");
  const ConsumerId one = f.subscribe("q", 10, 0, SessionId(2));
  const ConsumerId two = f.subscribe("q", 10, 0, SessionId(3));
  f.hold_commits();
  for (int i = 0; i < 6; ++i) f.publish("q", "m" + std::to_string(i));
  f.release_commits();
  int of_one = 0;
  int of_two = 0;
  for (const Received& received : f.deliveries()) {
    of_one += received.consumer == one ? 1 : 0;
    of_two += received.consumer == two ? 1 : 0;
  }
  CHECK(of_one == 3);
  CHECK(of_two == 3);
}

// Of a message of 1,000 bytes.
constexpr std::uint64_t kRoomForTwo = 1'600;

TEST_CASE("a session that has no room is delivered nothing, the others everything") {
  CoreFixture f;
  f.create_queue("q");
  f.subscribe("q", 10, 0, SessionId(2));
  const ConsumerId other = f.subscribe("q", 10, 0, SessionId(3));
  f.core().session_room(SessionId(2), 0, f.now());
  for (int i = 0; i < 5; ++i) f.publish("q", "m" + std::to_string(i));
  for (const Received& received : f.deliveries()) CHECK(received.consumer == other);
  CHECK(f.report("q").in_flight == 5);
  f.core().session_room(SessionId(2), 1'000'000, f.now());
  for (int i = 5; i < 15; ++i) f.publish("q", "m" + std::to_string(i));
  CHECK(f.report("q").in_flight == 15);
}

TEST_CASE("a session is delivered what it has room for, and the rest of the last message") {
  CoreFixture f;
  f.create_queue("q");
  for (int i = 0; i < 9; ++i) f.publish("q", "m" + std::to_string(i), std::string(1'000, 'x'));
  const ConsumerId consumer = f.subscribe("q", 0);
  f.core().session_room(SessionId(2), kRoomForTwo, f.now());
  f.set_credit(consumer, 100);
  CHECK(f.delivered() == range(1, 2));
  f.ack(consumer, 1);
  CHECK(f.delivered().empty());
  f.core().session_room(SessionId(2), 1, f.now());
  f.run();
  CHECK(f.delivered() == range(3, 3));
}

TEST_CASE("retries come no more at once than their session has room for") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kBackoffMin, 1'000}, {QueueSetting::kBackoffMax, 1'000}});
  for (int i = 0; i < 5; ++i) f.publish("q", "m" + std::to_string(i), std::string(1'000, 'x'));
  f.subscribe("q", 5, 0, SessionId(3));
  CHECK(f.delivered() == range(1, 5));
  const ConsumerId consumer = f.subscribe("q", 100);
  f.core().session_room(SessionId(2), kRoomForTwo, f.now());
  f.disconnect(SessionId(3));
  f.pass(Milliseconds(2'000));
  CHECK(f.delivered().size() == 2);
  f.core().session_room(SessionId(2), kRoomForTwo, f.now());
  f.run();
  CHECK(f.delivered().size() == 2);
  f.core().session_room(SessionId(2), kRoomForTwo, f.now());
  f.run();
  CHECK(f.delivered().size() == 1);
  f.settle(consumer, wire::SettleKind_Ack, {{1, 5}});
  CHECK(f.report("q").messages == 0);
}

TEST_CASE("each consumer of a session without room has its turn when there is some") {
  CoreFixture f;
  for (const char* const queue : {"a", "b"}) {
    f.create_queue(queue);
    for (int i = 0; i < 40; ++i) f.publish(queue, "m" + std::to_string(i), std::string(1'000, 'x'));
  }
  f.subscribe("a", 0);
  f.core().session_room(SessionId(2), 0, f.now());
  const ConsumerId one = f.subscribe("a", 100);
  const ConsumerId two = f.subscribe("b", 100);
  std::map<ConsumerId, std::size_t> received;
  for (int i = 0; i < 20; ++i) {
    f.core().session_room(SessionId(2), kRoomForTwo, f.now());
    f.run();
    for (const Received& message : f.deliveries()) ++received[message.consumer];
  }
  CHECK(received[one] + received[two] == 40);
  CHECK(received[one] >= 18);
  CHECK(received[two] >= 18);
}

TEST_CASE("a consumer whose queue was idle is not kept waiting by a backlog beside it") {
  CoreFixture f;
  f.create_queue("idle");
  f.create_queue("busy");
  for (int i = 0; i < 200; ++i) f.publish("busy", "m" + std::to_string(i), std::string(1'000, 'x'));
  f.subscribe("idle", 0);
  f.core().session_room(SessionId(2), 0, f.now());
  const ConsumerId idle = f.subscribe("idle", 10);
  f.subscribe("busy", 200);
  f.core().session_room(SessionId(2), kRoomForTwo, f.now());
  f.run();
  f.deliveries();
  f.publish("idle", "late");
  bool came = false;
  for (int i = 0; i < 4; ++i) {
    f.core().session_room(SessionId(2), kRoomForTwo, f.now());
    f.run();
    for (const Received& message : f.deliveries()) came = came || message.consumer == idle;
  }
  CHECK(came);
}

TEST_CASE("a retry that is purged before it is sent leaves its room to the session's others") {
  CoreFixture f;
  for (const char* const queue : {"a", "b"}) {
    f.create_queue(queue, {{QueueSetting::kBackoffMin, 1'000}, {QueueSetting::kBackoffMax, 1'000}});
    f.publish(queue, "m", std::string(1'000, 'x'));
  }
  f.subscribe("a", 1, 0, SessionId(3));
  f.disconnect(SessionId(3));
  f.deliveries();
  f.subscribe("a", 1);
  f.core().session_room(SessionId(2), 500, f.now());
  f.hold_commits();
  f.pass(Milliseconds(2'000));  // chosen, and waits for its commit
  const ConsumerId other = f.subscribe("b", 1);
  CHECK(f.delivered().empty());
  f.purge("a");
  f.release_commits();
  f.pass(Milliseconds(1));
  const std::vector<Received> deliveries = f.deliveries();
  REQUIRE(deliveries.size() == 1);
  CHECK(deliveries[0].consumer == other);
}

TEST_CASE("an expired lease returns the message alone, after the backoff, and tells the holder") {
  CoreFixture f;
  f.create_queue("q");
  f.publish("q", "a");
  const ConsumerId consumer = f.subscribe("q", 10, 1'000);
  CHECK(f.delivered() == range(1, 1));
  f.pass(Milliseconds(500));
  f.publish("q", "b");
  CHECK(f.delivered() == range(2, 2));
  f.pass(Milliseconds(501));
  const auto lost = f.lost_leases();
  REQUIRE(lost.size() == 1);
  CHECK(lost[0].consumer == consumer);
  CHECK(lost[0].cause == wire::Cause_LeaseExpired);
  CHECK(lost[0].ranges == std::vector<SequenceRange>{{1, 1}});
  CHECK(f.report("q").waiting == 1);
  CHECK(f.report("q").in_flight == 1);
  f.pass(Milliseconds(1'300));
  const auto again = f.deliveries();
  REQUIRE_FALSE(again.empty());
  CHECK(again[0].sequence == 1);
  CHECK(again[0].attempt == 2);
}

TEST_CASE("an extended lease ends later") {
  CoreFixture f;
  f.create_queue("q");
  f.publish("q", "a");
  const ConsumerId consumer = f.subscribe("q", 10, 1'000);
  for (int i = 0; i < 20; ++i) {
    f.pass(Milliseconds(700));
    f.extend(consumer, 1, 0);
  }
  CHECK(f.lost_leases().empty());
  f.extend(consumer, 1, 60'000);
  f.pass(Milliseconds(59'000));
  CHECK(f.lost_leases().empty());
  f.pass(Milliseconds(1'100));
  CHECK(f.lost_leases().size() == 1);
}

TEST_CASE("a jump of the wall clock moves no lease and no backoff") {
  CoreFixture f;
  f.create_queue("q");
  f.publish("q", "a");
  const ConsumerId consumer = f.subscribe("q", 10, 10'000);
  f.set_wall_clock(f.now().wall + std::chrono::hours(24 * 365));
  f.pass(Milliseconds(9'000));
  CHECK(f.lost_leases().empty());
  f.nack(consumer, 1);
  f.delivered();
  f.set_wall_clock(f.now().wall - std::chrono::hours(24 * 700));
  f.pass(Milliseconds(1'250));
  CHECK(f.delivered() == range(1, 1));
}

TEST_CASE("a waiting message blocks no other") {
  CoreFixture f;
  f.create_queue("q");
  f.publish("q", "a");
  f.publish("q", "b");
  const ConsumerId consumer = f.subscribe("q", 1);
  f.nack(consumer, 1);
  CHECK(f.delivered() == std::vector<Sequence>{1, 2});
}

TEST_CASE("a retry is counted durably before it is sent") {
  CoreFixture f;
  f.create_queue("q");
  f.publish("q", "a");
  const ConsumerId consumer = f.subscribe("q", 10);
  f.settle(consumer, wire::SettleKind_Nack, {{1, 1}}, "", Milliseconds(100));
  f.delivered();
  f.hold_commits();
  f.pass(Milliseconds(200));
  CHECK(f.delivered().empty());
  f.release_commits();
  const auto again = f.deliveries();
  REQUIRE(again.size() == 1);
  CHECK(again[0].attempt == 2);
  f.crash();
  f.subscribe("q", 10);
  const auto after = f.deliveries();
  REQUIRE(after.size() == 1);
  CHECK(after[0].attempt == 3);
}

TEST_CASE("a backlog larger than the cache is read back in order") {
  CoreOptions options;
  options.cache_bytes_max = 64 * 1024;
  CoreFixture f(options);
  f.create_queue("q");
  for (int i = 0; i < 600; ++i) f.publish("q", "m" + std::to_string(i), std::string(500, 'x'));
  const ConsumerId consumer = f.subscribe("q", 64);
  Sequence expected = 1;
  for (int turn = 0; turn < 200 && expected <= 600; ++turn) {
    const auto received = f.delivered();
    for (const Sequence sequence : received) CHECK(sequence == expected++);
    f.settle(consumer, wire::SettleKind_Ack, {{received.front(), received.back()}});
  }
  CHECK(expected == 601);
  CHECK(f.store.block_count() == 0);
}

TEST_CASE("outstanding messages are bounded by outstanding-max") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kOutstandingMax, 5}});
  for (int i = 0; i < 20; ++i) f.publish("q", "m" + std::to_string(i));
  CHECK_FALSE(f.report("q").stalled);
  const ConsumerId consumer = f.subscribe("q", 100);
  CHECK(f.delivered() == range(1, 5));
  CHECK(f.report("q").stalled);
  f.settle(consumer, wire::SettleKind_Nack, {{1, 3}}, "", Milliseconds(10'000));
  CHECK(f.delivered().empty());
  CHECK(f.report("q").stalled);
  f.ack(consumer, 4);
  CHECK(f.delivered() == range(6, 6));
  f.pass(Milliseconds(10'000));
  CHECK(f.delivered() == range(1, 3));
  SUBCASE("nothing that is ready, nothing that is kept") {
    f.purge("q");
    f.ack(consumer, 1);
    CHECK(f.report("q").ready == 0);
    CHECK_FALSE(f.report("q").stalled);
  }
  SUBCASE("retries that are due come, whatever the bound is by then") {
    f.unsubscribe(consumer);
    f.edit_queue("q", {{QueueSetting::kOutstandingMax, 1}});
    f.pass(Milliseconds(600'000));
    CHECK_FALSE(f.report("q").stalled);
    f.subscribe("q", 100);
    CHECK(f.delivered().size() == 5);
    CHECK(f.report("q").stalled);
  }
}

TEST_CASE("one consumer more than there may be is refused until one has gone") {
  CoreOptions options;
  options.consumers_max = 1;
  CoreFixture f(options);
  f.create_queue("q");
  f.publish("q", "a");
  const ConsumerId first = f.subscribe("q", 1);
  CHECK(f.delivered() == range(1, 1));
  CHECK(f.subscribe("q", 1, 0, SessionId(3)) == ConsumerId());
  CHECK(f.last_error().code() == ErrorCode::kLimitReached);
  CHECK(f.last_error().message() == "The broker has 1 consumers, its limit (consumers_max).");
  SUBCASE("as it wished") {
    f.ack(first, 1);
    f.unsubscribe(first);
  }
  SUBCASE("with its connection") { f.disconnect(); }
  CHECK(f.subscribe("q", 1, 0, SessionId(3)) != ConsumerId());
}

TEST_CASE("an unknown subscription is refused by name") {
  CoreFixture f;
  f.create_queue("q");
  f.subscribe("nothing", 1);
  CHECK(f.last_error().code() == ErrorCode::kQueueNotFound);
  CHECK(f.last_error().message().find("\"nothing\"") != std::string::npos);
}

// Each that ended walked along the whole line of those with credit: for a hundred thousand 20 s.
TEST_CASE("consumers that ended one by one kept the broker from everything else" *
          doctest::timeout(10)) {
  CoreFixture f;
  f.create_queue("q");
  std::vector<ConsumerId> consumers;
  for (int i = 0; i < 100'000; ++i) consumers.push_back(f.subscribe("q", 1));
  const ConsumerId last = consumers.back();
  consumers.pop_back();
  for (const ConsumerId consumer : consumers) {
    f.core().unsubscribe({SessionId(2), 1}, consumer, f.now());
  }
  f.run();
  CHECK(f.report("q").consumers == 1);
  f.publish("q", "a");
  REQUIRE(f.delivered() == range(1, 1));
  f.ack(last, 1);
  CHECK(f.report("q").messages == 0);
}

// A restart held to the limit, so that the same message had one end without it and another with it.
TEST_CASE("a limit of attempts that was lowered did not hold for what waited already") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kBackoffMin, 1'000}, {QueueSetting::kBackoffMax, 1'000}});
  f.publish("q", "a");
  const ConsumerId consumer = f.subscribe("q", 1);
  for (int i = 0; i < 3; ++i) {
    REQUIRE(f.delivered() == range(1, 1));
    f.nack(consumer, 1, "no");
    if (i < 2) f.pass(Milliseconds(2'000));
  }
  f.edit_queue("q", {{QueueSetting::kMaxAttempts, 3}});
  f.pass(Milliseconds(2'000));
  CHECK(f.delivered().empty());
  const std::vector<DeadLetterSeen> dead = f.dead_letters("q");
  REQUIRE(dead.size() == 1);
  CHECK(dead[0].reason == wire::Cause_RetryLimit);
  CHECK(dead[0].error == "no");
  CHECK(dead[0].attempts == 3);
}

// Only so many are looked at at once, and there was no commit after which others would have been.
TEST_CASE("retries over a lowered limit hid the others on a full disk") {
  CoreFixture f;
  constexpr Sequence kOver = 20;
  f.create_queue("q", {{QueueSetting::kBackoffMin, 1'000}, {QueueSetting::kBackoffMax, 1'000}});
  for (Sequence i = 1; i <= kOver + 1; ++i) f.publish("q", "m" + std::to_string(i));
  const ConsumerId consumer = f.subscribe("q", 100);
  f.settle(consumer, wire::SettleKind_Nack, {{kOver + 1, kOver + 1}}, "", Milliseconds(60'000));
  for (int attempt = 1; attempt <= 3; ++attempt) {
    f.settle(consumer, wire::SettleKind_Nack, {{1, kOver}});
    if (attempt < 3) f.pass(Milliseconds(2'000));
  }
  f.deliveries();
  f.set_credit(consumer, 0);
  f.edit_queue("q", {{QueueSetting::kMaxAttempts, 3}});
  f.store.space.publishes_allowed = false;
  f.store.space.room_bytes = f.store.space.reserve_room_bytes = 0;
  f.tell_space();
  f.pass(Milliseconds(120'000));
  f.set_credit(consumer, 1);
  CHECK(f.delivered() == range(kOver + 1, kOver + 1));
  f.ack(consumer, kOver + 1);
  f.store.space = MemoryStore().space;
  f.tell_space();
  f.run();
  CHECK(f.dead_letters("q").size() == kOver);
}

TEST_CASE(
    "what was released counted as delivered again when it came for the first time that counts") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kBackoffMin, 0}, {QueueSetting::kBackoffMax, 0}});
  f.publish("q", "a");
  const ConsumerId consumer = f.subscribe("q", 1);
  f.settle(consumer, wire::SettleKind_Release, {{1, 1}});
  CHECK(f.report("q").counters.delivered == 2);
  CHECK(f.report("q").counters.redelivered == 0);
  f.nack(consumer, 1);
  f.pass(Milliseconds(1));
  CHECK(f.report("q").counters.delivered == 3);
  CHECK(f.report("q").counters.redelivered == 1);
}

// All queues were looked at every second, a hundred thousand idle ones for 50 ms.
TEST_CASE("a queue that was idle for a while tells its rates again") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kDedupWindow, 1'000}});
  const auto publish_for = [&f](int seconds, const std::string& prefix) {
    for (int i = 0; i < seconds * 10; ++i) {
      f.publish("q", prefix + std::to_string(i));
      f.pass(Milliseconds(100));
    }
  };
  publish_for(5, "a");
  CHECK(f.report("q").rates.publish == doctest::Approx(10).epsilon(0.15));
  CHECK(f.report("q").dedup_ids > 0);
  f.pass(Milliseconds(60'000));
  CHECK(f.report("q").rates.publish == 0);
  CHECK(f.report("q").dedup_ids == 0);
  publish_for(20, "b");
  CHECK(f.report("q").rates.publish == doctest::Approx(10).epsilon(0.15));
}

TEST_CASE("credit beyond the limit is refused") {
  CoreFixture f;
  f.create_queue("q");
  f.subscribe("q", 65'537);
  CHECK(f.last_error().code() == ErrorCode::kInvalidArgument);
  CHECK(f.report("q").consumers == 0);
}

TEST_CASE("of many queues with little credit each kept a block outside the bound of the cache") {
  CoreOptions options;
  options.cache_bytes_max = 1'000;  // less than a block has; eight times that are the bound
  CoreFixture f(options);
  constexpr int kQueues = 20;
  f.hold_commits();
  for (int i = 0; i < kQueues; ++i) {
    const std::string queue = "q" + std::to_string(i);
    f.create_queue(queue);
    f.release_commits();
    f.hold_commits();
    // The first is a block of its own, the others are one together.
    for (const char* id : {"first", "second", "third"}) f.publish(queue, id, std::string(600, 'b'));
  }
  f.release_commits();
  f.restart();
  std::vector<ConsumerId> consumers;
  consumers.reserve(kQueues);
  for (int i = 0; i < kQueues; ++i) consumers.push_back(f.subscribe("q" + std::to_string(i), 1));
  for (const ConsumerId consumer : consumers) f.ack(consumer, 1);
  CHECK(f.delivered().size() == 2 * kQueues);
  const std::size_t read_before = f.fetches();
  for (const ConsumerId consumer : consumers) f.ack(consumer, 2);
  CHECK(f.delivered().size() == kQueues);
  // Those that found room go on without reading; the others let go, and read again.
  const std::size_t read_again = f.fetches() - read_before;
  CHECK(read_again >= 10);
  CHECK(read_again <= 16);
}

// With one attempt for each, 65,536 messages were dead letters of which a few had been sent.
TEST_CASE("what there was credit for and no room counted as delivered after a crash") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxAttempts, 1}});
  const ConsumerId consumer = f.subscribe("q", 0);
  f.core().session_room(SessionId(2), kRoomForTwo, f.now());
  const auto publish = [&] {
    f.hold_commits();
    for (int i = 0; i < 100; ++i) f.publish("q", std::to_string(i), std::string(1'000, 'x'));
    f.release_commits();
  };
  SUBCASE("of a backlog") {
    publish();
    f.set_credit(consumer, 1'000);
  }
  SUBCASE("of what came when a consumer waited for it") {
    f.set_credit(consumer, 1'000);
    publish();
  }
  SUBCASE("of what came when many consumers of one connection waited for it") {
    for (int i = 0; i < 50; ++i) f.subscribe("q", 1'000);
    publish();
  }
  CHECK(f.delivered() == range(1, 2));
  f.crash();
  const std::size_t letters = f.dead_letters("q").size();
  CHECK(letters >= 2);
  CHECK(letters <= 2 + 3);  // and what there will be room for next
}

// Each had to wait for a commit when it had read what there was room for.
TEST_CASE("while a commit was slow, a consumer got no more than its connection had room for") {
  CoreFixture f;
  f.create_queue("q");
  const ConsumerId consumer = f.subscribe("q", 0);
  f.core().session_room(SessionId(2), kRoomForTwo, f.now());
  f.hold_commits();
  for (int i = 0; i < 100; ++i) f.publish("q", std::to_string(i), std::string(1'000, 'x'));
  f.release_commits();
  f.set_credit(consumer, 1'000);
  CHECK(f.delivered() == range(1, 2));
  f.hold_commits();
  f.publish("q", "meanwhile");
  for (Sequence next = 3; next < 100; next += 2) {
    f.core().session_room(SessionId(2), kRoomForTwo, f.now());
    f.run();
    CHECK(f.delivered() == range(next, next + 1));
  }
}

}  // namespace
}  // namespace holdfast::broker
