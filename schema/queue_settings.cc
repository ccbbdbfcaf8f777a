#include "schema/queue_settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "holdfast/text.h"
#include "schema/field_limits.h"

namespace holdfast {
namespace {

constexpr std::uint64_t kSecond = 1'000;
constexpr std::uint64_t kMinute = 60 * kSecond;
constexpr std::uint64_t kHour = 60 * kMinute;

constexpr std::array<QueueSettingInfo, kQueueSettingCount> kTable{{
    {QueueSetting::kLease, "lease", SettingUnit::kMilliseconds, 30 * kSecond, kLeaseMsMin,
     kLeaseMsMax, false,
     "time in which a delivery must be settled, unless the consumer names its own"},
    {QueueSetting::kMaxAttempts, "max-attempts", SettingUnit::kCount, 10, 1, 1'000, true,
     "deliveries after which a message that was not acked goes to the dead-letter queue"},
    {QueueSetting::kBackoffMin, "backoff-min", SettingUnit::kMilliseconds, kSecond, 0, kHour, false,
     "wait before the second attempt; it doubles with each further one"},
    {QueueSetting::kBackoffMax, "backoff-max", SettingUnit::kMilliseconds, 10 * kMinute, 0,
     24 * kHour, false, "longest wait between two attempts"},
    {QueueSetting::kDedupWindow, "dedup-window", SettingUnit::kMilliseconds, 10 * kMinute, kSecond,
     24 * kHour, true, "time in which a message id is stored only once"},
    {QueueSetting::kMaxMessages, "max-messages", SettingUnit::kCount, 0, 1, 1ull << 48, true,
     "messages that the queue holds before it refuses new ones"},
    {QueueSetting::kMaxBytes, "max-bytes", SettingUnit::kBytes, 0, 1ull << 10, 1ull << 50, true,
     "bytes of messages that the queue holds before it refuses new ones"},
    {QueueSetting::kMaxMessageBytes, "max-message-bytes", SettingUnit::kBytes, 1ull << 20, 1,
     kMessageBodyBytesMax, false, "largest body of one message"},
    {QueueSetting::kOutstandingMax, "outstanding-max", SettingUnit::kCount, 65'536, 1, 1'048'576,
     false,
     "messages in flight, waiting for a retry or about to be dead letters before the queue "
     "delivers no new ones"},
}};

constexpr bool table_is_in_order() {
  for (std::size_t i = 0; i < kTable.size(); ++i) {
    if (static_cast<std::size_t>(kTable[i].setting) != i + 1) return false;
    const bool is_none = kTable[i].zero_means_none && kTable[i].default_value == 0;
    const bool is_within = kTable[i].default_value >= kTable[i].value_min &&
                           kTable[i].default_value <= kTable[i].value_max;
    if (!is_none && !is_within) return false;
  }
  return true;
}
static_assert(table_is_in_order(), "numbers are 1, 2, 3, …, and defaults are within their bounds");

constexpr std::string_view kNone = "none";

bool value_is_allowed(const QueueSettingInfo& info, std::uint64_t value) {
  return (value == 0 && info.zero_means_none) ||
         (value >= info.value_min && value <= info.value_max);
}

Status out_of_bounds(const QueueSettingInfo& info, std::string_view shown) {
  return Status(ErrorCode::kInvalidArgument,
                fmt::format("Setting {} cannot be {}: its bounds are {} to {}{}.", info.name, shown,
                            format_setting_value(info, info.value_min),
                            format_setting_value(info, info.value_max),
                            info.zero_means_none ? ", or none" : ""));
}

Result<std::uint64_t> parse_in_unit(const QueueSettingInfo& info, std::string_view text) {
  switch (info.unit) {
    case SettingUnit::kMilliseconds:
      return parse_duration_ms(text);
    case SettingUnit::kBytes:
      return parse_bytes(text);
    case SettingUnit::kCount:
      return parse_count(text);
  }
  CHECK(false, "unit {}", static_cast<int>(info.unit));
}

// What of a dead-letter queue is not as of others, and stays.
constexpr std::pair<QueueSetting, std::uint64_t> kOfDeadLetters[] = {
    {QueueSetting::kMaxAttempts, 0},
    {QueueSetting::kDedupWindow, 0},
    {QueueSetting::kMaxMessages, 0},
    {QueueSetting::kMaxBytes, 0},
    {QueueSetting::kMaxMessageBytes, 16ull << 20},
};

}  // namespace

std::span<const QueueSettingInfo, kQueueSettingCount> queue_setting_table() { return kTable; }

const QueueSettingInfo* find_queue_setting(std::uint16_t number) {
  return number >= 1 && number <= kTable.size() ? &kTable[number - 1u] : nullptr;
}

const QueueSettingInfo* find_queue_setting(std::string_view name) {
  for (const QueueSettingInfo& info : kTable) {
    if (info.name == name) return &info;
  }
  return nullptr;
}

QueueSettings::QueueSettings() {
  for (std::size_t i = 0; i < kTable.size(); ++i) values_[i] = kTable[i].default_value;
}

QueueSettings QueueSettings::for_dead_letters(const QueueSettings& of_its_queue) {
  QueueSettings settings = of_its_queue;
  for (const auto& [setting, value] : kOfDeadLetters) {
    const Status status = settings.set(static_cast<std::uint16_t>(setting), value);
    CHECK(status.ok(), "{}", status.message());
  }
  return settings;
}

bool QueueSettings::may_differ_for_dead_letters(QueueSetting setting) {
  return std::ranges::none_of(kOfDeadLetters,
                              [&](const auto& fixed) { return fixed.first == setting; });
}

Status QueueSettings::set(std::uint16_t number, std::uint64_t value) {
  const QueueSettingInfo* info = find_queue_setting(number);
  if (info == nullptr) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("There is no queue setting with the number {}: this version knows 1 "
                              "to {}.",
                              number, kQueueSettingCount));
  }
  if (!value_is_allowed(*info, value)) {
    return out_of_bounds(*info, format_setting_value(*info, value));
  }
  values_[number - 1u] = value;
  return Status();
}

Status QueueSettings::check() const {
  const std::uint64_t backoff_min = get(QueueSetting::kBackoffMin);
  const std::uint64_t backoff_max = get(QueueSetting::kBackoffMax);
  if (backoff_min > backoff_max) {
    return Status(
        ErrorCode::kInvalidArgument,
        fmt::format("Setting backoff-min is {} and backoff-max is {}: the shortest wait cannot be "
                    "longer than the longest; set both.",
                    format_duration_ms(backoff_min), format_duration_ms(backoff_max)));
  }
  return Status();
}

Result<std::uint64_t> parse_setting_value(const QueueSettingInfo& info, std::string_view text) {
  if (info.zero_means_none && text == kNone) return std::uint64_t{0};
  Result<std::uint64_t> value = parse_in_unit(info, text);
  if (!value.ok()) {
    return Status(value.status().code(),
                  fmt::format("Setting {}: {}", info.name, value.status().message()));
  }
  if (!value_is_allowed(info, *value)) return out_of_bounds(info, text);
  return value;
}

std::string format_setting_value(const QueueSettingInfo& info, std::uint64_t value) {
  if (value == 0 && info.zero_means_none) return std::string(kNone);
  switch (info.unit) {
    case SettingUnit::kMilliseconds:
      return format_duration_ms(value);
    case SettingUnit::kBytes:
      return format_bytes(value);
    case SettingUnit::kCount:
      return fmt::format("{}", value);
  }
  CHECK(false, "unit {}", static_cast<int>(info.unit));
}

}  // namespace holdfast
