// Retries that are due: in which order they are sent, and how much is read for them.

#include <doctest/doctest.h>

#include <algorithm>

#include "support/core_fixture.h"

namespace holdfast::broker {

namespace {

constexpr int kBlocks = 230;
constexpr int kMessagesOfBlock = 100;
constexpr Sequence kMessages = kBlocks * kMessagesOfBlock;

// Of a seventh of the messages.
CoreOptions small_cache() {
  CoreOptions options;
  options.cache_bytes_max = 3'350'000;
  return options;
}

void publish_blocks(CoreFixture& f) {
  f.create_queue("q", {{QueueSetting::kBackoffMin, 10'000},
                       {QueueSetting::kBackoffMax, 10'000},
                       {QueueSetting::kMaxAttempts, 0},
                       {QueueSetting::kDedupWindow, 0}});
  for (int block = 0; block < kBlocks; ++block) {
    f.hold_commits();
    for (int i = 0; i < kMessagesOfBlock; ++i) {
      f.publish("q", std::to_string(block * kMessagesOfBlock + i), std::string(1'000, 'x'));
    }
    f.release_commits();
  }
}

// Takes everything, 256 at a time.
std::size_t drain(CoreFixture& f) {
  const ConsumerId consumer = f.subscribe("q", 256, 0, SessionId(3));
  std::size_t count = 0;
  for (std::vector<Sequence> got = f.delivered(); !got.empty(); got = f.delivered()) {
    count += got.size();
    std::sort(got.begin(), got.end());
    std::vector<SequenceRange> ranges;
    for (const Sequence sequence : got) add_to_ranges(ranges, sequence);
    f.settle(consumer, wire::SettleKind_Ack, ranges, "", std::nullopt, SessionId(3));
  }
  return count;
}

}  // namespace

// They went in the order in which they were due, which the backoff scatters over all blocks: a read
// of a block for about each of them.
TEST_CASE("retries that were more than the cache holds had a block read for each of them") {
  for (const bool is_nacked : {false, true}) {
    CAPTURE(is_nacked);
    CoreFixture f(small_cache());
    publish_blocks(f);
    const ConsumerId consumer = f.subscribe("q", 65'536, 3'600'000);
    REQUIRE(f.delivered().size() == kMessages);
    if (is_nacked) {
      f.settle(consumer, wire::SettleKind_Nack, {{1, kMessages}}, "", Milliseconds(10'000));
    }
    f.disconnect();
    f.pass(Milliseconds(15'000));
    const std::size_t before = f.fetches();
    CHECK(drain(f) == kMessages);
    CHECK(f.fetches() - before <= 2 * kBlocks);
  }
}

TEST_CASE("after a restart, too, a block that is read serves all retries that are in it") {
  CoreFixture f(small_cache());
  publish_blocks(f);
  f.subscribe("q", 65'536, 3'600'000);
  REQUIRE(f.delivered().size() == kMessages);
  f.restart();
  const std::size_t before = f.fetches();
  CHECK(drain(f) == kMessages);
  // Which of them are in one block is not known before it was read.
  CHECK(f.fetches() - before <= 9 * kBlocks);
}

// The search for the next one stands in the middle of a block then, and comes to its beginning when
// it goes round.
TEST_CASE("messages over a lowered limit were asked to be moved several times each") {
  CoreOptions options;
  options.cache_bytes_max = 20'000;
  CoreFixture f(options);
  f.create_queue("q", {{QueueSetting::kBackoffMin, 0},
                       {QueueSetting::kBackoffMax, 0},
                       {QueueSetting::kMaxAttempts, 0}});
  f.hold_commits();
  for (int i = 0; i < 11; ++i) f.publish("q", std::to_string(i));  // the first has its own block
  f.release_commits();
  const ConsumerId all = f.subscribe("q", 11);
  REQUIRE(f.delivered().size() == 11);
  f.ack(all, 1);
  f.set_credit(all, 0);
  f.settle(all, wire::SettleKind_Nack, {{2, 11}});
  f.pass(Milliseconds(1));
  f.set_credit(all, 5);
  REQUIRE(f.delivered() == std::vector<Sequence>{2, 3, 4, 5, 6});
  f.set_credit(all, 0);
  f.settle(all, wire::SettleKind_Nack, {{2, 6}});
  f.pass(Milliseconds(1));
  f.edit_queue("q", {{QueueSetting::kMaxAttempts, 1}});
  f.create_queue("other");
  f.subscribe("other", 1);
  f.publish("other", "takes the cache", std::string(30'000, 'x'));
  REQUIRE(f.delivered().size() == 1);
  f.store.space.publishes_allowed = false;
  f.store.space.room_bytes = f.store.space.reserve_room_bytes = 0;
  f.tell_space();
  f.set_credit(all, 1);
  CHECK(f.core().moves_held_up() == 10);
}

TEST_CASE(
    "retries take turns: one that fails at once again and again does not keep others waiting") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kBackoffMin, 0},
                       {QueueSetting::kBackoffMax, 0},
                       {QueueSetting::kMaxAttempts, 0}});
  for (int i = 0; i < 5; ++i) f.publish("q", std::to_string(i));
  const ConsumerId all = f.subscribe("q", 5);
  REQUIRE(f.delivered().size() == 5);
  f.set_credit(all, 0);
  f.settle(all, wire::SettleKind_Nack, {{1, 5}});
  f.pass(Milliseconds(1));
  const ConsumerId one = f.subscribe("q", 1, 0, SessionId(3));
  std::vector<Sequence> sent;
  for (int i = 0; i < 10; ++i) {
    const std::vector<Sequence> got = f.delivered();
    REQUIRE(got.size() == 1);
    sent.push_back(got[0]);
    f.settle(one, wire::SettleKind_Nack, {{got[0], got[0]}}, "", Milliseconds(0), SessionId(3));
    f.pass(Milliseconds(1));
  }
  CHECK(sent == std::vector<Sequence>{1, 2, 3, 4, 5, 1, 2, 3, 4, 5});
}

// What lies before the illegible block was passed over: it was ready for ever.
TEST_CASE(
    "messages of a lost block before one that is not legible were neither delivered nor told") {
  CoreFixture f;
  f.create_queue("q");
  for (int i = 0; i < 4; ++i) f.publish("q", std::to_string(i));  // a block each
  f.store.lose_block(f.id_of("q"), 1);
  for (const Sequence sequence : {2, 3, 4})
    f.store.flip_bit_in_block_header(f.id_of("q"), sequence);
  f.restart();
  f.subscribe("q", 10);
  f.pass(Milliseconds(1'000));
  CHECK(f.report("q").messages == 0);
  CHECK(f.report("q").counters.corrupt == 4);
  CHECK(f.delivered().empty());
}

}  // namespace holdfast::broker
