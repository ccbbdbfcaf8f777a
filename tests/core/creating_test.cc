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

}  // namespace
}  // namespace holdfast::broker
