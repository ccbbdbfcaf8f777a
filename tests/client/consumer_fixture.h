// A consumer of a client, and what its broker is asked.

#pragma once

#include <doctest/doctest.h>

#include <condition_variable>
#include <future>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "client_fixture.h"

namespace holdfast::test {

// Deliveries that a handler hands to the test.
class Kept {
 public:
  Handler handler() {
    return [this](Delivery delivery) {
      const std::lock_guard lock(mutex_);
      deliveries_.push_back(std::move(delivery));
      changed_.notify_all();
    };
  }
  std::vector<Delivery> take(std::size_t count) {
    std::unique_lock lock(mutex_);
    REQUIRE(changed_.wait_for(lock, std::chrono::seconds(10),
                              [&] { return deliveries_.size() >= count; }));
    return std::exchange(deliveries_, {});
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  std::vector<Delivery> deliveries_;
};

inline Consumer consume(Connected& c, const ConsumeOptions& options, const Handler& handler,
                        std::uint64_t consumer = 5, std::uint32_t lease_ms = 30'000) {
  auto consuming = std::async([&] { return c.client->consume("orders", options, handler); });
  c.peer->subscribe(consumer, lease_ms);
  Result<Consumer> result = consuming.get();
  REQUIRE_MESSAGE(result.ok(), result.status().to_string());
  return std::move(result).value();
}

// A receive() that waits for its broker.
inline std::future<Result<std::vector<Delivery>>> receive_later(
    Connected& c, std::uint32_t count, std::chrono::milliseconds wait,
    const std::string& queue = "orders") {
  return std::async([&c, count, wait, queue] { return c.client->receive(queue, count, wait); });
}

// A consumer, number 5, that keeps the one delivery it was given.
struct HoldsOne {
  HoldsOne() {
    c.peer->deliver(5, 1, "x");
    deliveries = kept.take(1);
  }

  FakeBroker broker;
  Connected c{broker};
  Kept kept;
  Consumer consumer = consume(c, ConsumeOptions(), kept.handler());
  std::vector<Delivery> deliveries;
};

struct Settling {
  std::uint64_t correlation = 0;
  wire::SettleKind kind = wire::SettleKind_Ack;
  Ranges ranges;
  std::string reason;
  std::int64_t delay_ms = 0;
};

inline Settling expect_settle(FakePeer& peer, std::uint64_t consumer = 5) {
  const ReceivedFrame frame = peer.expect(wire::FrameType_Settle);
  const auto& settle = frame.table<wire::Settle>();
  CHECK(settle.consumer() == consumer);
  return {frame.correlation, static_cast<wire::SettleKind>(settle.kind()),
          ranges_of(settle.ranges()), std::string(view(settle.reason())), settle.delay_ms()};
}

inline ReceivedFrame expect_credit(FakePeer& peer, std::uint32_t credit) {
  ReceivedFrame frame = peer.expect(wire::FrameType_Credit);
  CHECK(frame.table<wire::Credit>().credit_messages() == credit);
  return frame;
}

// What receive() takes as consumer 5: message 1, which is held.
inline std::vector<Delivery> receive_one(Connected& c) {
  auto receiving = receive_later(c, 1, std::chrono::seconds(10));
  c.peer->subscribe(5);
  c.peer->deliver(5, 1, "a");
  c.peer->ok(expect_credit(*c.peer, 0).correlation);
  Result<std::vector<Delivery>> deliveries = receiving.get();
  REQUIRE(deliveries.ok());
  return std::move(*deliveries);
}

// The client gives the consumer up: credit 0, then, with nothing held, Unsubscribe.
inline void expect_end(FakePeer& peer) {
  peer.ok(expect_credit(peer, 0).correlation);
  peer.ok(peer.expect(wire::FrameType_Unsubscribe).correlation);
}

}  // namespace holdfast::test
