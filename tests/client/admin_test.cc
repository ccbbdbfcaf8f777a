#include <doctest/doctest.h>

#include "client_fixture.h"
#include "support/given_time.h"

namespace holdfast::test {

namespace {

template <typename Builder>
void reply(FakePeer& peer, wire::FrameType type, std::uint64_t correlation, const Builder& build) {
  flatbuffers::FlatBufferBuilder builder;
  builder.Finish(build(builder));
  FrameWriter frames;
  frames.append(type, correlation, {builder.GetBufferPointer(), builder.GetSize()});
  peer.send(frames);
}

}  // namespace

TEST_CASE("a queue is created with its settings by name, and reported with them") {
  FakeBroker broker;
  Connected c(broker);
  Admin admin = c.client->admin();
  auto created = std::async([&] {
    return admin.create_queue("orders", {{"max-attempts", 3}}, true);
  });
  const ReceivedFrame frame = c.peer->expect(wire::FrameType_QueueCreate);
  const auto& create = frame.table<wire::QueueCreate>();
  CHECK(view(create.name()) == "orders");
  CHECK(create.if_not_exists());
  REQUIRE(create.settings()->size() == 1);
  CHECK(create.settings()->Get(0)->setting() == 2);
  CHECK(create.settings()->Get(0)->value() == 3);
  reply(*c.peer, wire::FrameType_QueueInfo, frame.correlation, [](auto& builder) {
    const auto name = builder.CreateString("orders");
    const std::vector<wire::SettingValue> values{wire::SettingValue(2, 0, 0, 3),
                                                 wire::SettingValue(999, 0, 0, 1)};
    const auto settings = builder.CreateVectorOfStructs(values);
    wire::QueueInfoBuilder info(builder);
    info.add_queue(4);
    info.add_name(name);
    info.add_settings(settings);
    info.add_ready(17);
    info.add_publish_rate(2.5);
    info.add_created_at(1'000);
    return info.Finish();
  });
  const Result<QueueReport> report = created.get();
  REQUIRE(report.ok());
  CHECK(report->id == 4);
  CHECK(report->name == "orders");
  CHECK(report->settings == SettingList{{"max-attempts", 3}});
  CHECK(report->ready == 17);
  CHECK(report->publish_rate == 2.5);
  CHECK(report->created_at.time_since_epoch() == std::chrono::seconds(1));
}

// The broker closed the connection, and the next one, until the time was over.
TEST_CASE("requests too large for a frame cost one connection after another") {
  FakeBroker broker;
  Connected c(broker);
  Admin admin = c.client->admin();
  CHECK(admin.consumers(std::string(2u << 20, 'q')).status().code() == ErrorCode::kNameInvalid);
  const SettingList many(100'000, {"lease", 30'000});
  CHECK(admin.create_queue("orders", many).status().code() == ErrorCode::kInvalidArgument);
  CHECK(admin.edit_queue("orders", many).status().code() == ErrorCode::kInvalidArgument);
  expect_nothing(c);
}

TEST_CASE("a setting that does not exist is refused with the nearest one") {
  FakeBroker broker;
  Connected c(broker);
  const Result<QueueReport> created =
      c.client->admin().create_queue("orders", {{"max-atempts", 3}});
  CHECK(created.status().code() == ErrorCode::kInvalidArgument);
  CHECK(created.status().message().find("\"max-attempts\"") != std::string::npos);
}

TEST_CASE("a list is collected to its end, and begins anew when the connection is lost in it") {
  FakeBroker broker;
  Connected c(broker);
  auto listed = std::async([&] { return c.client->admin().queues(); });
  ReceivedFrame list = c.peer->expect(wire::FrameType_QueueList);
  c.peer->queue_info(list.correlation, 1, "a");
  c.peer->close();
  FakePeer next = broker.accept();
  next.handshake();
  list = next.expect(wire::FrameType_QueueList);
  next.queue_info(list.correlation, 1, "a");
  next.queue_info(list.correlation, 2, "b");
  next.list_end(list.correlation, 2);
  const Result<std::vector<QueueReport>> queues = listed.get();
  REQUIRE(queues.ok());
  REQUIRE(queues->size() == 2);
  CHECK((*queues)[1].name == "b");
}

TEST_CASE(
    "a list that comes in pages is collected, sorted, and asked for again from the lost page") {
  FakeBroker broker;
  Connected c(broker);
  auto listed = std::async([&] { return c.client->admin().queues(); });
  ReceivedFrame list = c.peer->expect(wire::FrameType_QueueList);
  CHECK(list.table<wire::QueueList>().from() == 0);
  c.peer->queue_info(list.correlation, 1, "c");
  c.peer->list_end(list.correlation, 1, 7);
  list = c.peer->expect(wire::FrameType_QueueList);
  CHECK(list.table<wire::QueueList>().from() == 7);
  c.peer->queue_info(list.correlation, 7, "a");
  c.peer->close();
  FakePeer next = broker.accept();
  next.handshake();
  list = next.expect(wire::FrameType_QueueList);
  CHECK(list.table<wire::QueueList>().from() == 7);
  next.queue_info(list.correlation, 7, "a");
  next.queue_info(list.correlation, 9, "b");
  next.list_end(list.correlation, 2);
  const Result<std::vector<QueueReport>> queues = listed.get();
  REQUIRE(queues.ok());
  REQUIRE(queues->size() == 3);
  CHECK((*queues)[0].name == "a");
  CHECK((*queues)[1].name == "b");
  CHECK((*queues)[2].name == "c");
}

TEST_CASE("a list that does not go on ends with an error, not never") {
  FakeBroker broker;
  Connected c(broker);
  auto listed = std::async([&] { return c.client->admin().queues(); });
  ReceivedFrame list = c.peer->expect(wire::FrameType_QueueList);
  c.peer->list_end(list.correlation, 0, 7);
  list = c.peer->expect(wire::FrameType_QueueList);
  c.peer->list_end(list.correlation, 0, 7);
  CHECK_FALSE(listed.get().ok());
}

// Whoever went on from what it answered would have asked for ever.
TEST_CASE("a page, and a step over dead letters, that does not go on is an error") {
  FakeBroker broker;
  Connected c(broker);
  for (const std::uint64_t next : {7u, 6u}) {
    auto peeked = std::async([&] { return c.client->admin().peek("orders", 2, 7); });
    c.peer->list_end(c.peer->expect(wire::FrameType_Peek).correlation, 0, next);
    CHECK(peeked.get().status().code() == ErrorCode::kFrameMalformed);
    auto moved = std::async([&] { return c.client->admin().redrive_all("orders", 7, 256); });
    reply(*c.peer, wire::FrameType_Moved, c.peer->expect(wire::FrameType_Redrive).correlation,
          [next](auto& builder) { return wire::CreateMoved(builder, 0, 0, 0, 0, next); });
    const Status refused = moved.get().status();
    CHECK(refused.code() == ErrorCode::kFrameMalformed);
    CHECK(refused.message().find("does not go on") != std::string::npos);
  }
}

// Answers a peek with the message of sequence 5, and whether there is more.
void answer_with_five(FakePeer& peer, std::uint64_t correlation, std::uint64_t next) {
  FrameWriter item;
  append_message(item, wire::FrameType_PeekItem, correlation, 0, 5, 1,
                 message_bytes("five", "body"));
  peer.send(item);
  peer.list_end(correlation, 1, next);
}

TEST_CASE("a page of messages is peeked at, and one is got by its sequence") {
  FakeBroker broker;
  Connected c(broker);
  auto peeked = std::async([&] { return c.client->admin().peek("orders", 2, 5); });
  const ReceivedFrame frame = c.peer->expect(wire::FrameType_Peek);
  CHECK(frame.table<wire::Peek>().from() == 5);
  CHECK(frame.table<wire::Peek>().limit() == 2);
  answer_with_five(*c.peer, frame.correlation, 6);
  const Result<PeekPage> page = peeked.get();
  REQUIRE(page.ok());
  REQUIRE(page->messages.size() == 1);
  CHECK(page->messages[0].id == "five");
  CHECK(page->messages[0].queue == "orders");
  CHECK(page->messages[0].state == "ready");
  CHECK(page->next == 6);

  auto got = std::async([&] { return c.client->admin().get("orders", 4); });
  const ReceivedFrame get = c.peer->expect(wire::FrameType_Peek);
  answer_with_five(*c.peer, get.correlation, 6);
  const ReceivedFrame asked = c.peer->expect(wire::FrameType_Attempts);
  CHECK(asked.table<wire::Attempts>().sequence() == 4);
  c.peer->error(asked.correlation, ErrorCode::kMessageNotFound, "It is settled.");
  CHECK(got.get().status().code() == ErrorCode::kMessageNotFound);
  CHECK(c.client->admin().peek("orders", 1001).status().code() == ErrorCode::kInvalidArgument);
}

void answer_no_message(FakePeer& peer) {
  peer.list_end(peer.expect(wire::FrameType_Peek).correlation, 0, 0);
}

void answer_held(FakePeer& peer) {
  reply(peer, wire::FrameType_AttemptsInfo, peer.expect(wire::FrameType_Attempts).correlation,
        [](auto& builder) { return wire::CreateAttemptsInfo(builder, 5); });
}

TEST_CASE("a damaged message was said not to be there") {
  FakeBroker broker;
  Connected c(broker);
  const auto begin = [&] {
    auto got = std::async([&] { return c.client->admin().get("orders", 5); });
    answer_no_message(*c.peer);
    answer_held(*c.peer);
    return got;
  };
  auto damaged = begin();
  answer_no_message(*c.peer);
  answer_held(*c.peer);
  CHECK(damaged.get().status().code() == ErrorCode::kMessageCorrupt);

  auto published_meanwhile = begin();
  const ReceivedFrame frame = c.peer->expect(wire::FrameType_Peek);
  answer_with_five(*c.peer, frame.correlation, 0);
  CHECK(published_meanwhile.get().ok());

  auto settled_meanwhile = begin();
  answer_no_message(*c.peer);
  c.peer->error(c.peer->expect(wire::FrameType_Attempts).correlation, ErrorCode::kMessageNotFound,
                "It is settled.");
  CHECK(settled_meanwhile.get().status().code() == ErrorCode::kMessageNotFound);
}

TEST_CASE("the attempts of a message are asked for, also over another connection") {
  FakeBroker broker;
  Connected c(broker);
  auto asked = std::async([&] { return c.client->admin().attempts("orders", 5); });
  CHECK(c.peer->expect(wire::FrameType_Attempts).table<wire::Attempts>().sequence() == 5);
  c.peer->close();
  FakePeer next = broker.accept();
  next.handshake();
  const ReceivedFrame frame = next.expect(wire::FrameType_Attempts);
  CHECK(view(frame.table<wire::Attempts>().queue()) == "orders");
  reply(next, wire::FrameType_AttemptsInfo, frame.correlation, [](auto& builder) {
    const auto consumer = builder.CreateString("worker");
    const std::vector<wire::Attempt> ended{wire::Attempt(1'000, 2'000, 1, wire::Cause_Nacked, 0, 0),
                                           wire::Attempt(3'000, 4'000, 2, 99, 0, 0)};
    const auto attempts = builder.CreateVectorOfStructs(ended);
    const auto consumers = builder.CreateVectorOfStrings({"first", "second"});
    // Fewer than there are attempts.
    const auto errors = builder.CreateVectorOfStrings({"no route"});
    return wire::CreateAttemptsInfo(builder, 5, wire::MessageState_InFlight, 3, consumer, 5'000,
                                    attempts, consumers, errors);
  });
  const Result<AttemptsReport> report = asked.get();
  REQUIRE(report.ok());
  CHECK(report->sequence == 5);
  CHECK(report->state == "in_flight");
  CHECK(report->attempts == 3);
  CHECK(report->consumer == "worker");
  CHECK(report->due_at.time_since_epoch() == std::chrono::seconds(5));
  REQUIRE(report->history.size() == 2);
  CHECK(report->history[0].cause == "nacked");
  CHECK(report->history[0].error == "no route");
  CHECK(report->history[1].cause == "unknown");
  CHECK(report->history[1].consumer == "second");
  CHECK(report->history[1].error.empty());
  CHECK(c.client->admin().attempts("no name", 5).status().code() == ErrorCode::kNameInvalid);
}

TEST_CASE("a redrive that was under way when the connection was lost is not repeated by itself") {
  FakeBroker broker;
  Connected c(broker);
  auto redriven = std::async([&] { return c.client->admin().redrive("orders", {1, 2}); });
  const ReceivedFrame frame = c.peer->expect(wire::FrameType_Redrive);
  CHECK(frame.table<wire::Redrive>().sequences()->size() == 2);
  CHECK_FALSE(frame.table<wire::Redrive>().all());
  c.peer->close();
  CHECK(redriven.get().status().code() == ErrorCode::kConnectionLost);
}

TEST_CASE("a step of a redrive reports what moved and why something did not") {
  FakeBroker broker;
  Connected c(broker);
  auto redriven =
      std::async([&] { return c.client->admin().redrive_all("orders.dead", 10, 256, false, 500); });
  const ReceivedFrame frame = c.peer->expect(wire::FrameType_Redrive);
  CHECK(frame.table<wire::Redrive>().all());
  CHECK(frame.table<wire::Redrive>().from() == 10);
  CHECK(frame.table<wire::Redrive>().to() == 500);
  reply(*c.peer, wire::FrameType_Moved, frame.correlation, [](auto& builder) {
    const auto why = builder.CreateString("The source is full.");
    return wire::CreateMoved(builder, 7, 1, 2, 3, 99,
                             static_cast<std::uint16_t>(ErrorCode::kQueueFull), why, 12);
  });
  const Result<MoveReport> report = redriven.get();
  REQUIRE(report.ok());
  CHECK(report->moved == 7);
  CHECK(report->skipped_in_flight == 1);
  CHECK(report->not_found == 2);
  CHECK(report->not_found_first == 12);
  CHECK(report->refused == 3);
  CHECK(report->next == 99);
  CHECK(report->first_refusal.code() == ErrorCode::kQueueFull);
  CHECK(c.client->admin().redrive("orders", {}).status().code() == ErrorCode::kInvalidArgument);
  CHECK(c.client->admin().discard_all("orders", 0, 257).status().code() ==
        ErrorCode::kInvalidArgument);
}

TEST_CASE("a request that the broker refuses is answered with its error") {
  FakeBroker broker;
  Connected c(broker);
  auto deleted = std::async([&] { return c.client->admin().delete_queue("orders"); });
  c.peer->error(c.peer->expect(wire::FrameType_QueueDelete).correlation, ErrorCode::kQueueNotFound,
                "There is no queue \"orders\".");
  CHECK(deleted.get().code() == ErrorCode::kQueueNotFound);
}

TEST_CASE("a request that is never answered times out") {
  CHECK(holds_given_time([](std::chrono::milliseconds deadline) {
    FakeBroker broker;
    ClientOptions options = quick_options(broker);
    options.timeout = deadline;
    Connected c(broker, options);
    const Status late = c.client->admin().purge_queue("orders").status();
    CHECK(late.code() == ErrorCode::kTimeout);
    CHECK(late.message().find("Purging queue \"orders\"") != std::string::npos);
    return true;
  }));
}

TEST_CASE("an answer of the wrong type is frame_malformed for that request alone") {
  FakeBroker broker;
  Connected c(broker);
  auto status = std::async([&] { return c.client->admin().status(); });
  c.peer->ok(c.peer->expect(wire::FrameType_Status).correlation);
  CHECK(status.get().status().code() == ErrorCode::kFrameMalformed);
  auto again = std::async([&] { return c.client->admin().status(); });
  reply(*c.peer, wire::FrameType_StatusInfo, c.peer->expect(wire::FrameType_Status).correlation,
        [](auto& builder) {
          wire::StatusInfoBuilder info(builder);
          info.add_queues(3);
          info.add_publishes_allowed(false);
          return info.Finish();
        });
  const Result<BrokerReport> report = again.get();
  REQUIRE(report.ok());
  CHECK(report->queues == 3);
  CHECK_FALSE(report->publishes_allowed);
}

}  // namespace holdfast::test
