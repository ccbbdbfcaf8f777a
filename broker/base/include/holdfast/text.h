// Text that people type and read: durations, times, sizes, names. Shared by configuration, command
// line and settings so that "10m" means the same everywhere.

#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "holdfast/status.h"

namespace holdfast {

// "250ms", "30s", "10m", "2h", "7d", "1h30m", "1.5s"; a bare "0" is zero, other bare numbers are
// refused with a sentence that asks for the unit. Units in descending order, each at most once; at
// most three decimals; 100 years at most. Result in milliseconds; errors are kInvalidArgument.
Result<std::uint64_t> parse_duration_ms(std::string_view text);
// Exact, in the largest units: 90000 → "1m30s", 1500 → "1.5s", 250 → "250ms", 0 → "0".
std::string format_duration_ms(std::uint64_t duration_ms);

// RFC 3339 in UTC with milliseconds, e.g. "2026-03-01T12:00:00.250Z".
std::string format_time(std::chrono::system_clock::time_point time);

// "512", "64KiB", "1MiB", "2GiB", "1.5GiB", "10kB", "10MB": binary units up to PiB and decimal ones
// up to PB, in either case of letters. Result in bytes; errors are kInvalidArgument.
Result<std::uint64_t> parse_bytes(std::string_view text);
// Exact, in the largest binary unit that divides: 1048576 → "1MiB", 1000 → "1000".
std::string format_bytes(std::uint64_t bytes);

// A decimal number without sign, e.g. "42"; errors are kInvalidArgument.
Result<std::uint64_t> parse_count(std::string_view text);

// The candidate nearest to `word` by edit distance (a swap of neighbours counts as one edit), or
// empty if none is near enough to suggest.
std::string_view nearest_word(std::string_view word, std::span<const std::string_view> candidates);

// Whether these bytes are well-formed UTF-8 (RFC 3629: no surrogates, no overlong forms).
bool is_valid_utf8(std::string_view bytes);
// The first `bytes_max` bytes of well-formed UTF-8, or up to three fewer, so that no character is
// cut in two.
std::string_view cut_utf8(std::string_view text, std::size_t bytes_max);

// Text that may be shown on a terminal: control characters, those that turn the direction of
// writing, and malformed UTF-8 are escaped (\n, \t, \x1b, \u202e); everything else stays.
std::string printable(std::string_view text);
// Text for a sentence that somebody reads: printable, in double quotes, with quotes and backslashes
// escaped, cut after 64 bytes with "…". An object instead of a function, because std::quoted would
// otherwise be the better match for a std::string.
struct Quoted {
  std::string operator()(std::string_view text) const;
};
inline constexpr Quoted quoted;

// Queue names: 1 to 120 bytes of A-Z a-z 0-9 . _ -, beginning with a letter or a digit. A name that
// ends in ".dead" is a dead-letter queue's: its queue's name, with the suffix beyond the 120.
// kNameInvalid otherwise.
Status check_queue_name(std::string_view name);
inline constexpr std::size_t kQueueNameBytesMax = 120;
inline constexpr std::string_view kDeadSuffix = ".dead";
bool is_dead_queue_name(std::string_view name);

}  // namespace holdfast
