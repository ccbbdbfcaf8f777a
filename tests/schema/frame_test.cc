#include "schema/frame.h"

#include <doctest/doctest.h>

#include <array>
#include <chrono>
#include <random>
#include <string>
#include <vector>

#include "support/test_seed.h"

namespace holdfast {

namespace {

using Bytes = std::vector<std::uint8_t>;

Bytes bytes_of(const flatbuffers::FlatBufferBuilder& builder) {
  return {builder.GetBufferPointer(), builder.GetBufferPointer() + builder.GetSize()};
}

Bytes bytes_of(const FrameWriter& writer) { return {writer.data(), writer.data() + writer.size()}; }

Bytes message(std::string_view id, std::string_view body) {
  flatbuffers::FlatBufferBuilder builder;
  const auto id_string = builder.CreateString(id.data(), id.size());
  const auto body_vector =
      builder.CreateVector(reinterpret_cast<const std::uint8_t*>(body.data()), body.size());
  const auto headers = builder.CreateVectorOfStrings({"name", "value"});
  builder.Finish(wire::CreateMessage(builder, id_string, body_vector, headers));
  return bytes_of(builder);
}

Bytes provenance(std::string_view source) {
  flatbuffers::FlatBufferBuilder builder;
  const auto name = builder.CreateString(source.data(), source.size());
  wire::ProvenanceBuilder table(builder);
  table.add_source(name);
  builder.Finish(table.Finish());
  return bytes_of(builder);
}

Bytes queue_open(std::string_view name) {
  flatbuffers::FlatBufferBuilder builder;
  builder.Finish(wire::CreateQueueOpen(builder, builder.CreateString(name.data(), name.size())));
  return bytes_of(builder);
}

wire::DeliverEnvelope envelope_for(const Bytes& message_bytes, const Bytes& provenance_bytes) {
  return {3,
          42,
          checksum(message_bytes),
          1'000,
          provenance_bytes.empty() ? 0 : checksum(provenance_bytes),
          static_cast<std::uint32_t>(message_bytes.size()),
          static_cast<std::uint32_t>(provenance_bytes.size()),
          2,
          30'000,
          7,
          wire::MessageState_Waiting,
          0,
          0};
}

void feed(FrameReader& reader, ByteSpan bytes) {
  const auto room = reader.prepare(bytes.size());
  REQUIRE(room.size() >= bytes.size());
  std::memcpy(room.data(), bytes.data(), bytes.size());
  reader.commit(bytes.size());
}

Frame expect_frame(FrameReader& reader) {
  const Result<std::optional<Frame>> next = reader.next();
  REQUIRE_MESSAGE(next.ok(), next.status().to_string());
  REQUIRE(next->has_value());
  CHECK(reinterpret_cast<std::uintptr_t>((*next)->body.data()) % kFrameAlignment == 0);
  return **next;
}

bool has_envelope(wire::FrameType type) {
  return type == wire::FrameType_Publish || type == wire::FrameType_Deliver ||
         type == wire::FrameType_PeekItem;
}

// A stream with every type of frame in it, correlations counting from 1.
FrameWriter every_frame() {
  FrameWriter writer;
  const Bytes text = message("id", "body");
  const Bytes story = provenance("orders");
  for (const wire::FrameType type : wire::EnumValuesFrameType()) {
    const auto correlation = static_cast<std::uint64_t>(type) + 1;
    if (type == wire::FrameType_Publish) {
      writer.append_publish(correlation, wire::PublishEnvelope(7, 0, checksum(text)), text);
    } else if (has_envelope(type)) {
      const bool dead = type == wire::FrameType_PeekItem;
      const Bytes& tail = dead ? story : Bytes();
      writer.append_deliver(type, correlation, envelope_for(text, tail), text, tail);
    } else if (type % 2 == 0) {
      writer.append_empty(type, correlation);
    } else {
      writer.append(type, correlation, queue_open("orders"));
    }
  }
  return writer;
}

void check_frame(const Frame& frame, wire::FrameType type) {
  CHECK(frame.type == type);
  CHECK(frame.correlation == static_cast<std::uint64_t>(type) + 1);
  if (type == wire::FrameType_Publish) {
    const Result<PublishFrame> publish = read_publish(frame);
    REQUIRE(publish.ok());
    CHECK(publish->queue == 7);
    CHECK(view(publish->message->id()) == "id");
  } else if (has_envelope(type)) {
    const Result<DeliverFrame> deliver = read_deliver(frame);
    REQUIRE(deliver.ok());
    CHECK(deliver->envelope.sequence() == 42);
    CHECK(deliver->envelope.attempt() == 2);
    CHECK(view(deliver->message->id()) == "id");
    CHECK((deliver->provenance != nullptr) == (type == wire::FrameType_PeekItem));
    if (deliver->provenance != nullptr) CHECK(view(deliver->provenance->source()) == "orders");
  } else if (type % 2 == 0) {
    CHECK(frame.body.empty());
  } else {
    const auto* table = read_table<wire::QueueOpen>(frame.body);
    REQUIRE(table != nullptr);
    CHECK(view(table->name()) == "orders");
  }
}

// A frame header that announces what a test wants, with a checksum that holds.
Bytes header(std::uint32_t length, std::uint8_t flags, std::uint16_t version,
             wire::FrameType type = wire::FrameType_Ok) {
  wire::FrameHeader plain(length, type, flags, version, 1, checksum({}), 0);
  Bytes bytes(sizeof(plain));
  std::memcpy(bytes.data(), &plain, sizeof(plain));
  const std::uint64_t sum = checksum(ByteSpan(bytes).first(24));
  std::memcpy(bytes.data() + 24, &sum, sizeof(sum));
  return bytes;
}

ErrorCode code_of(const Bytes& stream, std::size_t body_bytes_max = kControlFrameBytesMax) {
  FrameReader reader(body_bytes_max);
  feed(reader, stream);
  for (;;) {
    const Result<std::optional<Frame>> next = reader.next();
    if (!next.ok()) return next.status().code();
    if (!next->has_value()) return ErrorCode::kOk;
  }
}

}  // namespace

TEST_CASE("frames of every type come out as they went in") {
  const FrameWriter writer = every_frame();
  FrameReader reader(kFrameBytesMax);
  feed(reader, bytes_of(writer));
  for (const wire::FrameType type : wire::EnumValuesFrameType()) {
    CAPTURE(wire::EnumNameFrameType(type));
    check_frame(expect_frame(reader), type);
  }
  CHECK_FALSE(reader.next()->has_value());
  CHECK(reader.pending_bytes() == 0);
}

TEST_CASE("frames come out of bytes that arrive one by one") {
  const Bytes stream = bytes_of(every_frame());
  FrameReader reader(kFrameBytesMax);
  std::size_t frames = 0;
  const auto& types = wire::EnumValuesFrameType();
  for (const std::uint8_t byte : stream) {
    feed(reader, {&byte, 1});
    const Result<std::optional<Frame>> next = reader.next();
    REQUIRE(next.ok());
    if (next->has_value()) check_frame(**next, types[frames++]);
  }
  CHECK(frames == std::size(types));
  CHECK(reader.pending_bytes() == 0);
}

TEST_CASE("frames come out of pieces of any size") {
  std::mt19937 random(test::test_seed());
  const Bytes stream = bytes_of(every_frame());
  const auto& types = wire::EnumValuesFrameType();
  for (int round = 0; round < 200; ++round) {
    FrameReader reader(kFrameBytesMax);
    std::size_t frames = 0;
    for (std::size_t at = 0; at < stream.size();) {
      const std::size_t count = std::min<std::size_t>(
          stream.size() - at, std::uniform_int_distribution<std::size_t>(1, 400)(random));
      feed(reader, ByteSpan(stream).subspan(at, count));
      at += count;
      for (;;) {
        const Result<std::optional<Frame>> next = reader.next();
        REQUIRE(next.ok());
        if (!next->has_value()) break;
        check_frame(**next, types[frames++]);
      }
    }
    REQUIRE(frames == std::size(types));
  }
}

TEST_CASE(
    "a large message makes the reader grow with it, and an idle reader gives its memory back") {
  const Bytes large = message("large", std::string(3u << 20, 'x'));
  FrameWriter writer;
  writer.append_publish(9, wire::PublishEnvelope(1, 0, checksum(large)), large);
  FrameReader reader(kFrameBytesMax);
  const Bytes stream = bytes_of(writer);
  for (std::size_t at = 0; at < stream.size(); at += 65'536) {
    CHECK_FALSE(reader.next()->has_value());
    feed(reader, ByteSpan(stream).subspan(at, std::min<std::size_t>(65'536, stream.size() - at)));
  }
  const Frame frame = expect_frame(reader);
  CHECK(read_publish(frame)->message->body()->size() == 3u << 20);
  reader.shrink();
  CHECK(reader.prepare(1).size() <= 4096);
}

TEST_CASE(
    "a frame that is put back comes once more, and a buffer that is nearly empty is given back") {
  FrameWriter writer;
  const std::vector<std::uint8_t> body(60'000, 7);
  for (std::uint64_t n = 1; n <= 2; ++n) writer.append(wire::FrameType_Hello, n, body);
  FrameReader reader(kFrameBytesMax);
  const auto room = reader.prepare(writer.size());
  std::copy_n(writer.data(), writer.size() - 1, room.begin());
  reader.commit(writer.size() - 1);
  const Frame first = **reader.next();
  reader.put_back(first);
  reader.fit();  // much is in it
  CHECK(reader.buffer_bytes() >= writer.size());
  CHECK((*reader.next())->correlation == 1);
  CHECK_FALSE(reader.next()->has_value());

  FrameReader other(kFrameBytesMax);
  const auto large = other.prepare(100'000);
  std::copy_n(writer.data(), 100, large.begin());
  other.commit(100);
  other.fit();
  CHECK(other.buffer_bytes() == 4'096);
  const auto rest = other.prepare(writer.size() - 100);
  std::copy_n(writer.data() + 100, writer.size() - 100, rest.begin());
  other.commit(writer.size() - 100);
  for (std::uint64_t n = 1; n <= 2; ++n) CHECK((*other.next())->correlation == n);
  other.fit();
  CHECK(other.buffer_bytes() == 0);
}

TEST_CASE("bytes that are no frame are frame_malformed") {
  CHECK(code_of(Bytes(32, 0)) == ErrorCode::kFrameMalformed);
  const std::string http = "GET / HTTP/1.1\r\nHost: broker.example\r\n\r\n";
  CHECK(code_of(Bytes(http.begin(), http.end())) == ErrorCode::kFrameMalformed);
  CHECK(code_of(Bytes(31, 0xff)) == ErrorCode::kOk);  // not yet a whole header
}

TEST_CASE("a length beyond the limit, another version and unknown flags are refused by name") {
  CHECK(code_of(header(kControlFrameBytesMax, 0, 1)) == ErrorCode::kOk);  // its body may come
  CHECK(code_of(header(kControlFrameBytesMax + 1, 0, 1)) == ErrorCode::kFrameTooLarge);
  CHECK(code_of(header(0xffffffff, 0, 1)) == ErrorCode::kFrameTooLarge);
  CHECK(code_of(header(0, 0, 2)) == ErrorCode::kVersionUnsupported);
  CHECK(code_of(header(0, 1, 1)) == ErrorCode::kFrameMalformed);
}

TEST_CASE("a body of more than 64 KiB without a message was waited for, and then malformed") {
  constexpr auto kMore = static_cast<std::uint32_t>(kControlFrameBytesMax + 1);
  for (int type = 0; type <= 255; ++type) {
    CAPTURE(type);
    const bool has_message = type == wire::FrameType_Publish || type == wire::FrameType_Deliver ||
                             type == wire::FrameType_PeekItem;
    const Bytes begun = header(kMore, 0, 1, static_cast<wire::FrameType>(type));
    CHECK(code_of(begun, kFrameBytesMax) ==
          (has_message ? ErrorCode::kOk : ErrorCode::kFrameTooLarge));
  }
}

TEST_CASE("a flipped bit anywhere but in the padding is noticed") {
  const Bytes text = message("id", "body of the message");
  const Bytes story = provenance("orders");
  FrameWriter control;
  control.append(wire::FrameType_QueueOpen, 5, queue_open("a name that has some length"));
  FrameWriter publish;
  publish.append_publish(6, wire::PublishEnvelope(7, 0, checksum(text)), text);
  FrameWriter deliver;
  deliver.append_deliver(wire::FrameType_Deliver, 0, envelope_for(text, story), text, story);
  for (const FrameWriter* writer : {&control, &publish, &deliver}) {
    const Bytes whole = bytes_of(*writer);
    wire::FrameHeader intact = *reinterpret_cast<const wire::FrameHeader*>(whole.data());
    // Between a message and its provenance lie up to 7 bytes of padding as well.
    const std::size_t padding_at = kFrameHeaderBytes + sizeof(wire::DeliverEnvelope) + text.size();
    for (std::size_t bit = 0; bit < (kFrameHeaderBytes + intact.length()) * 8; ++bit) {
      if (writer == &deliver && bit / 8 >= padding_at &&
          bit / 8 < kFrameHeaderBytes + sizeof(wire::DeliverEnvelope) + padded(text.size(), 8)) {
        continue;
      }
      CAPTURE(bit);
      Bytes damaged = whole;
      damaged[bit / 8] = static_cast<std::uint8_t>(damaged[bit / 8] ^ (1 << (bit % 8)));
      FrameReader reader(kFrameBytesMax);
      feed(reader, damaged);
      const Result<std::optional<Frame>> next = reader.next();
      if (!next.ok()) continue;
      REQUIRE(next->has_value());
      // What the frame's checksums leave out, the message's own cover.
      const Frame& frame = **next;
      const bool noticed =
          frame.type == wire::FrameType_Publish
              ? read_publish(frame).status().code() == ErrorCode::kMessageCorrupt
              : frame.type == wire::FrameType_Deliver &&
                    read_deliver(frame).status().code() == ErrorCode::kMessageCorrupt;
      CHECK(noticed);
    }
  }
}

TEST_CASE("envelopes without room or with lengths that do not fit are frame_malformed") {
  const Bytes text = message("id", "body");
  Bytes body(sizeof(wire::DeliverEnvelope) - 1);
  CHECK(read_deliver({wire::FrameType_Deliver, 0, body}).status().code() ==
        ErrorCode::kFrameMalformed);
  CHECK(read_publish({wire::FrameType_Publish, 0, ByteSpan(body).first(15)}).status().code() ==
        ErrorCode::kFrameMalformed);
  for (const auto& [message_length, provenance_length] :
       {std::pair<std::uint32_t, std::uint32_t>{0xffffffff, 0},
        {0, 0xffffffff},
        {16, 16},
        {0xfffffff8, 0xfffffff8},
        {0, 0}}) {
    const wire::DeliverEnvelope envelope(1, 1, 0, 0, 0, message_length, provenance_length, 1, 1, 1,
                                         0, 0, 0);
    Bytes frame(sizeof(envelope) + text.size());
    std::memcpy(frame.data(), &envelope, sizeof(envelope));
    CHECK(read_deliver({wire::FrameType_Deliver, 0, frame}).status().code() ==
          ErrorCode::kFrameMalformed);
  }
}

TEST_CASE("a message whose checksum holds but that is no Message table is frame_malformed") {
  for (const Bytes& nonsense : {Bytes(), Bytes(4, 0), Bytes(64, 0xff), queue_open("x")}) {
    FrameWriter writer;
    writer.append_publish(1, wire::PublishEnvelope(1, 0, checksum(nonsense)), nonsense);
    FrameReader reader(kFrameBytesMax);
    feed(reader, bytes_of(writer));
    const Result<PublishFrame> read = read_publish(expect_frame(reader));
    // A QueueOpen looks like a Message with only an id: the shape is all that is verified.
    if (nonsense.size() > 8 && nonsense[0] != 0xff) {
      CHECK(read.ok());
    } else {
      CHECK(read.status().code() == ErrorCode::kFrameMalformed);
    }
  }
}

TEST_CASE("a table that is damaged in any byte is refused or read within its bounds") {
  std::mt19937 random(test::test_seed());
  const Bytes whole = message("some id", "some body");
  for (int round = 0; round < 20'000; ++round) {
    Bytes damaged = whole;
    for (int i = 0; i < 3; ++i)
      damaged[random() % damaged.size()] = static_cast<std::uint8_t>(random());
    const wire::Message* read = read_message(damaged);
    if (read == nullptr) continue;
    // Everything that can be reached lies in the buffer: a sanitizer would tell.
    std::size_t reached = read->id()->size();
    if (read->body() != nullptr) {
      for (const std::uint8_t byte : *read->body()) reached += byte;
    }
    if (read->headers() != nullptr) {
      for (const auto* text : *read->headers()) reached += text->size();
    }
    CHECK(reached < (1u << 30));
  }
}

TEST_CASE("a hostile message that shares its strings a million times is verified in passing") {
  // One vector with a million offsets to one long string: as large as verifying can get for its
  // bytes.
  flatbuffers::FlatBufferBuilder builder(8u << 20);
  const auto id = builder.CreateString("id");
  const auto shared = builder.CreateString(std::string(1u << 20, 's'));
  const std::vector<flatbuffers::Offset<flatbuffers::String>> offsets(1'000'000, shared);
  const auto headers = builder.CreateVector(offsets);
  builder.Finish(wire::CreateMessage(builder, id, 0, headers));
  const Bytes hostile = bytes_of(builder);
  const auto begin = std::chrono::steady_clock::now();
  CHECK(read_message(hostile) != nullptr);
  const auto passed = std::chrono::steady_clock::now() - begin;
  // Measured at a few milliseconds; sharing tables in vectors of tables would take many seconds.
  CHECK(passed < std::chrono::milliseconds(1'500));
}

TEST_CASE("control frames beyond their bound are not even verified") {
  CHECK(read_table<wire::QueueOpen>(queue_open(std::string(kControlFrameBytesMax, 'q'))) ==
        nullptr);
  CHECK(read_table<wire::QueueOpen>(Bytes(7)) == nullptr);
  CHECK(read_table<wire::QueueOpen>({}) == nullptr);
}

TEST_CASE("what a writer releases leaves it empty and usable") {
  FrameWriter writer;
  writer.append_empty(wire::FrameType_Ping, 1);
  const auto [memory, bytes] = writer.release();
  CHECK(bytes == kFrameHeaderBytes);
  CHECK(writer.empty());
  writer.append_empty(wire::FrameType_Pong, 2);
  CHECK(writer.size() == kFrameHeaderBytes);
}

TEST_CASE("a vector whose elements are not aligned is no table that is read") {
  // A Discard whose `sequences` begin at byte 28, or at byte 32.
  const auto discard = [](std::uint8_t vector_at, std::uint8_t count) {
    alignas(16) static std::array<std::uint8_t, 40> bytes;
    bytes = {12, 0, 0, 0, 8, 0, 8, 0, 0, 0, 4, 0, 8, 0, 0, 0};
    bytes[16] = static_cast<std::uint8_t>(vector_at - 16);
    bytes[vector_at] = count;
    bytes[vector_at + 4u] = 7;
    return read_table<wire::Discard>(bytes);
  };
  CHECK(discard(24, 1) == nullptr);
  CHECK(discard(24, 0) != nullptr);  // a builder aligns no empty one
  const wire::Discard* const aligned = discard(28, 1);
  REQUIRE(aligned != nullptr);
  CHECK(aligned->sequences()->Get(0) == 7);
}

}  // namespace holdfast
