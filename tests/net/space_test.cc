// What the broker makes of the store's reports of room.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "running_broker.h"

namespace holdfast::test {
namespace {

broker::SpaceReport no_room(std::string reason) {
  broker::SpaceReport report;
  report.publishes_allowed = false;
  report.reason = std::move(reason);
  return report;
}

// Publishes until the answer is of this type: reports come by another thread.
RawFrame publish_until(RawClient& client, std::uint32_t queue, wire::FrameType type) {
  std::optional<RawFrame> answer;
  for (std::uint64_t i = 1; i == 1 || answer->type != type; ++i) {
    REQUIRE(i < 1'000'000);
    client.send_publish(i, queue, fmt::format("{}-{}", static_cast<int>(type), i), "x");
    answer = client.receive();
    REQUIRE(answer.has_value());
  }
  return *std::move(answer);
}

TEST_CASE("the log and publishers are told that commits wait for room, and that they go on") {
  RunningBroker broker;
  RawClient client = broker.connect();
  const std::uint32_t queue = client.create_queue("q");
  broker::SpaceReport waits = no_room("The disk is full: commits wait.");
  waits.commits_wait = true;
  broker.store().tell_space(waits);
  const RawFrame refused = publish_until(client, queue, wire::FrameType_Error);
  CHECK_EQ(refused.table<wire::Error>().code(), static_cast<int>(ErrorCode::kStorageFull));
  const std::string expected =
      "error   The disk is full: commits wait. Publishes are refused meanwhile.\n";
  CHECK_NE(broker.logged().find(expected), std::string::npos);
  CHECK_EQ(broker.logged().find("Commits go on"), std::string::npos);

  broker.store().tell_space(broker::MemoryStore().space);
  publish_until(client, queue, wire::FrameType_Confirm);
  CHECK_NE(broker.logged().find("info    Commits go on"), std::string::npos);
  CHECK_NE(broker.logged().find("info    Publishes are accepted again"), std::string::npos);
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
    store.let_go_and_wait();
  });
  client.expect(wire::FrameType_Confirm);
  CHECK_EQ(client.publish(queue, "second", "x"), 2);
}

}  // namespace
}  // namespace holdfast::test
