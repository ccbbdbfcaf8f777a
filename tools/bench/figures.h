// What a run measures: times, the processor time and memory of a process, and how fast the disk is
// without any broker.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "holdfast/status.h"

namespace holdfast::bench {

// Nanoseconds of the monotonic clock.
std::uint64_t now_ns();

// Times in steps of 0.1 us, up to seven minutes; longer ones count as that.
class Latencies {
 public:
  void add(std::uint64_t ns);
  bool empty() const { return samples_.empty(); }
  // The nearest rank of this quantile, 0 to 1, in microseconds; there must be a sample.
  double us(double quantile);

 private:
  std::vector<std::uint32_t> samples_;
  bool sorted_ = true;
};

// Of a process, in seconds: user and system time of all its threads.
Result<double> cpu_seconds(std::uint32_t pid);
double own_cpu_seconds();

// Of a process, in MB (2^20): its resident memory at its peak since reset_peak_memory(), and now
// without the pages of files.
double peak_memory_mb(std::uint32_t pid);
double anonymous_memory_mb(std::uint32_t pid);
void reset_peak_memory(std::uint32_t pid);

// Times writes of 4 KiB with fdatasync in a directory.
class DiskProbe {
 public:
  explicit DiskProbe(std::string directory) : directory_(std::move(directory)) {}

  // A hundred appends to a file, a hundred pairs of overwrites in a file that is there already:
  // what a commit of the store costs at least. kStorageFailed if the directory cannot be written.
  Status sample();

  Latencies appends;
  Latencies pairs;

 private:
  std::string directory_;
};

// The figures of one run. What was not measured is not there.
struct Figures {
  std::string broker_version;
  std::uint64_t published = 0;
  std::uint64_t redelivered = 0;
  double seconds = 0;  // that were timed
  double client_cpu_s = 0;
  std::optional<double> server_cpu_s;
  std::optional<double> server_peak_rss_mb;
  std::optional<double> server_rss_anon_mb;
  Latencies latencies;
};

}  // namespace holdfast::bench
