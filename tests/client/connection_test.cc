#include <doctest/doctest.h>
#include <fmt/format.h>

#include <condition_variable>
#include <mutex>
#include <thread>
#include <vector>

#include "client_fixture.h"
#include "schema/address.h"
#include "support/given_time.h"
#include "two_addresses.h"

namespace holdfast::test {

TEST_CASE("a broker that nobody listens for is unreachable, at once when nothing is tried again") {
  FakeBroker broker;
  ClientOptions options = quick_options(broker);
  broker.stop_listening();
  options.reconnect = false;
  const Result<Client> once = Client::connect(options);
  CHECK(once.status().code() == ErrorCode::kUnreachable);
  CHECK(once.status().message().find(options.address) != std::string::npos);

  options.reconnect = true;
  CHECK(holds_given_time([&](std::chrono::milliseconds deadline) {
    options.timeout = deadline;
    const Status again = Client::connect(options).status();
    CHECK(again.code() == ErrorCode::kUnreachable);
    CHECK(again.message().find(fmt::format("within {} ms", deadline.count())) != std::string::npos);
    return again.message().find("connection refused") != std::string::npos;
  }));
}

TEST_CASE("connecting waits for a broker that is not ready yet") {
  FakeBroker broker;
  const Result<Client> connected = connect_while(quick_options(broker), {}, [&] {
    broker.accept().close();
    broker.accept().close();
    FakePeer peer = broker.accept();
    peer.handshake();
  });
  CHECK(connected.ok());
}

TEST_CASE("a wrong address or option is refused with a sentence") {
  for (const char* address :
       {"", "host", "host:", "host:0", "host:65536", "host:1x", ":7411", "::1:7411", "unix:"}) {
    CAPTURE(address);
    const Result<Client> connected = Client::connect(ClientOptions(address));
    CHECK(connected.status().code() == ErrorCode::kInvalidArgument);
  }
  ClientOptions options("127.0.0.1:1");
  options.client_name = std::string(129, 'n');
  CHECK(Client::connect(options).status().code() == ErrorCode::kInvalidArgument);
  options.client_name.clear();
  options.reconnect_max = std::chrono::milliseconds(1);
  CHECK(Client::connect(options).status().code() == ErrorCode::kInvalidArgument);
}

// Every attempt began with the first.
TEST_CASE("a name whose first address does not answer is reached at its second") {
  CHECK(holds_given_time([](std::chrono::milliseconds deadline) {
    FakeBroker silent;
    FakeBroker broker;
    set_two_addresses(
        {parse_address(silent.address())->port, parse_address(broker.address())->port});
    ClientOptions options = quick_options(broker);
    options.address = fmt::format("{}:7411", kTwoAddresses);
    options.timeout = 10 * deadline;
    client::ClientTuning tuning;
    tuning.handshake_ms = static_cast<std::uint64_t>(deadline.count());
    std::optional<FakePeer> peer;
    const Result<Client> connected = connect_while(options, tuning, [&] {
      peer.emplace(broker.accept());
      peer->handshake();
    });
    if (!connected.ok()) return false;
    peer->close();
    broker.accept().handshake();  // and begins with the one that worked
    return true;
  }));
}

TEST_CASE("an address with a scheme was said to be IPv6 without brackets") {
  for (const char* text : {"tcp://localhost:7411", "http://[::1]:7411", "holdfast://host"}) {
    CAPTURE(text);
    const Result<Address> address = parse_address(text);
    REQUIRE_FALSE(address.ok());
    CHECK(address.status().message().find("without a scheme") != std::string::npos);
    CHECK(address.status().message().find("HOST:PORT") != std::string::npos);
  }
}

TEST_CASE("addresses are read and written alike") {
  for (const char* text :
       {"127.0.0.1:7411", "broker.example:1", "[::1]:65535", "unix:/run/h.sock"}) {
    const Result<Address> address = parse_address(text);
    REQUIRE(address.ok());
    CHECK(address->to_string() == text);
  }
}

TEST_CASE("a broker of another version ends the attempt without another") {
  FakeBroker broker;
  const Result<Client> refused = connect_while(quick_options(broker), {}, [&] {
    FakePeer peer = broker.accept();
    const ReceivedFrame hello = peer.expect(wire::FrameType_Hello);
    CHECK(hello.table<wire::Hello>().version_min() == 1);
    CHECK(hello.table<wire::Hello>().version_max() == 1);
    CHECK(view(hello.table<wire::Hello>().client_name()) == "test");
    peer.error(hello.correlation, ErrorCode::kVersionUnsupported, "This broker speaks 2 to 3.",
               true);
    peer.expect_close();
  });
  CHECK(refused.status().code() == ErrorCode::kVersionUnsupported);
  CHECK(refused.status().message() == "This broker speaks 2 to 3.");
}

TEST_CASE("a broker that refuses a connection because it has too many is tried again") {
  FakeBroker broker;
  const Result<Client> connected = connect_while(quick_options(broker), {}, [&] {
    FakePeer first = broker.accept();
    first.error(0, ErrorCode::kTooManyConnections, "1,000 connections are open.", true);
    first.expect_close();
    FakePeer second = broker.accept();
    second.handshake();
  });
  CHECK(connected.ok());
}

TEST_CASE("a broker that accepts and says nothing is given up after the handshake's deadline") {
  CHECK(holds_given_time([](std::chrono::milliseconds deadline) {
    FakeBroker broker;
    ClientOptions options = quick_options(broker);
    options.timeout = 10 * deadline;
    client::ClientTuning tuning;
    tuning.handshake_ms = static_cast<std::uint64_t>(deadline.count());
    const Result<Client> connected = connect_while(options, tuning, [&] {
      FakePeer silent = broker.accept();
      silent.expect_close();
      FakePeer peer = broker.accept();
      peer.handshake();
    });
    return connected.ok();
  }));
}

TEST_CASE("a broker that hangs was said to be out of reach") {
  constexpr std::string_view kHangs = "accepts connections there and does not answer";
  FakeBroker broker;
  ClientOptions options = quick_options(broker);
  client::ClientTuning tuning;
  const auto says_so = [&] {
    const Status status =
        connect_while(options, tuning, [&] { broker.accept().expect_close(); }).status();
    CHECK(status.code() == ErrorCode::kUnreachable);
    return status.message().find(kHangs) != std::string::npos;
  };
  SUBCASE("when the time of connect() is over before that of the attempt") {
    tuning.handshake_ms = 60'000;
    CHECK(holds_given_time([&](std::chrono::milliseconds deadline) {
      options.timeout = deadline;
      return says_so();
    }));
  }
  SUBCASE("when that of the attempt is") {
    options.timeout = std::chrono::seconds(60);
    options.reconnect = false;
    CHECK(holds_given_time([&](std::chrono::milliseconds deadline) {
      tuning.handshake_ms = static_cast<std::uint64_t>(deadline.count());
      return says_so();
    }));
  }
}

TEST_CASE("a broker that falls silent is given up after three intervals") {
  FakeBroker broker;
  client::ClientTuning tuning;
  tuning.heartbeat_ms = 20;
  Connected c(broker, quick_options(broker), tuning, 20);
  // It still reads, and hears the client's Pings; it only never answers.
  c.peer->expect_close();
  FakePeer next = broker.accept();
  const ReceivedFrame hello = next.expect(wire::FrameType_Hello);
  CHECK(hello.table<wire::Hello>().heartbeat_ms() == 20);
}

TEST_CASE("an idle client says Ping before its broker would take it for dead") {
  FakeBroker broker;
  Connected c(broker, quick_options(broker), {}, 20);
  // What it has sent is here, even if it took the broker for dead meanwhile.
  c.peer->expect_ping();
}

// An idle one paused for as long as in its last outage.
TEST_CASE("a connection that only heard heartbeats went on with the pauses of the outage before") {
  FakeBroker broker;
  ClientOptions options = quick_options(broker);
  options.reconnect_max = std::chrono::hours(1);
  Connected c(broker, options);
  const auto lose_and_connect = [&] {
    c.peer->close();
    c.peer.emplace(broker.accept());
    c.peer->handshake();
  };
  SUBCASE("a Welcome alone does not end them") {
    // Half of 1, 2, 4, … ms at least, 255 ms together.
    const auto begun = std::chrono::steady_clock::now();
    for (int i = 0; i < 9; ++i) lose_and_connect();
    CHECK(std::chrono::steady_clock::now() - begun >= std::chrono::milliseconds(200));
  }
  SUBCASE("a heartbeat does") {
    // Of pauses that double the last would be 16 seconds at least, which accept() does not wait.
    for (int i = 0; i < 16; ++i) {
      FrameWriter heartbeat;
      heartbeat.append_empty(wire::FrameType_Ping, 77);
      c.peer->send(heartbeat);
      CHECK(c.peer->expect(wire::FrameType_Pong).correlation == 77);
      lose_and_connect();
    }
  }
}

TEST_CASE("a Ping is answered with its correlation") {
  FakeBroker broker;
  Connected c(broker);
  FrameWriter ping;
  ping.append_empty(wire::FrameType_Ping, 77);
  c.peer->send(ping);
  CHECK(c.peer->expect(wire::FrameType_Pong).correlation == 77);
}

TEST_CASE("garbage from the broker costs the connection and nothing else") {
  FakeBroker broker;
  Connected c(broker);
  auto receipt = c.client->publish_future("orders", Message("x"));
  c.peer->open_queue("orders", 1);
  c.peer->expect(wire::FrameType_Publish);
  const std::string garbage(100, 'G');
  c.peer->send_bytes(garbage.data(), garbage.size());
  c.peer->expect_close();
  FakePeer next = broker.accept();
  next.handshake();
  next.open_queue("orders", 1);
  next.confirm(next.expect(wire::FrameType_Publish).correlation, 1);
  CHECK(receipt.get().ok());
}

TEST_CASE("frames that make no sense are survived") {
  FakeBroker broker;
  Connected c(broker);
  c.peer->confirm(999, 1, 4'000'000'000u);
  c.peer->error(1ull << 63, ErrorCode::kInternal, "of nothing");
  c.peer->settled(12345, 1);
  c.peer->deliver(99, 1, "for nobody");
  c.peer->lease_lost(99, wire::Cause_LeaseExpired, {{1, ~0ull}});
  FrameWriter empty;
  for (const wire::FrameType type : wire::EnumValuesFrameType()) {
    if (type != wire::FrameType_Ping && type != wire::FrameType_Deliver &&
        type != wire::FrameType_Goodbye && type != wire::FrameType_Error) {
      empty.append_empty(type, 5);
    }
  }
  c.peer->send(empty);
  auto receipt = c.client->publish_future("orders", Message("x"));
  c.peer->open_queue("orders", 1);
  c.peer->confirm(c.peer->expect(wire::FrameType_Publish).correlation, 1, 4'000'000'000u);
  CHECK(receipt.get()->sequence == 1);
}

TEST_CASE("after the end of the client a publish past the bound fails as well, and does not wait") {
  FakeBroker broker;
  ClientOptions options = quick_options(broker);
  options.reconnect = false;
  options.unconfirmed_bytes_max = 1000;
  Connected c(broker, options);
  c.peer->close();
  CHECK(c.client->publish("orders", Message("x")).status().code() == ErrorCode::kConnectionLost);
  for (int i = 0; i < 3; ++i) {
    auto failed = std::async(std::launch::async, [&] {
      return c.client->publish_future("orders", Message(std::string(900, 'a'))).get();
    });
    const bool ended = failed.wait_for(std::chrono::seconds(10)) == std::future_status::ready;
    CHECK(ended);
    if (!ended) c.client->close();
    CHECK(failed.get().status().code() == ErrorCode::kConnectionLost);
  }
}

TEST_CASE("a program is told when its connection is lost and when it stands again") {
  FakeBroker broker;
  ClientOptions options = quick_options(broker);
  std::mutex mutex;
  std::condition_variable changed;
  std::vector<ErrorCode> told;
  options.on_connection = [&](const Status& status) {
    const std::lock_guard lock(mutex);
    told.push_back(status.code());
    changed.notify_all();
  };
  const auto wait_for = [&](std::size_t count) {
    std::unique_lock lock(mutex);
    REQUIRE(changed.wait_for(lock, std::chrono::seconds(10), [&] { return told.size() >= count; }));
  };
  Connected c(broker, options);
  wait_for(1);
  CHECK(c.client->connection_status().ok());
  c.peer->close();
  wait_for(2);
  CHECK(c.client->connection_status().code() == ErrorCode::kConnectionLost);
  broker.accept().close();  // an attempt that fails is not told
  c.peer.reset();
  c.peer.emplace(broker.accept());
  c.peer->handshake();
  wait_for(3);
  CHECK(c.client->connection_status().ok());
  c.client->close();
  CHECK(c.client->connection_status().code() == ErrorCode::kCancelled);
  CHECK(told == std::vector{ErrorCode::kOk, ErrorCode::kConnectionLost, ErrorCode::kOk});
}

TEST_CASE("without reconnect a lost connection ends the client") {
  FakeBroker broker;
  ClientOptions options = quick_options(broker);
  options.reconnect = false;
  Connected c(broker, options);
  auto receipt = c.client->publish_future("orders", Message("x"));
  c.peer->open_queue("orders", 1);
  c.peer->expect(wire::FrameType_Publish);
  c.peer->close();
  CHECK(receipt.get().status().code() == ErrorCode::kConnectionLost);
  CHECK(c.client->publish("orders", Message("x")).status().code() == ErrorCode::kConnectionLost);
  CHECK(c.client->admin().status().status().code() == ErrorCode::kConnectionLost);
  CHECK(c.client->receive("orders", 1, std::chrono::milliseconds(0)).status().code() ==
        ErrorCode::kConnectionLost);
  CHECK(c.client->consume("orders", {}, [](Delivery) {}).status().code() ==
        ErrorCode::kConnectionLost);
}

TEST_CASE("a client may be closed from its own callback, and by two threads at once") {
  FakeBroker broker;
  {
    Connected c(broker);
    on_io_thread(c, [&] { c.client->close(); });
    CHECK(c.client->flush().code() == ErrorCode::kCancelled);
    c.peer->expect_close();
  }
  Connected c(broker);
  auto other = std::async(std::launch::async, [&] { c.client->close(); });
  c.client->close();
  other.get();
  CHECK(c.client->admin().status().status().code() == ErrorCode::kCancelled);
}

// It had got the id of one that ended: what waits was refused to it, and stop() waited for nothing.
TEST_CASE("a new thread was taken for the I/O thread of a closed client") {
  FakeBroker broker;
  Connected c(broker);
  c.client->close();
  auto flushed = std::async(std::launch::async, [&] { return c.client->flush(); });
  CHECK(flushed.get().code() == ErrorCode::kCancelled);
}

// Each call crashed.
TEST_CASE("a client that was moved from was used") {
  constexpr ErrorCode kRefused = ErrorCode::kInvalidArgument;
  FakeBroker broker;
  Connected c(broker);
  const auto is_refused = [&](Client& client) {
    const Message message("x");
    ErrorCode told = ErrorCode::kOk;
    client.publish_async("orders", message, [&](const Result<PublishReceipt>& result) {
      told = result.status().code();
    });
    client.publish_async("orders", message, {});
    CHECK(told == kRefused);
    CHECK(client.publish("orders", message).status().code() == kRefused);
    CHECK(client.publish_future("orders", message).get().status().code() == kRefused);
    CHECK(client.flush().code() == kRefused);
    CHECK(client.consume("orders", {}, [](Delivery) {}).status().code() == kRefused);
    CHECK(client.receive("orders", 1, {}).status().code() == kRefused);
    CHECK(client.connection_status().code() == kRefused);
    CHECK(client.admin().status().status().code() == kRefused);
    CHECK(client.admin().queues().status().code() == kRefused);
    CHECK(client.admin().delete_queue("orders").code() == kRefused);
    CHECK(client.admin().peek("orders", 1).status().code() == kRefused);
    client.close();
  };
  Client moved = std::move(*c.client);
  is_refused(*c.client);  // NOLINT(bugprone-use-after-move)
  *c.client = std::move(moved);
  is_refused(moved);  // NOLINT(bugprone-use-after-move)
  CHECK(c.client->connection_status().ok());
}

TEST_CASE("a client may be destroyed while it reconnects, and moved") {
  FakeBroker broker;
  Connected c(broker);
  broker.stop_listening();
  c.peer->close();
  Client moved = std::move(*c.client);
  c.client.reset();
  CHECK(moved.flush().ok());
}

}  // namespace holdfast::test
