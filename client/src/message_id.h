// Ids for messages that their publisher did not name.
//
// An id has 26 characters of Crockford's base 32: 48 bits of Unix milliseconds, then 80 bits that
// begin at a random number and go up by one with each id. So ids of one source never meet, ids of
// two sources meet only if two runs of 2^80 numbers overlap in the same millisecond, and ids sort
// by the time at which they were made.

#pragma once

#include <atomic>
#include <cstdint>
#include <string>

namespace holdfast::client {

inline constexpr std::size_t kMessageIdChars = 26;

// Safe to use from several threads; makes no system call after its construction.
class MessageIdSource {
 public:
  MessageIdSource();
  std::string next();

 private:
  std::uint16_t start_high_ = 0;
  std::uint64_t start_low_ = 0;
  std::atomic<std::uint64_t> count_{0};
};

}  // namespace holdfast::client
