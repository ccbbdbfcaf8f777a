#include "schema/queue_settings.h"

#include <doctest/doctest.h>

#include <string>

namespace holdfast {
namespace {

std::uint16_t number(QueueSetting setting) { return static_cast<std::uint16_t>(setting); }

const QueueSettingInfo& info(std::string_view name) {
  const QueueSettingInfo* found = find_queue_setting(name);
  REQUIRE(found != nullptr);
  return *found;
}

TEST_CASE("settings are found by number and by name") {
  for (const QueueSettingInfo& entry : queue_setting_table()) {
    CHECK(find_queue_setting(number(entry.setting)) == &entry);
    CHECK(find_queue_setting(entry.name) == &entry);
  }
  CHECK(find_queue_setting(std::uint16_t{0}) == nullptr);
  CHECK(find_queue_setting(std::uint16_t{kQueueSettingCount + 1}) == nullptr);
  CHECK(find_queue_setting("max_attempts") == nullptr);
}

TEST_CASE("the defaults are those that the documentation names") {
  const QueueSettings settings;
  CHECK(settings.get(QueueSetting::kLease) == 30'000);
  CHECK(settings.get(QueueSetting::kMaxAttempts) == 10);
  CHECK(settings.get(QueueSetting::kBackoffMin) == 1'000);
  CHECK(settings.get(QueueSetting::kBackoffMax) == 600'000);
  CHECK(settings.get(QueueSetting::kDedupWindow) == 600'000);
  CHECK(settings.get(QueueSetting::kMaxMessages) == 0);
  CHECK(settings.get(QueueSetting::kMaxBytes) == 0);
  CHECK(settings.get(QueueSetting::kMaxMessageBytes) == 1'048'576);
  CHECK(settings.get(QueueSetting::kOutstandingMax) == 65'536);
  CHECK(settings.check().ok());
}

TEST_CASE("a dead-letter queue has no retry limit, no dedup and takes every message") {
  const QueueSettings settings = QueueSettings::for_dead_letters();
  CHECK(settings.get(QueueSetting::kMaxAttempts) == 0);
  CHECK(settings.get(QueueSetting::kDedupWindow) == 0);
  CHECK(settings.get(QueueSetting::kMaxMessages) == 0);
  CHECK(settings.get(QueueSetting::kMaxBytes) == 0);
  CHECK(settings.get(QueueSetting::kMaxMessageBytes) == info("max-message-bytes").value_max);
  CHECK(settings.get(QueueSetting::kLease) == QueueSettings().get(QueueSetting::kLease));
  CHECK(settings.check().ok());
  CHECK_FALSE(QueueSettings::may_differ_for_dead_letters(QueueSetting::kMaxAttempts));
  CHECK_FALSE(QueueSettings::may_differ_for_dead_letters(QueueSetting::kMaxMessageBytes));
  CHECK(QueueSettings::may_differ_for_dead_letters(QueueSetting::kLease));
  CHECK(QueueSettings::may_differ_for_dead_letters(QueueSetting::kOutstandingMax));
}

TEST_CASE("each setting takes its bounds and refuses what lies beyond them") {
  for (const QueueSettingInfo& entry : queue_setting_table()) {
    CAPTURE(std::string(entry.name));
    QueueSettings settings;
    for (const std::uint64_t value : {entry.value_min, entry.value_max}) {
      CHECK(settings.set(number(entry.setting), value).ok());
      CHECK(settings.get(entry.setting) == value);
    }
    const auto is_refused = [&](std::uint64_t value) {
      const Status status = settings.set(number(entry.setting), value);
      CHECK(status.code() == ErrorCode::kInvalidArgument);
      CHECK(status.message().find(entry.name) != std::string::npos);
      CHECK(status.message().find(format_setting_value(entry, entry.value_max)) !=
            std::string::npos);
      CHECK(settings.get(entry.setting) == entry.value_max);
    };
    is_refused(entry.value_max + 1);
    if (entry.value_min > 1) is_refused(entry.value_min - 1);
    if (entry.value_min > 0) {
      CHECK(settings.set(number(entry.setting), 0).ok() == entry.zero_means_none);
    }
  }
}

TEST_CASE("a setting that this version does not know is refused by its number") {
  QueueSettings settings;
  for (const std::uint16_t unknown : {std::uint16_t{0}, std::uint16_t{10}, std::uint16_t{65535}}) {
    const Status status = settings.set(unknown, 1);
    CHECK(status.code() == ErrorCode::kInvalidArgument);
    CHECK(status.message().find(std::to_string(unknown)) != std::string::npos);
  }
  CHECK(settings == QueueSettings());
}

TEST_CASE("a shortest backoff above the longest is refused") {
  QueueSettings settings;
  REQUIRE(settings.set(number(QueueSetting::kBackoffMin), 60'000).ok());
  CHECK(settings.check().ok());
  REQUIRE(settings.set(number(QueueSetting::kBackoffMax), 59'999).ok());
  const Status status = settings.check();
  CHECK(status.code() == ErrorCode::kInvalidArgument);
  CHECK(status.message().find("59.999s") != std::string::npos);
}

TEST_CASE("values are read in the unit of their setting") {
  CHECK(*parse_setting_value(info("lease"), "1m30s") == 90'000);
  CHECK(*parse_setting_value(info("backoff-min"), "0") == 0);
  CHECK(*parse_setting_value(info("max-bytes"), "64KiB") == 65'536);
  CHECK(*parse_setting_value(info("max-attempts"), "3") == 3);
  CHECK(*parse_setting_value(info("max-attempts"), "none") == 0);
  CHECK(*parse_setting_value(info("dedup-window"), "0") == 0);
}

TEST_CASE("a wrong value is refused with the setting's name and bounds") {
  const auto message = [](std::string_view name, std::string_view text) {
    const Result<std::uint64_t> value = parse_setting_value(info(name), text);
    REQUIRE(!value.ok());
    CHECK(value.status().code() == ErrorCode::kInvalidArgument);
    return value.status().message();
  };
  CHECK(message("lease", "1ms") == "Setting lease cannot be 1ms: its bounds are 100ms to 12h.");
  CHECK(message("max-attempts", "1001") ==
        "Setting max-attempts cannot be 1001: its bounds are 1 to 1000, or none.");
  CHECK(message("lease", "none").starts_with("Setting lease: \"none\" is not a duration"));
  CHECK(message("lease", "30").starts_with("Setting lease: \"30\" lacks a unit"));
  CHECK(message("max-bytes", "1kB").starts_with("Setting max-bytes cannot be 1kB"));
}

TEST_CASE("a written value reads back as itself") {
  for (const QueueSettingInfo& entry : queue_setting_table()) {
    for (const std::uint64_t value : {entry.value_min, entry.default_value, entry.value_max}) {
      const std::string text = format_setting_value(entry, value);
      CAPTURE(text);
      const Result<std::uint64_t> parsed = parse_setting_value(entry, text);
      REQUIRE(parsed.ok());
      CHECK(*parsed == value);
    }
  }
  CHECK(format_setting_value(info("max-messages"), 0) == "none");
  CHECK(format_setting_value(info("backoff-min"), 0) == "0");
}

}  // namespace
}  // namespace holdfast
