// A disk that is soon full: a file system of its own, or a quota that stands in for one.

#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace holdfast::full {

enum class DiskKind { kTmpfs, kExt4, kQuota };
inline constexpr DiskKind kDiskKinds[] = {DiskKind::kTmpfs, DiskKind::kExt4, DiskKind::kQuota};
std::string_view disk_kind_name(DiskKind kind);

inline constexpr std::uint64_t kDiskBytes = 32u << 20;

// The mounts of this process and its children are seen by no other and end with them. Needs root;
// without it nothing is mounted and quotas stand in.
void keep_mounts_private();

class SmallDisk {
 public:
  // `directory` exists; the disk is at directory/data. Where the kind asked for cannot be mounted,
  // a quota stands in, and `substitution()` says why.
  SmallDisk(DiskKind kind, const std::filesystem::path& directory);
  ~SmallDisk();
  SmallDisk(const SmallDisk&) = delete;
  SmallDisk& operator=(const SmallDisk&) = delete;

  const std::string& substitution() const { return substitution_; }
  // Bytes that a file may take on it.
  std::uint64_t bytes() const { return bytes_; }
  // For the broker's command line.
  const std::vector<std::string>& broker_arguments() const { return broker_arguments_; }

 private:
  bool mount_tmpfs();
  bool mount_ext4(const std::filesystem::path& directory);
  void use_quota(const std::filesystem::path& directory);

  const std::filesystem::path data_;
  bool mounted_ = false;
  std::uint64_t bytes_ = kDiskBytes;
  std::string substitution_;
  std::vector<std::string> broker_arguments_;
};

}  // namespace holdfast::full
