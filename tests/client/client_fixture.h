// A client and the broker that a test plays for it.

#pragma once

#include <doctest/doctest.h>

#include <future>
#include <memory>
#include <optional>
#include <stdexcept>

#include "client_impl.h"
#include "holdfast/client.h"
#include "support/fake_broker.h"

namespace holdfast::test {

inline ClientOptions quick_options(const FakeBroker& broker) {
  ClientOptions options(broker.address());
  options.client_name = "test";
  options.timeout = std::chrono::seconds(10);
  options.reconnect_min = std::chrono::milliseconds(1);
  options.reconnect_max = std::chrono::milliseconds(4);
  return options;
}

// Connects while the test answers: `answer` plays the broker for the first connection.
template <typename Answer>
Result<Client> connect_while(const ClientOptions& options, const client::ClientTuning& tuning,
                             const Answer& answer) {
  auto connecting =
      std::async(std::launch::async, [&] { return ClientImpl::connect(options, tuning); });
  answer();
  return connecting.get();
}

struct Connected {
  explicit Connected(FakeBroker& broker) : Connected(broker, quick_options(broker)) {}
  Connected(FakeBroker& broker, const ClientOptions& options,
            const client::ClientTuning& tuning = {}, std::uint32_t heartbeat_ms = 10'000,
            std::uint32_t frame_bytes_max = 1 << 20,
            std::uint64_t unconfirmed_bytes_max = 16u << 20) {
    Result<Client> connected = connect_while(options, tuning, [&] {
      peer.emplace(broker.accept());
      peer->handshake(heartbeat_ms, frame_bytes_max, unconfirmed_bytes_max);
    });
    if (!connected.ok()) throw std::runtime_error(connected.status().to_string());
    client.emplace(std::move(connected).value());
  }

  // The broker goes first, so that a client does not wait for answers that nobody will give.
  std::optional<Client> client;
  std::optional<FakePeer> peer;
};

// Runs `body` on the client's I/O thread and waits for it: the next publish of queue "callback" is
// refused, and its callback runs there.
template <typename Body>
void on_io_thread(Connected& connected, const Body& body) {
  const auto ran = std::make_shared<std::promise<void>>();
  connected.client->publish_async("callback", Message("x"),
                                  [body, ran](const Result<PublishReceipt>&) {
                                    body();
                                    ran->set_value();
                                  });
  const ReceivedFrame open = connected.peer->expect(wire::FrameType_QueueOpen);
  connected.peer->error(open.correlation, ErrorCode::kQueueNotFound, "No such queue.");
  ran->get_future().get();
}

// The client has nothing to say but what it is asked to: of two requests, one after the other, each
// is the next that comes. What it had to say would come before the second, because it has read all
// that `peer` said before the answer to the first.
inline void expect_nothing(Client& client, FakePeer& peer) {
  for (int i = 0; i < 2; ++i) {
    auto asked =
        std::async(std::launch::async, [&] { return client.admin().delete_queue("nothing"); });
    peer.ok(peer.expect(wire::FrameType_QueueDelete).correlation);
    CHECK(asked.get().ok());
  }
}
inline void expect_nothing(Connected& connected) {
  expect_nothing(*connected.client, *connected.peer);
}

}  // namespace holdfast::test
