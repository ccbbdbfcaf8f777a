#include "cli/cell.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "cli/json_form.h"
#include "holdfast/text.h"

namespace holdfast::cli {
namespace {

bool begins_character(char byte) { return (static_cast<unsigned char>(byte) & 0xC0) != 0x80; }

}  // namespace

std::size_t character_count(std::string_view text) {
  return static_cast<std::size_t>(std::count_if(text.begin(), text.end(), begins_character));
}

std::string cut(std::string_view text, std::size_t characters_max) {
  std::size_t characters = 0;
  std::size_t kept_bytes = 0;  // up to the last character but one that fits
  for (std::size_t i = 0; i < text.size(); ++i) {
    if (!begins_character(text[i])) continue;
    if (characters + 1 == characters_max) kept_bytes = i;
    if (++characters > characters_max) return std::string(text.substr(0, kept_bytes)) + "…";
  }
  return std::string(text);
}

std::string moving_part(std::uint64_t messages) {
  return messages == 0 ? "" : fmt::format(", {} moving to dead letters", messages);
}

std::string stalled_cell(const QueueReport& report) {
  return fmt::format("its outstanding-max ({}) is used up by {} in flight, {} waiting{}",
                     setting_of(report, "outstanding-max"), report.in_flight, report.waiting,
                     moving_part(report.moving));
}

std::string size_cell(std::uint64_t bytes) {
  constexpr std::array<std::string_view, 6> kUnits{"B", "KiB", "MiB", "GiB", "TiB", "PiB"};
  if (bytes < 1024) return fmt::format("{} B", bytes);
  double value = static_cast<double>(bytes);
  std::size_t unit = 0;
  // 1023.95 and more would be shown as 1024.0.
  while (value >= 1023.95 && unit + 1 < kUnits.size()) {
    value /= 1024;
    ++unit;
  }
  return fmt::format("{:.1f} {}", value, kUnits[unit]);
}

std::string rate_cell(double per_second) {
  if (!(per_second > 0)) return "0/s";
  return per_second < 100 ? fmt::format("{:.1f}/s", per_second)
                          : fmt::format("{:.0f}/s", per_second);
}

std::string age_cell(std::chrono::milliseconds age) {
  const auto age_ms = static_cast<std::uint64_t>(std::max<std::int64_t>(age.count(), 0));
  constexpr std::uint64_t kSecond = 1'000, kMinute = 60 * kSecond, kHour = 60 * kMinute,
                          kDay = 24 * kHour;
  const std::uint64_t step = age_ms >= kDay ? kHour : age_ms >= kHour ? kMinute : kSecond;
  return format_duration_ms(age_ms < kMinute ? age_ms : age_ms / step * step);
}

std::string timestamp(std::chrono::system_clock::time_point time) {
  const bool is_known =
      std::chrono::floor<std::chrono::milliseconds>(time.time_since_epoch()).count() != 0;
  return is_known ? format_time(time) : std::string();
}

}  // namespace holdfast::cli
