// Blocks of which little is left: rewritten, on a full disk too.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>

#include "support/core_fixture.h"

namespace holdfast::broker {
namespace {

TEST_CASE("a block of which little is left unsettled is rewritten with that") {
  CoreFixture f;
  f.create_queue("q");
  f.hold_commits();
  for (int i = 0; i < 101; ++i) f.publish("q", "m" + std::to_string(i), std::string(1'000, 'x'));
  f.release_commits();
  const ConsumerId consumer = f.subscribe("q", 200);
  f.delivered();
  const std::size_t full = f.store.block_bytes();
  f.settle(consumer, wire::SettleKind_Nack, {{50, 50}}, "", Milliseconds(600'000));
  f.settle(consumer, wire::SettleKind_Ack, {{1, 49}});
  f.settle(consumer, wire::SettleKind_Ack, {{51, 101}});
  CHECK(f.store.block_bytes() < full / 20);
  f.restart();
  f.pass(Milliseconds(600'000));
  f.subscribe("q", 10);
  const auto received = f.deliveries();
  REQUIRE(received.size() == 1);
  CHECK(received[0].sequence == 50);
  CHECK(received[0].attempt == 2);
}

// For each of the disk's blocks there are 101 messages: the first was committed by itself.
constexpr Sequence kOfBlock = 101;

struct FullDisk : CoreFixture {
  static constexpr Sequence kBlocks = 5;
  // More than half of what may be rewritten at a time.
  static constexpr Sequence kHalfOfABatch = 31;

  explicit FullDisk(CoreOptions options = CoreOptions()) : CoreFixture(options) {
    create_queue("q", {{QueueSetting::kOutstandingMax, 10'000}});
    consumer = subscribe("q", 10'000);
    fill();
    full = store.block_bytes();
  }
  void fill() {
    for (Sequence block = 0; block < kBlocks; ++block) {
      hold_commits();
      for (int i = 0; i < static_cast<int>(kOfBlock); ++i) {
        publish("q", fmt::format("{}-{}", block, i), std::string(1'000, 'x'));
      }
      release_commits();
    }
    REQUIRE(delivered().size() == kBlocks * kOfBlock);
  }
  // All but so many are settled; these wait ten minutes.
  void leave_of_each_block(Sequence count) {
    for (Sequence first = 1; first <= kBlocks * kOfBlock; first += kOfBlock) {
      settle(consumer, wire::SettleKind_Nack, {{first + 1, first + count}}, "",
             Milliseconds(600'000));
      settle(consumer, wire::SettleKind_Ack,
             {{first, first}, {first + count + 1, first + kOfBlock - 1}});
    }
  }
  void report_space(bool publishes_allowed, bool rewrites_allowed) {
    store.space.publishes_allowed = publishes_allowed;
    store.space.reserve_room_bytes = rewrites_allowed ? MemoryStore::kRoomBytes : 0;
    tell_space();
    run();
  }
  // What waits is delivered again, whatever became of its block.
  void expect_retries() {
    crash();
    pass(Milliseconds(600'000));
    subscribe("q", 10'000);
    std::vector<Sequence> expected;
    for (Sequence block = 0; block < kBlocks; ++block) expected.push_back(2 + block * kOfBlock);
    std::vector<Sequence> received = delivered();
    std::ranges::sort(received);
    CHECK(received == expected);
  }

  ConsumerId consumer;
  std::size_t full = 0;
};

TEST_CASE_FIXTURE(FullDisk, "a backlog that was drained but for its retries held a full disk") {
  report_space(false, true);
  leave_of_each_block(1);
  CHECK(store.block_bytes() < full / 20);
  expect_retries();
}

TEST_CASE_FIXTURE(FullDisk, "on a full disk little is rewritten at a time") {
  report_space(false, true);
  hold_commits();
  leave_of_each_block(kHalfOfABatch);
  commit_one();  // the first nack
  CHECK(store.block_bytes() == full);
  commit_one();
  const std::size_t block = full / kBlocks;
  CHECK(store.block_bytes() > full - block);
  CHECK(store.block_bytes() < full - block / 2);
  // The others are looked at again without anybody settling anything.
  release_commits();
  CHECK(store.block_bytes() < full / 2);
}

TEST_CASE_FIXTURE(FullDisk, "what could not be rewritten is when there is room again") {
  report_space(false, false);
  leave_of_each_block(1);
  CHECK(store.block_bytes() > full / 10 * 9);
  SUBCASE("for a little") { report_space(false, true); }
  SUBCASE("for everything") { report_space(true, true); }
  CHECK(store.block_bytes() < full / 20);
  expect_retries();
}

TEST_CASE_FIXTURE(FullDisk, "a block that was put off may be gone when its turn comes") {
  report_space(false, false);
  leave_of_each_block(1);
  SUBCASE("settled") {
    pass(Milliseconds(700'000));
    for (const Sequence sequence : delivered()) ack(consumer, sequence);
  }
  SUBCASE("purged") { purge("q"); }
  SUBCASE("deleted") { delete_queue("q"); }
  report_space(true, true);
  CHECK(store.block_bytes() == 0);
}

TEST_CASE("a block that is read to be rewritten may be gone when it comes") {
  CoreOptions options;
  options.cache_bytes_max = 1;  // so that it must be read
  FullDisk f(options);
  f.report_space(false, false);
  f.leave_of_each_block(FullDisk::kHalfOfABatch);
  f.hold_fetches();
  f.report_space(false, true);
  CHECK(f.store.block_bytes() > f.full / 2);
  SUBCASE("is not") { f.release_fetches(); }
  SUBCASE("deleted") {
    f.delete_queue("q");
    f.release_fetches();
    CHECK(f.store.block_bytes() == 0);
    // It no longer counts as being read: others have their turn.
    f.report_space(true, true);
    f.create_queue("q", {{QueueSetting::kOutstandingMax, 10'000}});
    f.consumer = f.subscribe("q", 10'000);
    f.fill();
    f.report_space(false, true);
    f.leave_of_each_block(FullDisk::kHalfOfABatch);
  }
  CHECK(f.store.block_bytes() < f.full / 2);
}

}  // namespace
}  // namespace holdfast::broker
