#include "schema/frame.h"

#include <fmt/format.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>

namespace holdfast {

namespace {

// The bytes that the header checksum covers: all before it.
constexpr std::size_t kHeaderCheckedBytes = kFrameHeaderBytes - sizeof(std::uint64_t);
// A message is one table with at most 6 fields; its vectors are bounded by the frame.
constexpr flatbuffers::uoffset_t kMessageDepthMax = 2;
constexpr flatbuffers::uoffset_t kMessageTablesMax = 1;

template <typename Envelope>
const Envelope* envelope_of(const Frame& frame) {
  if (frame.body.size() < sizeof(Envelope)) return nullptr;
  return reinterpret_cast<const Envelope*>(frame.body.data());
}

// How many bytes of a body its checksum covers: the envelope where a message follows, because the
// message has a checksum of its own inside it.
std::size_t checked_body_bytes(wire::FrameType type, std::size_t body_bytes) {
  switch (type) {
    case wire::FrameType_Publish:
      return std::min(body_bytes, sizeof(wire::PublishEnvelope));
    case wire::FrameType_Deliver:
    case wire::FrameType_PeekItem:
      return std::min(body_bytes, sizeof(wire::DeliverEnvelope));
    default:
      return body_bytes;
  }
}

// How long a body may be. Whoever announces more is refused before any of it is waited for.
std::size_t body_bytes_max(wire::FrameType type, std::size_t message_frame_bytes_max) {
  switch (type) {
    case wire::FrameType_Publish:
    case wire::FrameType_Deliver:
    case wire::FrameType_PeekItem:
      return message_frame_bytes_max;
    default:
      return std::min(message_frame_bytes_max, kControlFrameBytesMax);
  }
}

void write_header(std::uint8_t* at, wire::FrameType type, std::uint64_t correlation,
                  std::size_t body_bytes, std::uint64_t body_checksum) {
  wire::FrameHeader header(static_cast<std::uint32_t>(body_bytes), type, 0, kProtocolVersion,
                           correlation, body_checksum, 0);
  std::memcpy(at, &header, sizeof(header));
  const std::uint64_t header_checksum = checksum({at, kHeaderCheckedBytes});
  std::memcpy(at + kHeaderCheckedBytes, &header_checksum, sizeof(header_checksum));
}

constexpr std::size_t kBufferStep = 4096;

std::unique_ptr<std::uint8_t[]> allocate(std::size_t bytes) {
  static_assert(__STDCPP_DEFAULT_NEW_ALIGNMENT__ >= kFrameAlignment);
  return std::unique_ptr<std::uint8_t[]>(new std::uint8_t[bytes]);
}

}  // namespace

std::uint64_t checksum(ByteSpan bytes) { return XXH3_64bits(bytes.data(), bytes.size()); }

std::span<std::uint8_t> FrameReader::prepare(std::size_t bytes_min) {
  if (begin_ == end_) begin_ = end_ = 0;
  if (capacity_ - end_ >= bytes_min) return {buffer_.get() + end_, capacity_ - end_};
  const std::size_t pending = end_ - begin_;
  if (capacity_ < pending + bytes_min) {
    const std::size_t wanted =
        std::max(pending + bytes_min, std::min(capacity_ * 2, kFrameBytesMax));
    move_to(padded(wanted, kBufferStep));
  } else if (pending > 0) {
    std::memmove(buffer_.get(), buffer_.get() + begin_, pending);
    begin_ = 0;
    end_ = pending;
  }
  return {buffer_.get() + end_, capacity_ - end_};
}

// A new buffer of so many bytes, with what is pending at its beginning.
void FrameReader::move_to(std::size_t bytes) {
  const std::size_t pending = pending_bytes();
  std::unique_ptr<std::uint8_t[]> moved = allocate(bytes);
  if (pending > 0) std::memcpy(moved.get(), buffer_.get() + begin_, pending);
  buffer_ = std::move(moved);
  capacity_ = bytes;
  begin_ = 0;
  end_ = pending;
}

Result<std::optional<Frame>> FrameReader::next() {
  if (end_ - begin_ < kFrameHeaderBytes) return std::optional<Frame>();
  const std::uint8_t* const at = buffer_.get() + begin_;
  const auto* header = reinterpret_cast<const wire::FrameHeader*>(at);
  if (header->header_checksum() != checksum({at, kHeaderCheckedBytes})) {
    return Status(
        ErrorCode::kFrameMalformed,
        "The bytes received are not a Holdfast frame: the header checksum does not match. "
        "Is the peer speaking another protocol?");
  }
  if (header->version() != kProtocolVersion) {
    return Status(ErrorCode::kVersionUnsupported,
                  fmt::format("The frame has protocol version {}; this side speaks {}.",
                              header->version(), kProtocolVersion));
  }
  if (header->flags() != 0) {
    return Status(ErrorCode::kFrameMalformed,
                  fmt::format("The frame has flags {}; protocol version {} knows none.",
                              header->flags(), kProtocolVersion));
  }
  const auto type = static_cast<wire::FrameType>(header->type());
  const std::size_t body_bytes = header->length();
  if (const std::size_t most = body_bytes_max(type, body_bytes_max_); body_bytes > most) {
    return Status(ErrorCode::kFrameTooLarge,
                  fmt::format("The body of a frame of type {} has {} bytes; the limit is {}.",
                              static_cast<int>(type), body_bytes, most));
  }
  const std::size_t frame_bytes = padded(kFrameHeaderBytes + body_bytes);
  if (end_ - begin_ < frame_bytes) return std::optional<Frame>();
  const ByteSpan body(at + kFrameHeaderBytes, body_bytes);
  const std::size_t checked_bytes = checked_body_bytes(type, body_bytes);
  if (header->body_checksum() != checksum(body.first(checked_bytes))) {
    return Status(ErrorCode::kFrameChecksum,
                  fmt::format("The body of a frame of type {} with {} bytes does not match its "
                              "checksum: it was damaged on the way.",
                              static_cast<int>(type), body_bytes));
  }
  begin_ += frame_bytes;
  return std::optional<Frame>(Frame{type, header->correlation(), body});
}

void FrameReader::shrink() {
  if (begin_ != end_) return;
  buffer_.reset();
  capacity_ = begin_ = end_ = 0;
}

void FrameReader::fit() {
  if (begin_ == end_) return shrink();
  const std::size_t needed = padded(pending_bytes(), kBufferStep);
  if (needed <= capacity_ / 4) move_to(needed);
}

std::uint8_t* FrameWriter::grow(std::size_t bytes) {
  if (capacity_ - size_ < bytes) {
    const std::size_t capacity = padded(std::max(size_ + bytes, capacity_ * 2), 4096);
    std::unique_ptr<std::uint8_t[]> larger = allocate(capacity);
    if (size_ > 0) std::memcpy(larger.get(), buffer_.get(), size_);
    buffer_ = std::move(larger);
    capacity_ = capacity;
  }
  std::uint8_t* const at = buffer_.get() + size_;
  size_ += bytes;
  return at;
}

void FrameWriter::append_empty(wire::FrameType type, std::uint64_t correlation) {
  append(type, correlation, {});
}

void FrameWriter::append(wire::FrameType type, std::uint64_t correlation, ByteSpan table) {
  const std::size_t frame_bytes = padded(kFrameHeaderBytes + table.size());
  std::uint8_t* const at = grow(frame_bytes);
  write_header(at, type, correlation, table.size(), checksum(table));
  if (!table.empty()) std::memcpy(at + kFrameHeaderBytes, table.data(), table.size());
  std::memset(at + kFrameHeaderBytes + table.size(), 0,
              frame_bytes - kFrameHeaderBytes - table.size());
}

void FrameWriter::append_publish(std::uint64_t correlation, const wire::PublishEnvelope& envelope,
                                 ByteSpan message) {
  const std::size_t body_bytes = sizeof(envelope) + message.size();
  const std::size_t frame_bytes = padded(kFrameHeaderBytes + body_bytes);
  std::uint8_t* const at = grow(frame_bytes);
  std::uint8_t* const body = at + kFrameHeaderBytes;
  std::memcpy(body, &envelope, sizeof(envelope));
  if (!message.empty()) std::memcpy(body + sizeof(envelope), message.data(), message.size());
  std::memset(body + body_bytes, 0, frame_bytes - kFrameHeaderBytes - body_bytes);
  write_header(at, wire::FrameType_Publish, correlation, body_bytes,
               checksum({body, sizeof(envelope)}));
}

void FrameWriter::append_deliver(wire::FrameType type, std::uint64_t correlation,
                                 const wire::DeliverEnvelope& envelope, ByteSpan message,
                                 ByteSpan provenance) {
  const std::size_t provenance_at = sizeof(envelope) + padded(message.size(), 8);
  const std::size_t body_bytes =
      provenance.empty() ? sizeof(envelope) + message.size() : provenance_at + provenance.size();
  const std::size_t frame_bytes = padded(kFrameHeaderBytes + body_bytes);
  std::uint8_t* const at = grow(frame_bytes);
  std::uint8_t* const body = at + kFrameHeaderBytes;
  std::memcpy(body, &envelope, sizeof(envelope));
  if (!message.empty()) std::memcpy(body + sizeof(envelope), message.data(), message.size());
  if (!provenance.empty()) {
    const std::size_t message_end = sizeof(envelope) + message.size();
    std::memset(body + message_end, 0, provenance_at - message_end);
    std::memcpy(body + provenance_at, provenance.data(), provenance.size());
  }
  std::memset(body + body_bytes, 0, frame_bytes - kFrameHeaderBytes - body_bytes);
  write_header(at, type, correlation, body_bytes, checksum({body, sizeof(envelope)}));
}

std::pair<std::unique_ptr<std::uint8_t[]>, std::size_t> FrameWriter::release() {
  std::pair<std::unique_ptr<std::uint8_t[]>, std::size_t> released(std::move(buffer_), size_);
  capacity_ = size_ = 0;
  return released;
}

const wire::Message* read_message(ByteSpan bytes) {
  if (bytes.size() < 8 || bytes.size() > kFrameBytesMax) return nullptr;
  flatbuffers::Verifier verifier(bytes.data(), bytes.size(), kMessageDepthMax, kMessageTablesMax);
  if (!verifier.VerifyBuffer<wire::Message>(nullptr)) return nullptr;
  return flatbuffers::GetRoot<wire::Message>(bytes.data());
}

const wire::Provenance* read_provenance(ByteSpan bytes) {
  return read_table<wire::Provenance>(bytes);
}

Result<PublishFrame> read_publish(const Frame& frame) {
  const auto* envelope = envelope_of<wire::PublishEnvelope>(frame);
  if (envelope == nullptr) {
    return Status(ErrorCode::kFrameMalformed,
                  fmt::format("A Publish frame of {} bytes has no room for its envelope of {}.",
                              frame.body.size(), sizeof(wire::PublishEnvelope)));
  }
  PublishFrame publish;
  publish.queue = envelope->queue();
  publish.message_checksum = envelope->message_checksum();
  publish.message_bytes = frame.body.subspan(sizeof(wire::PublishEnvelope));
  if (checksum(publish.message_bytes) != publish.message_checksum) {
    return Status(ErrorCode::kMessageCorrupt,
                  "The message does not match its checksum: it was damaged between publisher and "
                  "broker. Publish it again.");
  }
  publish.message = read_message(publish.message_bytes);
  if (publish.message == nullptr) {
    return Status(ErrorCode::kFrameMalformed,
                  "A Publish frame does not hold a well-formed Message table.");
  }
  return publish;
}

Result<DeliverFrame> read_deliver(const Frame& frame) {
  const auto* envelope = envelope_of<wire::DeliverEnvelope>(frame);
  if (envelope == nullptr) {
    return Status(ErrorCode::kFrameMalformed,
                  fmt::format("A delivery of {} bytes has no room for its envelope of {}.",
                              frame.body.size(), sizeof(wire::DeliverEnvelope)));
  }
  DeliverFrame deliver;
  deliver.envelope = *envelope;
  const ByteSpan rest = frame.body.subspan(sizeof(wire::DeliverEnvelope));
  const std::size_t message_bytes = envelope->message_length();
  const std::size_t provenance_bytes = envelope->provenance_length();
  const std::size_t provenance_at = padded(message_bytes, 8);
  const std::size_t expected =
      provenance_bytes == 0 ? message_bytes : provenance_at + provenance_bytes;
  if (rest.size() != expected) {
    return Status(ErrorCode::kFrameMalformed,
                  fmt::format("A delivery announces {} bytes of message and {} of provenance, and "
                              "holds {}.",
                              message_bytes, provenance_bytes, rest.size()));
  }
  deliver.message_bytes = rest.first(message_bytes);
  if (checksum(deliver.message_bytes) != envelope->message_checksum()) {
    return Status(ErrorCode::kMessageCorrupt,
                  fmt::format("Message {} does not match its checksum: it was damaged between the "
                              "broker and this client.",
                              envelope->sequence()));
  }
  deliver.message = read_message(deliver.message_bytes);
  if (deliver.message == nullptr) {
    return Status(
        ErrorCode::kFrameMalformed,
        fmt::format("Message {} is not a well-formed Message table.", envelope->sequence()));
  }
  if (provenance_bytes > 0) {
    const ByteSpan provenance = rest.subspan(provenance_at);
    if (checksum(provenance) != envelope->provenance_checksum() ||
        (deliver.provenance = read_provenance(provenance)) == nullptr) {
      return Status(ErrorCode::kMessageCorrupt,
                    fmt::format("The provenance of message {} does not match its checksum.",
                                envelope->sequence()));
    }
  }
  return deliver;
}

}  // namespace holdfast
