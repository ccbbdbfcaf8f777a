#include <doctest/doctest.h>

#include <chrono>
#include <future>
#include <limits>
#include <memory>
#include <vector>

#include "bench/figures.h"
#include "bench/link.h"
#include "bench/message_mold.h"
#include "bench/plan.h"
#include "support/fake_broker.h"

namespace holdfast::bench {
namespace {

PlanArguments arguments_for(std::string workload) {
  PlanArguments arguments;
  arguments.workload = std::move(workload);
  return arguments;
}

TEST_CASE("each workload has its own defaults") {
  const Result<Plan> pipe = make_plan(arguments_for("pipe"));
  REQUIRE(pipe.ok());
  CHECK(pipe->count == 100'000);
  CHECK(pipe->window == 1'024);
  CHECK(pipe->producers == 1);
  CHECK(pipe->consumes());
  CHECK_FALSE(pipe->times_confirms());

  const Result<Plan> fan = make_plan(arguments_for("fan"));
  REQUIRE(fan.ok());
  CHECK(fan->count == 0);
  CHECK(fan->seconds == 5);
  CHECK(fan->producers == 64);
  CHECK(fan->window == 1);
  CHECK(fan->times_confirms());

  PlanArguments many = arguments_for("sync");
  many.producers = 8;
  many.window = 100;
  const Result<Plan> sync = make_plan(many);
  REQUIRE(sync.ok());
  CHECK(sync->producers == 1);
  CHECK(sync->window == 1);
}

TEST_CASE("a plan that cannot be run is refused with the option that is wrong") {
  const auto refusal = [](const PlanArguments& arguments) {
    const Result<Plan> plan = make_plan(arguments);
    return plan.ok() ? std::string() : plan.status().message();
  };
  CHECK(refusal(arguments_for("drain-it")).find("drain-it") != std::string::npos);
  PlanArguments endless = arguments_for("publish");
  endless.count = 0;
  CHECK(refusal(endless).find("--seconds") != std::string::npos);
  PlanArguments wide = arguments_for("publish");
  wide.window = 70'000;
  CHECK(refusal(wide).find("--window 70000 is out of bounds: 1 to 65536") != std::string::npos);
  PlanArguments behind = arguments_for("pipe");
  behind.backlog = 10;
  CHECK(refusal(behind).find("--backlog") != std::string::npos);
}

// Times and numbers of messages were reckoned that 64 bits do not hold.
TEST_CASE("a pace or a length of a run had no bounds") {
  const auto refusal = [](double rate, double seconds) {
    PlanArguments arguments = arguments_for("paced");
    arguments.rate = rate;
    arguments.seconds = seconds;
    const Result<Plan> plan = make_plan(arguments);
    return plan.ok() ? std::string() : plan.status().message();
  };
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double infinity = std::numeric_limits<double>::infinity();
  for (const double rate : {0.0, -1.0, 1e-12, 1.1e9, infinity, nan}) {
    CAPTURE(rate);
    CHECK(refusal(rate, 5).find("is out of bounds: 0.001 to 1000000000.") != std::string::npos);
  }
  for (const double seconds : {-1.0, 604'801.0, 1e300, infinity, nan}) {
    CAPTURE(seconds);
    CHECK(refusal(1'000, seconds).find("is out of bounds: 0 to 604800.") != std::string::npos);
  }
  CHECK(refusal(1e9, 604'800).empty());
  PlanArguments many = arguments_for("publish");
  many.count = std::numeric_limits<std::uint64_t>::max();
  CHECK(make_plan(many).status().message().find("--count") != std::string::npos);
}

// The time began anew with every heartbeat.
TEST_CASE("a broker that answers nothing but keeps the connection alive was waited for for ever") {
  test::FakeBroker broker;
  const Result<Address> address = parse_address(broker.address());
  REQUIRE(address.ok());
  std::unique_ptr<Link> link;
  auto asking = std::async([&]() -> Status {
    auto opened = Link::open(*address, "bench", std::chrono::milliseconds(100));
    if (!opened.ok()) return opened.status();
    link = std::move(*opened);
    return link->look_at_queue("q").status();
  });
  test::FakePeer peer = broker.accept();
  peer.handshake();
  FrameWriter ping;
  ping.append_empty(wire::FrameType_Ping, 0);
  while (asking.wait_for(std::chrono::milliseconds(5)) != std::future_status::ready) {
    peer.send(ping);
  }
  CHECK(asking.get().code() == ErrorCode::kTimeout);
}

TEST_CASE("a quantile is the nearest rank") {
  Latencies latencies;
  CHECK(latencies.empty());
  for (std::uint64_t us = 100; us >= 1; --us) latencies.add(us * 1000);
  CHECK(latencies.us(.5) == doctest::Approx(50));
  CHECK(latencies.us(.99) == doctest::Approx(99));
  CHECK(latencies.us(1) == doctest::Approx(100));
  latencies.add(500'000);
  CHECK(latencies.us(1) == doctest::Approx(500));
}

TEST_CASE("a message that was cast is a whole Message with its own id and number") {
  MessageMold mold(100, 42);
  const auto encoded = mold.cast(7, 123);
  const wire::Message* message = read_message(encoded);
  REQUIRE(message != nullptr);
  const std::string id(view(message->id()));
  CHECK(id.size() == 26);
  REQUIRE(message->body()->size() == 100);
  std::vector<std::uint8_t> body(message->body()->begin(), message->body()->end());
  const MessageMold::Reading reading = mold.read(body);
  CHECK(reading.good);
  CHECK(reading.number == 7);
  CHECK(reading.sent_at_ns == 123);

  const auto next = mold.cast(8, 124);
  CHECK(std::string(view(read_message(next)->id())) != id);
  body[99] ^= 1;
  CHECK_FALSE(mold.read(body).good);
  body.pop_back();
  CHECK_FALSE(mold.read(body).good);
}

}  // namespace
}  // namespace holdfast::bench
