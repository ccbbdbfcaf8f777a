#include <doctest/doctest.h>
#include <fmt/format.h>

#include <atomic>
#include <thread>

#include "client_fixture.h"
#include "support/given_time.h"

namespace holdfast::test {

namespace {

std::string id_of(const ReceivedFrame& frame) {
  return std::string(view(frame.publish().message->id()));
}

std::string body_of(const ReceivedFrame& frame) {
  const auto* body = frame.publish().message->body();
  return std::string(body->begin(), body->end());
}

using Receipt = Result<PublishReceipt>;

}  // namespace

TEST_CASE("publishing returns the sequence, the chosen id and whether it is a duplicate") {
  FakeBroker broker;
  Connected c(broker);
  auto receipt = std::async([&] { return c.client->publish("orders", Message("hello")); });
  c.peer->open_queue("orders", 7);
  const ReceivedFrame publish = c.peer->expect(wire::FrameType_Publish);
  CHECK(publish.publish().queue == 7);
  CHECK(body_of(publish) == "hello");
  CHECK(id_of(publish).size() == 26);
  c.peer->confirm(publish.correlation, 41);
  const Receipt first = receipt.get();
  REQUIRE(first.ok());
  CHECK(first->sequence == 41);
  CHECK(first->id == id_of(publish));
  CHECK_FALSE(first->duplicate);

  auto again = std::async([&] { return c.client->publish("orders", Message("mine", "hello")); });
  const ReceivedFrame second = c.peer->expect(wire::FrameType_Publish);
  CHECK(id_of(second) == "mine");
  c.peer->confirm(second.correlation, 12, 1, true);
  const Receipt duplicate = again.get();
  REQUIRE(duplicate.ok());
  CHECK(duplicate->sequence == 12);
  CHECK(duplicate->duplicate);
}

TEST_CASE("one confirm answers a range of publishes with consecutive sequences") {
  FakeBroker broker;
  Connected c(broker);
  std::vector<std::future<Receipt>> receipts;
  for (int i = 0; i < 5; ++i) {
    receipts.push_back(c.client->publish_future("orders", Message(std::to_string(i))));
  }
  c.peer->open_queue("orders", 1);
  std::vector<ReceivedFrame> frames;
  for (int i = 0; i < 5; ++i) {
    frames.push_back(c.peer->expect(wire::FrameType_Publish));
    CHECK(body_of(frames.back()) == std::to_string(i));
    CHECK(frames.back().correlation == frames.front().correlation + static_cast<unsigned>(i));
  }
  // Out of order: the later ones first.
  c.peer->confirm(frames[3].correlation, 203, 2);
  c.peer->confirm(frames[0].correlation, 100, 3);
  const std::uint64_t expected[] = {100, 101, 102, 203, 204};
  for (std::size_t i = 0; i < 5; ++i) {
    const Receipt receipt = receipts[i].get();
    REQUIRE(receipt.ok());
    CHECK(receipt->sequence == expected[i]);
    CHECK(receipt->id == id_of(frames[i]));
  }
}

TEST_CASE("what was not confirmed is sent again, in order and under the same ids") {
  FakeBroker broker;
  Connected c(broker);
  std::vector<std::future<Receipt>> receipts;
  for (int i = 0; i < 4; ++i) {
    receipts.push_back(c.client->publish_future("orders", Message(std::to_string(i))));
  }
  c.peer->open_queue("orders", 1);
  std::vector<std::string> ids;
  std::uint64_t first = 0;
  for (int i = 0; i < 4; ++i) {
    const ReceivedFrame frame = c.peer->expect(wire::FrameType_Publish);
    if (i == 0) first = frame.correlation;
    ids.push_back(id_of(frame));
  }
  c.peer->confirm(first + 1, 2);
  REQUIRE(receipts[1].get().ok());
  c.peer->close();

  FakePeer next = broker.accept();
  next.handshake();
  // Another broker may answer at the same address: the id is asked for anew.
  next.open_queue("orders", 9);
  for (const int i : {0, 2, 3}) {
    const ReceivedFrame frame = next.expect(wire::FrameType_Publish);
    CHECK(frame.publish().queue == 9);
    CHECK(id_of(frame) == ids[static_cast<std::size_t>(i)]);
    next.confirm(frame.correlation, 100 + static_cast<unsigned>(i), 1, i == 0);
  }
  CHECK(receipts[0].get()->duplicate);
  CHECK(receipts[2].get()->sequence == 102);
  CHECK(receipts[3].get()->sequence == 103);
}

// With a dedup window a refusal says that it is not stored: it would have been a duplicate.
TEST_CASE("a second sending that is refused says whether the first may be stored") {
  struct Window {
    std::uint64_t first_ms;
    std::uint64_t second_ms;
  };
  for (const Window window : {Window{600'000, 600'000}, {600'000, 0}, {0, 600'000}, {0, 0}}) {
    FakeBroker broker;
    Connected c(broker);
    auto receipt = c.client->publish_future("orders", Message("x"));
    c.peer->open_queue("orders", 1, window.first_ms);
    c.peer->expect(wire::FrameType_Publish);
    c.peer->close();
    FakePeer next = broker.accept();
    next.handshake();
    next.open_queue("orders", 1, window.second_ms);
    next.error(next.expect(wire::FrameType_Publish).correlation, ErrorCode::kQueueFull,
               "The queue is full.");
    const Status status = receipt.get().status();
    const bool is_certain = window.first_ms > 0 && window.second_ms > 0;
    CHECK(status.code() == (is_certain ? ErrorCode::kQueueFull : ErrorCode::kConnectionLost));
    CHECK(status.message().find("The queue is full.") != std::string::npos);
  }
}

TEST_CASE("publishing to a queue that does not exist is queue_not_found") {
  FakeBroker broker;
  Connected c(broker);
  auto receipt = std::async([&] { return c.client->publish("nowhere", Message("x")); });
  const ReceivedFrame open = c.peer->expect(wire::FrameType_QueueOpen);
  c.peer->error(open.correlation, ErrorCode::kQueueNotFound, "There is no queue \"nowhere\".");
  CHECK(receipt.get().status().code() == ErrorCode::kQueueNotFound);
}

TEST_CASE("a queue id that the broker forgot is asked for again once, and the order is kept") {
  FakeBroker broker;
  Connected c(broker);
  std::vector<std::future<Receipt>> receipts;
  for (int i = 0; i < 3; ++i) {
    receipts.push_back(c.client->publish_future("orders", Message(std::to_string(i))));
  }
  c.peer->open_queue("orders", 1);
  for (int i = 0; i < 3; ++i) {
    const ReceivedFrame frame = c.peer->expect(wire::FrameType_Publish);
    c.peer->error(frame.correlation, ErrorCode::kQueueNotFound, "No queue has the id 1.");
  }
  c.peer->open_queue("orders", 2);
  for (int i = 0; i < 3; ++i) {
    const ReceivedFrame frame = c.peer->expect(wire::FrameType_Publish);
    CHECK(frame.publish().queue == 2);
    CHECK(body_of(frame) == std::to_string(i));
    if (i < 2) {
      c.peer->confirm(frame.correlation, 1);
    } else {
      c.peer->error(frame.correlation, ErrorCode::kQueueNotFound, "No queue has the id 2.");
    }
  }
  CHECK(receipts[0].get().ok());
  CHECK(receipts[1].get().ok());
  CHECK(receipts[2].get().status().code() == ErrorCode::kQueueNotFound);
}

// A program that made a queue for each of its requests grew with all of them.
TEST_CASE("every queue that was ever published to was kept in memory") {
  constexpr std::uint32_t kQueues = 4'096;
  FakeBroker broker;
  Connected c(broker);
  const auto publish = [&c](std::uint32_t queue) {
    return c.client->publish_future(fmt::format("reply-{}", queue), Message("x"));
  };
  std::vector<std::future<Receipt>> receipts;
  for (std::uint32_t i = 0; i < kQueues; ++i) receipts.push_back(publish(i));
  std::uint32_t opened = 0;
  std::optional<std::uint64_t> unanswered;  // the publish to the first of them
  for (std::uint32_t i = 0; i < 2 * kQueues; ++i) {
    const ReceivedFrame frame = c.peer->next();
    if (frame.type == wire::FrameType_QueueOpen) {
      c.peer->queue_info(frame.correlation, ++opened, view(frame.table<wire::QueueOpen>().name()));
    } else if (frame.publish().queue == 1) {
      unanswered = frame.correlation;
    } else {
      c.peer->confirm(frame.correlation, 1);
    }
  }
  for (std::uint32_t i = 1; i < kQueues; ++i) CHECK(receipts[i].get().ok());
  REQUIRE(unanswered.has_value());
  // One more, and only the one that has something under way is still known.
  auto another = publish(kQueues);
  c.peer->open_queue("reply-4096", kQueues + 1);
  c.peer->confirm(c.peer->expect(wire::FrameType_Publish).correlation, 1);
  CHECK(another.get().ok());
  auto known = publish(0);
  c.peer->confirm(c.peer->expect(wire::FrameType_Publish).correlation, 2);
  CHECK(known.get().ok());
  auto forgotten = publish(1);
  c.peer->open_queue("reply-1", 2);
  c.peer->confirm(c.peer->expect(wire::FrameType_Publish).correlation, 2);
  CHECK(forgotten.get().ok());
  c.peer->confirm(*unanswered, 1);
  CHECK(receipts[0].get().ok());
}

TEST_CASE("an asynchronous publish reports a full disk at once") {
  FakeBroker broker;
  Connected c(broker);
  auto receipt = c.client->publish_future("orders", Message("x"));
  c.peer->open_queue("orders", 1);
  c.peer->error(c.peer->expect(wire::FrameType_Publish).correlation, ErrorCode::kStorageFull,
                "The disk is full.");
  const Receipt result = receipt.get();
  CHECK(result.status().code() == ErrorCode::kStorageFull);
  CHECK(result.status().message() == "The disk is full.");
}

TEST_CASE(
    "a synchronous publish tries again while the broker is short of room, under the same id") {
  ErrorCode code = ErrorCode::kOk;
  SUBCASE("on the disk") { code = ErrorCode::kStorageFull; }
  SUBCASE("for what waits to be stored") { code = ErrorCode::kLimitReached; }
  FakeBroker broker;
  Connected c(broker);
  auto receipt = std::async([&] { return c.client->publish("orders", Message("x")); });
  c.peer->open_queue("orders", 1);
  const ReceivedFrame first = c.peer->expect(wire::FrameType_Publish);
  c.peer->error(first.correlation, code, "There is no room.");
  const ReceivedFrame second = c.peer->expect(wire::FrameType_Publish);
  CHECK(id_of(second) == id_of(first));
  c.peer->confirm(second.correlation, 5);
  CHECK(receipt.get()->sequence == 5);
}

TEST_CASE("a synchronous publish to a queue that stays full ends with queue_full") {
  // Pauses of 20, 40, 80, … ms.
  CHECK(holds_given_time([](std::chrono::milliseconds deadline) {
    FakeBroker broker;
    ClientOptions options = quick_options(broker);
    options.timeout = deadline;
    Connected c(broker, options);
    auto receipt = std::async([&] { return c.client->publish("orders", Message("x")); });
    c.peer->open_queue("orders", 1);
    int tries = 0;
    while (receipt.wait_for(std::chrono::seconds(0)) != std::future_status::ready) {
      if (c.peer->is_quiet_for(std::chrono::milliseconds(5))) continue;
      // is_quiet_for() took the frame; its correlations are consecutive from 1.
      c.peer->error(static_cast<std::uint64_t>(++tries), ErrorCode::kQueueFull, "It is full.");
    }
    return tries >= 2 && receipt.get().status().code() == ErrorCode::kQueueFull;
  }));
}

TEST_CASE("a publish that a draining broker refuses waits for the next connection") {
  FakeBroker broker;
  Connected c(broker);
  auto receipt = c.client->publish_future("orders", Message("x"));
  c.peer->open_queue("orders", 1);
  const ReceivedFrame first = c.peer->expect(wire::FrameType_Publish);
  c.peer->error(first.correlation, ErrorCode::kDraining, "The broker is shutting down.");
  expect_nothing(c);
  c.peer->close();
  FakePeer next = broker.accept();
  next.handshake();
  next.open_queue("orders", 1);
  const ReceivedFrame second = next.expect(wire::FrameType_Publish);
  CHECK(id_of(second) == id_of(first));
  next.confirm(second.correlation, 1);
  CHECK(receipt.get().ok());
}

TEST_CASE("a publish that was given up is not sent on the next connection") {
  CHECK(holds_given_time([](std::chrono::milliseconds deadline) {
    FakeBroker broker;
    ClientOptions options = quick_options(broker);
    options.timeout = deadline;
    Connected c(broker, options);
    auto receipt = std::async([&] { return c.client->publish("orders", Message("late", "x")); });
    c.peer->open_queue("orders", 1);
    c.peer->expect(wire::FrameType_Publish);
    CHECK(receipt.get().status().code() == ErrorCode::kTimeout);
    c.peer->close();
    FakePeer next = broker.accept();
    next.handshake();
    auto other = c.client->publish_future("orders", Message("other", "y"));
    next.open_queue("orders", 1);
    const ReceivedFrame frame = next.expect(wire::FrameType_Publish);
    CHECK(id_of(frame) == "other");
    next.confirm(frame.correlation, 1);
    CHECK(other.get().ok());
    return true;
  }));
}

TEST_CASE("messages beyond the bounds are refused without asking the broker") {
  FakeBroker broker;
  Connected c(broker, quick_options(broker), {}, 10'000, 4096);
  CHECK(c.client->publish("orders", Message(std::string(129, 'i'), "x")).status().code() ==
        ErrorCode::kMessageIdInvalid);
  CHECK(c.client->publish("orders", Message("\xff\xfe", "x")).status().code() ==
        ErrorCode::kMessageIdInvalid);
  Message headers("x");
  for (int i = 0; i < 65; ++i) headers.headers.emplace_back("n", "v");
  CHECK(c.client->publish("orders", headers).status().code() == ErrorCode::kHeadersTooLarge);
  CHECK(c.client->publish("bad/name", Message("x")).status().code() == ErrorCode::kNameInvalid);

  // Beyond what this broker takes in one frame: it would close the connection.
  auto large = c.client->publish_future("orders", Message(std::string(5000, 'x')));
  c.peer->open_queue("orders", 1);
  CHECK(large.get().status().code() == ErrorCode::kMessageTooLarge);
}

TEST_CASE("past the bound on unconfirmed bytes publishing waits for confirms") {
  FakeBroker broker;
  ClientOptions options = quick_options(broker);
  options.unconfirmed_bytes_max = 1000;
  Connected c(broker, options);
  auto first = c.client->publish_future("orders", Message(std::string(900, 'a')));
  c.peer->open_queue("orders", 1);
  const ReceivedFrame frame = c.peer->expect(wire::FrameType_Publish);

  std::atomic<bool> accepted{false};
  std::future<Receipt> second;
  std::thread publisher([&] {
    second = c.client->publish_future("orders", Message(std::string(900, 'b')));
    accepted = true;
  });
  expect_nothing(c);
  CHECK_FALSE(accepted.load());
  c.peer->confirm(frame.correlation, 1);
  const ReceivedFrame next = c.peer->expect(wire::FrameType_Publish);
  publisher.join();
  c.peer->confirm(next.correlation, 2);
  CHECK(first.get().ok());
  CHECK(second.get().ok());
}

// The broker stopped reading, and whatever was not a publish waited behind them: leases ended.
TEST_CASE("settles waited behind publishes that the broker did not read yet") {
  FakeBroker broker;
  Connected c(broker, quick_options(broker), {}, 10'000, 1 << 20, 2'500);
  std::vector<std::future<Receipt>> receipts;
  const auto publish = [&](std::string_view queue, std::size_t bytes) {
    receipts.push_back(c.client->publish_future(queue, Message(std::string(bytes, 'x'))));
  };
  on_io_thread(c, [&] {
    for (int i = 0; i < 4; ++i) publish("orders", 900);
    publish("orders", 5'000);
    publish("orders", 10);
    publish("others", 10);
  });
  c.peer->open_queue("orders", 1);
  c.peer->open_queue("others", 2);
  std::uint64_t sequence = 0;
  const auto confirm = [&](std::uint64_t correlation) { c.peer->confirm(correlation, ++sequence); };
  // Two are below the bound, a third would reach it.
  c.peer->expect(wire::FrameType_Publish);
  c.peer->expect(wire::FrameType_Publish);
  // What asks is not held up, and no answer to it makes room.
  expect_nothing(c);
  // A confirm and an error do.
  confirm(1);
  CHECK(c.peer->expect(wire::FrameType_Publish).correlation == 3);
  expect_nothing(c);
  c.peer->error(2, ErrorCode::kQueueFull, "The queue is full.");
  CHECK(c.peer->expect(wire::FrameType_Publish).correlation == 4);
  confirm(3);
  expect_nothing(c);
  confirm(4);
  // Larger than the bound: it goes alone, and the small ones do not overtake it.
  CHECK(c.peer->expect(wire::FrameType_Publish).body.size() > 5'000);
  expect_nothing(c);
  confirm(5);
  CHECK(c.peer->expect(wire::FrameType_Publish).publish().queue == 1);
  CHECK(c.peer->expect(wire::FrameType_Publish).publish().queue == 2);
  confirm(6);
  confirm(7);
  for (std::size_t i = 0; i < receipts.size(); ++i) CHECK(receipts[i].get().ok() == (i != 1));
}

// What is under way began anew with the next connection, but not the sum of its bytes.
TEST_CASE("what a lost connection had under way takes no room on the next one") {
  FakeBroker broker;
  Connected c(broker, quick_options(broker), {}, 10'000, 1 << 20, 2'500);
  auto first = c.client->publish_future("orders", Message(std::string(2'000, 'a')));
  c.peer->open_queue("orders", 1);
  c.peer->expect(wire::FrameType_Publish);
  c.peer->close();
  FakePeer next = broker.accept();
  next.handshake(10'000, 1 << 20, 2'500);
  next.open_queue("orders", 1);
  next.expect(wire::FrameType_Publish);
  auto second = c.client->publish_future("orders", Message(std::string(100, 'b')));
  next.expect(wire::FrameType_Publish);
  next.confirm(2, 1, 2);
  CHECK(first.get().ok());
  CHECK(second.get().ok());
}

TEST_CASE("on the I/O thread publishing past the bound is limit_reached, and waiting is refused") {
  FakeBroker broker;
  ClientOptions options = quick_options(broker);
  options.unconfirmed_bytes_max = 1500;
  Connected c(broker, options);
  Receipt limited = Status(ErrorCode::kInternal, "not called");
  Receipt synchronous = Status(ErrorCode::kInternal, "not called");
  Status flushed;
  on_io_thread(c, [&] {
    c.client->publish_async("orders", Message(std::string(900, 'a')), {});
    c.client->publish_async("orders", Message(std::string(900, 'b')),
                            [&](Receipt result) { limited = std::move(result); });
    synchronous = c.client->publish("orders", Message("x"));
    flushed = c.client->flush();
  });
  c.peer->open_queue("orders", 1);
  c.peer->confirm(c.peer->expect(wire::FrameType_Publish).correlation, 1);
  REQUIRE(c.client->flush().ok());
  CHECK(limited.status().code() == ErrorCode::kLimitReached);
  CHECK(synchronous.status().code() == ErrorCode::kInvalidArgument);
  CHECK(flushed.code() == ErrorCode::kInvalidArgument);
}

TEST_CASE("flush returns when everything published before it is answered") {
  FakeBroker broker;
  Connected c(broker);
  REQUIRE(c.client->flush().ok());
  c.client->publish_async("orders", Message("a"), {});
  c.client->publish_async("orders", Message("b"), {});
  auto flushed = std::async([&] { return c.client->flush(); });
  c.peer->open_queue("orders", 1);
  const std::uint64_t first = c.peer->expect(wire::FrameType_Publish).correlation;
  c.peer->expect(wire::FrameType_Publish);
  c.peer->confirm(first + 1, 2);
  CHECK(flushed.wait_for(std::chrono::milliseconds(20)) == std::future_status::timeout);
  c.peer->confirm(first, 1);
  CHECK(flushed.get().ok());
}

TEST_CASE("closing cancels what is not confirmed") {
  FakeBroker broker;
  Connected c(broker);
  auto receipt = c.client->publish_future("orders", Message("x"));
  c.peer->open_queue("orders", 1);
  c.peer->expect(wire::FrameType_Publish);
  c.client->close();
  CHECK(receipt.get().status().code() == ErrorCode::kCancelled);
  CHECK(c.client->publish("orders", Message("x")).status().code() == ErrorCode::kCancelled);
  CHECK(c.client->flush().code() == ErrorCode::kCancelled);
  CHECK(c.peer->expect(wire::FrameType_Goodbye).table<wire::Goodbye>().code() == 0);
}

// Each was told within the one before, until the stack was used up.
TEST_CASE("closing a client whose callbacks publish again") {
  constexpr int kAgain = 300'000;
  FakeBroker broker;
  Connected c(broker);
  int told = 0;
  std::function<void(Receipt)> again = [&](const Receipt& result) {
    CHECK(result.status().code() == ErrorCode::kCancelled);
    if (++told < kAgain) c.client->publish_async("orders", Message("x"), again);
  };
  c.client->publish_async("orders", Message("x"), again);
  c.client->close();
  CHECK(told == kAgain);
}

TEST_CASE("many threads publish through one client, each in its order") {
  constexpr int kThreads = 4;
  constexpr int kEach = 5000;
  FakeBroker broker;
  Connected c(broker);
  std::vector<int> next_of(kThreads, 0);
  bool in_order = true;
  std::thread answering([&] {
    c.peer->open_queue("orders", 1);
    for (int i = 0; i < kThreads * kEach; ++i) {
      const ReceivedFrame frame = c.peer->expect(wire::FrameType_Publish);
      const std::string body = body_of(frame);
      const auto thread = static_cast<std::size_t>(body[0] - '0');
      in_order = in_order && std::stoi(body.substr(2)) == next_of[thread]++;
      c.peer->confirm(frame.correlation, static_cast<std::uint64_t>(i) + 1);
    }
  });
  std::atomic<int> confirmed{0};
  std::vector<std::thread> publishers;
  for (int t = 0; t < kThreads; ++t) {
    publishers.emplace_back([&, t] {
      for (int i = 0; i < kEach; ++i) {
        c.client->publish_async("orders", Message(std::to_string(t) + ":" + std::to_string(i)),
                                [&](const Receipt& result) { confirmed += result.ok() ? 1 : 0; });
      }
    });
  }
  for (std::thread& publisher : publishers) publisher.join();
  CHECK(c.client->flush().ok());
  answering.join();
  CHECK(confirmed.load() == kThreads * kEach);
  CHECK(in_order);
}

}  // namespace holdfast::test
