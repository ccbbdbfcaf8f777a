#include <doctest/doctest.h>

#include <string>
#include <variant>
#include <vector>

#include "support/core_fixture.h"

namespace holdfast::broker {
namespace {

struct Page {
  std::vector<std::uint64_t> numbers;
  std::uint64_t next = 0;
};

// What was just said, and nothing else.
Page take_page(Core& core) {
  Page page;
  for (const Effect& effect : core.effects().said) {
    if (const auto* queue = std::get_if<QueueReply>(&effect)) {
      page.numbers.push_back(queue->report->id.value);
    } else if (const auto* consumer = std::get_if<ConsumerReply>(&effect)) {
      page.numbers.push_back(consumer->report->id.value);
    } else if (const auto* end = std::get_if<ListEndReply>(&effect)) {
      CHECK(end->count == page.numbers.size());
      page.next = end->next;
    }
  }
  core.effects().said.clear();
  return page;
}

constexpr Asker kAsker{SessionId(1), 1};

Page queues(CoreFixture& f, bool dead_only, std::uint64_t from) {
  f.core().list_queues(kAsker, dead_only, QueueId(static_cast<std::uint32_t>(from)), f.now());
  return take_page(f.core());
}

Page consumers(CoreFixture& f, const std::string& queue, std::uint64_t from) {
  f.core().list_consumers(kAsker, queue, ConsumerId(from), f.now());
  return take_page(f.core());
}

TEST_CASE("queues are listed in pages by number, whatever goes meanwhile") {
  CoreFixture f;
  for (int i = 0; i < 1'005; ++i) f.create_queue("q" + std::to_string(i));
  const Page first = queues(f, false, 0);
  CHECK(first.numbers.size() == 1'000);
  CHECK(first.next > first.numbers.back());
  f.delete_queue("q500");  // the one that the next page was to begin with
  const Page second = queues(f, false, first.next);
  CHECK(second.numbers.size() == 1'000);
  const Page third = queues(f, false, second.next);
  CHECK(third.numbers.size() == 8);
  CHECK(third.next == 0);

  const Page dead = queues(f, true, 0);
  CHECK(dead.numbers.size() == 1'000);
  const Page rest = queues(f, true, dead.next);
  CHECK(rest.numbers.size() == 4);
  CHECK(rest.next == 0);
  CHECK(queues(f, false, 1'000'000).next == 0);
}

TEST_CASE("consumers are listed in pages by number, of one queue or of all") {
  CoreFixture f;
  f.create_queue("a");
  f.create_queue("b");
  std::vector<std::uint64_t> all;
  std::vector<std::uint64_t> of_b;
  for (int i = 0; i < 1'200; ++i) {
    const bool in_a = i % 4 == 0;
    all.push_back(f.subscribe(in_a ? "a" : "b", 1).value);
    if (!in_a) of_b.push_back(all.back());
  }
  const Page first = consumers(f, "", 0);
  CHECK(first.numbers == std::vector(all.begin(), all.begin() + 1'000));
  CHECK(first.next == all[1'000]);
  const Page second = consumers(f, "", first.next);
  CHECK(second.numbers == std::vector(all.begin() + 1'000, all.end()));
  CHECK(second.next == 0);
  const Page only = consumers(f, "b", 0);
  CHECK(only.numbers == of_b);
  CHECK(only.next == 0);
}

// It was 0 when the clock had been set back, and 61 minutes when it had been set forward.
TEST_CASE("the age of a consumer's oldest delivery followed the wall clock") {
  CoreFixture f;
  f.create_queue("q", {{QueueSetting::kLease, 600'000}});
  f.publish("q", "a");
  f.publish("q", "b");
  const ConsumerId consumer = f.subscribe("q", 1);
  f.pass(Milliseconds(5'000));
  f.set_credit(consumer, 2);
  const auto oldest_ms = [&] {
    std::uint64_t age_ms = 0;
    f.core().list_consumers({SessionId(2), 999}, "", ConsumerId(), f.now());
    for (const Effect& effect : f.core().effects().said) {
      const auto* const reply = std::get_if<ConsumerReply>(&effect);
      if (reply != nullptr) age_ms = reply->report->oldest_lease_ms;
    }
    f.core().effects().clear();
    return age_ms;
  };
  CHECK(oldest_ms() == 5'000);
  f.set_wall_clock(f.now().wall - Milliseconds(60'000));
  CHECK(oldest_ms() == 5'000);
  f.set_wall_clock(f.now().wall + Milliseconds(3'660'000));
  CHECK(oldest_ms() == 5'000);
  f.extend(consumer, 1, 10'000);
  CHECK(oldest_ms() == 5'000);
  f.pass(Milliseconds(1'000));
  CHECK(oldest_ms() == 6'000);
  f.ack(consumer, 1);
  CHECK(oldest_ms() == 1'000);
}

// A crash took back what they depend on: there was no such queue after all, or there was one.
TEST_CASE("a queue was said to be there, or not to be, before that was durable") {
  CoreFixture f;
  f.create_queue("old");
  const QueueId old = f.id_of("old");
  f.hold_commits();
  std::uint64_t last = 1'000;
  const auto ask = [&] { return Asker{SessionId(1), ++last}; };
  f.core().create_queue({ask(), "new", {}, false}, f.now());
  f.core().create_queue({ask(), "new", {}, false}, f.now());
  const std::uint64_t exists = last;
  f.core().delete_queue(ask(), "old", f.now());
  std::vector<std::uint64_t> not_found;
  f.core().open_queue(ask(), "old", f.now());
  not_found.push_back(last);
  f.core().delete_queue(ask(), "old", f.now());
  not_found.push_back(last);
  SubscribeRequest subscribe;
  subscribe.asker = ask();
  subscribe.queue = "old";
  f.core().subscribe(subscribe, f.now());
  not_found.push_back(last);
  const std::vector<std::uint8_t> message = encode_test_message("a", "body");
  PublishRequest publish;
  publish.asker = ask();
  publish.queue = old;
  publish.id = "a";
  publish.message = message;
  f.core().publish(publish, f.now());
  not_found.push_back(last);
  f.run();
  CHECK_FALSE(f.error_of(exists));
  for (const std::uint64_t one : not_found) CHECK_FALSE(f.error_of(one));
  f.release_commits();
  REQUIRE(f.error_of(exists));
  CHECK(f.error_of(exists)->code() == ErrorCode::kQueueExists);
  for (const std::uint64_t one : not_found) {
    REQUIRE(f.error_of(one));
    CHECK(f.error_of(one)->code() == ErrorCode::kQueueNotFound);
  }
}

}  // namespace
}  // namespace holdfast::broker
