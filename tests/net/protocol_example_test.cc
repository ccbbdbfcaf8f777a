// The worked example of docs/PROTOCOL.md is what really goes over the wire.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <fstream>
#include <sstream>
#include <string>

#include "schema/frame.h"

namespace holdfast {
namespace {

// As `xxd -g1` shows them, without the column of characters.
std::string hex_dump(const FrameWriter& frames) {
  std::string dump;
  for (std::size_t at = 0; at < frames.size(); ++at) {
    if (at % 16 == 0) dump += fmt::format("{}{:04x} ", at == 0 ? "" : "\n", at);
    dump += fmt::format(" {:02x}", frames.data()[at]);
  }
  return dump + "\n";
}

TEST_CASE("the frames in docs/PROTOCOL.md are byte for byte what is sent") {
  std::ifstream file(HOLDFAST_SOURCE_ROOT "/docs/PROTOCOL.md");
  REQUIRE(file.good());
  std::stringstream text;
  text << file.rdbuf();

  flatbuffers::FlatBufferBuilder builder;
  const auto name = builder.CreateString("demo");
  builder.Finish(wire::CreateHello(builder, 1, 1, name));
  FrameWriter hello;
  hello.append(wire::FrameType_Hello, 1, {builder.GetBufferPointer(), builder.GetSize()});
  const std::string hello_dump = hex_dump(hello);
  CAPTURE(hello_dump);
  CHECK(text.str().find(hello_dump) != std::string::npos);

  builder.Clear();
  const auto id = builder.CreateString("a-7");
  const auto body = builder.CreateVector(reinterpret_cast<const std::uint8_t*>("hello"), 5);
  builder.Finish(wire::CreateMessage(builder, id, body));
  const ByteSpan message(builder.GetBufferPointer(), builder.GetSize());
  FrameWriter publish;
  publish.append_publish(3, wire::PublishEnvelope(2, 0, checksum(message)), message);
  const std::string publish_dump = hex_dump(publish);
  CAPTURE(publish_dump);
  CHECK(text.str().find(publish_dump) != std::string::npos);
}

}  // namespace
}  // namespace holdfast
