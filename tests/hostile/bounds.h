// What the broker is told in these runs, and what it promises because of that. The bounds on its
// memory are made of these numbers.

#pragma once

#include <chrono>
#include <cstdint>
#include <string_view>

namespace holdfast::hostile {

inline constexpr std::uint64_t kMebibyte = 1u << 20;

// Deadlines are shorter than the defaults, so that a short run sees them pass.
inline constexpr std::string_view kConfig = R"([limits]
output_bytes_high = "1MiB"
output_bytes_total_max = "64MiB"
input_bytes_total_max = "32MiB"
unconfirmed_bytes_max = "4MiB"
unconfirmed_bytes_total_max = "64MiB"
answers_bytes_total_max = "32MiB"
cache_bytes_max = "16MiB"

[timeouts]
handshake = "2s"
frame = "2s"
slow_reader = "2s"
heartbeat = "1s"
)";
inline constexpr std::uint64_t kOutputBytesHigh = 1 * kMebibyte;
inline constexpr std::uint64_t kInputBytesTotal = 32 * kMebibyte;
inline constexpr std::uint64_t kUnconfirmedBytes = 4 * kMebibyte;
inline constexpr std::uint64_t kAnswersBytesTotal = 32 * kMebibyte;
inline constexpr std::uint64_t kCacheBytes = 16 * kMebibyte;

// What an idle connection may cost; tests/scale holds the broker to it.
inline constexpr std::uint64_t kConnectionBytes = 32 * 1024;
// The queue whose messages the hostile consumers are sent: more than the system takes for three of
// them, which is some megabytes each.
inline constexpr std::string_view kHeldQueue = "held";
inline constexpr std::size_t kHeldBodyBytes = 16'000;
inline constexpr std::uint32_t kHeldMessages = 1'500;

// For everything that is there in any case: the cache may fill meanwhile, all that is held may be
// in flight and then its blocks are in memory, batches of a mebibyte and their copies are under
// way, and an allocator keeps what was freed.
inline constexpr std::uint64_t kMemorySlackBytes =
    kCacheBytes + kHeldMessages * kHeldBodyBytes + 16 * kMebibyte;

// And whatever was done before: what is kept between rounds, by the allocator too, is no more than
// all that the limits above allow at a time.
inline constexpr std::uint64_t kMemoryBytesMax =
    (64 + 32 + 64 + 32 + 16) * kMebibyte + kMemorySlackBytes;

// The steady pair may become slower by a factor, because the attackers run on the same processors;
// and where it was fast, a machine that others use, too, adds what is below.
inline constexpr double kMedianFactor = 10;
inline constexpr double kMedianMsMin = 100;
inline constexpr double kTailFactor = 20;
inline constexpr double kTailMsMin = 1'000;

}  // namespace holdfast::hostile
