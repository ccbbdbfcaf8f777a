// Values as they stand in a table for people: sizes, rates, times, texts that fit.

#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "holdfast/admin.h"

namespace holdfast::cli {

// The number of characters of a UTF-8 text; wide ones count as one.
std::size_t character_count(std::string_view text);
// At most `characters_max` (at least 1) characters, the last one "…" if something was cut.
std::string cut(std::string_view text, std::size_t characters_max);

// Rounded for reading: 512 → "512 B", 1234567 → "1.2 MiB".
std::string size_cell(std::uint64_t bytes);
// Of a count of messages: those on their way to dead-letter queues; empty if there are none.
std::string moving_part(std::uint64_t messages);
// Why the ready messages of a queue that is stalled are not delivered.
std::string stalled_cell(const QueueReport& report);
// Per second: 0 → "0/s", 12.34 → "12.3/s", 12345.6 → "12346/s".
std::string rate_cell(double per_second);
// Rounded to two units: 93784000 → "1d2h", 1500 → "1.5s".
std::string age_cell(std::chrono::milliseconds age);

// RFC 3339 in UTC with milliseconds: "2026-03-01T12:00:00.250Z"; empty for the epoch, which stands
// for a time that is not known.
std::string timestamp(std::chrono::system_clock::time_point time);

}  // namespace holdfast::cli
