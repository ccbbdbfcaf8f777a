// The settings of a queue, declared once: number on the wire and in the store, name on the command
// line and in the configuration file, unit, default, bounds, meaning. Everything that reads,
// checks, stores or shows a setting goes by this table.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

#include "holdfast/status.h"

namespace holdfast {

enum class QueueSetting : std::uint16_t {
  kLease = 1,
  kMaxAttempts = 2,
  kBackoffMin = 3,
  kBackoffMax = 4,
  kDedupWindow = 5,
  kMaxMessages = 6,
  kMaxBytes = 7,
  kMaxMessageBytes = 8,
  kOutstandingMax = 9,
};

enum class SettingUnit : std::uint8_t { kMilliseconds, kBytes, kCount };

struct QueueSettingInfo {
  QueueSetting setting;
  std::string_view name;  // e.g. "max-attempts"
  SettingUnit unit;
  std::uint64_t default_value;
  std::uint64_t value_min;
  std::uint64_t value_max;
  bool zero_means_none;  // 0 is allowed besides the bounds: no limit (of max-attempts too), or off
  std::string_view meaning;
};

inline constexpr std::size_t kQueueSettingCount = 9;

// In the order of their numbers.
std::span<const QueueSettingInfo, kQueueSettingCount> queue_setting_table();
const QueueSettingInfo* find_queue_setting(std::uint16_t number);
const QueueSettingInfo* find_queue_setting(std::string_view name);

// The values of one queue, checked one by one as they are set.
class QueueSettings {
 public:
  QueueSettings();  // the defaults
  // Those of a dead-letter queue: no retry limit, no dedup, no bound on length or bytes. How its
  // messages are delivered it has from its queue.
  static QueueSettings for_dead_letters(const QueueSettings& of_its_queue = QueueSettings());
  // False of those that are only for what is published, and of max-attempts: a dead-letter queue
  // has none of its own.
  static bool may_differ_for_dead_letters(QueueSetting setting);

  std::uint64_t get(QueueSetting setting) const {
    return values_[static_cast<std::size_t>(setting) - 1];
  }
  // kInvalidArgument, naming the setting, the value and its bounds, if it is out of them.
  Status set(std::uint16_t number, std::uint64_t value);
  // What no single value shows: backoff-min above backoff-max.
  Status check() const;
  bool operator==(const QueueSettings&) const = default;

 private:
  std::array<std::uint64_t, kQueueSettingCount> values_{};
};

// "30s", "10m", "1h30m", "250ms", "0"; bytes as "64KiB", "1MiB", "10MB", "512"; counts as "10";
// "none" where 0 means none. kInvalidArgument, naming the setting and its bounds, otherwise.
Result<std::uint64_t> parse_setting_value(const QueueSettingInfo& info, std::string_view text);
// A text that parses to the same value, as format_duration_ms and format_bytes write it; "none" for
// a 0 that means none.
std::string format_setting_value(const QueueSettingInfo& info, std::uint64_t value);

}  // namespace holdfast
