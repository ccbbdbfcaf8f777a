#include <doctest/doctest.h>
#include <malloc.h>

#include "support/core_fixture.h"

namespace holdfast::broker {
namespace {

// Queue "q" has had so many messages, and they have all failed for good.
void make_dead_letters(CoreFixture& f, Sequence count) {
  f.create_queue("q", {{QueueSetting::kMaxAttempts, 1}});
  for (Sequence i = 1; i <= count; ++i) f.publish("q", "m" + std::to_string(i));
  const ConsumerId consumer = f.subscribe("q", 100);
  f.settle(consumer, wire::SettleKind_Nack, {{1, count}});
  f.disconnect();
}

// 600 bytes, until the block was emptied. Under a sanitizer, which has a heap of its own, nothing
// is seen to grow.
TEST_CASE("counting dead letters took memory for each of their blocks and kept it") {
  CoreOptions options;
  options.cache_bytes_max = 64 * 1024;
  CoreFixture f(options);
  constexpr Sequence kLetters = 2'000;
  f.create_queue("q");
  for (Sequence i = 1; i <= kLetters; ++i) f.publish("q", "m" + std::to_string(i));
  const ConsumerId consumer = f.subscribe("q", kLetters);
  for (Sequence i = 1; i <= kLetters; ++i) {
    f.settle(consumer, wire::SettleKind_Reject, {{i, i}});
  }
  f.discard("q", {kLetters});
  const std::size_t before = mallinfo2().uordblks;
  for (Sequence from = 1; from <= kLetters; from += 256) {
    LettersRequest request;
    request.asker = {SessionId(2), 1};
    request.queue = "q";
    request.all = true;
    request.from = from;
    request.limit = 256;
    request.dry_run = true;
    f.core().redrive(request, f.now());
    f.run();
  }
  const std::size_t after = mallinfo2().uordblks;
  CHECK(after - std::min(before, after) < kLetters * 100);
  CHECK(f.redrive_all("q", 1).moved == 1);
}

// Each letter was compared with the queue as it was before the first of them.
TEST_CASE("a dry run promised more letters than the queue would take") {
  CoreFixture f;
  make_dead_letters(f, 40);
  SUBCASE("by their number") { f.edit_queue("q", {{QueueSetting::kMaxMessages, 3}}); }
  SUBCASE("by their bytes") { f.edit_queue("q", {{QueueSetting::kMaxBytes, 1'024}}); }
  const MovedReply planned = f.redrive_all("q", 256, 0, true);
  CHECK(f.report("q").messages == 0);
  const MovedReply done = f.redrive_all("q");
  CHECK(done.moved > 0);
  CHECK(done.refused > 0);
  CHECK(planned.moved == done.moved);
  CHECK(planned.refused == done.refused);
  CHECK(planned.first_refusal.message() == done.first_refusal.message());
}

TEST_CASE("a message that nobody settles is dead-lettered after exactly max-attempts deliveries") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxAttempts, 4}, {QueueSetting::kLease, 1'000}});
  f.publish("q", "poison", "its body");
  f.subscribe("q", 10);
  f.pass(Milliseconds(60'000));
  const auto received = f.deliveries();
  REQUIRE(received.size() == 4);
  for (std::size_t i = 0; i < 4; ++i) CHECK(received[i].attempt == i + 1);
  CHECK(f.report("q").messages == 0);
  const auto letters = f.dead_letters("q");
  REQUIRE(letters.size() == 1);
  CHECK(letters[0].id == "poison");
  CHECK(letters[0].body == "its body");
  CHECK(letters[0].source == "q");
  CHECK(letters[0].source_sequence == 1);
  CHECK(letters[0].reason == wire::Cause_RetryLimit);
  CHECK(letters[0].attempts == 4);
  CHECK(letters[0].history == std::vector<wire::Cause>(4, wire::Cause_LeaseExpired));
}

TEST_CASE("every kind of failed attempt is in the history, with its text") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxAttempts, 3}, {QueueSetting::kLease, 1'000}});
  f.publish("q", "a");
  const ConsumerId consumer = f.subscribe("q", 1);
  f.nack(consumer, 1, "no database");
  f.pass(Milliseconds(1'250));
  f.disconnect();
  f.subscribe("q", 1);
  f.pass(Milliseconds(10'000));
  const auto letters = f.dead_letters("q");
  REQUIRE(letters.size() == 1);
  CHECK(letters[0].history == std::vector<wire::Cause>{wire::Cause_Nacked,
                                                       wire::Cause_ConnectionLost,
                                                       wire::Cause_LeaseExpired});
  CHECK(letters[0].history_errors[0] == "no database");
}

TEST_CASE("a reject dead-letters at once with its reason, answered when that is durable") {
  CoreFixture f;
  f.create_queue("q");
  f.publish("q", "a");
  const ConsumerId consumer = f.subscribe("q", 1);
  f.hold_commits();
  f.settle(consumer, wire::SettleKind_Reject, {{1, 1}}, "not for us");
  CHECK(f.last_settled().settled == 0);
  f.release_commits();
  CHECK(f.last_settled().settled == 1);
  const auto letters = f.dead_letters("q");
  REQUIRE(letters.size() == 1);
  CHECK(letters[0].reason == wire::Cause_Rejected);
  CHECK(letters[0].error == "not for us");
  CHECK(f.report("q").messages == 0);
  CHECK(f.report("q").dead == 1);
}

TEST_CASE("a reject whose block is no longer in memory is answered after it was read") {
  CoreOptions options;
  options.cache_bytes_max = 1;
  CoreFixture f(options);
  f.create_queue("q");
  for (int i = 0; i < 10; ++i) f.publish("q", "m" + std::to_string(i));
  const ConsumerId consumer = f.subscribe("q", 10);
  f.settle(consumer, wire::SettleKind_Reject, {{1, 10}}, "all wrong");
  CHECK(f.last_settled().settled == 10);
  CHECK(f.dead_letters("q").size() == 10);
  CHECK(f.report("q").messages == 0);
}

TEST_CASE("the move to the dead-letter queue is one batch with the settle") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxAttempts, 1}});
  f.publish("q", "a");
  const ConsumerId consumer = f.subscribe("q", 1);
  f.hold_commits();
  f.nack(consumer, 1);
  f.crash();  // before the commit: still in the queue, at its limit
  CHECK(f.report("q").messages + f.report("q.dead").messages == 1);
  const auto letters = f.dead_letters("q");
  REQUIRE(letters.size() == 1);
  CHECK(letters[0].history == std::vector<wire::Cause>{wire::Cause_BrokerRestarted});
  f.restart();
  CHECK(f.dead_letters("q").size() == 1);
  CHECK(f.report("q").messages == 0);
}

TEST_CASE("a dead-letter queue has no retry limit") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxAttempts, 1}});
  f.publish("q", "a");
  f.nack(f.subscribe("q", 1), 1);
  const ConsumerId undertaker = f.subscribe("q.dead", 1);
  for (int i = 0; i < 20; ++i) {
    f.settle(undertaker, wire::SettleKind_Nack, {{1, 1}}, "", Milliseconds(1));
    f.pass(Milliseconds(2));
  }
  CHECK(f.report("q.dead").messages == 1);
  f.ack(undertaker, 1);
  CHECK(f.report("q.dead").messages == 0);
}

TEST_CASE("redrive brings a dead letter back with its id, body and a fresh count") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxAttempts, 1}});
  f.publish("q", "a", "body of a");
  const ConsumerId consumer = f.subscribe("q", 1);
  f.delivered();
  f.nack(consumer, 1, "broken");
  const auto moved = f.redrive("q", {1});
  CHECK(moved.moved == 1);
  const auto again = f.deliveries();
  REQUIRE(again.size() == 1);
  CHECK(again[0].id == "a");
  CHECK(again[0].body == "body of a");
  CHECK(again[0].sequence == 2);
  CHECK(again[0].attempt == 1);
  CHECK_FALSE(again[0].has_provenance);
  CHECK(f.report("q.dead").messages == 0);
  CHECK(f.store.block_count() == 1);
}

TEST_CASE("redrive survives a crash on either side of its commit") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxAttempts, 1}});
  f.publish("q", "a");
  f.nack(f.subscribe("q", 1), 1);
  f.disconnect();
  f.hold_commits();
  f.redrive("q", {1});
  f.crash();
  CHECK(f.report("q").messages == 0);
  CHECK(f.report("q.dead").messages == 1);
  CHECK(f.redrive("q", {1}).moved == 1);
  f.crash();
  CHECK(f.report("q").messages == 1);
  CHECK(f.report("q.dead").messages == 0);
}

TEST_CASE("redrive of all goes in steps and says where to go on") {
  CoreFixture f;
  make_dead_letters(f, 30);
  CHECK(f.report("q.dead").messages == 30);
  const auto first = f.redrive_all("q", 20);
  CHECK(first.moved == 20);
  CHECK(first.next == 21);
  const auto rest = f.redrive_all("q", 20);
  CHECK(rest.moved == 10);
  CHECK(rest.next == 0);
  CHECK(f.report("q").messages == 30);
}

TEST_CASE("redrive of all up to a sequence leaves alone what comes after it") {
  CoreFixture f;
  make_dead_letters(f, 30);
  const auto moved = f.redrive_all("q", 256, 12);
  CHECK(moved.moved == 12);
  CHECK(moved.next == 0);
  CHECK(f.report("q.dead").messages == 18);
  CHECK(f.redrive_all("q", 256, 12).moved == 0);
  CHECK(f.redrive_all("q", 256, ~Sequence{0}).moved == 18);
}

TEST_CASE("redrive and discard leave alone what a consumer of the dead-letter queue holds") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxAttempts, 1}});
  for (int i = 0; i < 3; ++i) f.publish("q", "m" + std::to_string(i));
  const ConsumerId consumer = f.subscribe("q", 100);
  f.settle(consumer, wire::SettleKind_Nack, {{1, 3}});
  f.subscribe("q.dead", 1, 0, SessionId(3));
  const auto moved = f.redrive("q.dead", {1, 2, 77});
  CHECK(moved.moved == 1);
  CHECK(moved.skipped_in_flight == 1);
  CHECK(moved.not_found == 1);
  const auto gone = f.discard("q", {1, 3});
  CHECK(gone.moved == 1);
  CHECK(gone.skipped_in_flight == 1);
  CHECK(f.report("q.dead").messages == 1);
}

// The answer said 1 not found, of which the first was 0, that is, none.
TEST_CASE("a redrive of the sequence 0 did not find it, instead of being refused") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxAttempts, 1}});
  f.publish("q", "a");
  f.nack(f.subscribe("q", 1), 1);
  for (const bool redrive : {true, false}) {
    const MovedReply moved = redrive ? f.redrive("q", {1, 0}) : f.discard("q", {1, 0});
    CHECK(moved.moved == 0);
    CHECK(f.last_error().code() == ErrorCode::kInvalidArgument);
    CHECK(f.report("q.dead").messages == 1);
  }
}

TEST_CASE("redrive into a full queue is refused and keeps the dead letter") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxAttempts, 1}, {QueueSetting::kMaxMessages, 1}});
  f.publish("q", "a");
  f.nack(f.subscribe("q", 1), 1);
  f.disconnect();
  f.publish("q", "b");
  const auto moved = f.redrive("q", {1});
  CHECK(moved.moved == 0);
  CHECK(moved.refused == 1);
  CHECK(moved.first_refusal.code() == ErrorCode::kQueueFull);
  CHECK(f.report("q.dead").messages == 1);
}

TEST_CASE("a corrupt message is set aside with its raw bytes while its neighbours are delivered") {
  CoreFixture f;
  f.create_queue("q");
  f.hold_commits();
  for (int i = 0; i < 6; ++i) f.publish("q", "m" + std::to_string(i), "body " + std::to_string(i));
  f.release_commits();
  f.store.flip_bit_in_message(f.id_of("q"), 4);
  f.restart();
  const ConsumerId consumer = f.subscribe("q", 100);
  CHECK(f.delivered() == std::vector<Sequence>{1, 2, 3, 5, 6});
  const auto letters = f.dead_letters("q");
  REQUIRE(letters.size() == 1);
  CHECK(letters[0].reason == wire::Cause_Corrupt);
  CHECK(letters[0].source_sequence == 4);
  CHECK(letters[0].id == "corrupt:q:4");
  CHECK(letters[0].body.size() > 0);
  CHECK(f.report("q").counters.corrupt == 1);
  f.settle(consumer, wire::SettleKind_Ack, {{1, 3}});
  f.settle(consumer, wire::SettleKind_Ack, {{5, 6}});
  CHECK(f.report("q").messages == 0);
  CHECK(f.redrive("q", {1}).first_refusal.code() == ErrorCode::kMessageCorrupt);
}

TEST_CASE("a message whose stored bytes are damaged stays with the consumer that has good ones") {
  CoreOptions options;
  options.cache_bytes_max = 1;  // so that its block is read again for its neighbour's retry
  CoreFixture f(options);
  f.create_queue("q");
  f.hold_commits();
  for (const char* id : {"alone", "held", "neighbour"}) f.publish("q", id);
  f.release_commits();
  f.publish("q", "last");
  REQUIRE(f.store.block_count() == 3);
  const ConsumerId consumer = f.subscribe("q", 4);
  REQUIRE(f.delivered() == range(1, 4));
  f.store.flip_bit_in_message(f.id_of("q"), 2);
  const std::size_t read_before = f.fetches();
  f.settle(consumer, wire::SettleKind_Nack, {{3, 3}}, "", Milliseconds(1));
  f.pass(Milliseconds(2));
  CHECK(f.delivered() == range(3, 3));
  CHECK(f.fetches() > read_before);
  CHECK(f.report("q").counters.corrupt == 0);
  f.ack(consumer, 2);
  CHECK(f.last_settled().settled == 1);
  CHECK(f.last_settled().late == 0);
  f.settle(consumer, wire::SettleKind_Ack, {{1, 1}, {3, 4}});
  CHECK(f.report("q").messages == 0);
  CHECK(f.report("q").counters.corrupt == 0);
  CHECK(f.dead_letters("q").empty());
}

TEST_CASE("a block whose header is damaged costs its messages, counted, and nothing else") {
  CoreFixture f;
  f.create_queue("q");
  for (int i = 0; i < 3; ++i) f.publish("q", "m" + std::to_string(i));
  f.store.flip_bit_in_block_header(f.id_of("q"), 2);
  f.restart();
  f.subscribe("q", 100);
  CHECK(f.delivered() == std::vector<Sequence>{1, 3});
  CHECK(f.report("q").counters.corrupt == 1);
  CHECK(f.dead_letters("q").size() == 1);
}

TEST_CASE("an unreadable block that ends a read costs nothing behind it") {
  CoreFixture f;
  f.create_queue("q");
  // As large as one read ahead, so that the read ends with it.
  const std::string large(1 << 20, 'x');
  for (int i = 0; i < 4; ++i) f.publish("q", "m" + std::to_string(i), large);
  f.store.flip_bit_in_block_header(f.id_of("q"), 2);
  f.restart();
  f.subscribe("q", 100);
  CHECK(f.delivered() == std::vector<Sequence>{1, 3, 4});
  CHECK(f.report("q").counters.corrupt == 1);
}

TEST_CASE("a block that the store lost is counted and stops nothing") {
  CoreFixture f;
  f.create_queue("q");
  for (int i = 0; i < 5; ++i) f.publish("q", "m" + std::to_string(i));
  f.store.lose_block(f.id_of("q"), 3);
  f.store.lose_block(f.id_of("q"), 5);
  f.restart();
  f.subscribe("q", 100);
  CHECK(f.delivered() == std::vector<Sequence>{1, 2, 4});
  CHECK(f.report("q").counters.corrupt == 2);
}

// What was lost counted for ever, so that an empty queue could be full.
TEST_CASE("a queue whose messages were damaged, lost and acked has no bytes left") {
  for (const bool also_after_restart : {false, true}) {
    CoreFixture f;
    f.create_queue("q");
    for (int i = 0; i < 5; ++i) f.publish("q", "m" + std::to_string(i));
    const std::uint64_t bytes = f.report("q").bytes;
    f.store.lose_block(f.id_of("q"), 3);
    f.store.flip_bit_in_block_header(f.id_of("q"), 4);
    f.store.flip_bit_in_message(f.id_of("q"), 5);
    f.restart();
    const ConsumerId consumer = f.subscribe("q", 100);
    CHECK(f.delivered() == std::vector<Sequence>{1, 2});
    f.ack(consumer, 1);
    // The one that is left, and the one of which nothing is there to be counted.
    CHECK(f.report("q").bytes <= bytes * 2 / 5 + sizeof(BlockHeader));
    f.ack(consumer, 2);
    if (also_after_restart) f.restart();
    CHECK(f.report("q").messages == 0);
    CHECK(f.report("q").bytes == 0);
  }
}

TEST_CASE("of a damaged block, the further off the next one, the fewer bytes were taken off") {
  CoreFixture f;
  f.create_queue("q");
  f.hold_commits();
  // The first one has a block of its own.
  for (int i = 10; i <= 13; ++i) f.publish("q", "m" + std::to_string(i));
  f.release_commits();
  for (int i = 14; i <= 29; ++i) f.publish("q", "m" + std::to_string(i));
  const std::uint64_t message_bytes = f.report("q").bytes / 20;
  const auto is_estimated = [&f] { return f.store.load().queues.front().bytes_estimated; };
  const ConsumerId consumer = f.subscribe("q", 100);
  SUBCASE("the next one is as it was") {
    f.store.flip_bit_in_block_header(f.id_of("q"), 2);
    f.restart();
    f.subscribe("q", 100);
    f.pass(Milliseconds(60'000));
    CHECK(f.report("q").counters.corrupt == 3);
    CHECK(f.report("q").bytes == 17 * message_bytes);
    CHECK_FALSE(is_estimated());
  }
  SUBCASE("what was behind it is gone: that it was not in it is not known") {
    f.settle(consumer, wire::SettleKind_Ack, {{5, 19}});
    f.store.flip_bit_in_block_header(f.id_of("q"), 2);
    f.restart();
    const ConsumerId next = f.subscribe("q", 100);
    f.pass(Milliseconds(60'000));
    CHECK(f.report("q").counters.corrupt == 3);
    CHECK(f.report("q").bytes == 2 * message_bytes);
    CHECK(is_estimated());
    SUBCASE("acks empty it") { f.settle(next, wire::SettleKind_Ack, {{1, 1}, {20, 20}}); }
    SUBCASE("a purge empties it") { f.purge("q"); }
    CHECK(f.report("q").bytes == 0);
    CHECK_FALSE(is_estimated());
  }
}

TEST_CASE("a message that was in flight when its block was damaged leaves no bytes behind") {
  CoreFixture f;
  f.create_queue("q");
  for (int i = 0; i < 5; ++i) f.publish("q", "m" + std::to_string(i));
  const std::uint64_t bytes = f.report("q").bytes;
  f.subscribe("q", 100);
  REQUIRE(f.delivered().size() == 5);
  f.store.flip_bit_in_block_header(f.id_of("q"), 3);
  f.restart();
  const ConsumerId consumer = f.subscribe("q", 100);
  f.pass(Milliseconds(120'000));
  f.settle(consumer, wire::SettleKind_Ack, {{1, 4}});
  CHECK(f.report("q").messages == 1);
  CHECK(f.report("q").bytes <= bytes / 5);
}

// A read for one of them ended with it, and each of the others was set aside by itself.
TEST_CASE("a damaged block whose messages were in flight made a dead letter for each") {
  CoreFixture f;
  f.create_queue("q");
  f.hold_commits();
  for (int i = 0; i < 21; ++i) f.publish("q", "m" + std::to_string(i));
  f.release_commits();
  f.subscribe("q", 100);
  REQUIRE(f.delivered().size() == 21);
  f.store.flip_bit_in_block_header(f.id_of("q"), 2);  // the first message has a block of its own
  f.restart();
  const ConsumerId consumer = f.subscribe("q", 100, 600'000);
  f.pass(Milliseconds(120'000));
  CHECK(f.delivered() == std::vector<Sequence>{1});
  const auto letters = f.dead_letters("q");
  REQUIRE(letters.size() == 1);
  CHECK(letters[0].id == "corrupt:q:2");
  CHECK(letters[0].error.find("messages 2 to 21, 20 of them unsettled") != std::string::npos);
  CHECK(f.report("q").counters.corrupt == 20);
  f.ack(consumer, 1);
  CHECK(f.report("q").messages == 0);
  CHECK(f.report("q").bytes == 0);
}

TEST_CASE("a damaged block of dead letters is one dead letter to a redrive of one of them") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxAttempts, 1}});
  for (int i = 0; i < 4; ++i) f.publish("q", "m" + std::to_string(i));
  const ConsumerId consumer = f.subscribe("q", 100);
  REQUIRE(f.delivered().size() == 4);
  f.settle(consumer, wire::SettleKind_Nack, {{1, 4}});
  REQUIRE(f.dead_letters("q").size() == 4);
  f.store.flip_bit_in_block_header(f.id_of("q.dead"), 1);
  f.restart();
  CHECK(f.redrive("q", {2}).not_found == 1);
  CHECK(f.report("q.dead").counters.corrupt == 4);
  CHECK(f.dead_letters("q").size() == 1);
}

TEST_CASE("a corrupt dead letter is set aside in the same queue") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxAttempts, 1}});
  f.publish("q", "a");
  f.nack(f.subscribe("q", 1), 1);
  f.store.flip_bit_in_message(f.id_of("q.dead"), 1);
  f.restart();
  f.subscribe("q.dead", 10);
  const auto received = f.deliveries();
  REQUIRE(received.size() == 1);
  CHECK(received[0].id == "corrupt:q.dead:1");
  CHECK(f.report("q.dead").messages == 1);
}

TEST_CASE("peek looks and changes nothing") {
  CoreFixture f;
  f.create_queue("q");
  for (int i = 0; i < 10; ++i) f.publish("q", "m" + std::to_string(i));
  const ConsumerId consumer = f.subscribe("q", 2);
  f.delivered();
  f.ack(consumer, 1);
  f.nack(consumer, 2);
  f.delivered();
  const auto batches = f.store.batch_number();
  const auto peeked = f.peek("q", 4);
  REQUIRE(peeked.size() == 4);
  CHECK(peeked[0].entry.sequence == 2);
  CHECK(peeked[0].state == wire::MessageState_Waiting);
  CHECK(peeked[0].attempts == 1);
  CHECK(peeked[1].state == wire::MessageState_InFlight);
  CHECK(peeked[3].state == wire::MessageState_Ready);
  CHECK(peeked[3].attempts == 0);
  CHECK(f.store.batch_number() == batches);
  CHECK(f.peek("q", 4, 9).size() == 2);
}

TEST_CASE("why a message failed was told only once it was a dead letter") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxAttempts, 3}});
  f.publish("q", "a");
  f.publish("q", "b");
  REQUIRE(f.attempts("q", 1));
  CHECK(f.attempts("q", 1)->state == wire::MessageState_Ready);
  CHECK(f.attempts("q", 1)->attempts == 0);
  CHECK_FALSE(f.attempts("q", 3));
  CHECK(f.last_error().code() == ErrorCode::kMessageNotFound);
  CHECK_FALSE(f.attempts("q", 0));
  CHECK(f.last_error().code() == ErrorCode::kMessageNotFound);

  const ConsumerId consumer = f.subscribe("q", 1, 30'000);
  REQUIRE(f.delivered() == std::vector<Sequence>{1});
  auto told = f.attempts("q", 1);
  REQUIRE(told);
  CHECK(told->state == wire::MessageState_InFlight);
  CHECK(told->attempts == 1);
  CHECK(told->consumer == "client-2");
  CHECK(told->due_at == f.now().wall + Milliseconds(30'000));
  CHECK(told->history.empty());
  f.extend(consumer, 1, 90'000);
  CHECK(f.attempts("q", 1)->due_at == f.now().wall + Milliseconds(90'000));

  f.settle(consumer, wire::SettleKind_Nack, {{1, 1}}, "no route", Milliseconds(60'000));
  const WallTime ended_at = f.now().wall;
  f.restart();
  // A restart keeps it; the clock by which it waits and that of the wall are told apart.
  f.set_wall_clock(f.now().wall + Milliseconds(5'000));
  told = f.attempts("q", 1);
  REQUIRE(told);
  CHECK(told->state == wire::MessageState_Waiting);
  CHECK(told->attempts == 1);
  CHECK(told->consumer.empty());
  CHECK(told->due_at == f.now().wall + Milliseconds(60'000));
  REQUIRE(told->history.size() == 1);
  CHECK(told->history[0].number == 1);
  CHECK(told->history[0].cause == wire::Cause_Nacked);
  CHECK(told->history[0].consumer == "client-2");
  CHECK(told->history[0].error == "no route");
  CHECK(told->history[0].ended_at == ended_at);

  // Once it is settled there is nothing to tell.
  f.pass(Milliseconds(61'000));
  const ConsumerId other = f.subscribe("q", 2);
  f.deliveries();
  f.ack(other, 1);
  CHECK_FALSE(f.attempts("q", 1));
  CHECK(f.attempts("q", 2));
}

TEST_CASE("a message on its way to the dead-letter queue is told of as such") {
  CoreOptions options;
  options.cache_bytes_max = 1;
  CoreFixture f(options);
  f.create_queue("q");
  for (int i = 0; i < 10; ++i) f.publish("q", "m" + std::to_string(i));
  const ConsumerId consumer = f.subscribe("q", 10);
  f.deliveries();
  f.hold_fetches();
  f.settle(consumer, wire::SettleKind_Reject, {{1, 1}}, "not for us");
  const auto told = f.attempts("q", 1);
  REQUIRE(told);
  CHECK(told->state == wire::MessageState_Moving);
  CHECK(told->attempts == 1);
  CHECK(told->consumer.empty());
  CHECK(told->due_at == WallTime());
  REQUIRE(told->history.size() == 1);
  CHECK(told->history[0].cause == wire::Cause_Rejected);
  CHECK(told->history[0].error == "not for us");

  f.release_fetches();
  CHECK_FALSE(f.attempts("q", 1));
  CHECK(f.dead_letters("q").size() == 1);
}

TEST_CASE("what is told of an attempt waits for the commit of what was asked before") {
  CoreFixture f;
  f.create_queue("q");
  f.publish("q", "a");
  f.publish("q", "b");
  const ConsumerId consumer = f.subscribe("q", 2);
  f.deliveries();
  f.hold_commits();
  f.nack(consumer, 1, "no route");
  f.ack(consumer, 2);
  CHECK_FALSE(f.attempts("q", 1));
  CHECK_FALSE(f.attempts("q", 2));
  CHECK(f.last_error().ok());
  f.release_commits();
  CHECK(f.last_error().code() == ErrorCode::kMessageNotFound);
  CHECK(f.attempts("q", 1)->history.size() == 1);
}

TEST_CASE(
    "the attempts of a message that was held at a crash, starts again, and is a dead letter") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxAttempts, 2}, {QueueSetting::kBackoffMin, 0}});
  f.publish("q", "a");
  f.subscribe("q", 1);
  f.deliveries();
  f.restart();
  auto told = f.attempts("q", 1);
  CHECK(told->state == wire::MessageState_Ready);
  CHECK(told->attempts == 1);
  REQUIRE(told->history.size() == 1);
  CHECK(told->history[0].cause == wire::Cause_BrokerRestarted);
  CHECK(told->history[0].delivered_at == WallTime());

  // Chosen for a consumer, and its attempt not yet counted: no lease runs.
  f.hold_commits();
  const ConsumerId consumer = f.subscribe("q", 1);
  CHECK(f.deliveries().empty());
  CHECK_FALSE(f.attempts("q", 1));
  f.release_commits();
  told = f.last_attempts();
  REQUIRE(told);
  CHECK(told->state == wire::MessageState_InFlight);
  CHECK(told->attempts == 2);
  CHECK(told->consumer == "client-2");
  CHECK(told->due_at == WallTime());
  REQUIRE(f.deliveries().size() == 1);

  // In its dead-letter queue it begins anew.
  f.nack(consumer, 1, "no route");
  CHECK_FALSE(f.attempts("q", 1));
  told = f.attempts("q.dead", 1);
  REQUIRE(told);
  CHECK(told->attempts == 0);
  CHECK(told->history.empty());
  const ConsumerId clerk = f.subscribe("q.dead", 1);
  f.deliveries();
  f.nack(clerk, 1, "still none");
  REQUIRE(f.attempts("q.dead", 1)->history.size() == 1);
  CHECK(f.attempts("q.dead", 1)->history[0].error == "still none");
  CHECK_FALSE(f.attempts("gone", 1));
  CHECK(f.last_error().code() == ErrorCode::kQueueNotFound);
}

// Many messages, each more than a batch, which must be read to be moved.
struct ManyToMove : CoreFixture {
  static constexpr int kMessages = 40;

  static CoreOptions small_cache() {
    CoreOptions options;
    options.cache_bytes_max = 1;
    return options;
  }
  ManyToMove() : CoreFixture(small_cache()) {
    create_queue("q", {{QueueSetting::kMaxAttempts, 1}});
    for (int i = 0; i < kMessages; ++i) {
      publish("q", "m" + std::to_string(i), std::string((1 << 20) - 1'000, 'x'));
    }
    consumer = subscribe("q", kMessages, 600'000);
    REQUIRE(delivered().size() == kMessages);
  }
  void reject_all() { settle(consumer, wire::SettleKind_Reject, {{1, kMessages}}); }

  ConsumerId consumer;
};

TEST_CASE_FIXTURE(ManyToMove, "dead letters were read faster than they could be stored") {
  hold_commits();
  const std::size_t before = fetches();
  reject_all();
  // Eight batches, and eight reads that were under way.
  CHECK(fetches() - before <= 17);
  CHECK(last_settled().settled == 0);
  release_commits();
  CHECK(last_settled().settled == kMessages);
  CHECK(report("q.dead").messages == kMessages);
  CHECK(report("q").messages == 0);
}

TEST_CASE_FIXTURE(ManyToMove, "a redrive reads no faster than what it moves is stored") {
  reject_all();
  REQUIRE(report("q.dead").messages == kMessages);
  hold_commits();
  const std::size_t before = fetches();
  redrive_all("q");
  CHECK(fetches() - before <= 10);
  SUBCASE("and goes on") {
    release_commits();
    CHECK(report("q").messages == kMessages);
    CHECK(report("q.dead").messages == 0);
  }
  SUBCASE("and is told when its queue is deleted meanwhile") {
    delete_queue("q");
    release_commits();
    CHECK(last_error().code() == ErrorCode::kQueueNotFound);
  }
}

// It waited for as long as publishers kept eight batches waiting.
TEST_CASE_FIXTURE(ManyToMove,
                  "a redrive waits for its own messages and not for what others publish") {
  reject_all();
  REQUIRE(report("q.dead").messages == kMessages);
  create_queue("busy");
  hold_commits();
  const std::string large((1 << 20) - 1'000, 'x');
  for (int i = 0; i < 20; ++i) publish("busy", "b" + std::to_string(i), large);
  const std::size_t before = fetches();
  redrive_all("q", 5);
  CHECK(fetches() > before);
}

TEST_CASE("a redrive that was put off took a letter that came after it") {
  CoreOptions options;
  options.batch_bytes_max = 1;  // so that commits lag with one message
  CoreFixture f(options);
  f.create_queue("q", {{QueueSetting::kMaxAttempts, 1}});
  f.publish("q", "a");
  f.publish("q", "b");
  const ConsumerId consumer = f.subscribe("q", 2, 600'000);
  REQUIRE(f.delivered().size() == 2);
  f.settle(consumer, wire::SettleKind_Reject, {{1, 1}});
  f.hold_commits();
  f.redrive("q", {1});
  f.redrive("q", {2});
  f.settle(consumer, wire::SettleKind_Reject, {{2, 2}});
  f.release_commits();
  CHECK(f.report("q.dead").messages == 1);
}

TEST_CASE_FIXTURE(ManyToMove, "moves that were put off are forgotten with their queue") {
  hold_commits();
  reject_all();
  SUBCASE("when it is purged") { purge("q"); }
  SUBCASE("when it is deleted") { delete_queue("q"); }
  release_commits();
  CHECK(last_settled().settled == kMessages);
  CHECK(store.block_bytes() < kMessages << 20);
}

}  // namespace
}  // namespace holdfast::broker
