#include <doctest/doctest.h>

#include <string>

#include "support/core_fixture.h"

namespace holdfast::broker {
namespace {

TEST_CASE("what was in flight at a crash comes again at once with one attempt more") {
  CoreFixture f;
  f.create_queue("q");
  f.publish("q", "a");
  f.subscribe("q", 10);
  f.crash();
  f.subscribe("q", 10);
  const auto received = f.deliveries();
  REQUIRE(received.size() == 1);
  CHECK(received[0].attempt == 2);
}

TEST_CASE("what was never delivered has its first attempt after a crash") {
  CoreFixture f;
  f.create_queue("q");
  for (int i = 0; i < 10; ++i) f.publish("q", "m" + std::to_string(i));
  f.subscribe("q", 3);
  f.crash();
  f.subscribe("q", 100);
  for (const Received& received : f.deliveries()) {
    CHECK(received.attempt == (received.sequence <= 3 ? 2 : 1));
  }
}

// A message of queue q that was nacked, and waits for its retry for a minute.
void let_one_wait(CoreFixture& f, const std::string& error) {
  f.publish("q", "a");
  const ConsumerId consumer = f.subscribe("q", 1);
  CHECK(f.deliveries().size() == 1);
  f.settle(consumer, wire::SettleKind_Nack, {{1, 1}}, error, Milliseconds(60'000));
}

TEST_CASE("what waits for a retry waits on after a restart") {
  CoreFixture f;
  f.create_queue("q");
  let_one_wait(f, "later");
  f.pass(Milliseconds(20'000));
  f.restart();
  f.subscribe("q", 1);
  CHECK(f.delivered().empty());
  f.pass(Milliseconds(39'000));
  CHECK(f.delivered().empty());
  f.pass(Milliseconds(1'100));
  const auto received = f.deliveries();
  REQUIRE(received.size() == 1);
  CHECK(received[0].attempt == 2);
}

TEST_CASE("crashes count towards the retry limit and are in the history") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxAttempts, 3}});
  f.publish("q", "a");
  for (int i = 0; i < 3; ++i) {
    f.subscribe("q", 1);
    CHECK(f.deliveries().size() == 1);
    f.crash();
  }
  const auto letters = f.dead_letters("q");
  REQUIRE(letters.size() == 1);
  CHECK(letters[0].attempts == 3);
  CHECK(letters[0].history == std::vector<wire::Cause>(3, wire::Cause_BrokerRestarted));
}

TEST_CASE("a message whose attempts are used up, the last one ended, is dead after a restart") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxAttempts, 3}});
  let_one_wait(f, "no");
  // As if a crash had come between the record of the last attempt's end and the move.
  f.edit_queue("q", {{QueueSetting::kMaxAttempts, 1}});
  f.restart();
  f.subscribe("q", 1);
  f.pass(Milliseconds(120'000));
  CHECK(f.deliveries().empty());
  CHECK(f.dead_letters("q").size() == 1);
}

TEST_CASE("a dead letter of a restart had lost the error of its last attempt") {
  CoreFixture f;
  f.create_queue("q");
  let_one_wait(f, "no such order");
  f.edit_queue("q", {{QueueSetting::kMaxAttempts, 1}});
  f.restart();
  const auto letters = f.dead_letters("q");
  REQUIRE(letters.size() == 1);
  CHECK(letters[0].reason == wire::Cause_RetryLimit);
  CHECK(letters[0].error == "no such order");
}

TEST_CASE("settings, counts and order are the same after a restart") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxAttempts, 7}, {QueueSetting::kLease, 5'000}});
  for (int i = 0; i < 300; ++i) f.publish("q", "m" + std::to_string(i));
  const QueueReport before = f.report("q");
  f.restart();
  const QueueReport after = f.report("q");
  CHECK(after.settings == before.settings);
  CHECK(after.messages == 300);
  CHECK(after.bytes == before.bytes);
  CHECK(after.next_sequence == before.next_sequence);
  CHECK(after.created_at == before.created_at);
  f.subscribe("q", 1'000);
  Sequence expected = 1;
  for (const Sequence sequence : f.delivered()) CHECK(sequence == expected++);
  CHECK(expected == 301);
}

TEST_CASE("messages whose acks were damaged came again as corrupt ones, though long removed") {
  CoreFixture f;
  f.create_queue("q");
  for (int i = 1; i <= 20; ++i) f.publish("q", "m" + std::to_string(i));
  const ConsumerId consumer = f.subscribe("q", 15);
  // With the first one left the floor stays.
  f.settle(consumer, wire::SettleKind_Ack, {{2, 7}, {9, 14}});
  REQUIRE(f.store.ack_record_count() == 1);
  f.store.flip_bit_in_acks(f.id_of("q"), 0);
  // What was made of it is stored, so that the next start knows it, too.
  for (int start = 0; start < 2; ++start) {
    f.restart();
    const QueueReport report = f.report("q");
    CHECK(report.messages == 8);
    CHECK(report.ready == 8);
    CHECK(f.store.ack_record_count() == 1);
  }
  f.subscribe("q", 100);
  CHECK(f.delivered() == std::vector<Sequence>{1, 8, 15, 16, 17, 18, 19, 20});
  CHECK(f.report("q").counters.corrupt == 0);
  CHECK(f.dead_letters("q").empty());
}

TEST_CASE(
    "dead letters that were discarded came again as corrupt ones when their acks were damaged") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxAttempts, 1}});
  for (int i = 1; i <= 6; ++i) f.publish("q", "m" + std::to_string(i));
  const ConsumerId consumer = f.subscribe("q", 6);
  // Each in a block of its own.
  for (Sequence i = 1; i <= 6; ++i) f.settle(consumer, wire::SettleKind_Reject, {{i, i}});
  // Never delivered: beyond what a first delivery may have reached.
  f.discard("q", {2, 3, 5});
  f.store.flip_bit_in_acks(f.id_of("q.dead"), 0);
  f.restart();
  CHECK(f.report("q.dead").messages == 3);
  CHECK(f.dead_letters("q").size() == 3);
  CHECK(f.report("q.dead").counters.corrupt == 0);
}

TEST_CASE("what a block still holds of messages whose acks were damaged is delivered again") {
  CoreFixture f;
  f.create_queue("q");
  f.hold_commits();
  for (int i = 1; i <= 10; ++i) f.publish("q", "m" + std::to_string(i));
  f.release_commits();
  const ConsumerId consumer = f.subscribe("q", 10);
  f.settle(consumer, wire::SettleKind_Ack, {{2, 4}});
  f.store.flip_bit_in_acks(f.id_of("q"), 0);
  f.restart();
  CHECK(f.store.load().queues.front().bytes_estimated);
  const ConsumerId next = f.subscribe("q", 10);
  CHECK(f.delivered() == std::vector<Sequence>{1, 2, 3, 4, 5, 6, 7, 8, 9, 10});
  // Less than it was is counted, until it is empty.
  f.settle(next, wire::SettleKind_Ack, {{1, 10}});
  CHECK(f.report("q").bytes == 0);
  CHECK_FALSE(f.store.load().queues.front().bytes_estimated);
}

TEST_CASE("damaged records of acks and attempts stayed in the store when their queue was deleted") {
  CoreFixture f;
  f.create_queue("q");
  for (int i = 1; i <= 4; ++i) f.publish("q", "m" + std::to_string(i));
  const ConsumerId consumer = f.subscribe("q", 4);
  f.ack(consumer, 2);
  f.nack(consumer, 3);
  const QueueId queue = f.id_of("q");
  f.store.flip_bit_in_acks(queue, 0);
  f.store.flip_bit_in_acks(queue, 1 << 20);
  f.store.flip_bit_in_retry(queue, 2);
  f.store.flip_bit_in_retry(queue, 3);
  SUBCASE("what is made of them is stored in their place") {
    f.restart();
    CHECK(f.store.load().records_corrupt == 0);
    CHECK(f.store.load().acks.size() == 1);
    CHECK(f.report("q").messages == 3);
    f.delete_queue("q");
  }
  SUBCASE("also while it is being deleted") {
    f.hold_commits();
    f.delete_queue("q");
    f.commit_one();
    f.crash();
  }
  CHECK(f.store.queue_count() == 0);
  CHECK(f.store.ack_record_count() == 0);
  CHECK(f.store.retry_count() == 0);
}

TEST_CASE("damaged records of a subscription that there is not stayed in the store for ever") {
  Core core{CoreOptions()};
  StoredState state;
  state.batch_number = 7;
  state.acks_corrupt = {{SubscriptionId(9), ~std::uint64_t{0}}};
  state.retries_corrupt = {{SubscriptionId(9), 5}};
  core.load(state, Now());
  const std::unique_ptr<Batch> batch = core.take_batch(Now());
  REQUIRE(batch != nullptr);
  CHECK(batch->number == 8);
  CHECK(batch->acks_removed.size() == 1);
  CHECK(batch->retries_removed.size() == 1);
}

TEST_CASE("a purge empties the queue, holders are told, and the space comes back in steps") {
  CoreFixture f;
  f.create_queue("q");
  for (int i = 0; i < 1'000; ++i) f.publish("q", "m" + std::to_string(i));
  const ConsumerId consumer = f.subscribe("q", 5);
  f.nack(consumer, 2);
  CHECK(f.purge("q") == 1'000);
  const auto lost = f.lost_leases();
  REQUIRE(lost.size() == 1);
  CHECK(lost[0].cause == wire::Cause_Purged);
  CHECK(f.report("q").messages == 0);
  CHECK(f.report("q").bytes == 0);
  CHECK(f.store.block_count() == 0);
  CHECK(f.store.retry_count() == 0);
  f.delivered();
  f.publish("q", "after");
  CHECK(f.delivered() == std::vector<Sequence>{1'001});
  f.pass(Milliseconds(60'000));
  f.restart();
  CHECK(f.report("q").messages == 1);
}

TEST_CASE("a purge that a crash interrupted goes on after the restart") {
  CoreFixture f;
  f.create_queue("q");
  for (int i = 0; i < 1'000; ++i) f.publish("q", "m" + std::to_string(i));
  f.hold_commits();
  f.purge("q");
  f.commit_one();
  CHECK(f.store.block_count() > 0);
  f.crash();
  CHECK(f.report("q").messages == 0);
  CHECK(f.store.block_count() == 0);
}

TEST_CASE("a deleted queue leaves nothing behind and its name can be used again") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxAttempts, 1}});
  for (int i = 0; i < 600; ++i) f.publish("q", "m" + std::to_string(i));
  const ConsumerId consumer = f.subscribe("q", 10);
  f.settle(consumer, wire::SettleKind_Nack, {{1, 3}});
  const QueueId old_id = f.id_of("q");
  f.delete_queue("q");
  CHECK(f.store.block_count() == 0);
  CHECK(f.store.dedup_record_count() == 0);
  CHECK(f.store.retry_count() == 0);
  CHECK(f.store.queue_count() == 0);
  f.create_queue("q");
  CHECK(f.id_of("q") != old_id);
  CHECK_FALSE(f.confirm_of(f.publish("q", "m1"))->duplicate);
  f.restart();
  CHECK(f.report("q").messages == 1);
}

TEST_CASE("deleting goes on after a crash in the middle") {
  CoreFixture f;
  f.create_queue("q");
  for (int i = 0; i < 600; ++i) f.publish("q", "m" + std::to_string(i));
  f.hold_commits();
  f.delete_queue("q");
  f.commit_one();
  f.crash();
  CHECK(f.store.block_count() == 0);
  CHECK(f.store.queue_count() == 0);
}

TEST_CASE("what a crash cost was not known") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxAttempts, 2}, {QueueSetting::kBackoffMin, 0}});
  for (int i = 0; i < 3; ++i) f.publish("q", "m" + std::to_string(i));
  const ConsumerId one = f.subscribe("q", 1);
  REQUIRE(f.delivered() == std::vector<Sequence>{1});
  f.settle(one, wire::SettleKind_Nack, {{1, 1}}, "", Milliseconds(0));
  f.set_credit(one, 3);
  f.pass(Milliseconds(1));
  REQUIRE(f.delivered().size() == 3);
  f.crash();
  CHECK(f.core().interrupted().messages == 3);
  CHECK(f.core().interrupted().dead == 1);
  f.crash();
  CHECK(f.core().interrupted().messages == 0);
}

TEST_CASE("queue names, limits and settings are checked") {
  CoreOptions options;
  options.queues_max = 2;
  CoreFixture f(options);
  f.create_queue("q");
  f.create_queue("q");
  CHECK(f.last_error().code() == ErrorCode::kQueueExists);
  f.create_queue("bad name");
  CHECK(f.last_error().code() == ErrorCode::kNameInvalid);
  f.create_queue("x.dead");
  CHECK(f.last_error().code() == ErrorCode::kNameInvalid);
  f.create_queue("r", {{QueueSetting::kLease, 1}});
  CHECK(f.last_error().code() == ErrorCode::kInvalidArgument);
  f.create_queue("r", {{QueueSetting::kBackoffMin, 5'000}, {QueueSetting::kBackoffMax, 1'000}});
  CHECK(f.last_error().code() == ErrorCode::kInvalidArgument);
  f.create_queue("r");
  f.create_queue("s");
  CHECK(f.last_error().code() == ErrorCode::kLimitReached);
  f.delete_queue("r.dead");
  CHECK(f.last_error().code() == ErrorCode::kOperationRefused);
}

// Its error named the number of queues as the limit.
TEST_CASE("a broker that was started with a lower limit on queues told a wrong one") {
  CoreFixture f;
  f.create_queue("a");
  f.create_queue("b");
  CoreOptions options;
  options.queues_max = 1;
  f.restart_with(options);
  f.create_queue("c");
  CHECK(f.last_error().message().starts_with(
      "The broker has 2 queues, and its limit is 1 (queues_max)."));
}

// Whoever set a longer lease for every queue still had 30 s for dead letters.
TEST_CASE("a dead-letter queue did not have the lease, backoff and outstanding-max of its queue") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kLease, 600'000},
                       {QueueSetting::kBackoffMin, 7'000},
                       {QueueSetting::kBackoffMax, 8'000},
                       {QueueSetting::kOutstandingMax, 9},
                       {QueueSetting::kMaxAttempts, 3},
                       {QueueSetting::kMaxMessages, 4},
                       {QueueSetting::kMaxMessageBytes, 5}});
  const QueueSettings settings = f.report("q.dead").settings;
  CHECK(settings.get(QueueSetting::kLease) == 600'000);
  CHECK(settings.get(QueueSetting::kBackoffMin) == 7'000);
  CHECK(settings.get(QueueSetting::kBackoffMax) == 8'000);
  CHECK(settings.get(QueueSetting::kOutstandingMax) == 9);
  const QueueSettings usual = QueueSettings::for_dead_letters();
  for (const QueueSettingInfo& info : queue_setting_table()) {
    if (QueueSettings::may_differ_for_dead_letters(info.setting)) continue;
    CHECK(settings.get(info.setting) == usual.get(info.setting));
  }
}

TEST_CASE("settings that a dead-letter queue does not have were taken") {
  CoreFixture f;
  f.create_queue("q");
  f.edit_queue("q.dead", {{QueueSetting::kLease, 500}, {QueueSetting::kMaxMessages, 7}});
  CHECK(f.last_error().code() == ErrorCode::kOperationRefused);
  CHECK(f.last_error().message().find("max-messages is none") != std::string::npos);
  CHECK(f.report("q.dead").settings == QueueSettings::for_dead_letters());
  // As it is, it may be said.
  f.edit_queue("q.dead", {{QueueSetting::kLease, 500}, {QueueSetting::kMaxMessages, 0}});
  CHECK(f.report("q.dead").settings.get(QueueSetting::kLease) == 500);
  f.restart();
  CHECK(f.report("q.dead").settings.get(QueueSetting::kLease) == 500);
}

TEST_CASE("an edited lease holds for consumers that follow the queue") {
  CoreFixture f;
  f.create_queue("q");
  f.subscribe("q", 1);
  f.edit_queue("q", {{QueueSetting::kLease, 500}});
  f.publish("q", "a");
  f.pass(Milliseconds(501));
  CHECK(f.lost_leases().size() == 1);
  f.restart();
  CHECK(f.report("q").settings.get(QueueSetting::kLease) == 500);
}

TEST_CASE("a drain gives back what was not started and ends when all is settled") {
  CoreFixture f;
  f.create_queue("q");
  f.publish("q", "a");
  f.publish("q", "b");
  const ConsumerId consumer = f.subscribe("q", 10);
  f.core().begin_drain();
  CHECK_FALSE(f.core().drained());
  f.settle(consumer, wire::SettleKind_Release, {{2, 2}});
  f.ack(consumer, 1);
  CHECK(f.core().drained());
  f.delivered();
  f.restart();
  f.subscribe("q", 10);
  const auto received = f.deliveries();
  REQUIRE(received.size() == 1);
  CHECK(received[0].sequence == 2);
  CHECK(received[0].attempt == 1);
}

}  // namespace
}  // namespace holdfast::broker
