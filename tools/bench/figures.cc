#include "bench/figures.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <fstream>
#include <limits>
#include <sstream>

namespace holdfast::bench {

namespace {

constexpr std::uint64_t kStepNs = 100;
constexpr int kProbeSamples = 100;
constexpr std::size_t kProbeBytes = 4096;

std::string proc_file(std::uint32_t pid, std::string_view name) {
  std::ifstream file(fmt::format("/proc/{}/{}", pid, name));
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// "VmHWM:   1234 kB" of /proc/PID/status.
double status_mb(std::uint32_t pid, std::string_view field) {
  const std::string status = proc_file(pid, "status");
  const std::size_t at = status.find(field);
  if (at == std::string::npos) return 0;
  return std::strtod(status.c_str() + at + field.size(), nullptr) / 1024;
}

}  // namespace

std::uint64_t now_ns() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec);
}

void Latencies::add(std::uint64_t ns) {
  constexpr std::uint64_t kMax = std::numeric_limits<std::uint32_t>::max();
  samples_.push_back(static_cast<std::uint32_t>(std::min(ns / kStepNs, kMax)));
  sorted_ = false;
}

double Latencies::us(double quantile) {
  if (!sorted_) std::sort(samples_.begin(), samples_.end());
  sorted_ = true;
  const double rank = std::ceil(quantile * static_cast<double>(samples_.size()));
  const auto index = static_cast<std::size_t>(std::max(rank, 1.0)) - 1;
  return static_cast<double>(samples_[index]) * kStepNs / 1000;
}

// The sum over its threads of the first number of their schedstat, which is in nanoseconds, where
// /proc/PID/stat counts in hundredths of a second.
Result<double> cpu_seconds(std::uint32_t pid) {
  std::error_code error;
  double seconds = 0;
  for (const auto& task :
       std::filesystem::directory_iterator(fmt::format("/proc/{}/task", pid), error)) {
    std::ifstream file(task.path() / "schedstat");
    double ns = 0;
    if (file >> ns) seconds += ns * 1e-9;
  }
  if (error) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("The time of process {} cannot be told: {}.", pid, error.message()));
  }
  return seconds;
}

double own_cpu_seconds() {
  rusage usage{};
  ::getrusage(RUSAGE_SELF, &usage);
  const auto seconds = [](const timeval& time) {
    return static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_usec) * 1e-6;
  };
  return seconds(usage.ru_utime) + seconds(usage.ru_stime);
}

double peak_memory_mb(std::uint32_t pid) { return status_mb(pid, "VmHWM:"); }
double anonymous_memory_mb(std::uint32_t pid) { return status_mb(pid, "RssAnon:"); }

void reset_peak_memory(std::uint32_t pid) {
  std::ofstream(fmt::format("/proc/{}/clear_refs", pid)) << "5";
}

Status DiskProbe::sample() {
  const std::string path = fmt::format("{}/holdfast-bench-probe.{}", directory_, ::getpid());
  const int file = ::open(path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0600);
  std::array<char, kProbeBytes> page{};
  bool good = file >= 0;
  for (int i = 0; good && i < kProbeSamples; ++i) {
    const std::uint64_t begin = now_ns();
    good = ::write(file, page.data(), page.size()) == static_cast<ssize_t>(page.size()) &&
           ::fdatasync(file) == 0;
    appends.add(now_ns() - begin);
  }
  for (int i = 0; good && i < kProbeSamples; ++i) {
    const std::uint64_t begin = now_ns();
    for (int half = 0; good && half < 2; ++half) {
      const auto at =
          static_cast<off_t>((2 * i + half) % kProbeSamples) * static_cast<off_t>(kProbeBytes);
      good = ::pwrite(file, page.data(), page.size(), at) == static_cast<ssize_t>(page.size()) &&
             ::fdatasync(file) == 0;
    }
    pairs.add(now_ns() - begin);
  }
  const int error = errno;
  if (file >= 0) {
    ::close(file);
    ::unlink(path.c_str());
  }
  if (good) return Status();
  return Status(ErrorCode::kStorageFailed,
                fmt::format("{} cannot be written: {}.", path, std::strerror(error)));
}

}  // namespace holdfast::bench
