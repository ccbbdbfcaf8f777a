#include <doctest/doctest.h>

#include "support/core_fixture.h"

namespace holdfast::broker {
namespace {

constexpr std::uint32_t kSlowUs = 100'000;
constexpr std::size_t kLargeBytes = 8 << 20;

// A batch for each message, and a disk that takes `batch_us` for each.
struct Waiting {
  explicit Waiting(std::uint32_t batch_us) : core(one_message_a_batch()) {
    core.store.batch_us = batch_us;
    core.create_queue("orders", {{QueueSetting::kMaxMessageBytes, kLargeBytes}});
    core.hold_commits();
    for (const char* id : {"a", "b", "c", "d", "e"}) {
      published.push_back(core.publish("orders", id));
    }
  }

  static CoreOptions one_message_a_batch() {
    CoreOptions options;
    options.batch_bytes_max = 1;
    return options;
  }
  std::size_t confirmed() const {
    std::size_t count = 0;
    for (const std::uint64_t one : published) count += core.confirm_of(one).has_value() ? 1 : 0;
    return count;
  }

  CoreFixture core;
  std::vector<std::uint64_t> published;
};

TEST_CASE("while the disk is slow, all that waits is committed together") {
  Waiting waiting(kSlowUs);
  waiting.core.commit_one();  // was under way when the others came
  CHECK(waiting.confirmed() == 1);
  waiting.core.commit_one();
  CHECK(waiting.confirmed() == 5);
}

TEST_CASE("on a fast disk each batch has a commit of its own") {
  Waiting waiting(1);
  for (std::size_t commits = 1; commits <= 5; ++commits) {
    waiting.core.commit_one();
    CHECK(waiting.confirmed() == commits);
  }
}

TEST_CASE("a disk that is fast again is so with the next commit") {
  Waiting waiting(kSlowUs);
  waiting.core.store.batch_us = 1;
  for (std::size_t commits = 1; commits <= 5; ++commits) {
    waiting.core.commit_one();
    CHECK(waiting.confirmed() == commits);
  }
}

// A crash in between left the queue, and consumers that had ended for good.
TEST_CASE("a consumer was told that its queue was deleted before that was stored") {
  CoreFixture core;
  core.create_queue("orders");
  const ConsumerId consumer = core.subscribe("orders", 10);
  const ConsumerId undertaker = core.subscribe("orders.dead", 10);
  core.hold_commits();
  core.delete_queue("orders");
  CHECK(core.ended_consumers().empty());
  // It is not one any more, though, whoever says what of it.
  core.set_credit(consumer, 20);
  CHECK(core.last_error().code() == ErrorCode::kConsumerNotFound);
  SUBCASE("and is told when it is stored") {
    core.release_commits();
    const std::vector<ConsumerEndedNotice> ended = core.ended_consumers();
    REQUIRE(ended.size() == 2);
    CHECK(ended[0].consumer == consumer);
    CHECK(ended[0].session == SessionId(2));
    CHECK(ended[0].why.code() == ErrorCode::kQueueNotFound);
    CHECK(ended[0].why.message() == "Queue \"orders\" was deleted.");
    CHECK(ended[1].consumer == undertaker);
  }
  SUBCASE("and is not told when a crash undoes it") {
    core.crash();
    CHECK(core.ended_consumers().empty());
    CHECK(core.subscribe("orders", 10) != ConsumerId());
  }
  SUBCASE("and has gone when it is stored") {
    core.disconnect();
    core.release_commits();
    CHECK(core.store.queue_count() == 0);
  }
}

// One that finds no room would keep the others waiting.
TEST_CASE("where there is little room, each batch has a commit of its own") {
  Waiting waiting(kSlowUs);
  waiting.core.store.space.room_bytes = 1'000;
  waiting.core.commit_one();
  waiting.core.commit_one();
  CHECK(waiting.confirmed() == 2);
}

// More than the hole in the data file has room for would make a start take the file for cut short.
TEST_CASE("the bytes of a commit of many batches are bounded") {
  Waiting waiting(kSlowUs);
  const std::string body(1'000'000, 'x');
  for (int i = 0; i < 40; ++i) {
    waiting.published.push_back(waiting.core.publish("orders", std::to_string(i), body));
  }
  waiting.core.commit_one();
  waiting.core.commit_one();  // with the four small ones
  CHECK(waiting.confirmed() == 1 + 4 + kJoinedBytesMax / body.size());
  waiting.core.commit_one();
  CHECK(waiting.confirmed() == 1 + 4 + 2 * (kJoinedBytesMax / body.size()));
}

// Sixteen of them took as long for each, and were all held in memory twice.
TEST_CASE("a disk is not slow that takes long for many bytes") {
  Waiting waiting(1);
  waiting.core.release_commits();
  waiting.core.hold_commits();
  waiting.core.store.batch_us = 40'000;
  waiting.published.push_back(
      waiting.core.publish("orders", "large", std::string(kLargeBytes, 'x')));
  for (const char* id : {"f", "g", "h"}) {
    waiting.published.push_back(waiting.core.publish("orders", id));
  }
  waiting.core.commit_one();
  CHECK(waiting.confirmed() == 5 + 1);
  waiting.core.commit_one();
  CHECK(waiting.confirmed() == 5 + 1 + 1);
}

TEST_CASE("a crash takes all batches of a commit, or none") {
  Waiting waiting(kSlowUs);
  waiting.core.commit_one();
  SUBCASE("before it") {
    waiting.core.crash();
    CHECK(waiting.core.report("orders").messages == 1);
  }
  SUBCASE("after it") {
    waiting.core.commit_one();
    waiting.core.crash();
    CHECK(waiting.core.report("orders").messages == 5);
  }
}

TEST_CASE("each batch of a commit brings what it promised, in the order of the batches") {
  Waiting waiting(kSlowUs);
  const ConsumerId consumer = waiting.core.subscribe("orders", 10);
  waiting.core.commit_one();
  waiting.core.release_commits();
  CHECK(waiting.core.delivered() == std::vector<Sequence>{1, 2, 3, 4, 5});
  for (Sequence sequence = 1; sequence <= 5; ++sequence) waiting.core.ack(consumer, sequence);
  CHECK(waiting.core.report("orders").messages == 0);
}

}  // namespace
}  // namespace holdfast::broker
