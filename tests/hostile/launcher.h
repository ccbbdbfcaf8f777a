// A broker started with something in its way: a slow disk, few descriptors.

#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>

#include "hostile/slow_disk_control.h"

namespace holdfast::hostile {

// The disk of brokers started with its arguments; as fast as it is until told otherwise.
class SlowDisk {
 public:
  // `shim` is the library that is loaded into the broker; `directory` gets the file of the control.
  SlowDisk(std::filesystem::path shim, const std::filesystem::path& directory);
  ~SlowDisk();
  SlowDisk(const SlowDisk&) = delete;
  SlowDisk& operator=(const SlowDisk&) = delete;

  void set_delay(std::chrono::microseconds delay);
  std::chrono::microseconds delay() const;
  std::uint64_t delayed_total() const { return control_->delayed_total; }
  bool delays_now() const { return control_->delayed_now > 0; }
  // A broker that was killed left its count behind.
  void broker_ended() { control_->delayed_now = 0; }

  const std::filesystem::path& shim() const { return shim_; }
  const std::filesystem::path& file() const { return file_; }

 private:
  const std::filesystem::path shim_;
  const std::filesystem::path file_;
  SlowDiskControl* control_ = nullptr;
};

// Writes a script into `directory` that becomes the broker `binary`, with this disk (null: the
// plain one) and at most so many descriptors (0: as many as there are); returns its path, which
// stands in for that of the broker.
std::filesystem::path write_launcher(const std::filesystem::path& directory,
                                     const std::filesystem::path& binary, const SlowDisk* disk,
                                     std::uint32_t descriptors_max = 0);

}  // namespace holdfast::hostile
