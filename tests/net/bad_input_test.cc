// Every mistake that a client can make gets its own code and costs nobody else anything: a second
// client publishes through the same broker before and after.

#include <doctest/doctest.h>

#include <functional>
#include <random>

#include "running_broker.h"
#include "support/given_time.h"
#include "support/test_seed.h"

namespace holdfast::test {
namespace {

// A broker with a bystander that must never notice what another client does.
struct WithBystander {
  RunningBroker broker;
  RawClient bystander;
  std::uint32_t queue;
  int published = 0;

  explicit WithBystander(broker::BrokerOptions options = loopback_options())
      : broker(std::move(options)),
        bystander(broker.connect("bystander")),
        queue(bystander.create_queue("q")) {}
  ~WithBystander() { check_bystander(); }
  void check_bystander() {
    ++published;
    CHECK(bystander.publish(queue, "bystander-" + std::to_string(published), "x") > 0);
  }
};

std::vector<std::uint8_t> bytes_of(const FrameWriter& frames) {
  return {frames.data(), frames.data() + frames.size()};
}

FrameWriter ping(std::uint64_t correlation) {
  FrameWriter out;
  out.append_empty(wire::FrameType_Ping, correlation);
  return out;
}

TEST_CASE("garbage instead of a frame ends the connection with frame_malformed") {
  WithBystander with;
  RawClient client = with.broker.connect_silently();
  SUBCASE("another protocol") {
    client.send_text("GET / HTTP/1.1\r\nHost: localhost:7411\r\n\r\n");
    client.expect_fatal(ErrorCode::kFrameMalformed);
  }
  SUBCASE("random bytes, again and again") {
    std::mt19937_64 random(test_seed(7));
    for (int round = 0; round < 50; ++round) {
      RawClient stranger = with.broker.connect_silently();
      std::vector<std::uint8_t> bytes(32 + random() % 2'000);
      for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(random());
      stranger.send_bytes(bytes);
      stranger.expect_fatal(ErrorCode::kFrameMalformed);
    }
  }
  SUBCASE("after the handshake") {
    client.hello();
    client.send_text(std::string(64, 'x'));
    client.expect_fatal(ErrorCode::kFrameMalformed);
  }
}

TEST_CASE("a frame of another header version is refused by name") {
  WithBystander with;
  RawClient client = with.broker.connect_silently();
  std::vector<std::uint8_t> bytes = bytes_of(ping(1));
  bytes[6] = 9;  // the header's version
  const std::uint64_t sum = checksum({bytes.data(), 24});
  std::memcpy(bytes.data() + 24, &sum, sizeof(sum));
  client.send_bytes(bytes);
  client.expect_fatal(ErrorCode::kVersionUnsupported);
}

TEST_CASE("a frame over the limit is refused before its body comes") {
  WithBystander with;
  const auto refuses = [&](wire::FrameType type, std::size_t limit) {
    CAPTURE(wire::EnumNameFrameType(type));
    RawClient client = with.broker.connect();
    std::vector<std::uint8_t> bytes = bytes_of(ping(1));
    const auto length = static_cast<std::uint32_t>(limit + 1);
    std::memcpy(bytes.data(), &length, sizeof(length));
    bytes[4] = type;
    const std::uint64_t sum = checksum({bytes.data(), 24});
    std::memcpy(bytes.data() + 24, &sum, sizeof(sum));
    client.send_bytes(bytes);
    client.expect_fatal(ErrorCode::kFrameTooLarge);
  };
  refuses(wire::FrameType_Publish, kFrameBytesMax);
  refuses(wire::FrameType_Settle, kControlFrameBytesMax);
}

TEST_CASE("a body that does not match its checksum ends the connection") {
  WithBystander with;
  RawClient client = with.broker.connect();
  flatbuffers::FlatBufferBuilder builder;
  builder.Finish(wire::CreateQueueOpen(builder, builder.CreateString("q")));
  FrameWriter frame;
  frame.append(wire::FrameType_QueueOpen, 1, {builder.GetBufferPointer(), builder.GetSize()});
  std::vector<std::uint8_t> bytes = bytes_of(frame);
  bytes[40] ^= 1;
  client.send_bytes(bytes);
  client.expect_fatal(ErrorCode::kFrameChecksum);
}

TEST_CASE("a body that is no such table ends the connection with frame_malformed") {
  WithBystander with;
  const std::vector<std::uint8_t> nonsense(64, 0xff);
  for (const wire::FrameType type : wire::EnumValuesFrameType()) {
    const bool has_table =
        type == wire::FrameType_Subscribe || type == wire::FrameType_Settle ||
        type == wire::FrameType_Extend || type == wire::FrameType_Credit ||
        type == wire::FrameType_Unsubscribe || type == wire::FrameType_QueueOpen ||
        type == wire::FrameType_QueueCreate || type == wire::FrameType_QueueEdit ||
        type == wire::FrameType_QueueDelete || type == wire::FrameType_QueuePurge ||
        type == wire::FrameType_QueueList || type == wire::FrameType_Peek ||
        type == wire::FrameType_Attempts || type == wire::FrameType_Redrive ||
        type == wire::FrameType_Discard || type == wire::FrameType_ConsumerList ||
        type == wire::FrameType_ConnectionList || type == wire::FrameType_Goodbye;
    const bool has_none = type == wire::FrameType_Ping || type == wire::FrameType_Status;
    if (!has_table && !has_none) continue;
    CAPTURE(wire::EnumNameFrameType(type));
    RawClient client = with.broker.connect();
    FrameWriter frame;
    frame.append(type, 1, nonsense);
    client.send(frame);
    client.expect_fatal(ErrorCode::kFrameMalformed);
  }
  RawClient client = with.broker.connect_silently();
  FrameWriter frame;
  frame.append(wire::FrameType_Hello, 1, nonsense);
  client.send(frame);
  client.expect_fatal(ErrorCode::kFrameMalformed);
}

TEST_CASE("a frame at the wrong time ends the connection with protocol_violation") {
  WithBystander with;
  RawClient client = with.broker.connect_silently();
  SUBCASE("before Hello") { client.send(ping(1)); }
  SUBCASE("Hello twice") {
    client.hello();
    client.send_hello(1, 1, "again", 0);
  }
  SUBCASE("one that only the broker sends") {
    client.hello();
    client.send_empty(wire::FrameType_Confirm, 1);
  }
  SUBCASE("one that nobody knows") {
    client.hello();
    client.send_empty(static_cast<wire::FrameType>(200), 1);
  }
  SUBCASE("a request without a correlation") {
    client.hello();
    client.send_empty(wire::FrameType_Status, 0);
  }
  client.expect_fatal(ErrorCode::kProtocolViolation);
}

TEST_CASE("a Publish frame without a well-formed message ends the connection") {
  WithBystander with;
  RawClient client = with.broker.connect();
  SUBCASE("no room for the envelope") {
    FrameWriter frame;
    frame.append(wire::FrameType_Publish, 1, std::vector<std::uint8_t>(8, 0));
    client.send(frame);
  }
  SUBCASE("no table") {
    client.send(publish_frame(1, with.queue, std::vector<std::uint8_t>(64, 0xff)));
  }
  SUBCASE("no id") {
    flatbuffers::FlatBufferBuilder builder;
    const auto start = builder.StartTable();
    builder.Finish(flatbuffers::Offset<wire::Message>(builder.EndTable(start)));
    client.send(publish_frame(1, with.queue, {builder.GetBufferPointer(), builder.GetSize()}));
  }
  client.expect_fatal(ErrorCode::kFrameMalformed);
}

TEST_CASE("a message damaged on its way is refused, and its connection lives") {
  WithBystander with;
  RawClient client = with.broker.connect();
  std::vector<std::uint8_t> bytes =
      bytes_of(publish_frame(7, with.queue, message_bytes("m", "the body of the message")));
  bytes[bytes.size() - 20] ^= 1;
  client.send_bytes(bytes);
  client.expect_error(ErrorCode::kMessageCorrupt, 7);
  CHECK(client.publish(with.queue, "m", "the body of the message") == 1);
}

// A message of these fields, published to the bystander's queue; the answer must be this error.
void expect_refused(
    WithBystander& with, ErrorCode code,
    const std::function<flatbuffers::Offset<wire::Message>(flatbuffers::FlatBufferBuilder&)>&
        build) {
  RawClient client = with.broker.connect();
  flatbuffers::FlatBufferBuilder builder;
  builder.Finish(build(builder));
  client.send(publish_frame(3, with.queue, {builder.GetBufferPointer(), builder.GetSize()}));
  client.expect_error(code, 3);
  CHECK(client.publish(with.queue, "good", "x") >= 1);
}

TEST_CASE(
    "a message that breaks a rule is refused with the rule's code, and its connection lives") {
  WithBystander with;
  using Builder = flatbuffers::FlatBufferBuilder;
  const auto with_id = [](std::string id) {
    return
        [id](Builder& builder) { return wire::CreateMessage(builder, builder.CreateString(id)); };
  };
  const auto with_headers = [](std::vector<std::string> headers) {
    return [headers](Builder& builder) {
      const auto id = builder.CreateString("m");
      const auto vector = builder.CreateVectorOfStrings(headers);
      return wire::CreateMessage(builder, id, 0, vector);
    };
  };
  SUBCASE("an empty id") { expect_refused(with, ErrorCode::kMessageIdInvalid, with_id("")); }
  SUBCASE("an id of 129 bytes") {
    expect_refused(with, ErrorCode::kMessageIdInvalid, with_id(std::string(129, 'i')));
  }
  SUBCASE("an id that is no UTF-8") {
    expect_refused(with, ErrorCode::kMessageIdInvalid, with_id("\xc3\x28"));
  }
  SUBCASE("a header name without its value") {
    expect_refused(with, ErrorCode::kInvalidArgument, with_headers({"name"}));
  }
  SUBCASE("a header without a name") {
    expect_refused(with, ErrorCode::kInvalidArgument, with_headers({"", "value"}));
  }
  SUBCASE("a header that is no UTF-8") {
    expect_refused(with, ErrorCode::kInvalidArgument, with_headers({"name", "\xff"}));
  }
  SUBCASE("65 headers") {
    expect_refused(with, ErrorCode::kHeadersTooLarge,
                   with_headers(std::vector<std::string>(130, "x")));
  }
  SUBCASE("headers of more than 16 KiB") {
    expect_refused(with, ErrorCode::kHeadersTooLarge,
                   with_headers({"name", std::string(16 * 1024, 'v')}));
  }
  SUBCASE("a key") {
    expect_refused(with, ErrorCode::kNotSupported, [](Builder& builder) {
      const auto id = builder.CreateString("m");
      const auto key = builder.CreateString("k");
      return wire::CreateMessage(builder, id, 0, 0, key);
    });
  }
  SUBCASE("a time of delivery") {
    expect_refused(with, ErrorCode::kNotSupported, [](Builder& builder) {
      return wire::CreateMessage(builder, builder.CreateString("m"), 0, 0, 0, 5);
    });
  }
  SUBCASE("a body over the queue's limit") {
    expect_refused(with, ErrorCode::kMessageTooLarge, [](Builder& builder) {
      const auto id = builder.CreateString("m");
      const auto body = builder.CreateVector(std::vector<std::uint8_t>((1 << 20) + 1));
      return wire::CreateMessage(builder, id, body);
    });
  }
}

TEST_CASE("128 bytes of id, 64 headers and 16 KiB of them are not too much") {
  RunningBroker broker;
  RawClient client = broker.connect();
  const std::uint32_t queue = client.create_queue("q");
  flatbuffers::FlatBufferBuilder builder;
  std::vector<std::string> headers(128, std::string(128, 'h'));
  const auto id = builder.CreateString(std::string(128, 'i'));
  const auto vector = builder.CreateVectorOfStrings(headers);
  builder.Finish(wire::CreateMessage(builder, id, 0, vector));
  client.send(publish_frame(3, queue, {builder.GetBufferPointer(), builder.GetSize()}));
  CHECK(client.expect(wire::FrameType_Confirm).correlation == 3);
}

TEST_CASE("a request with a wrong value is refused with its code, and the connection lives") {
  WithBystander with;
  RawClient client = with.broker.connect();
  auto& builder = client.builder();
  const std::string long_name(129, 'n');
  ErrorCode expected = ErrorCode::kInvalidArgument;
  const auto ranges = [&](const std::vector<wire::SequenceRange>& values) {
    return builder.CreateVectorOfStructs(values);
  };
  const auto settle = [&](std::uint8_t kind, const std::vector<wire::SequenceRange>& values,
                          std::string_view reason = "", std::int64_t delay_ms = -1) {
    const auto vector = ranges(values);
    const auto text = builder.CreateString(reason);
    client.send_table(wire::FrameType_Settle, 4,
                      wire::CreateSettle(builder, 1, kind, vector, text, delay_ms));
  };
  SUBCASE("an unknown queue to publish to") {
    expected = ErrorCode::kQueueNotFound;
    client.send_publish(4, 4'242, "m", "x");
  }
  SUBCASE("an unknown queue to open") {
    expected = ErrorCode::kQueueNotFound;
    client.send_table(wire::FrameType_QueueOpen, 4,
                      wire::CreateQueueOpen(builder, builder.CreateString("nowhere")));
  }
  SUBCASE("a queue name that is too long") {
    expected = ErrorCode::kNameInvalid;
    client.send_table(wire::FrameType_QueueCreate, 4,
                      wire::CreateQueueCreate(builder, builder.CreateString(long_name)));
  }
  SUBCASE("a queue name with forbidden letters") {
    expected = ErrorCode::kNameInvalid;
    client.send_table(wire::FrameType_QueueCreate, 4,
                      wire::CreateQueueCreate(builder, builder.CreateString("a/b c")));
  }
  SUBCASE("no queue name") {
    expected = ErrorCode::kNameInvalid;
    client.send_table(wire::FrameType_QueueCreate, 4, wire::CreateQueueCreate(builder));
  }
  SUBCASE("a queue that exists") {
    expected = ErrorCode::kQueueExists;
    client.send_table(wire::FrameType_QueueCreate, 4,
                      wire::CreateQueueCreate(builder, builder.CreateString("q")));
  }
  SUBCASE("an unknown setting") {
    const std::vector<wire::SettingValue> values = {{99, 0, 0, 1}};
    const auto name = builder.CreateString("r");
    const auto settings = builder.CreateVectorOfStructs(values);
    client.send_table(wire::FrameType_QueueCreate, 4,
                      wire::CreateQueueCreate(builder, name, settings));
  }
  SUBCASE("a setting named twice") {
    const std::vector<wire::SettingValue> values = {{2, 0, 0, 1}, {2, 0, 0, 2}};
    const auto name = builder.CreateString("r");
    const auto settings = builder.CreateVectorOfStructs(values);
    client.send_table(wire::FrameType_QueueCreate, 4,
                      wire::CreateQueueCreate(builder, name, settings));
  }
  SUBCASE("a setting out of its bounds") {
    const std::vector<wire::SettingValue> values = {
        {static_cast<std::uint16_t>(QueueSetting::kLease), 0, 0, ~0ull}};
    const auto name = builder.CreateString("q");
    const auto settings = builder.CreateVectorOfStructs(values);
    client.send_table(wire::FrameType_QueueEdit, 4, wire::CreateQueueEdit(builder, name, settings));
  }
  SUBCASE("too much credit") {
    client.send_table(wire::FrameType_Subscribe, 4,
                      wire::CreateSubscribe(builder, builder.CreateString("q"), 0, 0, 65'537));
  }
  SUBCASE("a consumer name that is no UTF-8") {
    expected = ErrorCode::kNameInvalid;
    const auto queue = builder.CreateString("q");
    const auto name = builder.CreateString("\xff");
    client.send_table(wire::FrameType_Subscribe, 4,
                      wire::CreateSubscribe(builder, queue, 0, name, 1));
  }
  SUBCASE("a lease out of bounds") {
    client.send_table(
        wire::FrameType_Subscribe, 4,
        wire::CreateSubscribe(builder, builder.CreateString("q"), 0, 0, 1, 0, 0xffff'ffff));
  }
  SUBCASE("a subscription that does not exist") {
    expected = ErrorCode::kNotSupported;
    const auto queue = builder.CreateString("q");
    const auto name = builder.CreateString("other");
    client.send_table(wire::FrameType_Subscribe, 4,
                      wire::CreateSubscribe(builder, queue, name, 0, 1));
    const RawFrame frame = client.expect(wire::FrameType_Error);
    CHECK_FALSE(frame.table<wire::Error>().fatal());
    CHECK(frame.correlation == 4);
    return;
  }
  SUBCASE("a consumer that is not there") {
    expected = ErrorCode::kConsumerNotFound;
    settle(wire::SettleKind_Ack, {{1, 1}});
  }
  SUBCASE("no way to settle") { settle(9, {{1, 1}}); }
  SUBCASE("no ranges") { settle(wire::SettleKind_Ack, {}); }
  SUBCASE("a range from zero") { settle(wire::SettleKind_Ack, {{0, 1}}); }
  SUBCASE("a range that runs backwards") { settle(wire::SettleKind_Ack, {{5, 4}}); }
  SUBCASE("ranges that overlap") { settle(wire::SettleKind_Ack, {{1, 5}, {5, 6}}); }
  SUBCASE("ranges over too many sequences") { settle(wire::SettleKind_Ack, {{1, 65'537}}); }
  SUBCASE("ranges over all sequences there are") {
    settle(wire::SettleKind_Ack, {{1, 2}, {3, ~0ull}});
  }
  SUBCASE("a reason that is too long") {
    settle(wire::SettleKind_Nack, {{1, 1}}, std::string(1'025, 'r'));
  }
  SUBCASE("a delay with an ack") { settle(wire::SettleKind_Ack, {{1, 1}}, "", 5); }
  SUBCASE("a delay of eight days") {
    settle(wire::SettleKind_Nack, {{1, 1}}, "", 8LL * 86'400'000);
  }
  SUBCASE("peeking at nothing") { client.send_peek(4, "q", 0, 0); }
  SUBCASE("peeking at too much") { client.send_peek(4, "q", 0, 1'001); }
  SUBCASE("moving nothing") {
    client.send_table(wire::FrameType_Redrive, 4,
                      wire::CreateRedrive(builder, builder.CreateString("q")));
  }
  SUBCASE("moving too many") {
    const auto queue = builder.CreateString("q");
    const auto sequences = builder.CreateVector(std::vector<std::uint64_t>(257, 1));
    client.send_table(wire::FrameType_Discard, 4, wire::CreateDiscard(builder, queue, sequences));
  }
  SUBCASE("moving all and some") {
    const auto queue = builder.CreateString("q");
    const auto sequences = builder.CreateVector(std::vector<std::uint64_t>(2, 1));
    client.send_table(wire::FrameType_Redrive, 4,
                      wire::CreateRedrive(builder, queue, sequences, true, 0, 10));
  }
  client.expect_error(expected, 4);
  CHECK(client.publish(with.queue, "afterwards", "x") >= 1);
}

TEST_CASE("a client name that is too long ends the handshake") {
  WithBystander with;
  RawClient client = with.broker.connect_silently();
  client.send_hello(1, 1, std::string(129, 'n'), 0);
  client.expect_fatal(ErrorCode::kNameInvalid);
}

TEST_CASE("a connection without Hello is closed at its deadline") {
  std::string said;
  SUBCASE("saying nothing") {}
  SUBCASE("with half a frame") { said = "only a few bytes"; }
  CHECK(holds_given_time([&said](Milliseconds deadline) {
    broker::BrokerOptions options = loopback_options();
    options.deadlines.handshake = deadline;
    WithBystander with(options);
    RawClient client = with.broker.connect_silently();
    client.send_text(said);
    client.expect_fatal(ErrorCode::kDeadlineExceeded);
    return true;
  }));
}

TEST_CASE("half a frame is closed at its deadline, whole ones before it count") {
  broker::BrokerOptions options = loopback_options();
  options.deadlines.frame = Milliseconds(30);
  WithBystander with(options);
  RawClient client = with.broker.connect();
  std::vector<std::uint8_t> bytes = bytes_of(ping(1));
  const std::vector<std::uint8_t> half =
      bytes_of(publish_frame(2, with.queue, message_bytes("m", "never complete")));
  bytes.insert(bytes.end(), half.begin(), half.begin() + 50);
  client.send_bytes(bytes);
  CHECK(client.expect(wire::FrameType_Pong).correlation == 1);
  client.expect_fatal(ErrorCode::kDeadlineExceeded);
}

TEST_CASE("frames that come byte by byte are frames") {
  RunningBroker broker;
  RawClient client = broker.connect();
  const std::uint32_t queue = client.create_queue("q");
  for (const std::uint8_t byte : bytes_of(publish_frame(8, queue, message_bytes("m", "slowly")))) {
    client.send_bytes({&byte, 1});
  }
  CHECK(client.expect(wire::FrameType_Confirm).correlation == 8);
}

// Its delivery would be longer than a frame: whoever got it would lose its connection, again and
// again.
TEST_CASE("a message with many bytes around its body is refused, however small that is") {
  WithBystander with;
  RawClient client = with.broker.connect();
  for (const std::size_t padding : {std::size_t{70'000}, std::size_t{16u << 20}}) {
    std::vector<std::uint8_t> message = message_bytes("m", "small");
    message.resize(message.size() + padding);
    client.send_bytes(bytes_of(publish_frame(8, with.queue, message)));
    client.expect_error(ErrorCode::kMessageTooLarge, 8);
  }
  CHECK(client.publish(with.queue, "afterwards", "x") >= 1);
}

TEST_CASE("a message of the largest size is taken where the queue allows it") {
  RunningBroker broker;
  RawClient client = broker.connect();
  const std::uint32_t queue =
      client.create_queue("q", {{QueueSetting::kMaxMessageBytes, 16u << 20}});
  CHECK(client.publish(queue, "large", std::string(16u << 20, 'x')) == 1);
  client.subscribe("q", 1);
  const RawFrame frame = client.expect(wire::FrameType_Deliver);
  const auto delivery = read_deliver(frame.frame());
  REQUIRE(delivery.ok());
  CHECK(delivery->message->body()->size() == 16u << 20);
}

}  // namespace
}  // namespace holdfast::test
