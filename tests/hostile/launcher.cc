#include "hostile/launcher.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <stdexcept>
#include <utility>

namespace holdfast::hostile {

SlowDisk::SlowDisk(std::filesystem::path shim, const std::filesystem::path& directory)
    : shim_(std::filesystem::absolute(shim)), file_(directory / "slow_disk") {
  const int descriptor = ::open(file_.c_str(), O_RDWR | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
  if (descriptor < 0 || ::ftruncate(descriptor, sizeof(SlowDiskControl)) != 0) {
    throw std::runtime_error("The file " + file_.string() + " cannot be made.");
  }
  void* const mapped =
      ::mmap(nullptr, sizeof(SlowDiskControl), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  ::close(descriptor);
  if (mapped == MAP_FAILED) {
    throw std::runtime_error("The file " + file_.string() + " cannot be mapped.");
  }
  control_ = static_cast<SlowDiskControl*>(mapped);
}

SlowDisk::~SlowDisk() { ::munmap(control_, sizeof(SlowDiskControl)); }

void SlowDisk::set_delay(std::chrono::microseconds delay) {
  control_->delay_us = static_cast<std::uint32_t>(delay.count());
}

std::chrono::microseconds SlowDisk::delay() const {
  return std::chrono::microseconds(control_->delay_us.load());
}

std::filesystem::path write_launcher(const std::filesystem::path& directory,
                                     const std::filesystem::path& binary, const SlowDisk* disk,
                                     std::uint32_t descriptors_max) {
  std::string script = "#!/bin/sh\n";
  if (descriptors_max > 0) script += fmt::format("ulimit -n {}\n", descriptors_max);
  if (disk != nullptr) {
    script += fmt::format("export {}='{}' LD_PRELOAD='{}'\n", kSlowDiskVariable,
                          disk->file().string(), disk->shim().string());
  }
  script += fmt::format("exec '{}' \"$@\"\n", std::filesystem::absolute(binary).string());
  const std::filesystem::path path = directory / fmt::format("broker-{}.sh", descriptors_max);
  std::ofstream(path) << script;
  std::filesystem::permissions(path, std::filesystem::perms::owner_all);
  return path;
}

}  // namespace holdfast::hostile
