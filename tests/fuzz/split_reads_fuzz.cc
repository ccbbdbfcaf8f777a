// Split reads: a stream that comes in pieces, however it is cut, gives the same frames and the same
// error as the stream that comes whole.
//
// An input is a few frames, each of a type, a size and perhaps a damaged byte, and the places where
// the stream is cut.

#include <vector>

#include "fuzz/fuzz.h"

namespace holdfast::fuzz {
namespace {

constexpr std::size_t kBodyBytesMax = 256 * 1024;
constexpr std::size_t kFramesMax = 24;

struct Seen {
  std::uint8_t type;
  std::uint64_t correlation;
  std::uint64_t body;  // checksum
  bool operator==(const Seen&) const = default;
};

struct Outcome {
  std::vector<Seen> frames;
  ErrorCode error = ErrorCode::kOk;
  std::size_t pending = 0;
  bool operator==(const Outcome&) const = default;
};

std::vector<std::uint8_t> make_stream(Input& input) {
  FrameWriter out;
  std::vector<std::pair<std::size_t, std::uint8_t>> damages;  // place, bits
  const std::size_t count = 1 + input.below(kFramesMax);
  for (std::size_t i = 0; i < count && !input.empty(); ++i) {
    const auto kind = input.number();
    std::size_t size = input.number();
    if (kind >= 0xF0) size *= 500;  // larger than what is read at once
    std::vector<std::uint8_t> body(size, kind);
    const ByteSpan given = input.take(std::min<std::size_t>(size, 16));
    std::copy(given.begin(), given.end(), body.begin());
    const std::size_t begin = out.size();
    const std::uint64_t correlation = input.number();
    if (kind % 4 == 0) {
      out.append_publish(correlation, wire::PublishEnvelope(kind, 0, checksum(body)), body);
    } else {
      out.append(static_cast<wire::FrameType>(kind % 80), correlation, body);
    }
    if (input.once_in(16)) {
      damages.emplace_back(begin + input.number<std::uint16_t>() % (out.size() - begin),
                           static_cast<std::uint8_t>(1u << input.below(8)));
    }
  }
  std::vector<std::uint8_t> stream(out.data(), out.data() + out.size());
  for (const auto& [place, bits] : damages) stream[place] ^= bits;
  // The last frame may not have come whole.
  if (input.once_in(4)) stream.resize(stream.size() - input.number() % (stream.size() + 1));
  return stream;
}

// Returns false after an error, which is final.
bool take_frames(FrameReader& reader, Outcome* outcome) {
  for (;;) {
    const Result<std::optional<Frame>> next = reader.next();
    if (!next.ok()) {
      outcome->error = next.status().code();
      return false;
    }
    if (!next->has_value()) return true;
    const Frame& frame = **next;
    outcome->frames.push_back(
        {static_cast<std::uint8_t>(frame.type), frame.correlation, checksum(frame.body)});
  }
}

void feed(FrameReader& reader, ByteSpan bytes) {
  const std::span<std::uint8_t> room = reader.prepare(bytes.size());
  if (room.size() < bytes.size()) violation("split: less room than was asked for");
  if (!bytes.empty()) std::memcpy(room.data(), bytes.data(), bytes.size());
  reader.commit(bytes.size());
}

Outcome read_whole(ByteSpan stream) {
  FrameReader reader(kBodyBytesMax);
  Outcome outcome;
  feed(reader, stream);
  if (take_frames(reader, &outcome)) outcome.pending = reader.pending_bytes();
  return outcome;
}

Outcome read_in_pieces(ByteSpan stream, Input& cuts) {
  FrameReader reader(kBodyBytesMax);
  Outcome outcome;
  while (!stream.empty()) {
    const std::size_t wanted = cuts.empty() ? stream.size() : cuts.number<std::uint16_t>() >> 4;
    const std::size_t size = std::min(stream.size(), wanted);
    feed(reader, stream.first(size));
    stream = stream.subspan(size);
    if (!take_frames(reader, &outcome)) return outcome;
    reader.shrink();
  }
  outcome.pending = reader.pending_bytes();
  return outcome;
}

}  // namespace
}  // namespace holdfast::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace holdfast::fuzz;  // NOLINT(google-build-using-namespace)
  // A frame of 127,500 bytes comes of an input of a few.
  const TimeBound bound(size + 3'000'000);
  Input input(data, size);
  const std::vector<std::uint8_t> stream = make_stream(input);
  const Outcome whole = read_whole(stream);
  if (!(read_in_pieces(stream, input) == whole)) {
    violation("split: the frames of a stream depend on how it is cut");
  }
  return 0;
}
