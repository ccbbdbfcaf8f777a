// The bytes that the broker itself writes beside messages: a dead letter's provenance, and the
// message that wraps what could no longer be read.

#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/batch.h"

namespace holdfast::broker {

struct DeadLetter {
  std::string_view source;
  Sequence source_sequence = 0;
  std::string_view subscription;
  wire::Cause reason = wire::Cause_None;
  std::string_view error;
  WallTime dead_at;
  WallTime published_at;
  std::uint32_t attempts = 0;
  const std::vector<AttemptRecord>* history = nullptr;  // may be null
};

// A finished wire::Provenance.
std::vector<std::uint8_t> encode_provenance(const DeadLetter& letter);

// A finished wire::Message with the id "corrupt:QUEUE:SEQUENCE" and these raw bytes as its body.
std::vector<std::uint8_t> encode_corrupt_wrapper(std::string_view queue, Sequence sequence,
                                                 ByteSpan raw);

}  // namespace holdfast::broker
