// What a well-behaved client sees: handshake, heartbeats, one message's way, lists.

#include <doctest/doctest.h>
#include <stdlib.h>
#include <unistd.h>

#include <chrono>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <thread>

#include "running_broker.h"
#include "store/store.h"
#include "support/given_time.h"

namespace holdfast::test {
namespace {

std::uint32_t in_ms(Milliseconds duration) { return static_cast<std::uint32_t>(duration.count()); }

// A directory that is gone at the end.
struct TemporaryDirectory {
  std::string path;
  TemporaryDirectory() {
    char name[] = "/tmp/holdfast-net-XXXXXX";
    path = mkdtemp(name);
  }
  ~TemporaryDirectory() { std::filesystem::remove_all(path); }
};

std::unique_ptr<broker::Store> open_store(const std::string& directory) {
  broker::StoreOptions options;
  options.directory = directory;
  options.preallocate_bytes = 1 << 20;
  auto store = broker::Store::open(options);
  REQUIRE_MESSAGE(store.ok(), store.status().to_string());
  return std::move(*store);
}

TEST_CASE("Hello is answered by Welcome with what both sides will keep to") {
  RunningBroker broker;
  RawClient client(broker.address());
  client.send_hello(1, 7, "tester", 0);
  const RawFrame frame = client.expect(wire::FrameType_Welcome);
  const auto& welcome = frame.table<wire::Welcome>();
  CHECK(frame.correlation == 1);
  CHECK(welcome.version() == 1);
  CHECK(view(welcome.broker_version()) == "test");
  CHECK(welcome.heartbeat_ms() == 10'000);
  CHECK(welcome.frame_bytes_max() == kFrameBytesMax);
  CHECK(welcome.unconfirmed_bytes_max() == 4u << 20);
}

TEST_CASE("the heartbeat that a client wants is kept within bounds") {
  RunningBroker broker;
  CHECK(broker.connect_silently().hello("a", 2'000) == 2'000);
  CHECK(broker.connect_silently().hello("b", 1) == 500);
  CHECK(broker.connect_silently().hello("c", 3'600'000) == 60'000);
}

TEST_CASE("a client of another protocol version is told which one is spoken") {
  RunningBroker broker;
  RawClient client(broker.address());
  client.send_hello(2, 3, "tomorrow", 0);
  const RawFrame error = client.expect_fatal(ErrorCode::kVersionUnsupported);
  CHECK(error.error_text().find("2 to 3") != std::string::npos);
}

TEST_CASE("Ping is answered by Pong with the same correlation") {
  RunningBroker broker;
  RawClient client = broker.connect();
  client.send_empty(wire::FrameType_Ping, 77);
  CHECK(client.expect(wire::FrameType_Pong).correlation == 77);
}

TEST_CASE("an idle client hears a Ping at every heartbeat, and is dropped when it stays silent") {
  CHECK(holds_given_time([](Milliseconds heartbeat) {
    broker::BrokerOptions options = loopback_options();
    options.session.heartbeat_min = heartbeat;
    RunningBroker broker(options);
    RawClient client = broker.connect("silent", in_ms(heartbeat));
    int pings = 0;
    std::optional<RawFrame> frame;
    while ((frame = client.receive_any()) && frame->type == wire::FrameType_Ping) ++pings;
    REQUIRE(frame.has_value());
    CHECK(frame->error() == ErrorCode::kDeadlineExceeded);
    client.expect_close();
    return pings >= 1;
  }));
}

TEST_CASE("a broker that was held up itself does not blame its peers for it") {
  CHECK(holds_given_time([](Milliseconds heartbeat) {
    broker::BrokerOptions options = loopback_options();
    options.session.heartbeat_min = heartbeat;
    RunningBroker broker(options);
    const auto client = std::make_shared<RawClient>(broker.connect("lively", in_ms(heartbeat)));
    // For longer than three heartbeats, with Pings in each of them that the broker cannot read.
    broker.on_loop([client, heartbeat] {
      try {
        for (std::uint64_t i = 1; i <= 10; ++i) {
          client->send_empty(wire::FrameType_Ping, i);
          std::this_thread::sleep_for(heartbeat / 2);
        }
      } catch (const std::runtime_error&) {
        // It was dropped before this began.
      }
    });
    for (std::uint64_t i = 1; i <= 10; ++i) {
      const RawFrame pong = client->expect(wire::FrameType_Pong);
      CHECK(pong.correlation == i);
    }
    return true;
  }));
}

TEST_CASE(
    "an ack that came while the broker was held up came too late, though its lease had time") {
  CHECK(holds_given_time([](Milliseconds deadline) {
    const Milliseconds lease = 5 * deadline;  // the shortest that may be, at first
    // Longer than the lease and what counts as late.
    const Milliseconds hold_up = lease + Milliseconds(100);
    RunningBroker broker;
    const auto client = std::make_shared<RawClient>(broker.connect());
    const std::uint32_t queue = client->create_queue("q", {{QueueSetting::kLease, in_ms(lease)}});
    client->publish(queue, "a", "x");
    const std::uint64_t consumer = client->subscribe("q", 1);
    client->expect(wire::FrameType_Deliver);
    broker.on_loop([client, consumer, hold_up] {
      client->send_settle(7, consumer, wire::SettleKind_Ack, {{1, 1}});
      std::this_thread::sleep_for(hold_up);
    });
    const RawFrame settled = client->expect(wire::FrameType_Settled);
    CHECK(settled.table<wire::Settled>().settled() == 1);
    if (settled.table<wire::Settled>().late() != 0) return false;
    // And a lease that nobody settles ends all the same.
    client->publish(queue, "b", "x");
    client->expect(wire::FrameType_Deliver);
    broker.on_loop([hold_up] { std::this_thread::sleep_for(hold_up); });
    client->expect(wire::FrameType_LeaseLost);
    return true;
  }));
}

// It is not read for as long as its publish is not confirmed.
TEST_CASE("a disk that hung took the lease from a consumer that had acked in time") {
  CHECK(holds_given_time([](Milliseconds deadline) {
    const Milliseconds lease = 5 * deadline;
    broker::BrokerOptions options = loopback_options();
    options.session.unconfirmed_bytes_max = 1;
    RunningBroker broker(options);
    RawClient worker = broker.connect("worker");
    RawClient other = broker.connect("other");
    const std::uint32_t queue = worker.create_queue("q", {{QueueSetting::kLease, in_ms(lease)}});
    worker.publish(queue, "a", "x");
    worker.publish(queue, "b", "x");
    const std::uint64_t consumer = worker.subscribe("q", 1);
    worker.expect(wire::FrameType_Deliver);
    other.subscribe("q", 1);
    other.expect(wire::FrameType_Deliver);
    broker.store().hold();
    worker.send_publish(7, queue, "c", "x");
    broker.store().wait_for_commit();
    worker.send_settle(8, consumer, wire::SettleKind_Ack, {{1, 1}});
    other.expect(wire::FrameType_LeaseLost);  // it began, and ends, later
    broker.store().let_go();
    worker.expect(wire::FrameType_Confirm);
    const RawFrame settled = worker.expect(wire::FrameType_Settled);
    CHECK(settled.table<wire::Settled>().settled() == 1);
    return settled.table<wire::Settled>().late() == 0;
  }));
}

TEST_CASE("a message goes from publisher to consumer with the bytes that were published") {
  RunningBroker broker;
  RawClient publisher = broker.connect("publisher");
  RawClient consumer = broker.connect("consumer");
  const std::uint32_t queue = publisher.create_queue("orders");
  const std::uint64_t id = consumer.subscribe("orders", 10);
  publisher.send_publish(5, queue, "order-1", "three apples");
  const RawFrame confirm = publisher.expect(wire::FrameType_Confirm);
  CHECK(confirm.correlation == 5);
  CHECK(confirm.table<wire::Confirm>().sequence() == 1);
  CHECK(confirm.table<wire::Confirm>().count() == 1);
  CHECK_FALSE(confirm.table<wire::Confirm>().duplicate());

  const RawFrame frame = consumer.expect(wire::FrameType_Deliver);
  const Result<DeliverFrame> delivery = read_deliver(frame.frame());
  REQUIRE_MESSAGE(delivery.ok(), delivery.status().to_string());
  CHECK(delivery->envelope.consumer() == id);
  CHECK(delivery->envelope.sequence() == 1);
  CHECK(delivery->envelope.attempt() == 1);
  CHECK(delivery->envelope.queue() == queue);
  const std::vector<std::uint8_t> published = message_bytes("order-1", "three apples");
  CHECK(std::equal(published.begin(), published.end(), delivery->message_bytes.begin(),
                   delivery->message_bytes.end()));

  consumer.send_settle(6, id, wire::SettleKind_Ack, {wire::SequenceRange(1, 1)});
  const RawFrame settled = consumer.expect(wire::FrameType_Settled);
  CHECK(settled.correlation == 6);
  CHECK(settled.table<wire::Settled>().settled() == 1);
}

TEST_CASE("publishes written together are confirmed by a range") {
  RunningBroker broker;
  RawClient client = broker.connect();
  const std::uint32_t queue = client.create_queue("q");
  broker.store().hold();
  client.send_publish(1, queue, "first", "x");
  broker.store().wait_for_commit();
  FrameWriter frames;
  for (std::uint64_t n = 2; n <= 101; ++n) {
    const auto message = message_bytes("m" + std::to_string(n), "body");
    frames.append_publish(n, wire::PublishEnvelope(queue, 0, checksum(message)), message);
  }
  client.send(frames);
  // Answered at once and in order: so all publishes are with the core when it comes.
  client.send_empty(wire::FrameType_Ping, 500);
  client.expect(wire::FrameType_Pong);
  broker.store().let_go();
  CHECK(client.expect(wire::FrameType_Confirm).table<wire::Confirm>().sequence() == 1);
  const RawFrame confirm = client.expect(wire::FrameType_Confirm);
  CHECK(confirm.correlation == 2);
  CHECK(confirm.table<wire::Confirm>().sequence() == 2);
  CHECK(confirm.table<wire::Confirm>().count() == 100);
}

TEST_CASE("nothing is confirmed or delivered before its commit") {
  RunningBroker broker;
  RawClient client = broker.connect();
  const std::uint32_t queue = client.create_queue("q");
  RawClient consumer = broker.connect();
  consumer.subscribe("q", 10);
  broker.store().hold();
  client.send_publish(1, queue, "m", "x");
  broker.store().wait_for_commit();
  client.send_empty(wire::FrameType_Ping, 2);
  consumer.send_empty(wire::FrameType_Ping, 2);
  CHECK(client.expect(wire::FrameType_Pong).correlation == 2);
  CHECK(consumer.expect(wire::FrameType_Pong).correlation == 2);
  broker.store().let_go();
  client.expect(wire::FrameType_Confirm);
  consumer.expect(wire::FrameType_Deliver);
}

TEST_CASE("status and connections are told by the broker") {
  RunningBroker broker;
  RawClient first = broker.connect("first");
  RawClient second = broker.connect("second");
  first.create_queue("q");
  first.send_empty(wire::FrameType_Status, 3);
  const RawFrame frame = first.expect(wire::FrameType_StatusInfo);
  const auto& status = frame.table<wire::StatusInfo>();
  CHECK(frame.correlation == 3);
  CHECK(status.queues() == 1);
  CHECK(status.connections() == 2);
  CHECK(status.publishes_allowed());
  CHECK_FALSE(status.draining());
  CHECK(status.pid() == static_cast<std::uint32_t>(getpid()));
  CHECK(view(status.data_directory()) == "memory");

  first.send_empty(wire::FrameType_ConnectionList, 4);
  const RawFrame one = first.expect(wire::FrameType_ConnectionInfo);
  const RawFrame two = first.expect(wire::FrameType_ConnectionInfo);
  CHECK(view(one.table<wire::ConnectionInfo>().client_name()) == "first");
  CHECK(one.table<wire::ConnectionInfo>().frames_in() == 4);
  CHECK(view(two.table<wire::ConnectionInfo>().client_name()) == "second");
  CHECK(view(two.table<wire::ConnectionInfo>().peer()).starts_with("127.0.0.1:"));
  CHECK(first.expect(wire::FrameType_ListEnd).table<wire::ListEnd>().count() == 2);
}

TEST_CASE("a queue is created with the configured defaults where the client names nothing") {
  broker::BrokerOptions options = loopback_options();
  options.session.queue_defaults = {{static_cast<std::uint16_t>(QueueSetting::kMaxAttempts), 4},
                                    {static_cast<std::uint16_t>(QueueSetting::kLease), 5'000}};
  RunningBroker broker(options);
  RawClient client = broker.connect();
  auto& builder = client.builder();
  const auto name = builder.CreateString("q");
  const std::vector<wire::SettingValue> named = {
      {static_cast<std::uint16_t>(QueueSetting::kLease), 0, 0, 7'000}};
  const auto settings = builder.CreateVectorOfStructs(named);
  client.send_table(wire::FrameType_QueueCreate, 1,
                    wire::CreateQueueCreate(builder, name, settings));
  const RawFrame frame = client.expect(wire::FrameType_QueueInfo);
  std::uint64_t lease = 0;
  std::uint64_t attempts = 0;
  for (const wire::SettingValue* value : *frame.table<wire::QueueInfo>().settings()) {
    if (value->setting() == static_cast<std::uint16_t>(QueueSetting::kLease)) {
      lease = value->value();
    }
    if (value->setting() == static_cast<std::uint16_t>(QueueSetting::kMaxAttempts)) {
      attempts = value->value();
    }
  }
  CHECK(lease == 7'000);
  CHECK(attempts == 4);
}

TEST_CASE("a client that says Goodbye is let go at once") {
  RunningBroker broker;
  RawClient client = broker.connect();
  client.send_empty(wire::FrameType_Goodbye, 0);
  client.expect_close();
}

TEST_CASE("what a vanished consumer held comes back to another") {
  RunningBroker broker;
  RawClient client = broker.connect();
  const std::uint32_t queue =
      client.create_queue("q", {{QueueSetting::kBackoffMin, 1}, {QueueSetting::kBackoffMax, 1}});
  client.publish(queue, "m", "x");
  {
    RawClient vanishing = broker.connect("vanishing");
    vanishing.subscribe("q", 1);
    vanishing.expect(wire::FrameType_Deliver);
  }
  RawClient heir = broker.connect("heir");
  heir.subscribe("q", 1);
  const RawFrame frame = heir.expect(wire::FrameType_Deliver);
  const auto delivery = read_deliver(frame.frame());
  REQUIRE(delivery.ok());
  CHECK(delivery->envelope.attempt() == 2);
}

TEST_CASE("a restart on the same directory finds the messages and their ids") {
  const TemporaryDirectory directory;
  std::uint32_t queue = 0;
  {
    RunningBroker broker(loopback_options(), open_store(directory.path));
    RawClient client = broker.connect();
    queue = client.create_queue("q");
    CHECK(client.publish(queue, "a", "first") == 1);
    CHECK(client.publish(queue, "b", "second") == 2);
  }
  RunningBroker broker(loopback_options(), open_store(directory.path));
  RawClient client = broker.connect();
  client.send_publish(9, queue, "b", "second");
  const RawFrame confirm = client.expect(wire::FrameType_Confirm);
  CHECK(confirm.table<wire::Confirm>().sequence() == 2);
  CHECK(confirm.table<wire::Confirm>().duplicate());
  client.subscribe("q", 10);
  for (std::uint64_t sequence = 1; sequence <= 2; ++sequence) {
    const RawFrame frame = client.expect(wire::FrameType_Deliver);
    const auto delivery = read_deliver(frame.frame());
    REQUIRE(delivery.ok());
    CHECK(delivery->envelope.sequence() == sequence);
  }
}

}  // namespace
}  // namespace holdfast::test
