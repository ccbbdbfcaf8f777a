// Each of these was once wrong, and was found by the simulation or by a test of a part.

#include <doctest/doctest.h>

#include "support/core_fixture.h"

namespace holdfast::broker {
namespace {

using Setting = CoreFixture::Setting;

// Two consumers of one connection: when the end of the first makes room for a message, it must not
// go to the second.
TEST_CASE("a connection that is being closed is given nothing more") {
  CoreFixture core;
  core.create_queue("orders", {{QueueSetting::kMaxAttempts, 1}});
  core.subscribe("orders", 1);
  core.publish("orders", "a");
  const ConsumerId second = core.subscribe("orders", 1);
  core.hold_commits();
  core.publish("orders", "b");  // its batch moves the watermark past it
  core.set_credit(second, 0);
  core.release_commits();
  core.edit_queue("orders", {{QueueSetting::kOutstandingMax, 1}});
  core.set_credit(second, 1);
  REQUIRE(core.delivered() == std::vector<Sequence>{1});
  core.disconnect();
  CHECK(core.delivered().empty());
  core.subscribe("orders", 1, 0, SessionId(3));
  const std::vector<Received> received = core.deliveries();
  REQUIRE(received.size() == 1);
  CHECK(received[0].id == "b");
  CHECK(received[0].attempt == 1);
}

// A consumer that pauses and then ends must not be charged with what it was never sent.
TEST_CASE("nothing comes after a credit of none, not even a retry that was chosen before") {
  CoreFixture core;
  core.create_queue("orders");
  const ConsumerId first = core.subscribe("orders", 2);
  core.publish("orders", "a");
  core.publish("orders", "b");
  REQUIRE(core.delivered() == std::vector<Sequence>{1, 2});
  core.hold_commits();
  core.settle(first, wire::SettleKind_Release, {{1, 2}});
  core.set_credit(first, 0);
  core.release_commits();
  CHECK(core.delivered().empty());
  core.disconnect();
  core.subscribe("orders", 2, 0, SessionId(3));
  const std::vector<Received> received = core.deliveries();
  REQUIRE(received.size() == 2);
  CHECK(received[0].attempt == 1);
  CHECK(received[1].attempt == 1);
}

// Its first choice was given back: the commit of that one must not send the second.
TEST_CASE(
    "a retry that was given back and chosen again is sent when the second choice is durable") {
  CoreFixture core;
  core.create_queue("orders", {{QueueSetting::kMaxAttempts, 3}});
  const ConsumerId consumer = core.subscribe("orders", 1);
  core.publish("orders", "a");
  core.nack(consumer, 1);
  core.delivered();
  core.hold_commits();
  core.pass(Milliseconds(2000));  // chosen, its batch is under way
  core.set_credit(consumer, 0);   // given back
  core.set_credit(consumer, 1);   // chosen again
  core.commit_one();
  CHECK(core.delivered().empty());
  core.release_commits();
  const std::vector<Received> received = core.deliveries();
  REQUIRE(received.size() == 1);
  CHECK(received[0].attempt == 2);
}

TEST_CASE("a drain does not count messages that it kept from being delivered") {
  CoreFixture core;
  core.create_queue("orders", {{QueueSetting::kMaxAttempts, 1}});
  core.subscribe("orders", 10);
  core.hold_commits();
  core.publish("orders", "a");  // its batch moves the watermark past it
  core.core().begin_drain();
  core.release_commits();
  CHECK(core.core().drained());
  CHECK(core.delivered().empty());
  core.restart();
  CHECK(core.dead_letters("orders").empty());
  core.subscribe("orders", 10);
  const std::vector<Received> received = core.deliveries();
  REQUIRE(received.size() == 1);
  CHECK(received[0].attempt == 1);
}

// It ended before the move that the reject had asked for.
TEST_CASE("a drain waits for a dead letter whose block is being read") {
  CoreOptions options;
  options.cache_bytes_max = 1;
  CoreFixture core(options);
  core.create_queue("orders");
  for (const char* id : {"a", "b", "c"}) core.publish("orders", id);
  const ConsumerId consumer = core.subscribe("orders", 3);
  core.hold_fetches();
  core.core().begin_drain();
  core.settle(consumer, wire::SettleKind_Reject, {{1, 3}}, "all wrong");
  CHECK_FALSE(core.core().drained());
  core.release_fetches();
  CHECK(core.core().drained());
  CHECK(core.last_settled().settled == 3);
  core.restart();
  CHECK(core.dead_letters("orders").size() == 3);
}

// It went on to the last step, for minutes.
TEST_CASE("a drain does not wait for a removal that goes in steps, and the next start ends it") {
  CoreFixture core;
  core.create_queue("orders");
  for (int i = 0; i < 2000; ++i) core.publish("orders", std::to_string(i));
  core.hold_commits();
  core.delete_queue("orders");
  core.core().begin_drain();
  for (int commits = 0; !core.core().drained(); ++commits) {
    REQUIRE(commits < 3);
    core.commit_one();
  }
  CHECK(core.store.block_count() > 1000);
  core.restart();
  core.release_commits();
  CHECK(core.store.block_count() == 0);
  CHECK(core.store.dedup_record_count() == 0);
  core.create_queue("orders");
  CHECK(core.report("orders").messages == 0);
}

TEST_CASE("a dead letter that is rejected keeps its story") {
  CoreFixture core;
  core.create_queue("orders");
  const ConsumerId consumer = core.subscribe("orders", 1);
  core.publish("orders", "a");
  core.settle(consumer, wire::SettleKind_Reject, {{1, 1}}, "no such customer");
  const ConsumerId reader = core.subscribe("orders.dead", 1);
  core.settle(reader, wire::SettleKind_Reject, {{1, 1}}, "not mine either");
  const std::vector<DeadLetterSeen> letters = core.dead_letters("orders");
  REQUIRE(letters.size() == 1);
  CHECK(letters[0].sequence == 2);
  CHECK(letters[0].source == "orders");
  CHECK(letters[0].source_sequence == 1);
  CHECK(letters[0].error == "no such customer");
  CHECK(letters[0].attempts == 1);
}

// Message 1 of "orders" failed, to come again in 5 s; then the wall clock was set back an hour.
void put_off_and_set_back_the_clock(CoreFixture& core) {
  core.create_queue("orders");
  const ConsumerId consumer = core.subscribe("orders", 1);
  core.publish("orders", "a");
  core.deliveries();
  core.settle(consumer, wire::SettleKind_Nack, {{1, 1}}, "later", Milliseconds(5000));
  core.set_wall_clock(core.now().wall - Milliseconds(3'600'000));
}

TEST_CASE("a wall clock that was set back does not make the wait for a retry longer") {
  CoreFixture core;
  put_off_and_set_back_the_clock(core);
  core.restart();
  core.subscribe("orders", 1);
  CHECK(core.delivered().empty());
  core.pass(Milliseconds(5000));
  CHECK(core.delivered() == std::vector<Sequence>{1});
}

// With a start a day, what was put off for a week never came.
TEST_CASE("after the wall clock was set back each start began the wait for a retry anew") {
  CoreFixture core;
  put_off_and_set_back_the_clock(core);
  for (int starts = 0; starts < 5; ++starts) {
    core.restart();
    core.subscribe("orders", 1);
    CHECK(core.delivered().empty());
    core.pass(Milliseconds(1000));
  }
  CHECK(core.delivered() == std::vector<Sequence>{1});
}

TEST_CASE("a retry that is due stays due after a restart, wherever the wall clock is") {
  CoreFixture core;
  core.create_queue("orders");
  const ConsumerId consumer = core.subscribe("orders", 1);
  core.publish("orders", "a");
  core.deliveries();
  core.settle(consumer, wire::SettleKind_Release, {{1, 1}});
  core.disconnect();
  core.set_wall_clock(core.now().wall - Milliseconds(3'600'000));
  core.restart();
  core.pass(Milliseconds(2000));  // the lost connection's backoff
  core.subscribe("orders", 1);
  CHECK(core.delivered() == std::vector<Sequence>{1});
}

TEST_CASE("ids that gather for long are known for the whole window after a restart") {
  CoreFixture core;
  core.create_queue("orders", {{QueueSetting::kDedupWindow, 10'000}});
  core.hold_commits();
  core.publish("orders", "first");   // under way
  core.publish("orders", "second");  // gathers
  core.pass(Milliseconds(8000));
  core.publish("orders", "third");  // gathers in the same batch, 8 s later
  core.release_commits();
  core.restart();
  core.pass(Milliseconds(9000));
  const std::uint64_t again = core.publish("orders", "third");
  REQUIRE(core.confirm_of(again).has_value());
  CHECK(core.confirm_of(again)->duplicate);
  CHECK(core.confirm_of(again)->sequence == 3);
}

TEST_CASE("an id that expires before its commit leaves no record") {
  CoreFixture core;
  core.create_queue("orders", {{QueueSetting::kDedupWindow, 1000}});
  core.hold_commits();
  core.publish("orders", "first");   // under way
  core.publish("orders", "second");  // gathers
  core.pass(Milliseconds(5000));
  core.release_commits();
  CHECK(core.store.dedup_record_count() <= 1);
  core.pass(Milliseconds(5000));
  CHECK(core.store.dedup_record_count() == 0);
}

// Its last batches each found it deleted and let its removal go on, also when that was sealed.
TEST_CASE("a deleted queue is gone for good, however many batches wait when its removal is done") {
  CoreFixture core;
  core.create_queue("orders");
  core.create_queue("bulk");
  auto fill_a_batch = [&core, number = 0]() mutable {
    core.publish("bulk", std::to_string(++number), std::string(1 << 20, 'b'));
  };
  // More records of ids than two commits remove.
  for (int i = 0; i < 600; ++i) core.publish("orders", std::to_string(i));
  core.purge("orders");
  core.hold_commits();
  core.publish("orders", "a");
  core.delete_queue("orders");
  fill_a_batch();
  for (int i = 0; i < 12; ++i) {
    core.commit_one();
    fill_a_batch();
  }
  core.release_commits();
  CHECK(core.report("bulk").messages == 13);
  CHECK(core.store.dedup_record_count() == 13);
  core.crash();
  CHECK(core.report("bulk").messages == 13);
  core.create_queue("orders");
  CHECK(core.report("orders").messages == 0);
}

// Each time they were chosen anew, for the same commit.
TEST_CASE("credit that is taken and given again and again has an end until the next commit") {
  constexpr Sequence kMessages = 1'000;
  CoreFixture core;
  core.create_queue("orders");
  for (Sequence i = 1; i <= kMessages; ++i) core.publish("orders", std::to_string(i));
  const ConsumerId consumer = core.subscribe("orders", kMessages);
  REQUIRE(core.delivered().size() == kMessages);
  core.hold_commits();
  core.settle(consumer, wire::SettleKind_Release, {{1, kMessages}});
  CHECK(core.report("orders").in_flight == kMessages);
  for (int i = 0; i < 80; ++i) {
    core.set_credit(consumer, 0);
    core.set_credit(consumer, kMessages);
  }
  CHECK(core.report("orders").in_flight == 0);
  core.release_commits();
  const std::vector<Received> received = core.deliveries();
  CHECK(received.size() == kMessages);
  for (const Received& message : received) CHECK(message.attempt == 1);
}

// Each took its place by a walk past all that end later.
TEST_CASE("leases that are made shorter, later ones first, end in their order") {
  constexpr Sequence kMessages = 200;
  CoreFixture core;
  core.create_queue("orders");
  for (Sequence i = 1; i <= kMessages; ++i) core.publish("orders", std::to_string(i));
  const ConsumerId consumer = core.subscribe("orders", kMessages, 3'600'000);
  REQUIRE(core.delivered().size() == kMessages);
  for (Sequence i = kMessages; i >= 1; --i) {
    core.extend(consumer, i, static_cast<std::uint32_t>(1'000 + 10 * i));
  }
  core.ack(consumer, 7);
  core.extend(consumer, 9, 3'600'000);
  core.pass(Milliseconds(1'100));
  std::vector<SequenceRange> lost;
  for (const LeaseLostNotice& notice : core.lost_leases()) {
    lost.insert(lost.end(), notice.ranges.begin(), notice.ranges.end());
  }
  std::vector<Sequence> sequences;
  for_each_sequence(lost, [&](Sequence sequence) { sequences.push_back(sequence); });
  CHECK(sequences == std::vector<Sequence>{1, 2, 3, 4, 5, 6, 8, 10});
  core.disconnect();
  CHECK(core.report("orders").in_flight == 0);
}

// The next ones would have been those of queues that are there.
TEST_CASE("when all ids had been given to queues, new queues took those of others") {
  Core core{CoreOptions()};
  const MemoryStore store;
  StoredState stored;
  stored.space = store.space;
  stored.next_id = std::numeric_limits<std::uint32_t>::max() - 4;
  const Now now{MonotonicTime(Milliseconds(1)), WallTime(Milliseconds(1'700'000'000'000))};
  core.load(stored, now);
  core.session_opened(SessionId(1), "test");
  const auto create = [&](const char* name) {
    core.create_queue({.asker = {SessionId(1), 1}, .name = name, .settings = {}}, now);
    while (std::unique_ptr<Batch> batch = core.take_batch(now)) {
      CommitResult result;
      result.number = batch->number;
      result.space = store.space;
      core.committed(result, now);
    }
    return std::exchange(core.effects().said, {});
  };
  const std::vector<Effect> last = create("last");
  REQUIRE(last.size() == 1);
  CHECK(std::holds_alternative<QueueReply>(last[0]));
  const std::vector<Effect> more = create("more");
  REQUIRE(more.size() == 1);
  REQUIRE(std::holds_alternative<ErrorReply>(more[0]));
  CHECK(std::get<ErrorReply>(more[0]).error.code() == ErrorCode::kLimitReached);
  CHECK(core.report(now).queues == 1);
}

}  // namespace
}  // namespace holdfast::broker
