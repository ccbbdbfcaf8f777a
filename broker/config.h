// The broker's configuration: every setting declared once, in one table: section, name, type,
// default, bounds, meaning. The table drives reading the file, `--check-config`, and the reference
// in docs/OPERATIONS.md. The file is TOML; the command line beats it.

#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "core/requests.h"
#include "holdfast/status.h"

namespace holdfast::broker {

// The values; bytes in bytes, durations in milliseconds.
struct Config {
  std::string data;
  std::string listen;
  std::string unix_path;
  std::uint64_t allow_network_file_system = 0;  // 0 or 1

  std::uint64_t connections_max = 0;
  std::uint64_t queues_max = 0;
  std::uint64_t consumers_max = 0;
  std::uint64_t dedup_ids_max = 0;
  std::uint64_t cache_bytes_max = 0;
  std::uint64_t disk_bytes_max = 0;
  std::uint64_t preallocate_bytes = 0;
  std::uint64_t unconfirmed_bytes_max = 0;
  std::uint64_t unconfirmed_bytes_total_max = 0;
  std::uint64_t answers_bytes_total_max = 0;
  std::uint64_t output_bytes_high = 0;
  std::uint64_t output_bytes_total_max = 0;
  std::uint64_t input_bytes_total_max = 0;

  std::uint64_t handshake_ms = 0;
  std::uint64_t frame_ms = 0;
  std::uint64_t heartbeat_ms = 0;
  std::uint64_t slow_reader_ms = 0;
  std::uint64_t drain_ms = 0;

  std::vector<SettingChange> queue_defaults;  // what a QueueCreate does not name

  Config();  // the defaults
};

// Reads this file over the defaults. kConfigInvalid with a sentence that names the file, the line,
// and what is wrong: not readable, not TOML, an unknown section or setting (and the nearest one),
// a wrong type, a value out of bounds.
Result<Config> read_config_file(const std::string& path);
// Likewise from text; `name` stands for the file in sentences.
Result<Config> parse_config(std::string_view text, std::string_view name);

// The whole configuration as a file that would give it, with every setting's meaning.
std::string format_config(const Config& config);
// The reference of all settings as a table in Markdown.
std::string config_reference();

}  // namespace holdfast::broker
