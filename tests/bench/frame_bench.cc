// Frames: cut and verified as the broker reads publishes, written as publishers and the broker do.

#include "schema/frame.h"

#include <cstring>
#include <optional>
#include <span>
#include <vector>

#include "base/check.h"
#include "bench/messages.h"

namespace holdfast {
namespace {

using Bytes = std::vector<std::uint8_t>;

// As much as the broker takes from a busy socket at once.
constexpr std::size_t kBufferBytes = 128 * 1024;

std::size_t frames_in_buffer(std::size_t body_bytes) {
  return kBufferBytes / padded(kFrameHeaderBytes + body_bytes);
}

std::size_t write_publishes(FrameWriter& writer, const Bytes& message) {
  const wire::PublishEnvelope envelope(1, 0, checksum(message));
  const std::size_t frames = frames_in_buffer(sizeof(envelope) + message.size());
  for (std::size_t i = 0; i < frames; ++i) writer.append_publish(i + 1, envelope, message);
  return frames;
}

std::size_t write_deliveries(FrameWriter& writer, const Bytes& message) {
  const wire::DeliverEnvelope envelope(1, 42, checksum(message), 1'700'000'000'000, 0,
                                       static_cast<std::uint32_t>(message.size()), 0, 1, 30'000, 1,
                                       0, 0, 0);
  const std::size_t frames = frames_in_buffer(sizeof(envelope) + message.size());
  for (std::size_t i = 0; i < frames; ++i) {
    writer.append_deliver(wire::FrameType_Deliver, 0, envelope, message, {});
  }
  return frames;
}

void frame_read_publish(benchmark::State& state) {
  const Bytes message = message_with_body(state.range(0));
  FrameWriter writer;
  const std::size_t frames = write_publishes(writer, message);
  FrameReader reader(kFrameBytesMax);
  const std::span<std::uint8_t> room = reader.prepare(writer.size());
  std::memcpy(room.data(), writer.data(), writer.size());
  for (auto _ : state) {
    // A reader that has read everything begins anew in the same room, where the bytes still stand:
    // no copy of them is timed.
    CHECK(reader.prepare(writer.size()).data() == room.data());
    reader.commit(writer.size());
    for (std::size_t i = 0; i < frames; ++i) {
      const Result<std::optional<Frame>> frame = reader.next();
      CHECK(frame.ok() && frame->has_value());
      const Result<PublishFrame> publish = read_publish(**frame);
      CHECK(publish.ok());
      const wire::Message* read = publish->message;
      benchmark::DoNotOptimize(read);
    }
  }
  CHECK(reader.pending_bytes() == 0);
  count_messages(state, frames, frames * message.size());
}
BENCHMARK(frame_read_publish)->ArgName("body")->Arg(100)->Arg(1024);

// A writer that was used before has its memory already, as those that the broker lends to its
// connections.
template <std::size_t (*write)(FrameWriter&, const Bytes&)>
void write_frames(benchmark::State& state) {
  const Bytes message = message_with_body(state.range(0));
  FrameWriter writer;
  std::size_t frames = 0;
  for (auto _ : state) {
    writer.clear();
    frames = write(writer, message);
    const std::uint8_t* written = writer.data();
    benchmark::DoNotOptimize(written);
    benchmark::ClobberMemory();
  }
  count_messages(state, frames, frames * message.size());
}

void frame_write_publish(benchmark::State& state) { write_frames<write_publishes>(state); }
BENCHMARK(frame_write_publish)->ArgName("body")->Arg(100)->Arg(1024);

void frame_write_deliver(benchmark::State& state) { write_frames<write_deliveries>(state); }
BENCHMARK(frame_write_deliver)->ArgName("body")->Arg(100)->Arg(1024);

}  // namespace
}  // namespace holdfast
