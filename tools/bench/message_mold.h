// The messages of a run: all alike but for id, time and number, which are cast into one encoded
// message, so that making the next one costs a checksum and no more.

#pragma once

#include <cstdint>
#include <vector>

#include "schema/frame.h"

namespace holdfast::bench {

class MessageMold {
 public:
  // `salt` keeps the ids of two runs apart.
  MessageMold(std::uint64_t body_bytes, std::uint64_t salt);

  // The encoded message with this number, valid until the next call.
  ByteSpan cast(std::uint64_t number, std::uint64_t sent_at_ns);

  struct Reading {
    bool good = false;  // every byte is as it was cast
    std::uint64_t number = 0;
    std::uint64_t sent_at_ns = 0;
  };
  Reading read(ByteSpan body) const;

 private:
  std::uint64_t body_bytes_;
  std::vector<std::uint8_t> bytes_;
  std::size_t id_at_ = 0;
  std::size_t body_at_ = 0;
};

}  // namespace holdfast::bench
