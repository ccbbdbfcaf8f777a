// The bounds of what a frame's fields may say, for both sides: the client refuses before it sends,
// the broker refuses whatever it was sent; and how long a peer may be silent. protocol.fbs tells
// them field by field; the settings of a queue have theirs in queue_settings.cc, and frames in
// frame.h.

#pragma once

#include <cstddef>
#include <cstdint>

namespace holdfast {

inline constexpr std::size_t kMessageIdBytesMax = 128;
inline constexpr std::size_t kMessageBodyBytesMax = 16u << 20;
inline constexpr std::size_t kHeaderPairsMax = 64;
inline constexpr std::size_t kHeaderBytesMax = 16 * 1024;
inline constexpr std::size_t kNameBytesMax = 128;  // of clients, consumers, queues, subscriptions
inline constexpr std::size_t kReasonBytesMax = 1'024;
inline constexpr std::uint32_t kCreditMessagesMax = 65'536;
inline constexpr std::uint32_t kLeaseMsMin = 100;
inline constexpr std::uint32_t kLeaseMsMax = 12 * 3'600'000;
inline constexpr std::int64_t kNackDelayMsMax = 7LL * 24 * 3'600'000;
inline constexpr std::uint32_t kPeekMessagesMax = 1'000;
inline constexpr std::uint32_t kLettersMax = 256;
// An answer to a list has at most so many entries: a list of 100,000 queues holds nobody up, nor
// does it take much memory.
inline constexpr std::uint32_t kListPage = 1'000;

// So many heartbeat intervals without a byte, and the peer counts as dead.
inline constexpr int kHeartbeatsMissedMax = 3;

}  // namespace holdfast
