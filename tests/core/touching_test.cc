// What is done in very many queues at once without asking for room: it adds nothing, but each queue
// costs pages, so that where little is left a batch touches only so many.

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "support/core_fixture.h"

namespace holdfast::broker {
namespace {

constexpr int kQueues = 401;
// Where nothing is left: 256 KiB of pages, 8 KiB for each. One more, for a deletion touches a
// dead-letter queue as well.
constexpr std::size_t kTouchedMax = 256 / 8 + 1;

struct Touching : CoreFixture {
  Touching() {
    for (int i = 0; i < kQueues; ++i) {
      create_queue(name(i));
      publish(name(i), "first");
      publish(name(i), "second");
    }
  }
  static std::string name(int i) { return "queue-" + std::to_string(i); }

  // From now on, and with all that comes in one burst.
  void little_room() {
    store.space.publishes_allowed = false;
    store.space.reserve_room_bytes = 0;
    tell_space();
    store.forget_largest();
    hold_commits();
  }
  void subscribe_to_all(std::uint32_t credit) {
    for (int i = 0; i < kQueues; ++i) consumers.push_back(subscribe(name(i), credit));
  }
  // Each with a connection that has room for one message, and credit for two.
  void subscribe_without_room() {
    for (int i = 0; i < kQueues; ++i) {
      const SessionId session(static_cast<std::uint64_t>(100 + i));
      subscribe(name(i), 0, 0, session);
      core().session_room(session, 1, now());
      subscribe(name(i), 2, 0, session);
    }
    REQUIRE(delivered().size() == kQueues);
  }
  void delete_all() {
    for (int i = 0; i < kQueues; ++i) delete_queue(name(i));
  }

  std::vector<ConsumerId> consumers;
};

// The commit found no room then, and everything waited for it for good.
TEST_CASE_FIXTURE(Touching, "a burst of acks or edits in very many queues was one batch") {
  std::uint64_t messages = 2;
  SUBCASE("acks") {
    subscribe_to_all(1);
    little_room();
    for (const ConsumerId consumer : consumers) ack(consumer, 1);
    messages = 1;
  }
  SUBCASE("consumers that come") {
    little_room();
    subscribe_to_all(1);
  }
  SUBCASE("credit") {
    subscribe_to_all(0);
    little_room();
    for (const ConsumerId consumer : consumers) set_credit(consumer, 1);
  }
  SUBCASE("edits") {
    little_room();
    for (int i = 0; i < kQueues; ++i) edit_queue(name(i), {{QueueSetting::kLease, 60'000}});
  }
  SUBCASE("purges") {
    little_room();
    for (int i = 0; i < kQueues; ++i) purge(name(i));
    messages = 0;
  }
  SUBCASE("ids that leave the window") {
    little_room();
    pass(Milliseconds(3'600'000));
  }
  SUBCASE("ids that left the window while the broker was down") {
    little_room();
    set_wall_clock(now().wall + Milliseconds(3'600'000));
    crash();
  }
  SUBCASE("consumers that were about to be given more when the broker ends") {
    subscribe_without_room();
    little_room();
    core().begin_drain();
  }
  release_commits();
  CHECK(store.most_touched() > 0);
  CHECK(store.most_touched() <= kTouchedMax);
  CHECK(report(name(kQueues - 1)).messages == messages);
}

TEST_CASE_FIXTURE(Touching, "the deletions of very many queues were one batch, or two") {
  little_room();
  delete_all();
  SUBCASE("in one go") { release_commits(); }
  SUBCASE("with a crash when all are marked") {
    // The first has a batch of its own. What was marked is removed with a batch behind the others.
    for (std::size_t marked = 2; marked <= 2 * kQueues; marked += kTouchedMax - 1) commit_one();
    CHECK(store.queue_count() == 2 * kQueues);
    crash();
  }
  CHECK(store.queue_count() == 0);
  CHECK(store.block_count() == 0);
  CHECK(store.most_touched() > 0);
  CHECK(store.most_touched() <= kTouchedMax);
}

TEST_CASE_FIXTURE(Touching, "where much is left, what touches very many queues is one batch") {
  store.forget_largest();
  hold_commits();
  for (int i = 0; i < kQueues; ++i) edit_queue(name(i), {{QueueSetting::kLease, 60'000}});
  release_commits();
  CHECK(store.most_touched() == kQueues - 1);  // but for what was committed first
}

}  // namespace
}  // namespace holdfast::broker
