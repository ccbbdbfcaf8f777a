// What adds to a store that is full: records of attempts, retries, moves to the dead-letter queue.
// They take from the reserve a little at a time, and never so much that acks find no room.

#include <doctest/doctest.h>

#include <string>

#include "core/state.h"
#include "support/core_fixture.h"

namespace holdfast::broker {
namespace {

struct Held : CoreFixture {
  static constexpr Sequence kMessages = 2'000;

  Held() {
    create_queue("q", {{QueueSetting::kBackoffMin, 0},
                       {QueueSetting::kBackoffMax, 0},
                       {QueueSetting::kMaxAttempts, 100}});
    for (Sequence i = 1; i <= kMessages; ++i) publish("q", std::to_string(i));
    consumer = subscribe("q", kMessages, 3'600'000);
    REQUIRE(delivered().size() == kMessages);
  }
  void report_space(bool publishes_allowed, bool rewrites_allowed, bool retries_allowed) {
    store.space.publishes_allowed = publishes_allowed;
    store.space.reserve_room_bytes = rewrites_allowed ? MemoryStore::kRoomBytes : 0;
    store.space.retries_allowed = retries_allowed;
    tell_space();
    run();
  }
  void no_room() { report_space(false, false, false); }
  void little_room() { report_space(false, true, true); }
  void room() { report_space(true, true, true); }
  void end_all(wire::SettleKind kind) { settle(consumer, kind, {{1, kMessages}}); }

  ConsumerId consumer;
};

// A consumer's end was one batch, of 21 MB or of 191.
TEST_CASE_FIXTURE(Held, "the attempts that a lost connection ended were one batch, however many") {
  for (int i = 0; i < 16; ++i) {
    settle(consumer, wire::SettleKind_Nack, {{1, kMessages}}, std::string(256, 'r'));
    pass(Milliseconds(1));
    REQUIRE(delivered().size() == kMessages);
  }
  SUBCASE("its consumer's") { disconnect(); }
  SUBCASE("its broker's") { crash(); }
  CHECK(store.retry_count() == kMessages);
  CHECK(store.largest_batch_bytes() < 3 << 19);
}

TEST_CASE_FIXTURE(Held, "attempts that ended on a full disk used up the reserve") {
  no_room();
  SUBCASE("nacked") { end_all(wire::SettleKind_Nack); }
  SUBCASE("lost with their connection") { disconnect(); }
  CHECK(store.retry_count() == 0);
  crash();
  room();
  subscribe("q", kMessages);
  const std::vector<Received> again = deliveries();
  CHECK(again.size() == kMessages);
  for (const Received& message : again) CHECK(message.attempt == 2);
}

TEST_CASE_FIXTURE(Held, "attempts that ended on a full disk are remembered when there is room") {
  no_room();
  set_credit(consumer, 0);
  end_all(wire::SettleKind_Nack);
  CHECK(store.retry_count() == 0);
  room();
  CHECK(store.retry_count() == kMessages);
}

TEST_CASE_FIXTURE(Held, "with a little room attempts are remembered a few at a time") {
  little_room();
  set_credit(consumer, 0);
  hold_commits();
  end_all(wire::SettleKind_Nack);
  commit_one();
  // A record takes 128 bytes and more.
  CHECK(store.retry_count() > 0);
  CHECK(store.retry_count() <= kRetryStepBytes / 128);
  release_commits();
  CHECK(store.retry_count() == kMessages);
}

TEST_CASE_FIXTURE(Held, "retries start as long as there is room for what counts them") {
  little_room();
  hold_commits();
  end_all(wire::SettleKind_Nack);
  pass(Milliseconds(1));
  commit_one();
  CHECK(delivered().size() <= kRetryStepBytes / 128);
  release_commits();
  SUBCASE("for a little") { report_space(false, false, true); }
  SUBCASE("for everything") { room(); }
  CHECK(report("q").in_flight == kMessages);
  crash();
  room();
  subscribe("q", kMessages);
  for (const Received& message : deliveries()) CHECK(message.attempt == 3);
}

// Nothing was delivered any more, though a quarter of the reserve was left; and no ack could make
// room.
TEST_CASE_FIXTURE(Held, "on a full disk what had failed was never delivered again") {
  no_room();
  end_all(wire::SettleKind_Nack);
  pass(Milliseconds(1));
  const std::vector<Received> again = deliveries();
  REQUIRE(again.size() == kMessages);
  for (const Received& message : again) CHECK(message.attempt == 2);
  CHECK(store.retry_count() == 0);
  SUBCASE("they are taken away for good") {
    settle(consumer, wire::SettleKind_Ack, {{1, kMessages}});
    CHECK(report("q").messages == 0);
    crash();
    CHECK(report("q").messages == 0);
    CHECK(store.retry_count() == 0);
  }
  SUBCASE("they are counted when there is room") {
    room();
    CHECK(store.retry_count() == kMessages);
    crash();
    subscribe("q", kMessages);
    for (const Received& message : deliveries()) CHECK(message.attempt == 3);
  }
}

// A record for each of them used up the reserve.
TEST_CASE_FIXTURE(Held, "what is given back on a full disk is remembered when there is room") {
  no_room();
  set_credit(consumer, 0);
  end_all(wire::SettleKind_Release);
  CHECK(store.retry_count() == 0);
  std::uint32_t attempt = 1;
  SUBCASE("and does not count") {
    room();
    CHECK(store.retry_count() == kMessages);
  }
  SUBCASE("and counts after a crash before") { attempt = 2; }
  crash();
  room();
  subscribe("q", kMessages);
  const std::vector<Received> again = deliveries();
  CHECK(again.size() == kMessages);
  for (const Received& message : again) CHECK(message.attempt == attempt);
}

TEST_CASE("messages that could not become dead letters held up their whole queue") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kOutstandingMax, 10}});
  for (int i = 1; i <= 30; ++i) f.publish("q", std::to_string(i));
  const ConsumerId consumer = f.subscribe("q", 10);
  CHECK(f.delivered().size() == 10);
  f.store.space.publishes_allowed = false;
  f.store.space.reserve_room_bytes = 0;
  f.tell_space();
  CHECK(f.report("q").stalled);
  f.set_credit(consumer, 0);
  f.settle(consumer, wire::SettleKind_Reject, {{1, 10}});
  CHECK(f.report("q").moving == 10);
  CHECK_FALSE(f.report("q").stalled);
  f.set_credit(consumer, 10);
  CHECK(f.delivered().size() == 10);
  CHECK(f.report("q").stalled);
  f.settle(consumer, wire::SettleKind_Ack, {{11, 20}});
  CHECK(f.delivered().size() == 10);
  CHECK(f.report("q").messages == 20);
}

TEST_CASE("publishes to many queues took more pages than the store had room for") {
  CoreFixture f;
  for (int i = 0; i < 200; ++i) f.create_queue(std::to_string(i));
  f.store.space.room_bytes = 1 << 20;
  f.tell_space();
  f.hold_commits();
  for (int i = 0; i < 200; ++i) f.publish(std::to_string(i), "a");
  f.release_commits();
  std::uint64_t stored = 0;
  for (int i = 0; i < 200; ++i) stored += f.report(std::to_string(i)).messages;
  CHECK(stored > 100);
  CHECK(stored < 140);
}

// Commits waited for room, and with them all that would have made some.
TEST_CASE_FIXTURE(Held, "dead letters used up the reserve of a full disk") {
  create_queue("other");
  publish("other", "a");
  const ConsumerId others = subscribe("other", 1);
  delivered();
  no_room();
  const std::size_t bytes = store.block_bytes();
  end_all(wire::SettleKind_Reject);
  CHECK(report("q.dead").messages == 0);
  CHECK(store.block_bytes() == bytes);
  settle(others, wire::SettleKind_Ack, {{1, 1}});
  CHECK(last_settled().settled == 1);
  SUBCASE("they move a few at a time when there is a little room") {
    hold_commits();
    little_room();
    commit_one();
    CHECK(report("q.dead").messages > 0);
    CHECK(store.largest_batch_bytes() < 2 * kReserveStepBytes);
    release_commits();
  }
  SUBCASE("and at once when there is room") { room(); }
  CHECK(report("q.dead").messages == kMessages);
  CHECK(last_settled().settled == kMessages);
}

// Room for a mebibyte is room, and far more was moved before the store was asked again.
TEST_CASE_FIXTURE(Held, "dead letters used up the reserve while publishes were taken") {
  store.space.room_bytes = store.space.reserve_room_bytes = 100'000;
  SUBCASE("out of the room") { report_space(true, false, true); }
  SUBCASE("out of the reserve, when the room was used up before") {
    store.space.room_bytes = 0;
    report_space(true, true, true);
  }
  hold_commits();
  settle(consumer, wire::SettleKind_Reject, {{1, kMessages}}, std::string(1'000, 'r'));
  commit_one();
  CHECK(report("q.dead").messages > 0);
  CHECK(report("q.dead").messages < kMessages / 10);
  room();
  release_commits();
  CHECK(report("q.dead").messages == kMessages);
}

TEST_CASE("a dead letter that was larger than the reserve held up all commits") {
  CoreFixture f;
  f.create_queue("q");
  f.publish("q", "large", std::string(1'000'000, 'x'));
  f.publish("q", "small", std::string(100, 'x'));
  const ConsumerId consumer = f.subscribe("q", 2);
  f.delivered();
  f.store.space.publishes_allowed = false;
  f.store.space.reserve_room_bytes = 500'000;
  f.tell_space();
  f.settle(consumer, wire::SettleKind_Reject, {{1, 1}});
  CHECK(f.report("q.dead").messages == 0);
  // Nobody is in the dark about it.
  CHECK(f.report("q").moving == 1);
  CHECK(f.report("q").ready == 0);
  CHECK(f.core().moves_held_up() == 1);
  f.settle(consumer, wire::SettleKind_Ack, {{2, 2}});
  CHECK(f.report("q").messages == 1);
  f.store.space.reserve_room_bytes = 1'100'000;
  f.tell_space();
  f.run();
  CHECK(f.report("q.dead").messages == 1);
  CHECK(f.report("q").messages == 0);
  CHECK(f.report("q").moving == 0);
}

TEST_CASE("a dead letter was counted as held up when another of its block was") {
  CoreFixture f;
  f.create_queue("q");
  f.hold_commits();
  f.publish("q", "small", std::string(100, 'x'));
  f.publish("q", "large", std::string(1'000'000, 'x'));
  f.release_commits();
  const ConsumerId consumer = f.subscribe("q", 2);
  f.delivered();
  f.store.space.publishes_allowed = false;
  f.store.space.reserve_room_bytes = 500'000;
  f.tell_space();
  f.settle(consumer, wire::SettleKind_Reject, {{2, 2}});
  CHECK(f.core().moves_held_up() == 1);
  f.settle(consumer, wire::SettleKind_Reject, {{1, 1}});
  CHECK(f.report("q.dead").messages == 1);
  CHECK(f.report("q").moving == 1);
  CHECK(f.core().moves_held_up() == 1);
}

TEST_CASE_FIXTURE(Held, "attempts used up the reserve while publishes were taken") {
  set_credit(consumer, 0);
  store.space.room_bytes = 100'000;
  store.space.reserve_room_bytes = 200'000;
  tell_space();
  hold_commits();
  end_all(wire::SettleKind_Nack);
  commit_one();
  CHECK(store.retry_count() > 0);
  CHECK(store.retry_count() <= 100'000 / 128);
  release_commits();
  CHECK(store.retry_count() == kMessages);
  CHECK(store.largest_batch_bytes() < 150'000);
}

TEST_CASE_FIXTURE(Held, "dead letters that wait for room are gone with a purge") {
  no_room();
  end_all(wire::SettleKind_Reject);
  CHECK(purge("q") == kMessages);
  CHECK(last_settled().settled == kMessages);
  CHECK(report("q.dead").messages == 0);
  room();
  CHECK(report("q.dead").messages == 0);
}

// All that the credit in messages reached was delivered, as far as a restart could tell.
TEST_CASE("a bound by bytes did not bound what counts as delivered after a crash") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxAttempts, 1}});
  for (int i = 1; i <= 200; ++i) f.publish("q", std::to_string(i), std::string(10'000, 'x'));
  const ConsumerId consumer = f.subscribe("q", 0);
  f.set_credit(consumer, 1'000, 20'000);
  CHECK(f.delivered().size() == 2);
  f.crash();
  CHECK(f.report("q.dead").messages <= 3);
  CHECK(f.report("q").messages >= 197);
}

}  // namespace
}  // namespace holdfast::broker
