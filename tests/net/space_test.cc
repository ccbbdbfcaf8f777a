// What the broker makes of the store's reports of room.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <string>
#include <string_view>

#include "running_broker.h"

namespace holdfast::test {
namespace {

broker::SpaceReport no_room(std::string reason) {
  broker::SpaceReport report;
  report.publishes_allowed = false;
  report.reason = std::move(reason);
  return report;
}
broker::SpaceReport commits_wait() {
  broker::SpaceReport report = no_room("The disk is full: commits wait.");
  report.commits_wait = true;
  return report;
}

// Publishes until the answer is of this type: a report comes by another thread.
RawFrame publish_until(RawClient& client, std::uint32_t queue, wire::FrameType type) {
  std::optional<RawFrame> answer;
  for (std::uint64_t i = 1; i == 1 || answer->type != type; ++i) {
    REQUIRE_LT(i, 100'000);
    client.send_publish(i, queue, fmt::format("{}-{}", static_cast<int>(type), i), "x");
    answer = client.receive();
    REQUIRE(answer.has_value());
  }
  return *std::move(answer);
}

std::size_t count(const std::string& text, std::string_view what) {
  std::size_t found = 0;
  for (std::size_t at = text.find(what); at != std::string::npos; at = text.find(what, at + 1)) {
    ++found;
  }
  return found;
}

// Each that was not answered counted until it was not read any more, and so the acks that would
// have made room were not, either.
TEST_CASE("a consumer that had rejected much on a full disk could not ack") {
  constexpr std::uint64_t kRejects = broker::kWaitingMax + 100;
  RunningBroker broker;
  RawClient client = broker.connect();
  const std::uint32_t queue = client.create_queue("q");
  for (std::uint64_t n = 1; n <= kRejects + 1; ++n) {
    client.send_publish(n, queue, fmt::format("m{}", n), "x");
    if (n % 1'000 == 0 || n > kRejects) {
      std::uint64_t confirmed = 0;
      while (confirmed < (n - 1) % 1'000 + 1) {
        confirmed += client.expect(wire::FrameType_Confirm).table<wire::Confirm>().count();
      }
    }
  }
  const std::uint64_t consumer = client.subscribe("q", 65'536);
  for (std::uint64_t n = 1; n <= kRejects + 1; ++n) client.expect(wire::FrameType_Deliver);
  broker.store().set_room_of_commits(no_room("The disk is full."));
  broker.store().tell_space(no_room("The disk is full."));
  publish_until(client, queue, wire::FrameType_Error);
  for (std::uint64_t n = 1; n <= kRejects; ++n) {
    client.send_settle(n, consumer, wire::SettleKind_Reject, {{n, n}});
  }
  client.send_settle(7'000'000, consumer, wire::SettleKind_Ack, {{kRejects + 1, kRejects + 1}});
  const RawFrame settled = client.expect(wire::FrameType_Settled);
  CHECK_EQ(settled.correlation, 7'000'000);
  CHECK_EQ(settled.table<wire::Settled>().settled(), 1);
  // And when there is room all of them are answered.
  broker.store().set_room_of_commits(broker::MemoryStore().space);
  broker.store().tell_space(broker::MemoryStore().space);
  for (std::uint64_t n = 1; n <= kRejects; ++n) client.expect(wire::FrameType_Settled);
}

TEST_CASE("the log and publishers are told that commits wait for room, and that they go on") {
  RunningBroker broker;
  RawClient client = broker.connect();
  const std::uint32_t queue = client.create_queue("q");
  broker.store().tell_space(commits_wait());
  const RawFrame refused = publish_until(client, queue, wire::FrameType_Error);
  CHECK_EQ(refused.table<wire::Error>().code(), static_cast<int>(ErrorCode::kStorageFull));
  broker.store().tell_space(commits_wait());
  // Before the second answer the loop has certainly looked at what it was told before.
  for (int i = 0; i < 2; ++i) publish_until(client, queue, wire::FrameType_Error);
  broker.store().tell_space(broker::MemoryStore().space);
  publish_until(client, queue, wire::FrameType_Confirm);
  const std::string log = broker.logged();
  CHECK_EQ(count(log, "error   The disk is full: commits wait. Publishes are refused meanwhile.\n"),
           1);
  CHECK_EQ(count(log, "info    Commits go on"), 1);
  CHECK_EQ(count(log, "info    Publishes are accepted again"), 1);
  CHECK_EQ(count(log, "Publishes are refused: "), 0);
}

TEST_CASE("commits that go on with little room leave publishes refused, and the log says why") {
  RunningBroker broker;
  RawClient client = broker.connect();
  const std::uint32_t queue = client.create_queue("q");
  broker.store().tell_space(commits_wait());
  publish_until(client, queue, wire::FrameType_Error);
  broker.store().tell_space(no_room("The disk is nearly full."));
  for (int i = 0; i < 2; ++i) publish_until(client, queue, wire::FrameType_Error);
  CHECK_EQ(count(broker.logged(), "info    Commits go on"), 1);
  CHECK_EQ(count(broker.logged(), "warning Publishes are refused: The disk is nearly full."), 1);
}

// Only their publishers were told.
TEST_CASE("publishes that need more room than there is were not in the log") {
  RunningBroker broker;
  RawClient client = broker.connect();
  const std::uint32_t queue = client.create_queue("q");
  broker::SpaceReport little = broker::MemoryStore().space;
  little.room_bytes = 1'000;
  broker.store().tell_space(little);
  const std::string body(2'000, 'x');
  std::uint64_t refused = 0;
  for (std::uint64_t i = 1; i <= 10'000 && refused < 3; ++i) {
    client.send_publish(i, queue, fmt::format("large-{}", i), body);
    const std::optional<RawFrame> answer = client.receive();
    REQUIRE(answer.has_value());
    if (answer->type == wire::FrameType_Error) ++refused;
  }
  REQUIRE_EQ(refused, 3);
  CHECK_EQ(client.publish(queue, "small", "x") > 0, true);
  const std::string log = broker.logged();
  CHECK_EQ(count(log, "warning 1 publishes were refused: the store is not full"), 1);
  CHECK_EQ(count(log, "publishes were refused"), 1);  // at most once in ten seconds
}

// It did, for as long as nothing was committed, when the loop found both at once.
TEST_CASE("a report of no room does not outlive the commit that came after it") {
  RunningBroker broker;
  RawClient client = broker.connect();
  const std::uint32_t queue = client.create_queue("q");
  HeldStore& store = broker.store();
  store.hold();
  client.send_publish(1, queue, "first", "x");
  store.wait_for_commit();
  broker.on_loop([&store] {
    store.tell_space(no_room("The disk is nearly full."));
    store.set_room_of_commits(broker::MemoryStore().space);
    store.let_go_and_wait();
  });
  client.expect(wire::FrameType_Confirm);
  CHECK_EQ(client.publish(queue, "second", "x"), 2);
}

// It went on waiting, however often it was told to stop.
TEST_CASE("a broker whose last commit waits for room ends all the same") {
  RunningBroker broker(short_drain_options());
  RawClient client = broker.connect();
  const std::uint32_t queue = client.create_queue("q");
  broker.store().hold();
  client.send_publish(1, queue, "m", "x");
  broker.store().wait_for_commit();
  broker.store().tell_space(commits_wait());
  broker.request_drain();
  CHECK(broker.wait().ok());
  CHECK_EQ(count(broker.logged(), "warning Stopping without the last commit"), 1);
  client.expect(wire::FrameType_Goodbye);
  client.expect_close();
}

}  // namespace
}  // namespace holdfast::test
