#include <doctest/doctest.h>

#include "support/core_fixture.h"

namespace holdfast::broker {
namespace {

TEST_CASE("a publish is confirmed only after the commit that holds it") {
  CoreFixture f;
  f.create_queue("q");
  f.hold_commits();
  const auto first = f.publish("q", "a");
  CHECK_FALSE(f.confirm_of(first).has_value());
  f.release_commits();
  REQUIRE(f.confirm_of(first).has_value());
  CHECK(f.confirm_of(first)->sequence == 1);
  CHECK_FALSE(f.confirm_of(first)->duplicate);
}

TEST_CASE("a crash before the commit leaves nothing of an unconfirmed publish") {
  CoreFixture f;
  f.create_queue("q");
  f.hold_commits();
  const auto lost = f.publish("q", "a");
  f.crash();
  CHECK_FALSE(f.confirm_of(lost).has_value());
  CHECK(f.report("q").messages == 0);
  const auto again = f.publish("q", "a");
  CHECK(f.confirm_of(again)->sequence == 1);
  CHECK_FALSE(f.confirm_of(again)->duplicate);
}

TEST_CASE("publishes gathered while a commit is under way share the next one") {
  CoreFixture f;
  f.create_queue("q");
  f.hold_commits();
  f.publish("q", "a");
  const auto b = f.publish("q", "b");
  const auto c = f.publish("q", "c");
  const auto before = f.store.batch_number();
  f.commit_one();
  f.commit_one();
  CHECK(f.store.batch_number() == before + 2);
  CHECK(f.confirm_of(b)->sequence == 2);
  CHECK(f.confirm_of(c)->sequence == 3);
  CHECK(f.store.block_count() == 2);
}

TEST_CASE("a batch is closed at about one mebibyte") {
  CoreFixture f;
  f.create_queue("q");
  f.hold_commits();
  const std::string body(300'000, 'x');
  for (int i = 0; i < 9; ++i) f.publish("q", "m" + std::to_string(i), body);
  f.release_commits();
  CHECK(f.store.block_count() == 3);  // one alone, then four, four
  CHECK(f.report("q").messages == 9);
}

TEST_CASE("the same id in the window is stored once and answered with the first sequence") {
  CoreFixture f;
  f.create_queue("q");
  f.publish("q", "other");
  const auto first = f.publish("q", "a", "one");
  const auto second = f.publish("q", "a", "another body");
  REQUIRE(f.confirm_of(second).has_value());
  CHECK(f.confirm_of(second)->sequence == f.confirm_of(first)->sequence);
  CHECK(f.confirm_of(second)->duplicate);
  CHECK(f.report("q").messages == 2);
  CHECK(f.report("q").counters.duplicates == 1);
}

TEST_CASE("a duplicate is not confirmed before its original is durable") {
  CoreFixture f;
  f.create_queue("q");
  f.hold_commits();
  const auto original = f.publish("q", "a");
  const auto duplicate = f.publish("q", "a");
  CHECK_FALSE(f.confirm_of(duplicate).has_value());
  f.commit_one();
  CHECK(f.confirm_of(original).has_value());
  REQUIRE(f.confirm_of(duplicate).has_value());
  CHECK(f.confirm_of(duplicate)->duplicate);
}

TEST_CASE("the dedup window holds across a restart") {
  CoreFixture f;
  f.create_queue("q");
  for (int i = 0; i < 100; ++i) f.publish("q", "m" + std::to_string(i));
  f.restart();
  const auto again = f.publish("q", "m41");
  CHECK(f.confirm_of(again)->duplicate);
  CHECK(f.confirm_of(again)->sequence == 42);
  f.restart();
  const auto once_more = f.publish("q", "m99");
  CHECK(f.confirm_of(once_more)->sequence == 100);
  CHECK(f.report("q").messages == 100);
}

TEST_CASE("an id is forgotten after the window, on disk too") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kDedupWindow, 60'000}});
  f.publish("q", "a");
  f.pass(Milliseconds(59'000));
  CHECK(f.confirm_of(f.publish("q", "a"))->duplicate);
  f.pass(Milliseconds(3'000));
  const auto fresh = f.publish("q", "a");
  CHECK_FALSE(f.confirm_of(fresh)->duplicate);
  CHECK(f.confirm_of(fresh)->sequence == 2);
  f.pass(Milliseconds(120'000));
  CHECK(f.store.dedup_record_count() == 0);
}

// 'again' is the 600th id of 'orders' and, when the window has moved past all of them, its 601st
// message; no commit has ended since.
void let_600_ids_leave_and_again_come_back(CoreFixture& fixture) {
  fixture.create_queue("orders", {{QueueSetting::kDedupWindow, 10'000}});
  // More records than one commit removes; the one of 'again' is the last.
  for (int i = 1; i < 600; ++i) fixture.publish("orders", "id-" + std::to_string(i));
  fixture.publish("orders", "again");
  fixture.hold_commits();
  fixture.pass(Milliseconds(15'000));
  fixture.publish("orders", "again");
}

TEST_CASE("an id that left the window and came again is after a crash the newer one's duplicate") {
  CoreFixture fixture;
  let_600_ids_leave_and_again_come_back(fixture);
  fixture.commit_one();  // sealed before it came
  fixture.commit_one();
  REQUIRE(fixture.store.dedup_record_count() > 1);
  fixture.crash();
  const auto confirm = fixture.confirm_of(fixture.publish("orders", "again"));
  REQUIRE(confirm);
  CHECK(confirm->duplicate);
  CHECK(confirm->sequence == 601);
  fixture.pass(Milliseconds(1000));
  CHECK(fixture.store.dedup_record_count() == 1);
}

TEST_CASE("ids that left the window stay out of it though the clock is set back before a crash") {
  CoreFixture fixture;
  let_600_ids_leave_and_again_come_back(fixture);
  // Sealed when the window has moved past what came again, too.
  fixture.pass(Milliseconds(15'000));
  fixture.commit_one();
  fixture.commit_one();
  REQUIRE(fixture.store.dedup_record_count() > 1);
  fixture.set_wall_clock(fixture.now().wall - std::chrono::hours(1));
  fixture.crash();
  const auto confirm = fixture.confirm_of(fixture.publish("orders", "again"));
  REQUIRE(confirm);
  CHECK_FALSE(confirm->duplicate);
  CHECK(confirm->sequence == 602);
  // Nor is the new one's record taken for an old one.
  fixture.crash();
  CHECK(fixture.confirm_of(fixture.publish("orders", "again"))->sequence == 602);
  fixture.pass(Milliseconds(1000));
  CHECK(fixture.store.dedup_record_count() == 1);
}

TEST_CASE("ids dropped by the bound on count do not come back by a crash") {
  CoreOptions options;
  options.dedup.ids_max = 5'000;
  CoreFixture fixture(options);
  fixture.create_queue("orders");
  for (int i = 1; i < 5'000; ++i) fixture.publish("orders", "id-" + std::to_string(i));
  fixture.publish("orders", "last but one");
  fixture.hold_commits();
  fixture.publish("orders", "last");
  fixture.commit_one();
  REQUIRE(fixture.report("orders").dedup_ids < 5'000);
  REQUIRE(fixture.store.dedup_record_count() > fixture.report("orders").dedup_ids);
  const std::uint64_t known = fixture.report("orders").dedup_ids;
  fixture.crash();
  CHECK(fixture.report("orders").dedup_ids == known);
  CHECK_FALSE(fixture.confirm_of(fixture.publish("orders", "id-4096"))->duplicate);
  CHECK(fixture.confirm_of(fixture.publish("orders", "id-4097"))->duplicate);
  CHECK(fixture.confirm_of(fixture.publish("orders", "last"))->duplicate);
}

TEST_CASE("a jump of the wall clock does not shorten the dedup window") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kDedupWindow, 60'000}});
  f.publish("q", "a");
  f.set_wall_clock(f.now().wall + std::chrono::hours(5));
  f.pass(Milliseconds(10'000));
  CHECK(f.confirm_of(f.publish("q", "a"))->duplicate);
  f.set_wall_clock(f.now().wall - std::chrono::hours(10));
  f.pass(Milliseconds(10'000));
  CHECK(f.confirm_of(f.publish("q", "a"))->duplicate);
  f.pass(Milliseconds(60'000));
  CHECK_FALSE(f.confirm_of(f.publish("q", "a"))->duplicate);
}

TEST_CASE("ids that leave the window by its bound on count are counted") {
  CoreOptions options;
  options.dedup.ids_max = 5'000;
  CoreFixture f(options);
  f.create_queue("q");
  for (int i = 0; i < 6'000; ++i) f.publish("q", "m" + std::to_string(i));
  const QueueReport report = f.report("q");
  CHECK(report.dedup_ids <= 5'000);
  CHECK(report.dedup_cut_short + report.dedup_ids == 6'000);
  CHECK(f.core().ids_cut_short() == report.dedup_cut_short);
  CHECK(f.core().ids_cut_short_last() == "q");
  CHECK(f.confirm_of(f.publish("q", "m5999"))->duplicate);
}

TEST_CASE("a busy queue cost a quiet one its dedup window") {
  CoreOptions options;
  options.dedup.ids_max = 5'000;
  CoreFixture f(options);
  f.create_queue("busy");
  f.create_queue("quiet");
  for (int i = 0; i < 4'900; ++i) f.publish("busy", "b" + std::to_string(i));
  f.pass(Milliseconds(1'000));
  for (int i = 0; i < 500; ++i) f.publish("quiet", "q" + std::to_string(i));
  CHECK(f.report("quiet").dedup_ids == 500);
  CHECK(f.report("quiet").dedup_cut_short == 0);
  const QueueReport busy = f.report("busy");
  CHECK(busy.dedup_ids <= 4'500);
  CHECK(busy.dedup_cut_short + busy.dedup_ids == 4'900);
  // And so it is after a restart.
  f.restart();
  CHECK(f.confirm_of(f.publish("quiet", "q0"))->duplicate);
  CHECK(f.confirm_of(f.publish("busy", "b4899"))->duplicate);
  CHECK_FALSE(f.confirm_of(f.publish("busy", "b0"))->duplicate);
}

TEST_CASE("a message that its queue can never hold was to be published again") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxBytes, 1'024}});
  CHECK(f.error_of(f.publish("q", "a", std::string(2'000, 'x')))->code() ==
        ErrorCode::kMessageTooLarge);
  f.publish("q", "b", std::string(600, 'x'));
  CHECK(f.error_of(f.publish("q", "c", std::string(600, 'x')))->code() == ErrorCode::kQueueFull);
}

TEST_CASE("a dedup window of zero stores every message") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kDedupWindow, 0}});
  f.publish("q", "a");
  CHECK(f.confirm_of(f.publish("q", "a"))->sequence == 2);
  CHECK(f.store.dedup_record_count() == 0);
}

TEST_CASE("a body over the queue's limit is refused by name and number") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxMessageBytes, 10}});
  const auto fits = f.publish("q", "a", "0123456789");
  const auto refused = f.publish("q", "b", "0123456789x");
  CHECK(f.confirm_of(fits).has_value());
  REQUIRE(f.error_of(refused).has_value());
  CHECK(f.error_of(refused)->code() == ErrorCode::kMessageTooLarge);
  CHECK(f.error_of(refused)->message().find("\"b\" has 11 bytes") != std::string::npos);
  CHECK(f.report("q").counters.refused == 1);
}

// A commit that took longer than a queue is looked at without anything happening in it.
TEST_CASE("an id that came during a long commit never left the dedup window") {
  CoreFixture f;
  f.create_queue("other");
  f.create_queue("q", {{QueueSetting::kDedupWindow, 1'000}});
  f.pass(Milliseconds(60'000));
  f.hold_commits();
  f.publish("other", "x");
  f.edit_queue("q", {{QueueSetting::kLease, 5'000}});
  f.pass(Milliseconds(60'000));
  f.publish("q", "a");
  f.release_commits();
  CHECK(f.report("q").dedup_ids == 1);
  f.pass(Milliseconds(10'000));
  CHECK(f.report("q").dedup_ids == 0);
  CHECK(f.confirm_of(f.publish("q", "a"))->sequence == 2);
}

// What a message takes beside its own bytes was not reckoned with, so that a queue passed its limit
// and the sentence contradicted itself.
TEST_CASE("max-bytes was checked with another measure than is counted") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxBytes, 2'048}});
  std::uint64_t refused = 0;
  for (int i = 0; refused == 0; ++i) {
    REQUIRE(i < 100);
    const std::uint64_t correlation = f.publish("q", "m" + std::to_string(i), "90 bytes or so");
    if (!f.confirm_of(correlation)) refused = correlation;
  }
  const QueueReport report = f.report("q");
  const std::uint64_t each = report.bytes / report.messages;
  CHECK(report.bytes <= 2'048);
  CHECK(report.bytes + each > 2'048);
  CHECK(f.error_of(refused)->message().find("takes " + std::to_string(each)) != std::string::npos);
}

TEST_CASE("names are refused, and said not to be there, as they were sent") {
  CoreFixture f;
  f.create_queue("a b");
  CHECK(f.last_error().message() ==
        "\"a b\" is not a queue name: it may contain only A-Z a-z 0-9 . _ -.");
  f.subscribe("a\nb", 1);
  CHECK(f.last_error().message() == "There is no queue \"a\\nb\".");
  f.subscribe("ab", 1);
  CHECK(f.last_error().message() ==
        "There is no queue \"ab\". To make it: holdfast queue create ab");
}

TEST_CASE("a full queue refuses new messages and takes them again when some are settled") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxMessages, 2}});
  f.publish("q", "a");
  f.publish("q", "b");
  CHECK(f.error_of(f.publish("q", "c"))->code() == ErrorCode::kQueueFull);
  const ConsumerId consumer = f.subscribe("q", 10);
  f.ack(consumer, 1);
  CHECK(f.confirm_of(f.publish("q", "c")).has_value());
}

TEST_CASE("a queue full by bytes refuses new messages") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxBytes, 1024}});
  const std::string body(400, 'x');
  f.publish("q", "a", body);
  f.publish("q", "b", body);
  CHECK(f.error_of(f.publish("q", "c", body))->code() == ErrorCode::kQueueFull);
}

TEST_CASE("a message already stored is confirmed though the queue is full") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kMaxMessages, 1}});
  f.publish("q", "a");
  CHECK(f.confirm_of(f.publish("q", "a"))->duplicate);
}

TEST_CASE("nobody publishes to a dead-letter queue") {
  CoreFixture f;
  f.create_queue("q");
  CHECK(f.error_of(f.publish("q.dead", "a"))->code() == ErrorCode::kOperationRefused);
}

TEST_CASE("without room publishes are refused, settles go on, and publishing resumes by itself") {
  CoreFixture f;
  f.create_queue("q");
  f.publish("q", "a");
  const ConsumerId consumer = f.subscribe("q", 10);
  f.store.space.publishes_allowed = false;
  f.store.space.reason = "The disk is full.";
  f.tell_space();
  CHECK(f.error_of(f.publish("q", "b"))->code() == ErrorCode::kStorageFull);
  CHECK(f.error_of(f.publish("q", "b"))->retryable());
  f.ack(consumer, 1);
  CHECK(f.last_settled().settled == 1);
  CHECK(f.report("q").messages == 0);
  f.store.space = SpaceReport();
  f.store.space.room_bytes = 1 << 20;
  f.tell_space();
  CHECK(f.confirm_of(f.publish("q", "b")).has_value());
}

TEST_CASE("what waits to be stored counts against the room") {
  CoreFixture f;
  f.create_queue("q");
  f.store.space.room_bytes = 100'000;
  f.tell_space();
  f.hold_commits();
  const std::string body(40'000, 'x');
  f.publish("q", "a", body);
  const auto b = f.publish("q", "b", body);
  const auto c = f.publish("q", "c", body);
  CHECK_FALSE(f.error_of(b).has_value());
  REQUIRE(f.error_of(c).has_value());
  CHECK(f.error_of(c)->code() == ErrorCode::kStorageFull);
}

TEST_CASE("a draining broker takes no new messages but answers for old ones") {
  CoreFixture f;
  f.create_queue("q");
  f.publish("q", "a");
  f.core().begin_drain();
  CHECK(f.error_of(f.publish("q", "b"))->code() == ErrorCode::kDraining);
  CHECK(f.confirm_of(f.publish("q", "a"))->duplicate);
  CHECK(f.core().drained());
}

}  // namespace
}  // namespace holdfast::broker
