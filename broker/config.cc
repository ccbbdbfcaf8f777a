#include "config.h"

#include <fmt/format.h>
#define TOML_HEADER_ONLY 1
#define TOML_EXCEPTIONS 0
#include <toml++/toml.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <variant>

#include "holdfast/text.h"
#include "net/listen_address.h"
#include "schema/frame.h"
#include "schema/queue_settings.h"

namespace holdfast::broker {

namespace {

enum class Type : std::uint8_t { kText, kBoolean, kCount, kBytes, kDuration };

struct Setting {
  std::string_view section;
  std::string_view name;
  Type type;
  std::variant<std::string Config::*, std::uint64_t Config::*> field;
  std::string_view default_text;  // of a text
  std::uint64_t default_value;
  std::uint64_t value_min;
  std::uint64_t value_max;
  std::string_view meaning;
  bool takes_zero = false;  // below value_min, for no limit
};

constexpr std::uint64_t kKiB = 1024;
constexpr std::uint64_t kMiB = 1024 * kKiB;
constexpr std::uint64_t kGiB = 1024 * kMiB;
constexpr std::uint64_t kTiB = 1024 * kGiB;
constexpr std::uint64_t kSecond = 1000;

// With less, the largest message would close the connection that it comes from, or goes to with
// what else is handed over at once, each time anew.
constexpr std::uint64_t kTotalMin = 32 * kMiB;
static_assert(kFrameBytesMax + 4 * kMiB < kTotalMin);

// With less, what is kept for settling and for dead letters leaves next to nothing for messages.
constexpr std::uint64_t kDiskMin = 32 * kMiB;

constexpr Setting text(std::string_view section, std::string_view name, std::string Config::*field,
                       std::string_view value, std::string_view meaning) {
  return {section, name, Type::kText, field, value, 0, 0, 0, meaning};
}
constexpr Setting number(std::string_view section, std::string_view name, Type type,
                         std::uint64_t Config::*field, std::uint64_t value, std::uint64_t value_min,
                         std::uint64_t value_max, std::string_view meaning) {
  return {section, name, type, field, {}, value, value_min, value_max, meaning};
}
constexpr Setting number_or_zero(std::string_view section, std::string_view name, Type type,
                                 std::uint64_t Config::*field, std::uint64_t value,
                                 std::uint64_t value_min, std::uint64_t value_max,
                                 std::string_view meaning) {
  Setting setting = number(section, name, type, field, value, value_min, value_max, meaning);
  setting.takes_zero = true;
  return setting;
}

constexpr std::array kSettings = {
    text(
        "broker", "data", &Config::data, "",
        "Directory of the store; made if it does not exist. A relative one begins where the broker "
        "is started. Must be given here or as --data."),
    text("broker", "listen", &Config::listen, "127.0.0.1:7411",
         "HOST:PORT to listen on; port 0 takes a free one; empty: no TCP."),
    text("broker", "unix", &Config::unix_path, "",
         "Path of a unix socket to listen on as well; empty: none."),
    number("broker", "allow_network_file_system", Type::kBoolean,
           &Config::allow_network_file_system, 0, 0, 1,
           "Run on a network file system, where locks and flushes may not hold."),

    number("limits", "connections_max", Type::kCount, &Config::connections_max, 10'000, 1,
           1'000'000,
           "Connections at a time, and 8 more through the unix socket; also bounded by the limit "
           "on open files less 64."),
    number("limits", "queues_max", Type::kCount, &Config::queues_max, 100'000, 1, 10'000'000,
           "Queues, dead-letter queues not counted. As many more may be deleted and not yet "
           "removed."),
    number("limits", "consumers_max", Type::kCount, &Config::consumers_max, 100'000, 1, 10'000'000,
           "Consumers at a time, over all queues."),
    number("limits", "dedup_ids_max", Type::kCount, &Config::dedup_ids_max, 32'000'000, 1'000,
           1'000'000'000,
           "Message ids remembered in the dedup windows of all queues together; beyond it the "
           "oldest of the queue with the most are forgotten before their time, which is counted."),
    number(
        "limits", "cache_bytes_max", Type::kBytes, &Config::cache_bytes_max, 32 * kMiB, kMiB, kTiB,
        "Recent messages kept in memory, so that live traffic is not read from disk. What queues "
        "with a backlog are in the middle of has eight times as much; beyond it consumers with "
        "little credit have it read again for each turn."),
    number_or_zero(
        "limits", "disk_bytes_max", Type::kBytes, &Config::disk_bytes_max, 0, kDiskMin, kTiB,
        "Disk that the data file may use, the journal (a 64th of it, 16MiB at most) not counted; "
        "publishes are refused before it is used up. 0: what the file system has."),
    number("limits", "preallocate_bytes", Type::kBytes, &Config::preallocate_bytes, 64 * kMiB, kMiB,
           64 * kGiB, "Step in which disk space is claimed ahead."),
    number("limits", "unconfirmed_bytes_max", Type::kBytes, &Config::unconfirmed_bytes_max,
           4 * kMiB, 64 * kKiB, kGiB,
           "Messages that one connection has published and that are not confirmed; beyond it the "
           "connection is not read."),
    number("limits", "unconfirmed_bytes_total_max", Type::kBytes,
           &Config::unconfirmed_bytes_total_max, 256 * kMiB, kMiB, kTiB,
           "The same over all connections, those that are gone included; beyond it whoever has "
           "published waits. From twice as much on publishes are refused."),
    number("limits", "answers_bytes_total_max", Type::kBytes, &Config::answers_bytes_total_max,
           256 * kMiB, kMiB, kTiB,
           "Answers that wait for a commit, over all connections, those that are gone included; "
           "beyond it nothing is read on whose answer may have to wait, until half is left."),
    number("limits", "output_bytes_high", Type::kBytes, &Config::output_bytes_high, kMiB, 64 * kKiB,
           kGiB,
           "Bytes waiting to be sent to one connection; beyond it nothing more is delivered to it "
           "and it is not read, until a quarter is left. What is handed over at once may be two "
           "to four times as much."),
    number("limits", "output_bytes_total_max", Type::kBytes, &Config::output_bytes_total_max,
           256 * kMiB, kTotalMin, kTiB,
           "Bytes waiting to be sent to all connections together; beyond it the one with the most "
           "is closed."),
    number("limits", "input_bytes_total_max", Type::kBytes, &Config::input_bytes_total_max,
           256 * kMiB, kTotalMin, kTiB,
           "Buffers for parts of frames received from all connections together; beyond it the one "
           "with the largest part is closed."),

    number("timeouts", "handshake", Type::kDuration, &Config::handshake_ms, 5 * kSecond, 10,
           600 * kSecond, "From connecting to a valid Hello."),
    number("timeouts", "frame", Type::kDuration, &Config::frame_ms, 10 * kSecond, 10, 600 * kSecond,
           "From the first byte of a frame to its last; of a large one for each 64 KiB."),
    number("timeouts", "heartbeat", Type::kDuration, &Config::heartbeat_ms, 10 * kSecond, 500,
           60 * kSecond,
           "Interval of heartbeats where the client asks for no other; after three without a byte "
           "the peer counts as dead."),
    number("timeouts", "slow_reader", Type::kDuration, &Config::slow_reader_ms, 30 * kSecond, 10,
           3'600 * kSecond, "A connection that takes nothing of what waits for it is closed."),
    number("timeouts", "drain", Type::kDuration, &Config::drain_ms, 4 * kSecond, 0, 600 * kSecond,
           "After SIGTERM, time for consumers to settle what they hold."),
};

constexpr std::string_view kQueueSection = "queue_defaults";
constexpr std::array<std::string_view, 4> kSections = {"broker", "limits", "timeouts",
                                                       kQueueSection};

std::string_view type_in_words(Type type) {
  switch (type) {
    case Type::kText:
      return "text in quotes";
    case Type::kBoolean:
      return "true or false";
    case Type::kCount:
      return "a whole number";
    case Type::kBytes:
      return "a size like \"64MiB\" or a number of bytes";
    case Type::kDuration:
      return "a duration in quotes like \"30s\"";
  }
  return "";
}

std::string format_value(Type type, std::uint64_t value) {
  switch (type) {
    case Type::kBoolean:
      return value == 0 ? "false" : "true";
    case Type::kBytes:
      return fmt::format("\"{}\"", format_bytes(value));
    case Type::kDuration:
      return fmt::format("\"{}\"", format_duration_ms(value));
    default:
      return fmt::to_string(value);
  }
}

// A TOML basic string.
std::string quoted_toml(std::string_view text) {
  std::string result = "\"";
  for (const char c : text) {
    if (c == '"' || c == '\\') {
      result += '\\';
      result += c;
    } else if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) {
      result += fmt::format("\\u{:04x}", static_cast<unsigned char>(c));
    } else {
      result += c;
    }
  }
  return result + '"';
}

// Reads one file's tables into a Config.
class ConfigReader {
 public:
  ConfigReader(std::string_view file, Config& config) : file_(file), config_(config) {}

  Status read(const toml::table& root) {
    for (const auto& [key, node] : root) {
      const std::string_view section = key.str();
      if (std::ranges::find(kSections, section) == kSections.end()) {
        return unknown(key.source(), "section", section, kSections, "");
      }
      if (!node.is_table()) {
        return error(key.source(),
                     fmt::format("{} must be a section: write [{}].", quoted(section), section));
      }
      const toml::table& table = *node.as_table();
      Status status =
          section == kQueueSection ? read_queue_defaults(table) : read_section(section, table);
      if (!status.ok()) return status;
    }
    return Status();
  }

 private:
  Status error(const toml::source_region& source, std::string_view what) const {
    return Status(ErrorCode::kConfigInvalid,
                  fmt::format("{}:{}: {}", file_, source.begin.line, what));
  }

  Status unknown(const toml::source_region& source, std::string_view what, std::string_view name,
                 std::span<const std::string_view> known, std::string_view where) const {
    const std::string_view nearest = nearest_word(name, known);
    return error(source,
                 fmt::format("There is no {} {}{}.{}", what, quoted(name), where,
                             nearest.empty() ? std::string()
                                             : fmt::format(" Did you mean {}?", quoted(nearest))));
  }

  Status read_section(std::string_view section, const toml::table& table) {
    for (const auto& [key, node] : table) {
      const std::string_view name = key.str();
      const auto setting = std::ranges::find_if(kSettings, [&](const Setting& candidate) {
        return candidate.section == section && candidate.name == name;
      });
      if (setting == kSettings.end()) {
        std::vector<std::string_view> known;
        for (const Setting& candidate : kSettings) {
          if (candidate.section == section) known.push_back(candidate.name);
        }
        return unknown(key.source(), "setting", name, known, fmt::format(" in [{}]", section));
      }
      if (Status status = read_setting(*setting, node); !status.ok()) return status;
    }
    return Status();
  }

  Status read_setting(const Setting& setting, const toml::node& node) {
    const auto wrong_type = [&] {
      return error(node.source(),
                   fmt::format("{} must be {}.", setting.name, type_in_words(setting.type)));
    };
    if (const auto* field = std::get_if<std::string Config::*>(&setting.field)) {
      const std::optional<std::string> value = node.value_exact<std::string>();
      if (!value) return wrong_type();
      if (value->find('\0') != std::string::npos) {
        return error(node.source(), fmt::format("{} contains a zero byte.", setting.name));
      }
      if (setting.name == "listen" && !value->empty()) {
        const Result<Address> address = parse_listen_address(*value);
        if (!address.ok()) return error(node.source(), address.status().message());
      }
      config_.*(*field) = *value;
      return Status();
    }
    std::uint64_t value = 0;
    if (setting.type == Type::kBoolean) {
      const std::optional<bool> flag = node.value_exact<bool>();
      if (!flag) return wrong_type();
      value = *flag ? 1 : 0;
    } else if (const auto whole = node.value_exact<std::int64_t>();
               whole && setting.type != Type::kDuration) {
      if (*whole < 0) return out_of_bounds(setting, node, fmt::to_string(*whole));
      value = static_cast<std::uint64_t>(*whole);
    } else if (const auto written = node.value_exact<std::string>();
               written && setting.type != Type::kCount) {
      const Result<std::uint64_t> parsed =
          setting.type == Type::kBytes ? parse_bytes(*written) : parse_duration_ms(*written);
      if (!parsed.ok()) {
        return error(node.source(), fmt::format("{}: {}", setting.name, parsed.status().message()));
      }
      value = *parsed;
    } else {
      return wrong_type();
    }
    const bool is_zero_taken = value == 0 && setting.takes_zero;
    if (!is_zero_taken && (value < setting.value_min || value > setting.value_max)) {
      return out_of_bounds(setting, node, format_value(setting.type, value));
    }
    config_.*std::get<std::uint64_t Config::*>(setting.field) = value;
    return Status();
  }

  Status out_of_bounds(const Setting& setting, const toml::node& node,
                       std::string_view value) const {
    return error(
        node.source(),
        fmt::format(
            "{} is {}; it must be from {} to {}{}.", setting.name, value,
            format_value(setting.type, setting.value_min),
            format_value(setting.type, setting.value_max),
            setting.takes_zero ? fmt::format(", or {}", format_value(setting.type, 0)) : ""));
  }

  Status read_queue_defaults(const toml::table& table) {
    QueueSettings settings;
    for (const auto& [key, node] : table) {
      const QueueSettingInfo* const info = find_queue_setting(key.str());
      if (info == nullptr) {
        std::vector<std::string_view> known;
        for (const QueueSettingInfo& candidate : queue_setting_table()) {
          known.push_back(candidate.name);
        }
        return unknown(key.source(), "setting of queues", key.str(), known, "");
      }
      std::string written;
      if (const auto whole = node.value_exact<std::int64_t>()) {
        written = fmt::to_string(*whole);
      } else if (const auto words = node.value_exact<std::string>()) {
        written = *words;
      } else {
        return error(node.source(),
                     fmt::format("{} must be a number or text in quotes.", key.str()));
      }
      const Result<std::uint64_t> value = parse_setting_value(*info, written);
      if (!value.ok()) return error(node.source(), value.status().message());
      const auto number = static_cast<std::uint16_t>(info->setting);
      if (Status status = settings.set(number, *value); !status.ok()) {
        return error(node.source(), status.message());
      }
      config_.queue_defaults.push_back({number, *value});
    }
    if (Status status = settings.check(); !status.ok()) {
      return error(table.source(), status.message());
    }
    return Status();
  }

  std::string_view file_;
  Config& config_;
};

}  // namespace

Config::Config() {
  for (const Setting& setting : kSettings) {
    if (const auto* field = std::get_if<std::string Config::*>(&setting.field)) {
      this->*(*field) = setting.default_text;
    } else {
      this->*std::get<std::uint64_t Config::*>(setting.field) = setting.default_value;
    }
  }
}

Result<Config> parse_config(std::string_view text, std::string_view name) {
  const toml::parse_result parsed = toml::parse(text, name);
  if (!parsed) {
    const toml::parse_error& error = parsed.error();
    return Status(ErrorCode::kConfigInvalid,
                  fmt::format("{}:{}: This is not TOML: {}.", name, error.source().begin.line,
                              printable(error.description())));
  }
  Config config;
  if (Status status = ConfigReader(name, config).read(parsed.table()); !status.ok()) return status;
  return config;
}

Result<Config> read_config_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  if (file.peek() != std::ifstream::traits_type::eof()) text << file.rdbuf();
  if (!file.is_open() || file.bad() || !text) {
    return Status(ErrorCode::kConfigInvalid,
                  fmt::format("The configuration file \"{}\" cannot be read: {}.", path,
                              std::strerror(errno)));
  }
  return parse_config(text.str(), path);
}

std::string format_config(const Config& config) {
  std::string result;
  std::string_view section;
  for (const Setting& setting : kSettings) {
    if (setting.section != section) {
      section = setting.section;
      result += fmt::format("{}[{}]\n", result.empty() ? "" : "\n", section);
    }
    const auto* const text_field = std::get_if<std::string Config::*>(&setting.field);
    const std::string value =
        text_field != nullptr
            ? quoted_toml(config.*(*text_field))
            : format_value(setting.type, config.*std::get<std::uint64_t Config::*>(setting.field));
    result += fmt::format("# {}\n{} = {}\n", setting.meaning, setting.name, value);
  }
  result += fmt::format("\n[{}]\n", kQueueSection);
  for (const SettingChange& change : config.queue_defaults) {
    const QueueSettingInfo& info = *find_queue_setting(change.setting);
    result += fmt::format("# {}\n{} = \"{}\"\n", info.meaning, info.name,
                          format_setting_value(info, change.value));
  }
  return result;
}

std::string config_reference() {
  std::string result =
      "| section | setting | default | from | to | meaning |\n"
      "| --- | --- | --- | --- | --- | --- |\n";
  for (const Setting& setting : kSettings) {
    const bool has_bounds = setting.type != Type::kText && setting.type != Type::kBoolean;
    const auto shown = [&](std::uint64_t value) {
      return has_bounds ? fmt::format("`{}`", format_value(setting.type, value)) : std::string();
    };
    const std::string value = setting.type == Type::kText
                                  ? quoted_toml(setting.default_text)
                                  : format_value(setting.type, setting.default_value);
    result +=
        fmt::format("| `[{}]` | `{}` | `{}` | {} | {} | {} |\n", setting.section, setting.name,
                    value, shown(setting.value_min), shown(setting.value_max), setting.meaning);
  }
  return result;
}

}  // namespace holdfast::broker
