// How a broker ends: drained, hurried, or by a store that failed.

#include <doctest/doctest.h>

#include <chrono>
#include <optional>
#include <string>

#include "running_broker.h"

namespace holdfast::test {
namespace {

struct Held {
  std::uint32_t queue;
  std::uint64_t consumer;
};

// Of the queue "q", which is made, this client holds message 1.
Held hold_one(RawClient& client) {
  const std::uint32_t queue = client.create_queue("q");
  client.publish(queue, "m", "x");
  const std::uint64_t consumer = client.subscribe("q", 1);
  client.expect(wire::FrameType_Deliver);
  return {queue, consumer};
}

TEST_CASE("an idle broker drains at once and says Goodbye") {
  RunningBroker broker;
  RawClient client = broker.connect();
  broker.request_drain();
  const RawFrame frame = client.expect(wire::FrameType_Goodbye);
  const auto& goodbye = frame.table<wire::Goodbye>();
  CHECK(goodbye.code() == static_cast<std::uint16_t>(ErrorCode::kDraining));
  CHECK(goodbye.deadline_ms() > 3'000);
  CHECK(goodbye.deadline_ms() <= 4'000);
  client.expect_close();
  CHECK(broker.wait().ok());
}

TEST_CASE("a draining broker waits for what is in flight and refuses what is new") {
  RunningBroker broker;
  RawClient client = broker.connect();
  const auto [queue, consumer] = hold_one(client);
  broker.request_drain();
  client.expect(wire::FrameType_Goodbye);
  client.send_publish(5, queue, "late", "x");
  client.expect_error(ErrorCode::kDraining, 5);
  CHECK_THROWS(RawClient(broker.address()));
  client.send_settle(6, consumer, wire::SettleKind_Ack, {{1, 1}});
  CHECK(client.expect(wire::FrameType_Settled).table<wire::Settled>().settled() == 1);
  client.expect_close();
  CHECK(broker.wait().ok());
}

TEST_CASE("messages that were not settled at the end were not in the log") {
  RunningBroker broker(short_drain_options());
  RawClient client = broker.connect();
  hold_one(client);
  broker.request_drain();
  CHECK(broker.wait().ok());
  CHECK_NE(broker.logged().find("warning 1 messages in flight were not settled before the end"),
           std::string::npos);
}

TEST_CASE("who says Hello to a draining broker is told that it ends") {
  RunningBroker broker;
  RawClient client = broker.connect();
  const std::uint64_t consumer = hold_one(client).consumer;
  RawClient late = broker.connect_silently();
  while (count_connections(client) < 2) continue;
  broker.request_drain();
  client.expect(wire::FrameType_Goodbye);
  late.hello();
  const RawFrame frame = late.expect(wire::FrameType_Goodbye);
  const auto& goodbye = frame.table<wire::Goodbye>();
  CHECK(goodbye.code() == static_cast<std::uint16_t>(ErrorCode::kDraining));
  CHECK(goodbye.deadline_ms() <= 4'000);
  client.send_settle(6, consumer, wire::SettleKind_Ack, {{1, 1}});
  client.expect(wire::FrameType_Settled);
  late.expect_close();
  CHECK(broker.wait().ok());
}

TEST_CASE("a draining broker answers what was published before") {
  RunningBroker broker;
  RawClient client = broker.connect();
  const std::uint32_t queue = client.create_queue("q");
  broker.store().hold();
  client.send_publish(5, queue, "m", "x");
  broker.store().wait_for_commit();
  broker.request_drain();
  client.expect(wire::FrameType_Goodbye);
  broker.store().let_go();
  CHECK(client.expect(wire::FrameType_Confirm).correlation == 5);
  client.expect_close();
  CHECK(broker.wait().ok());
}

TEST_CASE("a consumer that never settles does not hold up the end beyond its deadline") {
  RunningBroker broker(short_drain_options());
  RawClient client = broker.connect();
  hold_one(client);
  broker.request_drain();
  client.expect_close();
  CHECK(broker.wait().ok());
}

TEST_CASE("what was held when the drain is over ends and is stored, however many pieces it takes") {
  broker::BrokerOptions options = short_drain_options();
  options.core.ends_max = 2;
  RunningBroker broker(options);
  RawClient client = broker.connect();
  const std::uint32_t queue = client.create_queue("q");
  client.subscribe("q", 10);
  for (int i = 0; i < 9; ++i) {
    client.publish(queue, "m" + std::to_string(i), "x");
    client.expect(wire::FrameType_Deliver);
  }
  broker.request_drain();
  client.expect_close();
  REQUIRE(broker.wait().ok());
  const Result<broker::StoredState> stored = broker.store().load();
  REQUIRE(stored.ok());
  REQUIRE(stored->retries.size() == 9);
  for (const broker::RetryRecord& record : stored->retries) {
    CHECK(record.history.back().cause == wire::Cause_ConnectionLost);
  }
}

TEST_CASE("what waits to be sent is sent before a drained broker ends") {
  constexpr std::uint64_t kPeeks = 4;
  broker::BrokerOptions options = loopback_options();
  options.connection.send_buffer_bytes = 64 * 1024;
  RunningBroker broker(options);
  RawClient watcher = broker.connect("watcher");
  const std::uint32_t queue = watcher.create_queue("q");
  watcher.publish(queue, "large", std::string(1'000'000, 'b'));
  RawClient slow(broker.address(), 64 * 1024);
  slow.hello("slow");
  for (std::uint64_t n = 1; n <= kPeeks; ++n) {
    slow.send_peek(n, "q", 0, 1);
  }
  // The broker has more for it than its socket takes.
  while (look_at(watcher, "slow").output_bytes == 0) continue;
  broker.request_drain();
  watcher.expect(wire::FrameType_Goodbye);
  std::uint64_t items = 0;
  bool said_goodbye = false;
  for (std::optional<RawFrame> frame; (frame = slow.receive());) {
    items += frame->type == wire::FrameType_PeekItem;
    said_goodbye |= frame->type == wire::FrameType_Goodbye;
  }
  CHECK(items == kPeeks);
  CHECK(said_goodbye);
  CHECK(broker.wait().ok());
}

TEST_CASE("a second request ends the drain at once") {
  broker::BrokerOptions options = loopback_options();
  options.drain = Milliseconds(600'000);
  RunningBroker broker(options);
  RawClient client = broker.connect();
  hold_one(client);
  broker.request_drain();
  client.expect(wire::FrameType_Goodbye);
  broker.request_drain();
  client.expect_close();
  CHECK(broker.wait().ok());
}

TEST_CASE("when a commit fails, run() says so and nothing that depended on it was answered") {
  RunningBroker broker;
  RawClient client = broker.connect();
  const std::uint32_t queue = client.create_queue("q");
  broker.store().hold();
  client.send_publish(5, queue, "m", "x");
  broker.store().wait_for_commit();
  broker.store().fail_next();
  CHECK(broker.wait().code() == ErrorCode::kStorageFailed);
  // The process would end here and take its sockets with it.
  client.send_empty(wire::FrameType_Ping, 6);
  broker.destroy();
  CHECK_FALSE(client.receive().has_value());
}

TEST_CASE("when the store fails as it is closed, run() says so") {
  RunningBroker broker;
  RawClient client = broker.connect();
  client.create_queue("q");
  broker.store().fail_next();
  broker.request_drain();
  CHECK(broker.wait().code() == ErrorCode::kStorageFailed);
}

}  // namespace
}  // namespace holdfast::test
