// Queues that are created where there is little room for them.

#include <doctest/doctest.h>

#include <string>

#include "core/commit_pipeline.h"
#include "support/core_fixture.h"

namespace holdfast::broker {
namespace {

constexpr std::size_t kBatchBytes = 64 * 1024;
constexpr int kMany = 1'000;

CoreOptions small_batches() {
  CoreOptions options;
  options.batch_bytes_max = kBatchBytes;
  return options;
}

struct Creating : CoreFixture {
  Creating() : CoreFixture(small_batches()) {}

  // Queue and dead-letter queue, of a name of ten bytes.
  static std::size_t pair_bytes() {
    return created_queue_bytes("queue-1000") + created_queue_bytes("queue-1000.dead");
  }
  // All in one burst, as it comes from a client that does not wait for the answers.
  void create_many() {
    hold_commits();
    for (int i = 0; i < kMany; ++i) create_queue("queue-" + std::to_string(kMany + i));
  }
  void room_for(std::size_t queues) {
    store.space.room_bytes = queues * pair_bytes();
    tell_space();
  }
};

TEST_CASE_FIXTURE(Creating, "a burst of new queues was one batch, however many") {
  create_many();
  release_commits();
  CHECK(store.queue_count() == 2 * kMany);
  CHECK(store.largest_batch_bytes() <= kBatchBytes);
}

// The commit found no room then, and everything waited for it.
TEST_CASE_FIXTURE(Creating, "more queues were created than the store had room for") {
  constexpr std::size_t kRoomFor = 100;
  room_for(kRoomFor);
  create_many();
  CHECK(last_error().code() == ErrorCode::kStorageFull);
  const std::string sentence = last_error().message();
  CHECK(sentence.find("Queue \"queue-1999\" takes") == 0);
  CHECK(sentence.find(std::to_string(store.space.room_bytes)) != std::string::npos);
  release_commits();
  CHECK(store.queue_count() == 2 * kRoomFor);
  SUBCASE("they are created when what waited is stored") {}
  SUBCASE("or when there is more room") { room_for(2 * kRoomFor); }
  create_queue("queue-1999");
  CHECK(store.queue_count() == 2 * (kRoomFor + 1));
}

TEST_CASE_FIXTURE(Creating, "a queue is not created while publishes are refused for want of room") {
  store.space.publishes_allowed = false;
  store.space.reason = "The disk is nearly full.";
  tell_space();
  create_queue("orders");
  CHECK(last_error().code() == ErrorCode::kStorageFull);
  CHECK(last_error().message() == store.space.reason);
  CHECK(store.queue_count() == 0);
  store.space.publishes_allowed = true;
  tell_space();
  create_queue("orders");
  CHECK(store.queue_count() == 2);
}

// Only those that are there were counted.
TEST_CASE("queues that were created and deleted while a commit hung took more and more memory") {
  CoreOptions options;
  options.queues_max = 3;
  CoreFixture f(options);
  f.create_queue("kept");
  f.hold_commits();
  for (int i = 0; i < 3; ++i) {
    f.create_queue("q");
    f.delete_queue("q");
  }
  CHECK(f.last_error().ok());
  f.create_queue("q");
  CHECK(f.last_error().code() == ErrorCode::kLimitReached);
  CHECK(f.last_error().message() ==
        "The broker still removes 3 queues that were deleted, and may have no more of them than 3 "
        "(queues_max). Create \"q\" again when the disk has caught up.");
  f.release_commits();
  f.create_queue("q");
  CHECK(f.report("q").messages == 0);
  CHECK(f.store.queue_count() == 4);
}

}  // namespace
}  // namespace holdfast::broker
