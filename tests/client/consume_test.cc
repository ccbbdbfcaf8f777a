#include <doctest/doctest.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <stdexcept>
#include <thread>

#include "consumer.h"
#include "consumer_fixture.h"

namespace holdfast::test {

TEST_CASE("a consumer subscribes with its credit and hands each delivery to the handler") {
  FakeBroker broker;
  Connected c(broker);
  ConsumeOptions options;
  options.concurrency = 3;
  options.prefetch_bytes = 1000;
  options.lease = std::chrono::seconds(12);
  options.consumer_name = "worker-1";
  Kept kept;
  auto consuming = std::async([&] { return c.client->consume("orders", options, kept.handler()); });
  const ReceivedFrame frame = c.peer->subscribe(5);
  const auto& subscribe = frame.table<wire::Subscribe>();
  CHECK(view(subscribe.queue()) == "orders");
  CHECK(view(subscribe.consumer_name()) == "worker-1");
  CHECK(subscribe.credit_messages() == 6);
  CHECK(subscribe.credit_bytes() == 1000);
  CHECK(subscribe.lease_ms() == 12'000);
  Result<Consumer> consumer = consuming.get();
  REQUIRE(consumer.ok());

  c.peer->deliver(5, 17, "hello", 2);
  std::vector<Delivery> deliveries = kept.take(1);
  const StoredMessage& message = deliveries[0].message();
  CHECK(message.queue == "orders");
  CHECK(message.sequence == 17);
  CHECK(message.attempt == 2);
  CHECK(message.id == "m17");
  CHECK(message.body == "hello");
  CHECK(message.state == "in_flight");
  CHECK_FALSE(message.is_dead_letter);
  CHECK(deliveries[0].state() == DeliveryState::kHeld);

  auto acked = std::async([&] { return deliveries[0].ack(); });
  const Settling settle = expect_settle(*c.peer);
  CHECK(settle.kind == wire::SettleKind_Ack);
  CHECK(settle.ranges == Ranges{{17, 17}});
  c.peer->settled(settle.correlation, 1);
  CHECK(acked.get().ok());
  CHECK(deliveries[0].state() == DeliveryState::kSettled);
  CHECK(deliveries[0].ack().code() == ErrorCode::kNotHeld);
}

TEST_CASE("acks of one turn travel as ranges, and what is refused is not_held for that one alone") {
  FakeBroker broker;
  Connected c(broker);
  Kept kept;
  ConsumeOptions options;
  options.prefetch = 10;
  const Consumer consumer = consume(c, options, kept.handler());
  for (const std::uint64_t sequence : {1u, 2u, 3u, 5u, 6u, 9u}) c.peer->deliver(5, sequence, "x");
  std::vector<Delivery> deliveries = kept.take(6);
  std::vector<std::promise<Status>> answers(6);
  on_io_thread(c, [&] {
    for (const std::size_t i : {4u, 2u, 0u, 5u, 1u, 3u}) {
      deliveries[i].ack_async([&, i](Status status) { answers[i].set_value(std::move(status)); });
    }
  });
  const Settling settle = expect_settle(*c.peer);
  CHECK(settle.ranges == Ranges{{1, 3}, {5, 6}, {9, 9}});
  c.peer->settled(settle.correlation, 5, {{5, 5}});
  for (std::size_t i = 0; i < 6; ++i) {
    const Status status = answers[i].get_future().get();
    CHECK(status.code() == (i == 3 ? ErrorCode::kNotHeld : ErrorCode::kOk));
  }
  CHECK(deliveries[3].state() == DeliveryState::kLost);
}

TEST_CASE("each way to settle carries its reason and its delay") {
  FakeBroker broker;
  Connected c(broker);
  Kept kept;
  const Consumer consumer = consume(c, ConsumeOptions(), kept.handler());
  for (const std::uint64_t sequence : {1u, 2u, 3u}) c.peer->deliver(5, sequence, "x");
  std::vector<Delivery> deliveries = kept.take(3);
  CHECK(deliveries[0].nack("r", std::chrono::hours(24 * 8)).code() == ErrorCode::kInvalidArgument);

  deliveries[0].nack_async("busy", std::chrono::milliseconds(1500));
  Settling settle = expect_settle(*c.peer);
  CHECK(settle.kind == wire::SettleKind_Nack);
  CHECK(settle.reason == "busy");
  CHECK(settle.delay_ms == 1500);
  deliveries[1].reject_async("broken");
  settle = expect_settle(*c.peer);
  CHECK(settle.kind == wire::SettleKind_Reject);
  CHECK(settle.reason == "broken");
  CHECK(settle.delay_ms == -1);
  deliveries[2].release_async();
  CHECK(expect_settle(*c.peer).kind == wire::SettleKind_Release);
}

// They were refused, the delivery was given back, and the message came again at once, for ever.
TEST_CASE("a reason that is too long or not UTF-8 kept a message from failing") {
  FakeBroker broker;
  Connected c(broker);
  const Consumer consumer = consume(c, ConsumeOptions(), [](Delivery delivery) {
    if (delivery.body() == "long") delivery.nack_async(std::string(1'025, 'r'));
    if (delivery.body() == "latin") delivery.reject_async("f\xfcr nichts");
    if (delivery.body() == "later") delivery.nack_async("busy", std::chrono::hours(24 * 8));
  });
  c.peer->deliver(5, 1, "long");
  Settling settle = expect_settle(*c.peer);
  CHECK(settle.kind == wire::SettleKind_Nack);
  CHECK(settle.reason == std::string(1'024, 'r'));
  c.peer->deliver(5, 2, "latin");
  settle = expect_settle(*c.peer);
  CHECK(settle.kind == wire::SettleKind_Reject);
  CHECK(settle.reason == "f\\xfcr nichts");
  c.peer->deliver(5, 3, "later");
  settle = expect_settle(*c.peer);
  CHECK(settle.kind == wire::SettleKind_Nack);
  CHECK(settle.delay_ms == -1);
}

// It was told that the message had been settled.
TEST_CASE_FIXTURE(HoldsOne, "a second settle while the first is under way is refused as that") {
  std::promise<Status> acked;
  deliveries[0].ack_async([&](Status status) { acked.set_value(std::move(status)); });
  CHECK(deliveries[0].ack().code() == ErrorCode::kOperationRefused);
  c.peer->settled(expect_settle(*c.peer).correlation, 1);
  CHECK(acked.get_future().get().ok());
  CHECK(deliveries[0].ack().code() == ErrorCode::kNotHeld);
}

TEST_CASE("a delivery dropped unsettled is given back") {
  FakeBroker broker;
  Connected c(broker);
  const Consumer consumer = consume(c, ConsumeOptions(), [](const Delivery&) {});
  c.peer->deliver(5, 1, "x");
  CHECK(expect_settle(*c.peer).kind == wire::SettleKind_Release);
}

TEST_CASE("a handler that throws nacks with the exception's text") {
  FakeBroker broker;
  Connected c(broker);
  std::vector<Delivery> elsewhere;
  const Consumer consumer = consume(c, ConsumeOptions(), [&](Delivery delivery) {
    if (delivery.body() == "moved") elsewhere.push_back(std::move(delivery));
    throw std::runtime_error("no such customer");
  });
  for (const char* body : {"dropped", "moved"}) {
    c.peer->deliver(5, 1, body);
    const Settling settle = expect_settle(*c.peer);
    CHECK(settle.kind == wire::SettleKind_Nack);
    CHECK(settle.reason == "no such customer");
    c.peer->settled(settle.correlation, 1);
  }
}

TEST_CASE_FIXTURE(HoldsOne,
                  "a settle that the broker refuses for a passing reason can be tried again") {
  auto first = std::async([&] { return deliveries[0].ack(); });
  c.peer->error(expect_settle(*c.peer).correlation, ErrorCode::kStorageFull, "full");
  CHECK(first.get().code() == ErrorCode::kStorageFull);
  CHECK(deliveries[0].state() == DeliveryState::kHeld);
  auto second = std::async([&] { return deliveries[0].ack(); });
  c.peer->settled(expect_settle(*c.peer).correlation, 1);
  CHECK(second.get().ok());
}

TEST_CASE("a settle that failed after its delivery was dropped gives the message back, once") {
  FakeBroker broker;
  Connected c(broker);
  const Consumer consumer =
      consume(c, ConsumeOptions(), [](Delivery delivery) { delivery.ack_async(); });
  c.peer->deliver(5, 1, "x");
  const Settling acked = expect_settle(*c.peer);
  CHECK(acked.kind == wire::SettleKind_Ack);
  on_io_thread(c, [] {});  // the handler has returned
  c.peer->error(acked.correlation, ErrorCode::kInternal, "no");
  const Settling released = expect_settle(*c.peer);
  CHECK(released.kind == wire::SettleKind_Release);
  c.peer->error(released.correlation, ErrorCode::kInternal, "no");
  expect_nothing(c);
}

TEST_CASE_FIXTURE(HoldsOne,
                  "after a lost lease a nack is refused here, and an ack is still tried") {
  c.peer->lease_lost(5, wire::Cause_LeaseExpired, {{1, 1}});
  // The delivery after it shows that the loss has been read.
  c.peer->deliver(5, 2, "y");
  kept.take(1)[0].release_async();
  c.peer->settled(expect_settle(*c.peer).correlation, 1);
  CHECK(deliveries[0].state() == DeliveryState::kLost);
  CHECK(deliveries[0].nack("late").code() == ErrorCode::kNotHeld);
  auto acked = std::async([&] { return deliveries[0].ack(); });
  c.peer->settled(expect_settle(*c.peer).correlation, 1, {}, 1);
  CHECK(acked.get().ok());
  CHECK(deliveries[0].state() == DeliveryState::kSettled);
}

// The subscription was ended, because nothing was held, and the ack was told of a lost connection.
TEST_CASE_FIXTURE(HoldsOne, "an ack after a lost lease was not tried once its consumer stopped") {
  c.peer->lease_lost(5, wire::Cause_LeaseExpired, {{1, 1}});
  auto stopped = std::async([&] { consumer.stop(); });
  c.peer->ok(expect_credit(*c.peer, 0).correlation);
  stopped.get();
  expect_nothing(c);
  SUBCASE("and is tried") {
    auto acked = std::async([&] { return deliveries[0].ack(); });
    c.peer->settled(expect_settle(*c.peer).correlation, 1, {}, 1);
    CHECK(acked.get().ok());
  }
  SUBCASE("and is tried when the object goes in the same moment") {
    std::promise<Status> acked;
    on_io_thread(c, [&] {
      deliveries[0].ack_async([&](Status status) { acked.set_value(std::move(status)); });
      deliveries.clear();
    });
    c.peer->settled(expect_settle(*c.peer).correlation, 1, {}, 1);
    CHECK(acked.get_future().get().ok());
  }
  SUBCASE("and is not waited for when the program has let go") { deliveries.clear(); }
  c.peer->ok(c.peer->expect(wire::FrameType_Unsubscribe).correlation);
}

TEST_CASE_FIXTURE(HoldsOne, "a settle was told of a lost connection when the queue was deleted") {
  c.peer->consumer_ended(5, ErrorCode::kQueueNotFound, "Queue 'orders' was deleted.");
  while (consumer.status().ok()) std::this_thread::yield();
  const auto check = [](const Status& status) {
    CHECK(status.code() == ErrorCode::kNotHeld);
    CHECK(status.message().find("its lease has ended, or its queue is gone") != std::string::npos);
  };
  check(deliveries[0].extend(std::chrono::seconds(5)));
  check(deliveries[0].nack("late"));
  check(deliveries[0].ack());
  CHECK(deliveries[0].state() == DeliveryState::kLost);
}

TEST_CASE_FIXTURE(
    HoldsOne,
    "when the connection is lost, what was held is lost and the consumer subscribes again") {
  c.peer->close();
  FakePeer next = broker.accept();
  next.handshake();
  next.subscribe(6);
  CHECK(deliveries[0].state() == DeliveryState::kLost);
  CHECK(deliveries[0].ack().code() == ErrorCode::kConnectionLost);
  next.deliver(6, 1, "x", 2);
  deliveries = kept.take(1);
  CHECK(deliveries[0].attempt() == 2);
  auto acked = std::async([&] { return deliveries[0].ack(); });
  next.settled(expect_settle(next, 6).correlation, 1);
  CHECK(acked.get().ok());
  CHECK(consumer.status().ok());
}

// It settled the next attempt, which another handler was at work on, or another message.
TEST_CASE_FIXTURE(HoldsOne, "an ack after a lost lease does not go to the next connection") {
  c.peer->lease_lost(5, wire::Cause_LeaseExpired, {{1, 1}});
  while (deliveries[0].state() == DeliveryState::kHeld) std::this_thread::yield();
  c.peer->close();
  FakePeer next = broker.accept();
  next.handshake();
  next.subscribe(5);
  next.deliver(5, 1, "x", 2);
  const std::vector<Delivery> again = kept.take(1);
  CHECK(deliveries[0].ack().code() == ErrorCode::kConnectionLost);
  CHECK(deliveries[0].extend(std::chrono::seconds(5)).code() == ErrorCode::kConnectionLost);
  CHECK(again[0].state() == DeliveryState::kHeld);
  expect_nothing(*c.client, next);
}

// The broker numbers consumers anew on each connection.
TEST_CASE_FIXTURE(HoldsOne,
                  "a consumer that ends after a reconnect leaves another one's number alone") {
  Kept others;
  auto consuming =
      std::async([&] { return c.client->consume("others", ConsumeOptions(), others.handler()); });
  c.peer->subscribe(6);
  const Result<Consumer> other = consuming.get();
  REQUIRE(other.ok());
  c.peer->close();
  FakePeer next = broker.accept();
  next.handshake();
  std::uint64_t refused = 0;
  for (int i = 0; i < 2; ++i) {
    const ReceivedFrame frame = next.expect(wire::FrameType_Subscribe);
    if (view(frame.table<wire::Subscribe>().queue()) == "others") {
      next.subscribed(frame.correlation, 5);
    } else {
      refused = frame.correlation;
    }
  }
  next.error(refused, ErrorCode::kQueueNotFound, "It was deleted.");
  while (consumer.status().ok()) std::this_thread::yield();
  next.deliver(5, 9, "y");
  CHECK(others.take(1)[0].body() == "y");
}

// They were kept until a handler had time, and the broker sent more for them.
TEST_CASE("deliveries whose lease is lost before their handler begins are not kept") {
  const auto consumer = std::make_shared<ConsumerImpl>(
      nullptr, [](const Delivery&) {}, nullptr);
  const auto deliver = [&consumer] {
    auto delivery = std::make_shared<DeliveryImpl>(nullptr, DeliveryOrigin(), StoredMessage());
    consumer->deliver({delivery});
    return std::weak_ptr<DeliveryImpl>(delivery);
  };
  const std::weak_ptr<DeliveryImpl> lost = deliver();
  const std::weak_ptr<DeliveryImpl> held = deliver();
  lost.lock()->lease_lost();
  deliver();
  CHECK(lost.expired());
  CHECK_FALSE(held.expired());
}

// With each that came all that waited were looked at, however many.
TEST_CASE(
    "of many deliveries that wait, those that lost their lease go as others take their place") {
  constexpr std::size_t kWaiting = 100;
  const auto consumer = std::make_shared<ConsumerImpl>(
      nullptr, [](const Delivery&) {}, nullptr);
  const auto deliver_all = [&consumer] {
    std::vector<std::weak_ptr<DeliveryImpl>> delivered;
    while (delivered.size() < kWaiting) {
      const auto one = std::make_shared<DeliveryImpl>(nullptr, DeliveryOrigin(), StoredMessage());
      consumer->deliver({one});
      delivered.push_back(one);
    }
    return delivered;
  };
  const auto is_gone = [](const auto& delivery) { return delivery.expired(); };
  const auto lost = deliver_all();
  for (const auto& delivery : lost) delivery.lock()->lease_lost();
  const auto held = deliver_all();
  CHECK(std::all_of(lost.begin(), lost.end(), is_gone));
  CHECK(std::none_of(held.begin(), held.end(), is_gone));
}

// For each lost lease all that had been lost before were looked at: of so many, for half a minute.
TEST_CASE("a client that lost very many leases at once did nothing else for long") {
#ifdef __SANITIZE_THREAD__
  constexpr std::uint64_t kHeld = 50'000;  // more would take nearly as long as the test waits
#else
  constexpr std::uint64_t kHeld = 200'000;
#endif
  FakeBroker broker;
  Connected c(broker);
  std::promise<void> started;
  std::promise<void> go_on;
  std::atomic<int> handled{0};
  const Consumer consumer = consume(c, ConsumeOptions(), [&](const Delivery&) {
    if (++handled > 1) return;
    started.set_value();
    go_on.get_future().get();
  });
  for (std::uint64_t sequence = 1; sequence <= kHeld; ++sequence) c.peer->deliver(5, sequence, "x");
  started.get_future().get();
  c.peer->lease_lost(5, wire::Cause_Purged, {{1, kHeld}});
  auto asked = std::async([&] { return c.client->admin().queue("orders"); });
  const std::uint64_t correlation = c.peer->expect(wire::FrameType_QueueOpen).correlation;
  c.peer->error(correlation, ErrorCode::kQueueNotFound, "There is no queue.");
  CHECK(asked.get().status().code() == ErrorCode::kQueueNotFound);
  go_on.set_value();
}

TEST_CASE("when the broker drains, what has not begun is given back and what runs may end") {
  FakeBroker broker;
  Connected c(broker);
  std::promise<void> started;
  std::promise<void> go_on;
  std::atomic<int> handled{0};
  const Consumer consumer = consume(c, ConsumeOptions(), [&](Delivery delivery) {
    if (++handled == 1) {
      started.set_value();
      go_on.get_future().get();
    }
    CHECK(delivery.ack().ok());
  });
  for (const std::uint64_t sequence : {1u, 2u, 3u}) c.peer->deliver(5, sequence, "x");
  started.get_future().get();
  c.peer->goodbye(5000);
  const Settling released = expect_settle(*c.peer);
  CHECK(released.kind == wire::SettleKind_Release);
  CHECK(released.ranges == Ranges{{2, 3}});
  c.peer->settled(released.correlation, 2);
  go_on.set_value();
  const Settling acked = expect_settle(*c.peer);
  CHECK(acked.kind == wire::SettleKind_Ack);
  CHECK(acked.ranges == Ranges{{1, 1}});
  c.peer->settled(acked.correlation, 1);
  // Nothing is left to wait for: the client goes by itself.
  c.peer->expect_close();
  FakePeer next = broker.accept();
  next.handshake();
  next.subscribe(6);
  CHECK(handled.load() == 1);
}

TEST_CASE(
    "stopping gives back what no handler has begun, waits for the others, then unsubscribes") {
  FakeBroker broker;
  Connected c(broker);
  std::promise<void> started;
  std::promise<void> go_on;
  Consumer consumer = consume(c, ConsumeOptions(), [&](Delivery delivery) {
    started.set_value();
    go_on.get_future().get();
    delivery.ack_async();
  });
  c.peer->deliver(5, 1, "x");
  c.peer->deliver(5, 2, "x");
  started.get_future().get();
  auto stopped = std::async([&] { consumer.stop(); });
  Settling released;
  ReceivedFrame credit;
  for (int i = 0; i < 2; ++i) {
    // The two are asked for in one turn or in two.
    const ReceivedFrame frame = c.peer->next();
    if (frame.type == wire::FrameType_Credit) {
      credit = frame;
    } else {
      REQUIRE(frame.type == wire::FrameType_Settle);
      const auto& settle = frame.table<wire::Settle>();
      CHECK(settle.kind() == wire::SettleKind_Release);
      CHECK(ranges_of(settle.ranges()) == Ranges{{2, 2}});
      released.correlation = frame.correlation;
    }
  }
  c.peer->settled(released.correlation, 1);
  // One that was on its way is given back as well.
  c.peer->deliver(5, 3, "x");
  const Settling late = expect_settle(*c.peer);
  CHECK(late.kind == wire::SettleKind_Release);
  CHECK(late.ranges == Ranges{{3, 3}});
  c.peer->settled(late.correlation, 1);
  c.peer->ok(credit.correlation);
  CHECK(stopped.wait_for(std::chrono::milliseconds(20)) == std::future_status::timeout);
  go_on.set_value();
  stopped.get();
  const Settling acked = expect_settle(*c.peer);
  CHECK(acked.ranges == Ranges{{1, 1}});
  // Unsubscribing before the ack is answered would lose what is held.
  expect_nothing(c);
  c.peer->settled(acked.correlation, 1);
  c.peer->expect(wire::FrameType_Unsubscribe);
  consumer.stop();
}

TEST_CASE("a handler may stop its own consumer") {
  FakeBroker broker;
  Connected c(broker);
  std::optional<Consumer> consumer;
  std::promise<void> ready;
  std::promise<void> stopped;
  consumer.emplace(consume(c, ConsumeOptions(), [&](Delivery delivery) {
    ready.get_future().get();
    consumer->stop();
    delivery.ack_async();
    stopped.set_value();
  }));
  c.peer->deliver(5, 1, "x");
  ready.set_value();
  stopped.get_future().get();
}

TEST_CASE_FIXTURE(HoldsOne, "a consumer whose queue is deleted ends with queue_not_found") {
  c.peer->lease_lost(5, wire::Cause_Purged, {{1, 1}});
  c.peer->consumer_ended(5, ErrorCode::kQueueNotFound, "Queue 'orders' was deleted.");
  on_io_thread(c, [] {});
  CHECK(consumer.status().code() == ErrorCode::kQueueNotFound);
}

TEST_CASE("a consumer that ended by itself told nobody") {
  FakeBroker broker;
  Connected c(broker);
  std::promise<ErrorCode> ended;
  ConsumeOptions options;
  options.on_ended = [&](const Status& why) { ended.set_value(why.code()); };
  const Consumer consumer = consume(c, options, [](const Delivery&) {});
  SUBCASE("its queue was deleted") {
    c.peer->consumer_ended(5, ErrorCode::kQueueNotFound, "Queue 'orders' was deleted.");
  }
  SUBCASE("another broker answers, which does not have it") {
    c.peer->close();
    c.peer.reset();
    c.peer.emplace(broker.accept());
    c.peer->handshake();
    c.peer->error(c.peer->expect(wire::FrameType_Subscribe).correlation, ErrorCode::kQueueNotFound,
                  "There is no queue.");
  }
  CHECK(ended.get_future().get() == ErrorCode::kQueueNotFound);
}

// The program went on to destroy what it used.
TEST_CASE("stopping a consumer returned while on_ended was running") {
  FakeBroker broker;
  Connected c(broker);
  std::promise<void> begun;
  std::promise<void> may_end;
  std::optional<Consumer> consumer;
  ConsumeOptions options;
  bool stops_itself = false;
  SUBCASE("from another thread") {}
  SUBCASE("and from on_ended itself, which does not wait for itself") { stops_itself = true; }
  options.on_ended = [&](const Status&) {
    if (stops_itself) consumer->stop();
    begun.set_value();
    may_end.get_future().get();
  };
  consumer.emplace(consume(c, options, [](const Delivery&) {}));
  c.peer->consumer_ended(5, ErrorCode::kQueueNotFound, "Queue 'orders' was deleted.");
  begun.get_future().get();
  auto stopped = std::async(std::launch::async, [&] { consumer.reset(); });
  CHECK(stopped.wait_for(std::chrono::milliseconds(20)) == std::future_status::timeout);
  may_end.set_value();
  stopped.get();
}

TEST_CASE("a consumer that is stopped is not told that it ended") {
  FakeBroker broker;
  Connected c(broker);
  std::atomic<bool> told = false;
  ConsumeOptions options;
  options.on_ended = [&](const Status&) { told = true; };
  Consumer consumer = consume(c, options, [](const Delivery&) {});
  auto closed = std::async([&] { c.client->close(); });
  expect_end(*c.peer);
  closed.get();
  CHECK_FALSE(told.load());
}

// Each call crashed.
TEST_CASE_FIXTURE(HoldsOne, "a consumer that was moved from was used") {
  const Consumer moved = std::move(consumer);
  consumer.stop();  // NOLINT(bugprone-use-after-move)
  CHECK(consumer.status().code() == ErrorCode::kInvalidArgument);
  CHECK(moved.status().ok());
}

TEST_CASE("consuming a queue that does not exist is queue_not_found") {
  FakeBroker broker;
  Connected c(broker);
  auto consuming = std::async([&] { return c.client->consume("nowhere", {}, [](Delivery) {}); });
  const ReceivedFrame subscribe = c.peer->expect(wire::FrameType_Subscribe);
  c.peer->error(subscribe.correlation, ErrorCode::kQueueNotFound, "There is no queue.");
  CHECK(consuming.get().status().code() == ErrorCode::kQueueNotFound);
  ConsumeOptions none;
  none.concurrency = 0;
  CHECK(c.client->consume("orders", none, [](Delivery) {}).status().code() ==
        ErrorCode::kInvalidArgument);
}

namespace {

void deliver_damaged(FakePeer& peer, std::uint64_t sequence) {
  const std::vector<std::uint8_t> message = message_bytes("m", "hello");
  FrameWriter frames;
  append_message(frames, wire::FrameType_Deliver, 0, 5, sequence, 1, message);
  std::vector<std::uint8_t> bytes(frames.data(), frames.data() + frames.size());
  bytes[kFrameHeaderBytes + sizeof(wire::DeliverEnvelope) + message.size() / 2] ^= 1;
  peer.send_bytes(bytes.data(), bytes.size());
}

}  // namespace

TEST_CASE("a delivery that was damaged on the way is nacked, and its neighbours are delivered") {
  FakeBroker broker;
  Connected c(broker);
  Kept kept;
  const Consumer consumer = consume(c, ConsumeOptions(), kept.handler());
  deliver_damaged(*c.peer, 1);
  c.peer->deliver(5, 2, "fine");
  const Settling settle = expect_settle(*c.peer);
  CHECK(settle.kind == wire::SettleKind_Nack);
  CHECK(settle.ranges == Ranges{{1, 1}});
  CHECK(kept.take(1)[0].body() == "fine");
}

// The one before could be settled still, which settled the new one.
TEST_CASE_FIXTURE(HoldsOne, "when a message comes again damaged, its delivery before was held on") {
  deliver_damaged(*c.peer, 1);
  CHECK(expect_settle(*c.peer).kind == wire::SettleKind_Nack);
  CHECK(deliveries[0].state() == DeliveryState::kLost);
}

// What came after the consumer was stopped was lost with the connection, which cost an attempt.
TEST_CASE("closing gives back what is delivered until the broker has heard of it") {
  FakeBroker broker;
  Connected c(broker);
  Consumer consumer = consume(c, ConsumeOptions(), [](const Delivery&) {});
  auto closed = std::async([&] {
    consumer.stop();
    c.client->close();
  });
  const ReceivedFrame credit = expect_credit(*c.peer, 0);
  c.peer->deliver(5, 1, "x");  // sent before the broker saw the credit of 0
  c.peer->ok(credit.correlation);
  const Settling settle = expect_settle(*c.peer);
  CHECK(settle.kind == wire::SettleKind_Release);
  CHECK(settle.ranges == Ranges{{1, 1}});
  CHECK(closed.wait_for(std::chrono::milliseconds(20)) == std::future_status::timeout);
  c.peer->settled(settle.correlation, 1);
  c.peer->expect(wire::FrameType_Unsubscribe);
  c.peer->expect(wire::FrameType_Goodbye);
  closed.get();
}

TEST_CASE_FIXTURE(HoldsOne,
                  "closing the client stops its consumers and waits for what is being settled") {
  std::promise<Status> acked;
  deliveries[0].ack_async([&](Status status) { acked.set_value(std::move(status)); });
  const Settling settle = expect_settle(*c.peer);
  auto closed = std::async([&] { c.client->close(); });
  c.peer->ok(expect_credit(*c.peer, 0).correlation);
  CHECK(closed.wait_for(std::chrono::milliseconds(20)) == std::future_status::timeout);
  c.peer->settled(settle.correlation, 1);
  closed.get();
  CHECK(acked.get_future().get().ok());
  // What outlives the client does no harm.
  CHECK(deliveries[0].ack().code() == ErrorCode::kNotHeld);
}

// The second returned at once, and ended the connection that the handler needed.
TEST_CASE("each of two threads that close waits for the handlers") {
  FakeBroker broker;
  Connected c(broker);
  std::promise<void> begun;
  std::promise<void> may_end;
  const Consumer consumer = consume(c, ConsumeOptions(), [&](Delivery delivery) {
    begun.set_value();
    may_end.get_future().get();
    delivery.ack_async({});
  });
  c.peer->deliver(5, 1, "x");
  begun.get_future().get();
  auto first = std::async(std::launch::async, [&] { c.client->close(); });
  c.peer->ok(expect_credit(*c.peer, 0).correlation);
  auto second = std::async(std::launch::async, [&] { c.client->close(); });
  CHECK(second.wait_for(std::chrono::milliseconds(20)) == std::future_status::timeout);
  may_end.set_value();
  c.peer->settled(expect_settle(*c.peer).correlation, 1);
  first.get();
  second.get();
}

// It had got the id of one whose handler had ended.
TEST_CASE("a new thread was taken for a handler's, and its stop() waited for no other handler") {
  FakeBroker broker;
  Connected c(broker);
  pid_t thread[2];
  std::promise<void> begun[2];
  std::promise<void> may_end[2];
  ConsumeOptions options;
  options.concurrency = 2;
  Consumer consumer = consume(c, options, [&](const Delivery& delivery) {
    const std::uint64_t own = delivery.message().sequence - 1;
    thread[own] = gettid();
    begun[own].set_value();
    may_end[own].get_future().get();
  });
  for (std::uint64_t i = 0; i < 2; ++i) {
    c.peer->deliver(5, i + 1, "x");
    begun[i].get_future().get();
  }
  auto stopped = std::async(std::launch::async, [&] { consumer.stop(); });
  c.peer->ok(expect_credit(*c.peer, 0).correlation);
  const int first = thread[0] < thread[1] ? 0 : 1;  // started first, and joined first
  may_end[first].set_value();
  c.peer->settled(expect_settle(*c.peer).correlation, 1);
  CHECK(c.peer->is_quiet_for(std::chrono::milliseconds(20)));  // it ends
  auto again = std::async(std::launch::async, [&] { consumer.stop(); });
  CHECK(again.wait_for(std::chrono::milliseconds(20)) == std::future_status::timeout);
  may_end[1 - first].set_value();
  stopped.get();
  again.get();
}

// Two that stop each other's consumers did, for ever.
TEST_CASE("two handlers that stop or close do not wait for each other") {
  FakeBroker broker;
  Connected c(broker);
  std::optional<Consumer> first;
  std::optional<Consumer> second;
  std::function<void()> ends[2];
  bool one_gives_back = false;
  SUBCASE("both close") {
    ends[0] = ends[1] = [&] { c.client->close(); };
  }
  SUBCASE("each stops the other") {
    ends[0] = [&] { second->stop(); };
    ends[1] = [&] { first->stop(); };
  }
  SUBCASE("one closes, the other stops it") {
    ends[0] = [&] { c.client->close(); };
    ends[1] = [&] { first->stop(); };
    one_gives_back = true;  // before the connection is closed
  }
  std::promise<void> begun[2];
  std::promise<void> closed[2];
  const auto handler = [&](int own) {
    return [&, own](const Delivery&) {
      begun[own].set_value();
      begun[1 - own].get_future().get();
      ends[own]();
      closed[own].set_value();
    };
  };
  first.emplace(consume(c, ConsumeOptions(), handler(0), 5));
  second.emplace(consume(c, ConsumeOptions(), handler(1), 6));
  c.peer->deliver(5, 1, "x");
  c.peer->deliver(6, 1, "x");
  for (int i = 0; i < 2; ++i) c.peer->ok(expect_credit(*c.peer, 0).correlation);
  if (one_gives_back) {
    // Or not any more, if it was the other that got its turn to wait.
    const ReceivedFrame frame = c.peer->next();
    if (frame.type == wire::FrameType_Settle) c.peer->settled(frame.correlation, 1);
  }
  for (auto& one : closed) {
    CHECK(one.get_future().wait_for(std::chrono::seconds(9)) == std::future_status::ready);
  }
}

// It waited out its time.
TEST_CASE("closing ends a consume() that waits for a connection") {
  FakeBroker broker;
  Connected c(broker);
  c.peer->close();
  auto consuming = std::async(std::launch::async, [&] {
    return c.client->consume("orders", {}, [](const Delivery&) {}).status().code();
  });
  CHECK(consuming.wait_for(std::chrono::milliseconds(20)) == std::future_status::timeout);
  c.client->close();
  CHECK(consuming.wait_for(std::chrono::seconds(5)) == std::future_status::ready);
  CHECK(consuming.get() == ErrorCode::kCancelled);
}

TEST_CASE_FIXTURE(HoldsOne, "closing waits for a settle that was asked for a moment before") {
  std::promise<Status> acked;
  std::future<void> closed;
  // Both are there when the next turn begins.
  on_io_thread(c, [&] {
    deliveries[0].ack_async([&](Status status) { acked.set_value(std::move(status)); });
    closed = std::async(std::launch::async, [&] { c.client->close(); });
    closed.wait_for(std::chrono::milliseconds(20));
  });
  ReceivedFrame frame = c.peer->next();
  for (; frame.type != wire::FrameType_Settle; frame = c.peer->next()) {
    if (frame.type == wire::FrameType_Credit) c.peer->ok(frame.correlation);
  }
  c.peer->settled(frame.correlation, 1);
  closed.get();
  CHECK(acked.get_future().get().ok());
}

}  // namespace holdfast::test
