// What a program is told of a delivery that it can no longer settle.

#include <doctest/doctest.h>

#include <thread>

#include "consumer_fixture.h"

namespace holdfast::test {

namespace {

bool says(const Status& status, std::string_view words) {
  return status.message().find(words) != std::string::npos;
}

// Of one whose settle was under way.
void check_outcome_unknown(Delivery& delivery) {
  for (const Status& status : {delivery.ack(), delivery.nack("late"), delivery.release()}) {
    CAPTURE(status.to_string());
    CHECK(status.code() == ErrorCode::kConnectionLost);
    CHECK(says(status, "Whether message 1 of queue \"orders\" was settled is not known"));
    CHECK(says(status, "may come again"));
  }
  CHECK(delivery.state() == DeliveryState::kLost);
}

}  // namespace

TEST_CASE_FIXTURE(HoldsOne, "an ack under way when the connection is lost is connection_lost") {
  auto acked = std::async([&] { return deliveries[0].ack(); });
  expect_settle(*c.peer);
  c.peer->close();
  const Status status = acked.get();
  CHECK(status.code() == ErrorCode::kConnectionLost);
  CHECK(says(status, "not known whether the request was done"));
}

// The broker may have done it, and the message is not delivered again then.
TEST_CASE_FIXTURE(HoldsOne,
                  "of a message whose ack was under way it was said that it comes again") {
  std::promise<Status> acked;
  deliveries[0].ack_async([&](Status status) { acked.set_value(std::move(status)); });
  expect_settle(*c.peer);
  SUBCASE("when the connection is lost") {
    c.peer->close();
    CHECK(acked.get_future().get().code() == ErrorCode::kConnectionLost);
    check_outcome_unknown(deliveries[0]);
    CHECK(says(deliveries[0].extend(std::chrono::seconds(5)), "was settled is not known"));
  }
  SUBCASE("when the client is closed") {
    on_io_thread(c, [this] { c.client->close(); });
    CHECK(acked.get_future().get().code() == ErrorCode::kCancelled);
    check_outcome_unknown(deliveries[0]);
  }
}

// Its ack cannot have been done: it was never asked for.
TEST_CASE_FIXTURE(HoldsOne, "a message that is held as the connection is lost may come again") {
  const auto check = [](const Status& status) {
    CAPTURE(status.to_string());
    CHECK(status.code() == ErrorCode::kConnectionLost);
    CHECK(says(status, "no longer held: the connection it came on has ended"));
    CHECK(says(status, "may come again"));
  };
  SUBCASE("when it is lost") {
    c.peer->close();
    while (deliveries[0].state() == DeliveryState::kHeld) std::this_thread::yield();
    check(deliveries[0].extend(std::chrono::seconds(5)));
  }
  SUBCASE("when the client is closed") {
    on_io_thread(c, [this] { c.client->close(); });  // without waiting for the broker
    c.client->close();
  }
  SUBCASE("when the client is closed, and the ack was asked for too late to be sent") {
    std::promise<Status> acked;
    on_io_thread(c, [&, this] {
      c.client->close();
      deliveries[0].ack_async([&](Status status) { acked.set_value(std::move(status)); });
    });
    check(acked.get_future().get());
  }
  check(deliveries[0].ack());
  check(deliveries[0].nack("late"));
}

TEST_CASE_FIXTURE(HoldsOne, "extending a settled message told of a lease that had ended") {
  const auto extend = [this] { return deliveries[0].extend(std::chrono::seconds(5)); };
  std::promise<Status> acked;
  deliveries[0].ack_async([&](Status status) { acked.set_value(std::move(status)); });
  const Settling settle = expect_settle(*c.peer);
  CHECK(extend().code() == ErrorCode::kOperationRefused);
  CHECK(says(extend(), "is being settled"));
  c.peer->settled(settle.correlation, 1);
  CHECK(acked.get_future().get().ok());
  for (const Status& status : {extend(), deliveries[0].ack()}) {
    CAPTURE(status.to_string());
    CHECK(status.code() == ErrorCode::kNotHeld);
    CHECK(says(status, "it has been settled already"));
  }
}

TEST_CASE("extending a settled message that was received told of a lease that had ended") {
  FakeBroker broker;
  Connected c(broker);
  std::vector<Delivery> deliveries = receive_one(c);
  Delivery& delivery = deliveries.front();
  auto acked = std::async([&] { return delivery.ack(); });
  c.peer->settled(expect_settle(*c.peer).correlation, 1);
  CHECK(acked.get().ok());
  c.peer->ok(c.peer->expect(wire::FrameType_Unsubscribe).correlation);
  const Status status = delivery.extend(std::chrono::seconds(5));
  CHECK(status.code() == ErrorCode::kNotHeld);
  CHECK(says(status, "it has been settled already"));
}

}  // namespace holdfast::test
