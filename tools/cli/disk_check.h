// Whether the disk under a directory flushes: how long a small write takes until the device says
// that it is durable. One that answers sooner than any device can has not flushed, and then nothing
// that runs on it keeps its promises.
//
// Limits: that a flush takes its time does not prove that it lasts; only a power cut does.

#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "holdfast/status.h"

namespace holdfast::cli {

// A write of 4 KiB and its flush take longer on everything that is known to flush. The fastest are
// drives that keep their cache when the power goes: a flush alone, after the write, about 12 us (M.
// Callaghan, "SSDs, power loss protection and fsync latency", 2026), both together 47 us on an
// Optane DC P4800X (Percona, "Update on fsync Performance", 2019). In memory they take about 1 us.
inline constexpr double kFlushUsMin = 20;

struct DiskCheck {
  std::string file_system;  // e.g. "ext4", or the number that statfs(2) gives
  bool is_in_memory = false;
  bool is_on_network = false;
  std::vector<double> flush_us;  // ascending, at least one

  double median_us() const { return flush_us[flush_us.size() / 2]; }
  double p99_us() const { return flush_us[flush_us.size() * 99 / 100]; }
  double max_us() const { return flush_us.back(); }
  double flushes_per_second() const;
  // A sentence each; none if all of it is plausible.
  std::vector<std::string> warnings() const;
};

// Overwrites pages of a file of its own in the directory 500 times, or for two seconds, and removes
// it; asks `go_on` before each. kOperationRefused if there is no such directory,
// kDirectoryReadOnly, kStorageFull, kStorageFailed, kCancelled if it was not to go on.
Result<DiskCheck> check_disk(const std::string& directory, const std::function<bool()>& go_on);

}  // namespace holdfast::cli
