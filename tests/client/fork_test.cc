// What a child process has of its parent's client.

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include "consumer_fixture.h"

namespace holdfast::test {

namespace {

// Runs `holds` in a child process. False also if it does not come to an end.
template <typename Body>
bool holds_in_child(const Body& holds) {
  const pid_t child = fork();
  if (child == 0) {
    alarm(20);
    _exit(holds() ? 0 : 1);
  }
  REQUIRE(child > 0);
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  return status == 0;
}

constexpr ErrorCode kRefused = ErrorCode::kInvalidArgument;

}  // namespace

// The child waited for ever for threads that are the parent's.
TEST_CASE_FIXTURE(HoldsOne, "a client and a consumer are destroyed in a child process") {
  CHECK(holds_in_child([this] {
    const bool is_refused = c.client->flush().code() == kRefused;
    consumer.stop();
    deliveries.clear();
    c.client.reset();
    return is_refused;
  }));
  // The parent's goes on, and still holds what it held.
  auto acked = std::async([this] { return deliveries[0].ack(); });
  const Settling settle = expect_settle(*c.peer);
  CHECK(settle.kind == wire::SettleKind_Ack);
  c.peer->settled(settle.correlation, 1);
  CHECK(acked.get().ok());
}

TEST_CASE("in a child process a publish vanished and its future was never fulfilled") {
  FakeBroker broker;
  ClientOptions options = quick_options(broker);
  options.unconfirmed_bytes_max = 1000;
  Connected c(broker, options);
  const Message message(std::string(900, 'a'));
  SUBCASE("with room") {}
  SUBCASE("past the bound on unconfirmed bytes, where it waited for ever, too") {
    c.client->publish_async("orders", message, {});
  }
  CHECK(holds_in_child([&] {
    if (c.client->publish_future("orders", message).get().status().code() != kRefused) return false;
    ErrorCode told = ErrorCode::kOk;
    c.client->publish_async("orders", message, [&](const Result<PublishReceipt>& result) {
      told = result.status().code();
    });
    c.client->publish_async("orders", message, {});
    return told == kRefused;
  }));
}

TEST_CASE_FIXTURE(HoldsOne, "in a child process nobody was told what became of a settle") {
  CHECK(holds_in_child([this] {
    ErrorCode told = ErrorCode::kOk;
    const auto done = [&](const Status& status) { told = status.code(); };
    const auto is_refused = [&] { return std::exchange(told, ErrorCode::kOk) == kRefused; };
    deliveries[0].nack_async("no", std::chrono::hours(24 * 8), done);
    if (!is_refused()) return false;
    deliveries[0].reject_async("no", done);
    if (!is_refused()) return false;
    deliveries[0].release_async(done);
    if (!is_refused()) return false;
    deliveries[0].ack_async(done);
    return is_refused() && deliveries[0].ack().code() == kRefused &&
           deliveries[0].state() == DeliveryState::kHeld;
  }));
}

// They asked under a mutex that another thread of the parent may have held.
TEST_CASE_FIXTURE(HoldsOne, "in a child process a client was said to be connected") {
  CHECK(holds_in_child([this] {
    return c.client->connection_status().code() == kRefused && consumer.status().code() == kRefused;
  }));
  CHECK(c.client->connection_status().ok());
  CHECK(consumer.status().ok());
}

}  // namespace holdfast::test
