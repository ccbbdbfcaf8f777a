#include "full/small_disk.h"

#include <fmt/format.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace holdfast::full {

std::string_view disk_kind_name(DiskKind kind) {
  switch (kind) {
    case DiskKind::kTmpfs:
      return "tmpfs";
    case DiskKind::kExt4:
      return "ext4";
    case DiskKind::kQuota:
      return "quota";
  }
  return "disk";
}

void keep_mounts_private() {
  if (::unshare(CLONE_NEWNS) == 0) ::mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr);
}

SmallDisk::SmallDisk(DiskKind kind, const std::filesystem::path& directory)
    : data_(directory / "data") {
  std::filesystem::create_directories(data_);
  if (kind == DiskKind::kTmpfs) mounted_ = mount_tmpfs();
  if (kind == DiskKind::kExt4) mounted_ = mount_ext4(directory);
  struct statvfs room {};
  if (!mounted_) {
    use_quota(directory);
  } else if (::statvfs(data_.c_str(), &room) == 0) {
    bytes_ = room.f_bavail * room.f_frsize;
  }
}

SmallDisk::~SmallDisk() {
  if (mounted_) ::umount2(data_.c_str(), MNT_DETACH);
}

bool SmallDisk::mount_tmpfs() {
  const std::string size = fmt::format("size={}", kDiskBytes);
  if (::mount("tmpfs", data_.c_str(), "tmpfs", 0, size.c_str()) == 0) return true;
  substitution_ = fmt::format("No tmpfs can be mounted here ({})", std::strerror(errno));
  return false;
}

bool SmallDisk::mount_ext4(const std::filesystem::path& directory) {
  const std::filesystem::path image = directory / "disk.img";
  const std::filesystem::path log = directory / "mount.log";
  std::FILE* const file = std::fopen(image.c_str(), "w");
  if (file == nullptr) {
    substitution_ = fmt::format("No image can be made at {}", image.string());
    return false;
  }
  std::fclose(file);
  std::filesystem::resize_file(image, kDiskBytes);
  // The directory that mkfs makes would be a foreign entry in the data directory.
  const std::string command = fmt::format(
      "{{ mkfs.ext4 -q -F -m 0 '{0}' && mount -o loop '{0}' '{1}' && rmdir '{1}/lost+found'; }} "
      ">'{2}' 2>&1",
      image.string(), data_.string(), log.string());
  if (::access("/dev/loop-control", R_OK | W_OK) == 0 && std::system(command.c_str()) == 0) {
    return true;
  }
  ::umount2(data_.c_str(), MNT_DETACH);
  substitution_ = fmt::format("No ext4 image can be mounted here (see {})", log.string());
  return false;
}

void SmallDisk::use_quota(const std::filesystem::path& directory) {
  const std::filesystem::path config = directory / "quota.toml";
  std::FILE* const file = std::fopen(config.c_str(), "w");
  if (file == nullptr) std::abort();
  fmt::print(file, "[limits]\ndisk_bytes_max = {}\n", kDiskBytes);
  std::fclose(file);
  broker_arguments_ = {"--config", config.string()};
}

}  // namespace holdfast::full
