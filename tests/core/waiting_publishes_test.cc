// Publishes whose ids may be among those of which only fingerprints are in memory.

#include <doctest/doctest.h>

#include <string>

#include "support/core_fixture.h"

namespace holdfast::broker {
namespace {

// Keeps no id as an exact hash longer than its commit takes.
CoreOptions forgetful() {
  CoreOptions options;
  options.dedup.recent_ids_of_queue_max = 0;
  options.dedup.older.chunk_ids_max = 10;
  return options;
}

void publish_hundred(CoreFixture& core) {
  for (int i = 0; i < 100; ++i) core.publish("q", "m" + std::to_string(i));
}

TEST_CASE("an id of which only a fingerprint is kept is found by reading its record") {
  CoreFixture core(forgetful());
  core.create_queue("q");
  publish_hundred(core);
  const std::size_t read_before = core.ids_requests();
  const auto again = core.publish("q", "m41");
  REQUIRE(core.confirm_of(again).has_value());
  CHECK(core.confirm_of(again)->duplicate);
  CHECK(core.confirm_of(again)->sequence == 42);
  CHECK(core.ids_requests() == read_before + 1);
  // The rest of its chunk has been read with it.
  CHECK(core.confirm_of(core.publish("q", "m42"))->sequence == 43);
  CHECK(core.ids_requests() == read_before + 1);
  const auto fresh = core.publish("q", "new");
  CHECK_FALSE(core.confirm_of(fresh)->duplicate);
  CHECK(core.report("q").messages == 101);
}

TEST_CASE("with too much pending a publish that waits for ids is confirmed or refused, not kept") {
  CoreOptions options = forgetful();
  options.pending_bytes_max = 1'000;
  CoreFixture core(options);
  core.create_queue("q");
  publish_hundred(core);
  core.hold_commits();
  core.hold_reads();
  const auto large = core.publish("q", "large", std::string(1'000, 'b'));
  const auto again = core.publish("q", "m41");
  const auto fresh = core.publish("q", "fresh");
  CHECK_FALSE(core.confirm_of(again).has_value());
  CHECK_FALSE(core.error_of(fresh).has_value());  // its turn comes after
  core.release_reads();
  REQUIRE(core.confirm_of(again).has_value());
  CHECK(core.confirm_of(again)->duplicate);
  CHECK(core.confirm_of(again)->bytes == encode_test_message("m41", "body").size());
  REQUIRE(core.error_of(fresh).has_value());
  CHECK(core.error_of(fresh)->code() == ErrorCode::kLimitReached);
  core.release_commits();
  CHECK(core.confirm_of(large).has_value());
  CHECK(core.confirm_of(core.publish("q", "fresh")).has_value());
  CHECK(core.report("q").messages == 102);
}

TEST_CASE("older ids are known after a restart") {
  CoreFixture core(forgetful());
  core.create_queue("q");
  publish_hundred(core);
  core.restart();
  CHECK(core.report("q").dedup_ids == 100);
  for (int i = 0; i < 100; ++i) {
    const auto again = core.publish("q", "m" + std::to_string(i));
    REQUIRE(core.confirm_of(again).has_value());
    CHECK(core.confirm_of(again)->duplicate);
    CHECK(core.confirm_of(again)->sequence == static_cast<Sequence>(i + 1));
  }
  CHECK(core.report("q").messages == 100);
}

TEST_CASE("a mistaken fingerprint costs a read and no message") {
  CoreOptions options = forgetful();
  options.dedup.older.tag_mask = 0;  // every id looks like every other
  CoreFixture core(options);
  core.create_queue("q");
  publish_hundred(core);
  CHECK(core.report("q").messages == 100);
  CHECK(core.ids_requests() > 0);
  for (int i = 0; i < 100; ++i) {
    CHECK(core.confirm_of(core.publish("q", "m" + std::to_string(i)))->duplicate);
  }
  CHECK(core.report("q").messages == 100);
}

TEST_CASE("what is published behind one that waits is stored behind it") {
  CoreFixture core(forgetful());
  core.create_queue("q");
  publish_hundred(core);
  core.hold_reads();
  const auto duplicate = core.publish("q", "m7");
  const auto second = core.publish("q", "second");
  const auto third = core.publish("q", "third");
  CHECK_FALSE(core.confirm_of(second).has_value());
  CHECK_FALSE(core.core().drained());
  core.release_reads();
  CHECK(core.confirm_of(duplicate)->duplicate);
  CHECK(core.confirm_of(second)->sequence == 101);
  CHECK(core.confirm_of(third)->sequence == 102);
  CHECK(core.core().drained());
}

TEST_CASE("what waits for ids is decided by those that were known when it came") {
  CoreOptions options = forgetful();
  options.dedup.ids_max = 150;
  CoreFixture core(options);
  core.create_queue("q");
  core.create_queue("other");
  publish_hundred(core);
  core.pass(Milliseconds(1'000));  // now "q" is known as the queue with the most ids
  core.hold_reads();
  const auto again = core.publish("q", "m0");
  // Together they are too many; the oldest of "q" would go first.
  for (int i = 0; i < 60; ++i) core.publish("other", "o" + std::to_string(i));
  CHECK(core.report("q").dedup_ids == 100);
  core.release_reads();
  REQUIRE(core.confirm_of(again).has_value());
  CHECK(core.confirm_of(again)->duplicate);
  CHECK(core.confirm_of(again)->sequence == 1);
  // When nothing waits there, they do.
  core.publish("other", "one more");
  CHECK(core.report("q").dedup_ids < 100);
}

TEST_CASE("an older id is forgotten after the window") {
  CoreFixture core(forgetful());
  core.create_queue("q", {{QueueSetting::kDedupWindow, 60'000}});
  core.publish("q", "a");
  core.pass(Milliseconds(30'000));
  core.publish("q", "b");
  core.pass(Milliseconds(29'000));
  CHECK(core.confirm_of(core.publish("q", "a"))->duplicate);
  // Both are in one chunk, which stays for the younger one.
  core.pass(Milliseconds(5'000));
  CHECK(core.confirm_of(core.publish("q", "b"))->duplicate);
  CHECK_FALSE(core.confirm_of(core.publish("q", "a"))->duplicate);
  core.pass(Milliseconds(120'000));
  CHECK(core.store.dedup_record_count() == 0);
}

TEST_CASE("a deleted queue refuses the publishes that waited for its ids") {
  CoreFixture core(forgetful());
  core.create_queue("q");
  publish_hundred(core);
  core.hold_reads();
  const auto waiting = core.publish("q", "m7");
  core.delete_queue("q");
  REQUIRE(core.error_of(waiting).has_value());
  CHECK(core.error_of(waiting)->code() == ErrorCode::kQueueNotFound);
  core.release_reads();
  CHECK(core.core().drained());
}

TEST_CASE("a full queue refuses a publish that waited, and counts it") {
  CoreFixture core(forgetful());
  core.create_queue("q", {{QueueSetting::kMaxMessages, 100}});
  publish_hundred(core);
  core.hold_reads();
  const auto duplicate = core.publish("q", "m7");
  const auto refused = core.publish("q", "one too many");
  core.release_reads();
  CHECK(core.confirm_of(duplicate)->duplicate);
  REQUIRE(core.error_of(refused).has_value());
  CHECK(core.error_of(refused)->code() == ErrorCode::kQueueFull);
  CHECK(core.report("q").counters.refused == 1);
}

}  // namespace
}  // namespace holdfast::broker
