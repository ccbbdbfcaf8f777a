// The bytes that the broker itself writes beside messages: a dead letter's provenance, and the
// message that wraps what could no longer be read.

#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/records.h"
#include "schema/frame.h"

namespace holdfast::broker {

// As parallel vectors of a wire table.
struct EncodedAttempts {
  flatbuffers::Offset<flatbuffers::Vector<const wire::Attempt*>> attempts;
  flatbuffers::Offset<flatbuffers::Vector<flatbuffers::Offset<flatbuffers::String>>> consumers;
  flatbuffers::Offset<flatbuffers::Vector<flatbuffers::Offset<flatbuffers::String>>> errors;
};
EncodedAttempts encode_attempts(std::span<const AttemptRecord> history,
                                flatbuffers::FlatBufferBuilder& builder);

struct DeadLetter {
  std::string_view source;
  Sequence source_sequence = 0;
  std::string_view subscription;
  wire::Cause reason = wire::Cause_None;
  std::string_view error;
  WallTime dead_at;
  WallTime published_at;
  std::uint32_t attempts = 0;
  std::span<const AttemptRecord> history;
};

// A finished wire::Provenance.
std::vector<std::uint8_t> encode_provenance(const DeadLetter& letter);

// A finished wire::Message with the id "corrupt:QUEUE:SEQUENCE" and these raw bytes as its body.
std::vector<std::uint8_t> encode_corrupt_wrapper(std::string_view queue, Sequence sequence,
                                                 ByteSpan raw);

}  // namespace holdfast::broker
