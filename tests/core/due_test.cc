// Consumers that end and leases that are over, a piece between two commits.

#include <doctest/doctest.h>

#include "support/core_fixture.h"

namespace holdfast::broker {

namespace {

constexpr std::uint32_t kPiece = 10;

CoreOptions in_pieces() {
  CoreOptions options;
  options.ends_max = kPiece;
  return options;
}

// Messages 1 to 35 are held by the consumer.
ConsumerId hold_35(CoreFixture& f, std::uint32_t lease_ms = 0) {
  f.create_queue("q", {{QueueSetting::kBackoffMin, 1'000}, {QueueSetting::kBackoffMax, 1'000}});
  for (int i = 0; i < 35; ++i) f.publish("q", "m" + std::to_string(i));
  const ConsumerId consumer = f.subscribe("q", 100, lease_ms);
  REQUIRE(f.delivered() == range(1, 35));
  return consumer;
}

// Whatever is to be done at once.
void advance_at_once(CoreFixture& f) {
  while (f.core().next_wake() && *f.core().next_wake() <= f.now().monotonic) {
    f.core().advance(f.now());
    f.run();
  }
}

std::uint64_t in_flight(CoreFixture& f) { return f.report("q").in_flight; }

}  // namespace

// A million took 3 s, in which nobody else was answered.
TEST_CASE("the end of a consumer with very many in flight kept the broker from everything else") {
  CoreFixture f(in_pieces());
  hold_35(f);
  f.hold_commits();
  f.disconnect();
  CHECK(in_flight(f) == 25);
  advance_at_once(f);
  CHECK(in_flight(f) == 25);  // and nothing asks to be done at once for ever
  const std::uint64_t publish = f.publish("q", "meanwhile");
  f.commit_one();
  CHECK(f.store.retry_count() == 10);
  advance_at_once(f);
  CHECK(in_flight(f) == 15);
  f.commit_one();
  CHECK(f.confirm_of(publish));  // before the rest has ended
  f.release_commits();
  advance_at_once(f);
  CHECK(in_flight(f) == 0);
  CHECK(f.report("q").waiting == 35);
  CHECK(f.report("q").counters.deliveries_lost == 35);
  f.pass(Milliseconds(2'000));
  f.subscribe("q", 100, 0, SessionId(3));
  CHECK(f.deliveries().size() == 36);
}

TEST_CASE("many leases that end at once end in pieces, and each is told of") {
  CoreFixture f(in_pieces());
  const ConsumerId consumer = hold_35(f, 5'500);
  f.set_credit(consumer, 0);
  f.hold_commits();
  f.pass(Milliseconds(5'499));
  CHECK(in_flight(f) == 35);
  f.pass(Milliseconds(2));
  CHECK(in_flight(f) == 25);
  // An ack that comes in between counts as any other.
  f.ack(consumer, 35);
  CHECK(f.last_settled().settled == 0);  // not durable yet
  CHECK(in_flight(f) == 24);
  f.release_commits();
  advance_at_once(f);
  CHECK(in_flight(f) == 0);
  CHECK(f.last_settled().settled == 1);
  CHECK(f.last_settled().late == 0);
  std::vector<Sequence> told;
  for (const LeaseLostNotice& notice : f.lost_leases()) {
    CHECK(notice.cause == wire::Cause_LeaseExpired);
    for_each_sequence(notice.ranges, [&told](Sequence sequence) { told.push_back(sequence); });
  }
  CHECK(told == range(1, 34));
  CHECK(f.report("q").counters.leases_expired == 34);
}

TEST_CASE("the leases of another queue do not wait for those of one with very many") {
  CoreFixture f(in_pieces());
  hold_35(f, 5'500);
  f.create_queue("small");
  f.publish("small", "a");
  f.subscribe("small", 1, 5'500);
  REQUIRE(f.delivered().size() == 1);
  f.hold_commits();
  f.pass(Milliseconds(5'501));
  f.commit_one();
  advance_at_once(f);
  CHECK(f.report("small").in_flight == 0);
  CHECK(in_flight(f) > 0);
}

// Those of a queue with very many had used up what may end before the next commit.
TEST_CASE("while a commit hung, the retries of all queues waited for it") {
  CoreFixture f(in_pieces());
  hold_35(f);
  f.create_queue("b", {{QueueSetting::kBackoffMin, 100}, {QueueSetting::kBackoffMax, 100}});
  f.publish("b", "b");
  const ConsumerId consumer = f.subscribe("b", 1, 0, SessionId(3));
  REQUIRE(f.delivered() == range(1, 1));
  // The disk is so full that attempts are not counted any more, and are made all the same.
  f.store.space.publishes_allowed = f.store.space.retries_allowed = false;
  f.store.space.room_bytes = 0;
  f.tell_space();
  f.settle(consumer, wire::SettleKind_Nack, {{1, 1}}, "", std::nullopt, SessionId(3));
  f.hold_commits();
  f.disconnect();
  CHECK(in_flight(f) == 25);
  f.pass(Milliseconds(200));
  CHECK(in_flight(f) == 25);
  CHECK(f.delivered() == range(1, 1));
  // And the others end by and by.
  f.pass(Milliseconds(3'000));
  CHECK(in_flight(f) == 0);
}

// Idle or not, and whatever the queue was woken for: the others waited for that, a second for each
// few hundred wakes.
TEST_CASE("each retry that fell due cost a look at all consumers of its queue") {
  constexpr std::uint32_t kConsumers = 99'000;
  constexpr std::uint32_t kRetries = 50'000;
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kOutstandingMax, 1'048'576}});
  f.hold_commits();
  for (std::uint32_t i = 0; i < kConsumers / 2 + kRetries; ++i) f.publish("q", std::to_string(i));
  f.release_commits();
  for (std::uint32_t i = 0; i < kConsumers; ++i) f.subscribe("q", i % 2, 3'600'000);
  const ConsumerId last = f.subscribe("q", kRetries, 3'600'000);
  const std::vector<Received> received = f.deliveries();
  REQUIRE(received.size() == kConsumers / 2 + kRetries);
  f.set_credit(last, 0);
  f.hold_commits();
  for (std::uint32_t i = 0; i < kRetries; ++i) {
    const Sequence sequence = received[kConsumers / 2 + i].sequence;
    f.settle(last, wire::SettleKind_Nack, {{sequence, sequence}}, "", Milliseconds(1 + i));
  }
  f.release_commits();
  REQUIRE(f.report("q").waiting == kRetries);
  f.pass(Milliseconds(kRetries));
  CHECK(f.report("q").waiting == 0);
  CHECK(f.report("q").in_flight == kConsumers / 2);
}

// They ended in the order of their consumers, however long one of them had been over.
TEST_CASE("of leases that are over, the one that was to end first ends first") {
  CoreFixture f(in_pieces());
  const ConsumerId many = hold_35(f, 5'500);
  f.set_credit(many, 0);
  for (std::uint32_t i = 0; i <= kPiece; ++i) f.publish("q", "n" + std::to_string(i));
  const ConsumerId other = f.subscribe("q", 1, 5'100);
  f.set_credit(other, 0);
  f.subscribe("q", kPiece, 0, SessionId(3));
  REQUIRE(f.delivered() == range(36, 46));
  f.hold_commits();
  f.pass(Milliseconds(5'050));
  f.disconnect(SessionId(3));  // and nothing more may end within this second
  f.pass(Milliseconds(900));
  REQUIRE(in_flight(f) == 36);
  f.pass(Milliseconds(60));
  const std::vector<LeaseLostNotice> lost = f.lost_leases();
  REQUIRE(lost.size() == 2);
  CHECK(lost[0].consumer == other);
  CHECK(lost[1].consumer == many);
  CHECK(in_flight(f) == 26);
}

TEST_CASE("a commit that hung for a minute lets no more end at once than one of a second") {
  CoreOptions options = in_pieces();
  CoreFixture f(options);
  f.create_queue("q", {{QueueSetting::kOutstandingMax, 1'048'576}});
  constexpr std::uint32_t kMessages = 150'000;
  f.hold_commits();
  for (std::uint32_t i = 0; i < kMessages; ++i) f.publish("q", std::to_string(i));
  f.release_commits();
  for (std::uint32_t i = 0; i < 3; ++i) f.subscribe("q", 65'536);
  REQUIRE(f.deliveries().size() == kMessages);
  f.hold_commits();
  f.disconnect();
  f.store.batch_us = 60'000'000;
  f.commit_one();
  f.core().advance(f.now());
  CHECK(in_flight(f) == kMessages - kPiece - 100'000);
}

TEST_CASE("a slow disk does not hold back what ends") {
  CoreFixture f(in_pieces());
  hold_35(f);
  f.hold_commits();
  f.disconnect();
  f.store.batch_us = 1'000'000;
  f.commit_one();
  advance_at_once(f);
  CHECK(in_flight(f) == 0);
}

TEST_CASE("unsubscribing is answered when nothing is held any more") {
  CoreFixture f(in_pieces());
  const ConsumerId consumer = hold_35(f);
  f.hold_commits();
  const std::uint64_t asked = f.unsubscribe(consumer);
  CHECK(f.report("q").consumers == 0);
  CHECK(f.core().report(f.now()).consumers == 0);
  for (const std::uint64_t left : {25, 15, 5, 0}) {
    CHECK(in_flight(f) == left);
    CHECK_FALSE(f.is_ok(asked));
    f.ack(consumer, 35);
    CHECK(f.last_error().code() == ErrorCode::kConsumerNotFound);
    f.commit_one();
    advance_at_once(f);
  }
  f.release_commits();
  CHECK(f.is_ok(asked));
  CHECK(f.lost_leases().empty());
}

TEST_CASE("a message whose consumer is gone is in flight without a lease until its turn comes") {
  CoreFixture f(in_pieces());
  hold_35(f);
  f.disconnect();
  const std::shared_ptr<const AttemptsReport> first = f.attempts("q", 1);
  REQUIRE(first);
  CHECK(first->state == wire::MessageState_Waiting);
  CHECK(in_flight(f) == 25);
  const std::shared_ptr<const AttemptsReport> last = f.attempts("q", 35);
  REQUIRE(last);
  CHECK(last->state == wire::MessageState_InFlight);
  CHECK(last->due_at == WallTime());
}

TEST_CASE("a queue is purged, and deleted, while consumers that ended still hold something") {
  for (const bool is_deleted : {false, true}) {
    CAPTURE(is_deleted);
    CoreFixture f(in_pieces());
    const ConsumerId leaving = hold_35(f);
    const ConsumerId lost = f.subscribe("q", 100, 0, SessionId(3));
    for (int i = 0; i < 35; ++i) f.publish("q", "n" + std::to_string(i));
    REQUIRE(f.delivered() == range(36, 70));
    static_cast<void>(lost);
    f.hold_commits();
    const std::uint64_t asked = f.unsubscribe(leaving);
    f.disconnect(SessionId(3));
    CHECK(in_flight(f) == 60);
    if (is_deleted) {
      f.delete_queue("q");
    } else {
      CHECK(f.core().report(f.now()).in_flight == 60);
      f.purge("q");
      CHECK(in_flight(f) == 0);
    }
    f.release_commits();
    advance_at_once(f);
    CHECK(f.is_ok(asked));
    CHECK(f.lost_leases().empty());
    CHECK(f.store.retry_count() == 0);
    f.pass(Milliseconds(10'000));
    CHECK(f.delivered().empty());
    CHECK(f.core().report(f.now()).in_flight == 0);
  }
}

TEST_CASE("a session that closes while it unsubscribes leaves nothing behind") {
  CoreFixture f(in_pieces());
  const ConsumerId consumer = hold_35(f);
  f.hold_commits();
  f.unsubscribe(consumer);
  f.disconnect();
  f.release_commits();
  advance_at_once(f);
  CHECK(in_flight(f) == 0);
  f.core().begin_drain();
  CHECK(f.core().drained());
}

TEST_CASE("retries chosen for a consumer that ends in pieces are given back and not sent") {
  CoreFixture f(in_pieces());
  const ConsumerId consumer = hold_35(f);
  f.settle(consumer, wire::SettleKind_Nack, {{1, 35}}, "", Milliseconds(0));
  f.hold_commits();
  f.pass(Milliseconds(1));
  REQUIRE(f.delivered().empty());
  f.disconnect();
  f.release_commits();
  advance_at_once(f);
  CHECK(in_flight(f) == 0);
  CHECK(f.delivered().empty());
  f.subscribe("q", 100, 0, SessionId(3));
  for (const Received& received : f.deliveries()) CHECK(received.attempt == 2);
}

TEST_CASE("a message acked late by an earlier holder is not told to one that is gone") {
  CoreFixture f(in_pieces());
  const ConsumerId first = hold_35(f, 5'500);
  f.pass(Milliseconds(5'501));
  advance_at_once(f);
  f.lost_leases();
  f.set_credit(first, 0);
  f.pass(Milliseconds(2'000));
  f.subscribe("q", 100, 0, SessionId(3));
  REQUIRE(f.deliveries().size() == 35);
  f.disconnect(SessionId(3));
  CHECK(in_flight(f) == 25);
  f.settle(first, wire::SettleKind_Ack, {{1, 35}});
  CHECK(f.last_settled().late == 35);
  CHECK(f.lost_leases().empty());
  CHECK(f.report("q").messages == 0);
  advance_at_once(f);
  CHECK(in_flight(f) == 0);
}

// On a disk that hung, what a consumer sent was not read while too many answers waited: its acks
// came in time, and with the last attempt their messages became dead letters.
TEST_CASE("a lease ended while the ack that came in time was left unread") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxAttempts, 1}});
  f.publish("q", "a");
  f.publish("q", "b");
  f.publish("q", "c");
  const ConsumerId consumer = f.subscribe("q", 2, 1'000);
  f.subscribe("q", 1, 1'000, SessionId(3));
  REQUIRE(f.delivered() == range(1, 3));
  f.core().session_unread(SessionId(2), true, f.now());
  f.pass(Milliseconds(60'000));
  CHECK(f.dead_letters("q").size() == 1);  // of the one that is read
  CHECK(in_flight(f) == 2);
  f.core().session_unread(SessionId(2), false, f.now());
  f.pass(Milliseconds(999));
  f.ack(consumer, 1);
  CHECK(f.last_settled().settled == 1);
  CHECK(f.last_settled().late == 0);
  CHECK(in_flight(f) == 1);
  CHECK(f.lost_leases().size() == 1);
  // Who did not ack has had its time.
  f.pass(Milliseconds(1));
  CHECK(f.lost_leases().size() == 1);
  CHECK(f.dead_letters("q").size() == 2);
  CHECK(in_flight(f) == 0);
}

TEST_CASE("a lease does not last longer than what was left unread needs") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxAttempts, 1}});
  f.publish("q", "a");
  f.subscribe("q", 1, 1'000);
  REQUIRE(f.delivered() == range(1, 1));
  const auto leave_unread = [&f](int ms) {
    f.core().session_unread(SessionId(2), true, f.now());
    f.pass(Milliseconds(ms));
    f.core().session_unread(SessionId(2), false, f.now());
  };
  SUBCASE("read again long before its end") {
    leave_unread(300);
    f.pass(Milliseconds(699));
    CHECK(in_flight(f) == 1);
    f.pass(Milliseconds(1));
  }
  SUBCASE("left unread for a moment at its end") {
    f.pass(Milliseconds(990));
    leave_unread(20);
    f.pass(Milliseconds(19));
    CHECK(in_flight(f) == 1);
    f.pass(Milliseconds(1));
  }
  SUBCASE("left unread for moments over and over") {
    for (int i = 0; i < 100; ++i) {
      leave_unread(10);
      f.pass(Milliseconds(1));
    }
  }
  SUBCASE("and then left unread for long") {
    f.pass(Milliseconds(500));
    leave_unread(600);
    f.core().session_unread(SessionId(2), true, f.now());
    f.pass(Milliseconds(599));
    CHECK(in_flight(f) == 1);
    f.pass(Milliseconds(1));
  }
  SUBCASE("its consumer goes") {
    f.core().session_unread(SessionId(2), true, f.now());
    f.pass(Milliseconds(5'000));
    CHECK(in_flight(f) == 1);
    f.disconnect();
  }
  CHECK(in_flight(f) == 0);
}

}  // namespace holdfast::broker
