#include <doctest/doctest.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <atomic>
#include <thread>

#include "consumer_fixture.h"
#include "support/given_time.h"

namespace holdfast::test {

namespace {

// Holds a thread up, wherever it waits, until it is destroyed.
class HoldUp {
 public:
  explicit HoldUp(pthread_t thread) {
    REQUIRE(pipe(pipe_) == 0);
    goes_on_ = false;
    struct sigaction action {};
    action.sa_handler = [](int) {
      char byte = 0;
      [[maybe_unused]] const ssize_t bytes = read(pipe_[0], &byte, 1);
      goes_on_ = true;
    };
    REQUIRE(sigaction(SIGUSR1, &action, &before_) == 0);
    REQUIRE(pthread_kill(thread, SIGUSR1) == 0);
  }
  ~HoldUp() {
    close(pipe_[1]);
    while (!goes_on_) std::this_thread::yield();  // it reads what is closed next
    close(pipe_[0]);
    sigaction(SIGUSR1, &before_, nullptr);
  }
  HoldUp(const HoldUp&) = delete;
  HoldUp& operator=(const HoldUp&) = delete;

 private:
  static inline int pipe_[2];
  static inline std::atomic<bool> goes_on_{false};
  struct sigaction before_ {};
};

}  // namespace

TEST_CASE("receiving takes what comes, pauses the subscription, and ends it when all is settled") {
  FakeBroker broker;
  Connected c(broker);
  auto receiving = receive_later(c, 10, std::chrono::seconds(10));
  const ReceivedFrame subscribe = c.peer->subscribe(5);
  CHECK(subscribe.table<wire::Subscribe>().credit_messages() == 10);
  c.peer->deliver(5, 1, "a");
  const ReceivedFrame credit = expect_credit(*c.peer, 0);
  c.peer->deliver(5, 2, "b");  // sent before the broker saw the credit of 0
  c.peer->ok(credit.correlation);
  Result<std::vector<Delivery>> deliveries = receiving.get();
  REQUIRE(deliveries.ok());
  REQUIRE(deliveries->size() == 2);
  expect_nothing(c);
  (*deliveries)[1].ack_async();
  c.peer->settled(expect_settle(*c.peer).correlation, 1);
  expect_nothing(c);
  (*deliveries)[0].ack_async();
  c.peer->settled(expect_settle(*c.peer).correlation, 1);
  c.peer->expect(wire::FrameType_Unsubscribe);
}

// It was held until the connection went, for nothing told the program.
TEST_CASE("what was received was not given back to a broker that drains") {
  FakeBroker broker;
  std::promise<void> told;
  ClientOptions options = quick_options(broker);
  options.on_draining = [&told] { told.set_value(); };
  Connected c(broker, options);
  std::vector<Delivery> deliveries = receive_one(c);
  c.peer->goodbye(5000);
  REQUIRE(told.get_future().wait_for(std::chrono::seconds(10)) == std::future_status::ready);
  deliveries.clear();
  const Settling released = expect_settle(*c.peer);
  CHECK(released.kind == wire::SettleKind_Release);
  CHECK(released.ranges == Ranges{{1, 1}});
  c.peer->settled(released.correlation, 1);
  c.peer->ok(c.peer->expect(wire::FrameType_Unsubscribe).correlation);
  c.peer->expect_close();
}

// The subscription was ended, because nothing was held any more.
TEST_CASE("an ack after a lost lease of what was received was told of a lost connection") {
  FakeBroker broker;
  Connected c(broker);
  std::vector<Delivery> deliveries = receive_one(c);
  c.peer->lease_lost(5, wire::Cause_LeaseExpired, {{1, 1}});
  expect_nothing(c);
  auto acked = std::async([&] { return deliveries.front().ack(); });
  c.peer->settled(expect_settle(*c.peer).correlation, 1, {}, 1);
  CHECK(acked.get().ok());
  c.peer->expect(wire::FrameType_Unsubscribe);
}

TEST_CASE("receiving from an empty queue returns nothing after the wait") {
  FakeBroker broker;
  Connected c(broker);
  auto receiving = receive_later(c, 1, std::chrono::milliseconds(20));
  c.peer->subscribe(5);
  c.peer->nothing_is_coming();
  expect_end(*c.peer);
  const Result<std::vector<Delivery>> deliveries = receiving.get();
  REQUIRE(deliveries.ok());
  CHECK(deliveries->empty());

  auto nowhere = receive_later(c, 1, std::chrono::milliseconds(20), "nowhere");
  c.peer->error(c.peer->expect(wire::FrameType_Subscribe).correlation, ErrorCode::kQueueNotFound,
                "There is no queue.");
  CHECK(nowhere.get().status().code() == ErrorCode::kQueueNotFound);
}

namespace {
// It may have been asked again meanwhile.
void expect_end_of_waiting(FakePeer& peer) {
  ReceivedFrame frame = peer.next();
  for (; frame.type == wire::FrameType_QueueOpen; frame = peer.next()) {
    peer.queue_info(frame.correlation, 1, "orders", 0, 1);
  }
  CHECK(frame.type == wire::FrameType_Credit);
  peer.ok(frame.correlation);
}
}  // namespace

// The credit was taken back at once, and with it what waited for a commit or for the disk.
TEST_CASE("receiving without a wait never found a message that waited for its commit") {
  FakeBroker broker;
  Connected c(broker);
  auto receiving = receive_later(c, 1, std::chrono::milliseconds(0));
  c.peer->subscribe(5);
  const auto one_is_ready = [&c] {
    c.peer->queue_info(c.peer->expect(wire::FrameType_QueueOpen).correlation, 1, "orders", 0, 1);
  };
  SUBCASE("a first delivery") {
    one_is_ready();
    one_is_ready();  // it was waited for
  }
  SUBCASE("a retry, and others have some in flight") {
    c.peer->queue_info(c.peer->expect(wire::FrameType_QueueOpen).correlation, 1, "orders");
    const ReceivedFrame list = c.peer->expect(wire::FrameType_ConsumerList);
    CHECK(list.table<wire::ConsumerList>().from() == 5);
    c.peer->consumer_info(list.correlation, 5, 1);
    c.peer->consumer_info(list.correlation, 6, 0);
    c.peer->list_end(list.correlation, 2);
    one_is_ready();  // it was waited for
  }
  SUBCASE("that comes while it is asked for") {
    const ReceivedFrame open = c.peer->expect(wire::FrameType_QueueOpen);
    c.peer->deliver(5, 1, "x");
    c.peer->queue_info(open.correlation, 1, "orders");
    const ReceivedFrame list = c.peer->expect(wire::FrameType_ConsumerList);
    c.peer->consumer_info(list.correlation, 6, 7);
    c.peer->list_end(list.correlation, 1);
  }
  c.peer->deliver(5, 2, "x");
  expect_end_of_waiting(*c.peer);
  const Result<std::vector<Delivery>> deliveries = receiving.get();
  REQUIRE(deliveries.ok());
  CHECK(deliveries->size() >= 1);
}

// What was ready was waited for, and came as little as before.
TEST_CASE("receiving from a queue with too many outstanding took two seconds longer") {
  FakeBroker broker;
  Connected c(broker);
  auto receiving = receive_later(c, 1, std::chrono::milliseconds(0));
  c.peer->subscribe(5);
  c.peer->queue_info(c.peer->expect(wire::FrameType_QueueOpen).correlation, 1, "orders", 0, 3,
                     true);
  const ReceivedFrame list = c.peer->expect(wire::FrameType_ConsumerList);
  SUBCASE("none comes") {
    c.peer->consumer_info(list.correlation, 5, 0);
    c.peer->list_end(list.correlation, 1);
    expect_end(*c.peer);
    CHECK(receiving.get()->empty());
  }
  SUBCASE("but a retry that is its own") {
    c.peer->consumer_info(list.correlation, 5, 1);
    c.peer->list_end(list.correlation, 1);
    c.peer->deliver(5, 2, "x");
    expect_end_of_waiting(*c.peer);
    CHECK(receiving.get()->size() == 1);
  }
}

TEST_CASE("receiving does not wait for messages that others have in flight") {
  FakeBroker broker;
  Connected c(broker);
  auto receiving = receive_later(c, 1, std::chrono::milliseconds(0));
  c.peer->subscribe(5);
  c.peer->queue_info(c.peer->expect(wire::FrameType_QueueOpen).correlation, 1, "orders");
  const ReceivedFrame list = c.peer->expect(wire::FrameType_ConsumerList);
  c.peer->consumer_info(list.correlation, 5, 0);
  c.peer->consumer_info(list.correlation, 6, 3);
  c.peer->list_end(list.correlation, 2);
  expect_end(*c.peer);
  CHECK(receiving.get()->empty());
}

// "Nothing came" ends a program that empties a queue.
TEST_CASE("receiving when the connection was lost returned nothing, as if nothing were there") {
  CHECK(holds_given_time([](std::chrono::milliseconds wait) {
    FakeBroker broker;
    Connected c(broker);
    auto receiving = receive_later(c, 1, wait);
    c.peer->subscribe(5);
    on_io_thread(c, [] {});  // it has heard of that
    c.peer->close();
    return receiving.get().status().code() == ErrorCode::kConnectionLost;
  }));
}

// It took the client's whole time, and then was told of that.
TEST_CASE("receiving without a connection was told of a broker that takes too long") {
  FakeBroker broker;
  Connected c(broker);
  const auto close = [&c] {
    c.peer->close();
    while (c.client->connection_status().ok()) std::this_thread::yield();
  };
  std::future<Result<std::vector<Delivery>>> receiving;
  SUBCASE("at once") {
    close();
    receiving = receive_later(c, 1, std::chrono::milliseconds(0));
  }
  SUBCASE("after the wait") {
    close();
    receiving = receive_later(c, 1, std::chrono::milliseconds(20));
  }
  SUBCASE("that is lost before the broker answers") {
    receiving = receive_later(c, 1, std::chrono::milliseconds(0));
    c.peer->expect(wire::FrameType_Subscribe);
    c.peer->close();
  }
  const Status status = receiving.get().status();
  CHECK(status.code() == ErrorCode::kConnectionLost);
  CHECK(status.message().find("of receiving from \"orders\"") != std::string::npos);
}

TEST_CASE("receiving waits for a connection as long as for a message") {
  FakeBroker broker;
  Connected c(broker);
  c.peer->close();
  while (c.client->connection_status().ok()) std::this_thread::yield();
  auto receiving = receive_later(c, 1, std::chrono::seconds(10));
  c.peer.emplace(broker.accept());
  c.peer->handshake();
  c.peer->subscribe(5);
  c.peer->deliver(5, 1, "x");
  c.peer->ok(expect_credit(*c.peer, 0).correlation);
  const Result<std::vector<Delivery>> deliveries = receiving.get();
  REQUIRE(deliveries.ok());
  CHECK(deliveries->size() == 1);
}

// Likewise; and each question had the client's whole time.
TEST_CASE("receiving from a broker that hangs returned nothing, as if nothing were there") {
  void (*answer)(FakePeer&) = nullptr;
  SUBCASE("when it is to subscribe") {
    answer = [](FakePeer& peer) { peer.expect(wire::FrameType_Subscribe); };
  }
  SUBCASE("when it is asked whether anything comes") {
    answer = [](FakePeer& peer) {
      peer.subscribe(5);
      peer.expect(wire::FrameType_QueueOpen);
    };
  }
  SUBCASE("when the credit is taken back") {
    answer = [](FakePeer& peer) {
      peer.subscribe(5);
      peer.nothing_is_coming();
    };
  }
  CHECK(holds_given_time([answer](std::chrono::milliseconds deadline) {
    FakeBroker broker;
    ClientOptions options = quick_options(broker);
    options.timeout = deadline;
    Connected c(broker, options);
    const auto begun = std::chrono::steady_clock::now();
    auto receiving = receive_later(c, 1, std::chrono::milliseconds(0));
    answer(*c.peer);
    CHECK(receiving.get().status().code() == ErrorCode::kTimeout);
    return std::chrono::steady_clock::now() - begun < 2 * deadline;
  }));
}

TEST_CASE("receiving returned nothing when the broker refused to say whether anything comes") {
  FakeBroker broker;
  Connected c(broker);
  auto receiving = receive_later(c, 1, std::chrono::milliseconds(0));
  c.peer->subscribe(5);
  c.peer->error(c.peer->expect(wire::FrameType_QueueOpen).correlation, ErrorCode::kQueueNotFound,
                "There is no queue.");
  CHECK(receiving.get().status().code() == ErrorCode::kQueueNotFound);
}

// It looked when it was subscribed again; what had been on its way went with the connection before.
TEST_CASE("receiving returned nothing when the connection was lost and made again meanwhile") {
  FakeBroker broker;
  Connected c(broker);
  std::promise<pthread_t> thread;
  auto receiving = std::async(std::launch::async, [&] {
    thread.set_value(pthread_self());
    return c.client->receive("orders", 1, std::chrono::milliseconds(0));
  });
  c.peer->subscribe(5);
  SUBCASE("when the broker was asked whether anything comes") {
    c.peer->expect(wire::FrameType_QueueOpen);
  }
  SUBCASE("when the credit was taken back") {
    c.peer->nothing_is_coming();
    expect_credit(*c.peer, 0);
  }
  {
    const HoldUp hold_up(thread.get_future().get());
    c.peer->close();
    c.peer.emplace(broker.accept());
    c.peer->handshake();
    c.peer->subscribe(6);
    on_io_thread(c, [] {});  // it has heard of that
  }
  CHECK(receiving.get().status().code() == ErrorCode::kConnectionLost);
}

}  // namespace holdfast::test
