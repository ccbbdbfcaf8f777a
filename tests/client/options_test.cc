// What a program may ask for, and what it is told when it asks for something else.

#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "consumer_fixture.h"

namespace holdfast::test {

namespace {

using std::chrono::hours;
using std::chrono::milliseconds;

void check_refused(const Status& status, const std::vector<std::string>& words) {
  CAPTURE(status.to_string());
  CHECK(status.code() == ErrorCode::kInvalidArgument);
  for (const std::string& word : words) {
    CAPTURE(word);
    CHECK(status.message().find(word) != std::string::npos);
  }
}

}  // namespace

// It named all of them, and those alone whose value told anything.
TEST_CASE("a refusal did not say which option of a consumer is wrong") {
  FakeBroker broker;
  Connected c(broker);
  const auto refused = [&c](const ConsumeOptions& options) {
    return c.client->consume("orders", options, [](Delivery) {}).status();
  };
  ConsumeOptions options;
  for (const std::uint32_t concurrency : {0u, 1'025u}) {
    options.concurrency = concurrency;
    check_refused(refused(options),
                  {"concurrency", " " + std::to_string(concurrency) + ";", "1 to 1024"});
  }
  options = ConsumeOptions();
  options.prefetch = 65'537;
  check_refused(refused(options), {"prefetch", "65537", "1 to 65536"});
  options = ConsumeOptions();
  options.consumer_name = std::string(129, 'n');
  check_refused(refused(options), {"consumer name", "129 bytes", "128"});
  options.consumer_name = "f\xfcr";
  check_refused(refused(options), {"consumer name", "UTF-8"});
  options = ConsumeOptions();
  for (const milliseconds lease : {milliseconds(99), milliseconds(hours(12)) + milliseconds(1)}) {
    options.lease = lease;
    check_refused(refused(options),
                  {"lease of " + std::to_string(lease.count()) + " ms", "100 to 43200000 ms"});
  }
  const Status status = c.client->consume("orders", {}, {}).status();
  check_refused(status, {"\"orders\"", "handler", "empty"});
  CHECK(status.message().find("concurrency") == std::string::npos);
}

TEST_CASE("a consumer asks for as much as it may") {
  FakeBroker broker;
  Connected c(broker);
  ConsumeOptions options;
  options.prefetch = 65'536;
  options.consumer_name = std::string(128, 'n');
  options.lease = hours(12);
  auto consuming =
      std::async([&] { return c.client->consume("orders", options, [](Delivery) {}); });
  const ReceivedFrame frame = c.peer->subscribe(5);
  CHECK(frame.table<wire::Subscribe>().credit_messages() == 65'536);
  CHECK(frame.table<wire::Subscribe>().lease_ms() == 43'200'000);
  CHECK(consuming.get().ok());
}

TEST_CASE("a refusal did not say what of a receive() is wrong") {
  FakeBroker broker;
  Connected c(broker);
  for (const std::uint32_t count : {0u, 65'537u}) {
    const Status status = c.client->receive("orders", count, milliseconds(0)).status();
    check_refused(status, {std::to_string(count) + " messages", "1 to 65536"});
    CHECK(status.message().find("wait") == std::string::npos);
  }
  check_refused(c.client->receive("orders", 1, milliseconds(-1)).status(), {"wait of -1 ms"});
  check_refused(c.client->receive("orders", 1, milliseconds(0), milliseconds(1)).status(),
                {"lease of 1 ms", "100 to 43200000 ms"});
}

TEST_CASE("a refusal did not say which of a client's times is wrong") {
  ClientOptions options("127.0.0.1:1");
  options.timeout = milliseconds(0);
  check_refused(Client::connect(options).status(), {"timeout is 0 ms", "1 ms"});
  options = ClientOptions("127.0.0.1:1");
  options.reconnect_min = milliseconds(-5);
  check_refused(Client::connect(options).status(), {"reconnect_min is -5 ms", "1 ms"});
  options = ClientOptions("127.0.0.1:1");
  options.reconnect_max = milliseconds(7);
  check_refused(Client::connect(options).status(), {"reconnect_max is 7 ms", "50 ms"});
}

}  // namespace holdfast::test
