// What is asked of the broker for subscriptions, and when: in virtual time, without a connection.

#include "subscriptions.h"

#include <doctest/doctest.h>

#include <optional>
#include <utility>

#include "support/fake_broker.h"

namespace holdfast::test {
namespace {

using client::Requests;
using client::Subscriptions;

constexpr std::uint64_t kConsumer = 5;
constexpr std::uint32_t kLeaseMs = 60;
const Status kLost(ErrorCode::kConnectionLost, "The test says so.");

// One subscription. What its broker says arrives at once; what it is asked is seen by turn().
struct Subscribing : BrokerVoice, client::DeliverySink {
  explicit Subscribing(bool extend_leases = true) {
    client::SubscribeOptions options;
    options.queue = "orders";
    options.extend_leases = extend_leases;
    subscriptions.add(options, std::shared_ptr<client::DeliverySink>(std::shared_ptr<int>(), this));
    subscriptions.connected(now_ms);
  }

  // Lets this time pass and what is due be done; returns what was sent.
  std::vector<ReceivedFrame> turn(std::uint64_t passed_ms = 0) {
    wakes_at_ms = subscriptions.advance(now_ms += passed_ms);
    FrameWriter written;
    requests.pump(written);
    return frames_in(written);
  }
  // Likewise, of which this must be all.
  ReceivedFrame expect(wire::FrameType type, std::uint64_t passed_ms = 0) {
    std::vector<ReceivedFrame> sent = turn(passed_ms);
    REQUIRE(sent.size() == 1);
    REQUIRE(sent[0].type == type);
    return std::move(sent[0]);
  }
  // An Extend of these leases by so much. Returns its correlation.
  std::uint64_t expect_extend(const Ranges& ranges, std::uint32_t lease_ms,
                              std::uint64_t passed_ms = 0) {
    const ReceivedFrame frame = expect(wire::FrameType_Extend, passed_ms);
    CHECK(ranges_of(frame.table<wire::Extend>().ranges()) == ranges);
    CHECK(frame.table<wire::Extend>().lease_ms() == lease_ms);
    return frame.correlation;
  }
  void subscribe() {
    BrokerVoice::subscribed(expect(wire::FrameType_Subscribe).correlation, kConsumer, kLeaseMs);
  }
  void reconnect() {
    subscriptions.connection_lost();
    requests.connection_lost(kLost);
    subscriptions.connected(now_ms);
  }
  DeliveryState state(std::size_t nth) const { return deliveries.at(nth)->state(); }

  using BrokerVoice::send;
  void send(const FrameWriter& written) override {
    for (const ReceivedFrame& frame : frames_in(written)) {
      if (frame.type == wire::FrameType_Deliver) {
        REQUIRE(subscriptions.on_deliver(frame.frame()));
      } else {
        requests.on_frame(frame.frame());
      }
    }
    subscriptions.read_done();
  }

  using BrokerVoice::deliver;
  void deliver(std::vector<std::shared_ptr<DeliveryImpl>> arrived) override {
    for (auto& one : arrived) deliveries.push_back(std::move(one));
  }
  void subscribed() override { ++times_subscribed; }
  void give_back() override {}
  void connection_lost() override {}
  void ended(const Status& why) override { ended_with = why; }

  std::uint64_t now_ms = 1'000'000;
  std::uint64_t wakes_at_ms = 0;
  Requests requests;
  Subscriptions subscriptions{requests, [] { return nullptr; }};
  std::vector<std::shared_ptr<DeliveryImpl>> deliveries;
  int times_subscribed = 0;
  std::optional<Status> ended_with;
};

// Two deliveries, which came at once.
struct HoldsTwo : Subscribing {
  HoldsTwo() {
    subscribe();
    BrokerVoice::deliver(kConsumer, 1, "x", 1, kLeaseMs);
    BrokerVoice::deliver(kConsumer, 2, "x", 1, kLeaseMs);
    CHECK(turn().empty());
  }
};

// ---- subscribing ----

TEST_CASE_FIXTURE(Subscribing,
                  "what was subscribed and is refused for a while is asked for again") {
  subscribe();
  reconnect();
  error(expect(wire::FrameType_Subscribe).correlation, ErrorCode::kLimitReached, "too many");
  CHECK(turn().empty());
  CHECK(wakes_at_ms == now_ms + 1'000);
  CHECK(turn(999).empty());
  BrokerVoice::subscribed(expect(wire::FrameType_Subscribe, 1).correlation, 6);
  CHECK(times_subscribed == 2);
  CHECK_FALSE(ended_with.has_value());
}

TEST_CASE_FIXTURE(Subscribing,
                  "what is refused for good ends, and so does whatever is refused first") {
  ErrorCode code = ErrorCode::kLimitReached;
  SUBCASE("at first") {}
  SUBCASE("for good") {
    subscribe();
    reconnect();
    code = ErrorCode::kQueueNotFound;
  }
  error(expect(wire::FrameType_Subscribe).correlation, code, "no");
  REQUIRE(ended_with.has_value());
  CHECK(ended_with->code() == code);
  CHECK(turn(10'000).empty());
}

// ---- deliveries and leases ----

TEST_CASE_FIXTURE(HoldsTwo, "when a message comes again, its delivery before is lost") {
  BrokerVoice::deliver(kConsumer, 1, "x", 2, kLeaseMs);
  CHECK(state(0) == DeliveryState::kLost);
  CHECK(state(1) == DeliveryState::kHeld);
  REQUIRE(deliveries.size() == 3);
  CHECK(state(2) == DeliveryState::kHeld);
  CHECK(deliveries[2]->message().attempt == 2);
}

TEST_CASE_FIXTURE(HoldsTwo,
                  "leases are extended while a delivery is held, and one that cannot be is lost") {
  CHECK(wakes_at_ms == now_ms + kLeaseMs / 3);
  CHECK(turn(kLeaseMs / 3 - 1).empty());
  extended(expect_extend({{1, 2}}, kLeaseMs, 1), 1, {{2, 2}});
  CHECK(state(0) == DeliveryState::kHeld);
  CHECK(state(1) == DeliveryState::kLost);
  expect_extend({{1, 1}}, kLeaseMs, kLeaseMs / 3);
}

// They were extended at a third of the lease that the queue once had.
TEST_CASE_FIXTURE(HoldsTwo, "a lease that was made shorter is extended in time") {
  BrokerVoice::deliver(kConsumer, 3, "x", 1, kLeaseMs / 2);
  CHECK(turn(kLeaseMs / 6 - 1).empty());
  expect_extend({{1, 3}}, kLeaseMs / 2, 1);
}

// They were made as long as all others.
TEST_CASE_FIXTURE(HoldsTwo, "a lease that the program made longer is not made shorter") {
  std::optional<Status> done;
  const auto extend = [&](std::uint32_t lease_ms) {
    subscriptions.extend(deliveries[0], lease_ms, now_ms, [&](const Status& why) { done = why; });
    extended(expect_extend({{1, 1}}, lease_ms), 1);
    REQUIRE(done.has_value());
    CHECK(done->ok());
  };
  extend(600'000);
  expect_extend({{2, 2}}, kLeaseMs, kLeaseMs / 3);
  extend(0);
  expect_extend({{1, 2}}, kLeaseMs, kLeaseMs / 3);
}

TEST_CASE("without extend_leases a lease is extended only when it is asked for") {
  Subscribing one(false);
  one.subscribe();
  one.BrokerVoice::deliver(kConsumer, 1, "x", 1, kLeaseMs);
  CHECK(one.turn(10 * kLeaseMs).empty());
  std::optional<Status> done;
  one.subscriptions.extend(one.deliveries[0], 5'000, one.now_ms,
                           [&](const Status& why) { done = why; });
  one.extended(one.expect_extend({{1, 1}}, 5'000), 0, {{1, 1}});
  REQUIRE(done.has_value());
  CHECK(done->code() == ErrorCode::kNotHeld);
  CHECK(one.state(0) == DeliveryState::kLost);
}

// It was told of a consumer, of which the program knows nothing.
TEST_CASE_FIXTURE(HoldsTwo, "a lease of a consumer that the broker no longer knows is not held") {
  std::optional<Status> done;
  subscriptions.extend(deliveries[0], 5'000, now_ms, [&](const Status& why) { done = why; });
  error(expect_extend({{1, 1}}, 5'000), ErrorCode::kConsumerNotFound, "it was ended");
  REQUIRE(done.has_value());
  CHECK(done->code() == ErrorCode::kNotHeld);
  CHECK(state(0) == DeliveryState::kLost);
}

}  // namespace
}  // namespace holdfast::test
