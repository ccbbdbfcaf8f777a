// Frames: how bytes on a connection become frames and back. Shared by broker and client.
//
// Layout: schema/protocol.fbs. A frame is verified before anything in it is read: header checksum,
// length against a bound, body checksum, then the FlatBuffers verifier with bounds of its own. The
// verifier does not look at strings' encoding or enums' range; who reads those checks them.
//
// Nothing here is thread-safe; one object belongs to one connection.

#pragma once

#include <flatbuffers/flatbuffers.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <string_view>

#include "holdfast/status.h"
#include "protocol_generated.h"
#include "schema/field_limits.h"

namespace holdfast {

inline constexpr std::uint16_t kProtocolVersion = 1;
inline constexpr std::size_t kFrameAlignment = 16;
inline constexpr std::size_t kFrameHeaderBytes = sizeof(wire::FrameHeader);
inline constexpr std::size_t kControlFrameBytesMax = 64 * 1024;  // every frame without a message
// A message's body is at most 16 MiB; id, headers and the table around them need far less than
// this.
inline constexpr std::size_t kMessageOverheadBytesMax = 64 * 1024;
inline constexpr std::size_t kFrameBytesMax = kMessageBodyBytesMax + 2 * kMessageOverheadBytesMax;

// Ranges of sequences in one frame, and sequences in all of them: what a control frame can hold
// with the longest reason beside it.
inline constexpr std::size_t kRangesMax = 3'900;
inline constexpr std::uint64_t kRangesSequencesMax = 65'536;
static_assert(kRangesMax * sizeof(wire::SequenceRange) + 2'048 <= kControlFrameBytesMax);

static_assert(kFrameHeaderBytes == 32);
static_assert(sizeof(wire::PublishEnvelope) == 16);
static_assert(sizeof(wire::DeliverEnvelope) == 64);

using ByteSpan = std::span<const std::uint8_t>;

constexpr std::size_t padded(std::size_t bytes, std::size_t alignment = kFrameAlignment) {
  return (bytes + alignment - 1) / alignment * alignment;
}

// XXH3-64, the only checksum of the protocol and the store.
std::uint64_t checksum(ByteSpan bytes);

// A frame in a receive buffer, valid until that buffer is touched. The header checksum and the body
// checksum have been verified, the body itself has not.
struct Frame {
  wire::FrameType type = wire::FrameType_None;
  std::uint64_t correlation = 0;
  ByteSpan body;  // starts at an address that is a multiple of 16
};

// Collects the bytes of one connection and cuts them into frames.
class FrameReader {
 public:
  explicit FrameReader(std::size_t body_bytes_max) : body_bytes_max_(body_bytes_max) {}

  // Room for the next read: at least `bytes_min` writable bytes. Grows with the frame that has been
  // begun and no further. Invalidates frames handed out before.
  std::span<std::uint8_t> prepare(std::size_t bytes_min);
  // `bytes` of the room were filled.
  void commit(std::size_t bytes) { end_ += bytes; }

  // The next whole frame; nullopt if more bytes are needed. An error is final: the stream has lost
  // its framing (kFrameMalformed, kFrameTooLarge, kFrameChecksum, kVersionUnsupported).
  Result<std::optional<Frame>> next();
  // Has next() give this frame once more, which it gave last.
  void put_back(const Frame& frame) { begin_ -= padded(kFrameHeaderBytes + frame.body.size()); }

  // Bytes of a frame that has been begun and is not complete; 0 between frames.
  std::size_t pending_bytes() const { return end_ - begin_; }
  // What the pending bytes are in, with the room beside them.
  std::size_t buffer_bytes() const { return capacity_; }
  // Gives the buffer back if nothing is pending: an idle connection holds no buffer.
  void shrink();
  // Gives back most of a buffer that is nearly empty.
  void fit();

 private:
  void move_to(std::size_t bytes);

  std::size_t body_bytes_max_;
  std::unique_ptr<std::uint8_t[]> buffer_;  // aligned to 16 by operator new
  std::size_t capacity_ = 0;
  std::size_t begin_ = 0;  // multiple of 16
  std::size_t end_ = 0;
};

// Appends frames to a growing byte buffer that one write sends.
class FrameWriter {
 public:
  // A frame without a body: Ping, Pong, Ok, Status.
  void append_empty(wire::FrameType type, std::uint64_t correlation);
  // A frame whose body is this finished FlatBuffer.
  void append(wire::FrameType type, std::uint64_t correlation, ByteSpan table);
  // Envelope, message, and optional provenance (empty: none). The checksum in the envelope must be
  // that of the message: it is not computed again.
  void append_publish(std::uint64_t correlation, const wire::PublishEnvelope& envelope,
                      ByteSpan message);
  void append_deliver(wire::FrameType type, std::uint64_t correlation,
                      const wire::DeliverEnvelope& envelope, ByteSpan message, ByteSpan provenance);

  std::size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }
  const std::uint8_t* data() const { return buffer_.get(); }
  void clear() { size_ = 0; }
  // Takes the bytes out, leaving the writer empty and without memory.
  std::pair<std::unique_ptr<std::uint8_t[]>, std::size_t> release();

 private:
  std::uint8_t* grow(std::size_t bytes);
  std::unique_ptr<std::uint8_t[]> buffer_;
  std::size_t capacity_ = 0;
  std::size_t size_ = 0;
};

// Whether the elements of a table's vectors lie where their type may lie. The verifier looks at the
// place of a vector's length only, which needs less.
template <typename Table>
bool vectors_are_aligned(const Table& table) {
  const auto is_aligned = [](const auto* vector) {
    return vector == nullptr || vector->size() == 0 ||
           reinterpret_cast<std::uintptr_t>(vector->Data()) % 8 == 0;
  };
  bool aligned = true;
  if constexpr (requires { table.ranges()->Data(); }) aligned &= is_aligned(table.ranges());
  if constexpr (requires { table.refused()->Data(); }) aligned &= is_aligned(table.refused());
  if constexpr (requires { table.settings()->Data(); }) aligned &= is_aligned(table.settings());
  if constexpr (requires { table.sequences()->Data(); }) aligned &= is_aligned(table.sequences());
  if constexpr (requires { table.attempts()->Data(); }) aligned &= is_aligned(table.attempts());
  if constexpr (requires { table.history()->Data(); }) aligned &= is_aligned(table.history());
  return aligned;
}

// The verified root table of a control frame; null if it does not verify. Bounds: 64 KiB, depth 2,
// one table.
template <typename Table>
const Table* read_table(ByteSpan body) {
  if (body.size() < 8 || body.size() > kControlFrameBytesMax) return nullptr;
  flatbuffers::Verifier verifier(body.data(), body.size(), 2, 1);
  if (!verifier.VerifyBuffer<Table>(nullptr)) return nullptr;
  const Table* const table = flatbuffers::GetRoot<Table>(body.data());
  return vectors_are_aligned(*table) ? table : nullptr;
}

// Likewise for a Message (any size) and a Provenance.
const wire::Message* read_message(ByteSpan bytes);
const wire::Provenance* read_provenance(ByteSpan bytes);

// The parts of a Publish frame. The message's checksum and shape have been verified.
struct PublishFrame {
  std::uint32_t queue = 0;
  std::uint64_t message_checksum = 0;
  ByteSpan message_bytes;
  const wire::Message* message = nullptr;
};
// kFrameMalformed (no room for the envelope, not a Message), kMessageCorrupt (checksum).
Result<PublishFrame> read_publish(const Frame& frame);

// The parts of a Deliver or PeekItem frame, verified likewise; provenance is null when there is
// none.
struct DeliverFrame {
  wire::DeliverEnvelope envelope;
  ByteSpan message_bytes;
  const wire::Message* message = nullptr;
  const wire::Provenance* provenance = nullptr;
};
Result<DeliverFrame> read_deliver(const Frame& frame);

inline std::string_view view(const flatbuffers::String* text) {
  return text == nullptr ? std::string_view() : std::string_view(text->c_str(), text->size());
}

}  // namespace holdfast
