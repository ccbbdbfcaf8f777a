// Frame headers: what FrameReader makes of any bytes, against what schema/protocol.fbs says.
//
// The first byte of an input tells which checksums are put right first: guessed ones would stop
// nearly every input at the door.

#include <vector>

#include "fuzz/fuzz.h"

namespace holdfast::fuzz {
namespace {

constexpr std::size_t kBodyBytesMax = 8 * 1024;

std::size_t checked_bytes(std::uint8_t type, std::size_t length) {
  if (type == wire::FrameType_Publish) return std::min<std::size_t>(length, 16);
  if (type == wire::FrameType_Deliver || type == wire::FrameType_PeekItem) {
    return std::min<std::size_t>(length, 64);
  }
  return length;
}

template <typename Number>
Number at(ByteSpan bytes, std::size_t place) {
  Number number = 0;
  std::memcpy(&number, bytes.data() + place, sizeof(number));
  return number;
}

void put_right(std::vector<std::uint8_t>& bytes, std::uint8_t which) {
  if (bytes.size() < 32) return;
  if ((which & 4) != 0) bytes[5] = bytes[7] = 0, bytes[6] = 1;
  const auto length = at<std::uint32_t>(bytes, 0);
  if ((which & 1) != 0 && length <= bytes.size() - 32) {
    const std::uint64_t sum =
        checksum(ByteSpan(bytes).subspan(32, checked_bytes(bytes[4], length)));
    std::memcpy(bytes.data() + 16, &sum, sizeof(sum));
  }
  if ((which & 2) != 0) {
    const std::uint64_t sum = checksum(ByteSpan(bytes).first(24));
    std::memcpy(bytes.data() + 24, &sum, sizeof(sum));
  }
}

// What the first frame of these bytes is; kOk: a frame, or none yet.
ErrorCode expected(ByteSpan bytes, bool* whole) {
  *whole = false;
  if (bytes.size() < 32) return ErrorCode::kOk;
  if (at<std::uint64_t>(bytes, 24) != checksum(bytes.first(24))) return ErrorCode::kFrameMalformed;
  if (at<std::uint16_t>(bytes, 6) != 1) return ErrorCode::kVersionUnsupported;
  if (bytes[5] != 0) return ErrorCode::kFrameMalformed;
  const std::size_t length = at<std::uint32_t>(bytes, 0);
  if (length > kBodyBytesMax) return ErrorCode::kFrameTooLarge;
  if (bytes.size() < (32 + length + 15) / 16 * 16) return ErrorCode::kOk;
  if (at<std::uint64_t>(bytes, 16) !=
      checksum(bytes.subspan(32, checked_bytes(bytes[4], length)))) {
    return ErrorCode::kFrameChecksum;
  }
  *whole = true;
  return ErrorCode::kOk;
}

void check(ByteSpan bytes) {
  FrameReader reader(kBodyBytesMax);
  if (!bytes.empty()) std::memcpy(reader.prepare(bytes.size()).data(), bytes.data(), bytes.size());
  reader.commit(bytes.size());
  for (std::size_t begin = 0;;) {
    bool whole = false;
    const ByteSpan rest = bytes.subspan(begin);
    const ErrorCode code = expected(rest, &whole);
    const Result<std::optional<Frame>> next = reader.next();
    if (next.status().code() != code) {
      violation(fmt::format("header: error {} where {} is expected",
                            error_name(next.status().code()), error_name(code)));
    }
    if (!next.ok()) return;
    if (next->has_value() != whole) violation("header: a whole frame is not taken for one");
    if (!whole) {
      if (reader.pending_bytes() != rest.size()) violation("header: bytes got lost");
      return;
    }
    const Frame& frame = **next;
    const std::size_t length = at<std::uint32_t>(rest, 0);
    if (frame.type != rest[4] || frame.correlation != at<std::uint64_t>(rest, 8) ||
        frame.body.size() != length ||
        (length > 0 && std::memcmp(frame.body.data(), rest.data() + 32, length) != 0) ||
        reinterpret_cast<std::uintptr_t>(frame.body.data()) % 16 != 0) {
      violation("header: a frame is not what its bytes say");
    }
    begin += (32 + length + 15) / 16 * 16;
  }
}

}  // namespace
}  // namespace holdfast::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace holdfast::fuzz;  // NOLINT(google-build-using-namespace)
  const TimeBound bound(size);
  Input input(data, size);
  const auto which = input.number();
  std::vector<std::uint8_t> bytes(input.rest().begin(), input.rest().end());
  put_right(bytes, which);
  check(AlignedCopy(bytes).span());
  return 0;
}
