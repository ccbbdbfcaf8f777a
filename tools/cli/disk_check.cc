#include "cli/disk_check.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <numeric>
#include <string_view>

#include "store/directory.h"
#include "store/file.h"

namespace holdfast::cli {
namespace {

using std::chrono::steady_clock;

constexpr std::size_t kPageBytes = 4096;
constexpr std::size_t kPages = 256;
constexpr std::size_t kFlushesMax = 500;
constexpr std::chrono::seconds kLongest{2};
// Of a module of its own: linux/magic.h has none for it.
constexpr std::uint64_t kZfsMagic = 0x2FC12FC1;

Status system_error(std::string_view doing, const std::string& path, int error) {
  ErrorCode code = ErrorCode::kStorageFailed;
  if (error == ENOENT || error == ENOTDIR) code = ErrorCode::kOperationRefused;
  if (error == EROFS || error == EACCES || error == EPERM) code = ErrorCode::kDirectoryReadOnly;
  if (error == ENOSPC || error == EDQUOT) code = ErrorCode::kStorageFull;
  return {code, fmt::format("{} {} failed: {}.", doing, path, std::strerror(error))};
}

// A file with pages to overwrite, so that a flush is one of data alone; removed at the end. It
// keeps its name until then, because some file systems do not flush what has none.
class Pages {
 public:
  explicit Pages(const std::string& directory) : path_(directory + "/.holdfast-diskcheck-XXXXXX") {}
  ~Pages() {
    if (file_.ok()) ::unlink(path_.c_str());
  }
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;

  Status create() {
    file_ = broker::File(::mkostemp(path_.data(), O_CLOEXEC));
    if (!file_.ok()) return system_error("Creating", path_, file_.error());
    for (std::size_t i = 0; i < kPages; ++i) {
      if (Status status = write(i); !status.ok()) return status;
    }
    return ::fsync(file_.descriptor()) == 0 ? Status() : system_error("Flushing", path_, errno);
  }

  Status write(std::size_t page) {
    bytes_[0] = static_cast<char>(bytes_[0] + 1);
    const ssize_t written = ::pwrite(file_.descriptor(), bytes_.data(), bytes_.size(),
                                     static_cast<off_t>(page % kPages * kPageBytes));
    if (written == static_cast<ssize_t>(bytes_.size())) return Status();
    return system_error("Writing", path_, written < 0 ? errno : ENOSPC);
  }

  Status flush() {
    return ::fdatasync(file_.descriptor()) == 0 ? Status() : system_error("Flushing", path_, errno);
  }

 private:
  std::string path_;
  broker::File file_;
  std::array<char, kPageBytes> bytes_{};
};

std::string file_system_name(std::uint64_t magic) {
  if (const std::string_view name = broker::network_file_system_name(magic); !name.empty()) {
    return std::string(name);
  }
  switch (magic) {
    case TMPFS_MAGIC:
      return "tmpfs";
    case RAMFS_MAGIC:
      return "ramfs";
    case EXT4_SUPER_MAGIC:
      return "ext4";  // and its forerunners, which have the same number
    case XFS_SUPER_MAGIC:
      return "xfs";
    case BTRFS_SUPER_MAGIC:
      return "btrfs";
    case kZfsMagic:
      return "zfs";
    case OVERLAYFS_SUPER_MAGIC:
      return "overlayfs";
    default:
      return fmt::format("{:#x}", magic);
  }
}

}  // namespace

double DiskCheck::flushes_per_second() const {
  const double sum_us = std::accumulate(flush_us.begin(), flush_us.end(), 0.0);
  return sum_us > 0 ? static_cast<double>(flush_us.size()) * 1e6 / sum_us : 0;
}

std::vector<std::string> DiskCheck::warnings() const {
  std::vector<std::string> sentences;
  if (is_in_memory) {
    sentences.push_back(
        fmt::format("{} keeps files in memory: nothing outlives the machine's next start. Name a "
                    "directory on a disk.",
                    file_system));
  }
  if (is_on_network) {
    sentences.push_back(
        fmt::format("{} is a network file system, where neither locks nor flushes can be trusted; "
                    "the broker refuses it. Name a directory on a local disk.",
                    file_system));
  }
  if (median_us() < kFlushUsMin) {
    sentences.push_back(fmt::format(
        "A write and its flush take {:.1f} us; no device that is known to flush is faster than "
        "{:g} "
        "us. What is confirmed here may be lost with the power. Look for a write cache that is not "
        "protected, a virtual disk that ignores flushes, or a mount without barriers.",
        median_us(), kFlushUsMin));
  }
  return sentences;
}

Result<DiskCheck> check_disk(const std::string& directory, const std::function<bool()>& go_on) {
  DiskCheck check;
  struct statfs info {};
  if (::statfs(directory.c_str(), &info) != 0) {
    return system_error("Looking at", directory, errno);
  }
  const std::uint64_t magic = static_cast<std::uint64_t>(info.f_type) & UINT32_MAX;
  check.file_system = file_system_name(magic);
  check.is_in_memory = magic == TMPFS_MAGIC || magic == RAMFS_MAGIC;
  check.is_on_network = !broker::network_file_system_name(magic).empty();
  Pages pages(directory);
  if (Status status = pages.create(); !status.ok()) return status;
  const steady_clock::time_point end = steady_clock::now() + kLongest;
  do {
    if (!go_on()) return Status(ErrorCode::kCancelled, "The measurement was interrupted.");
    const steady_clock::time_point begin = steady_clock::now();
    if (Status status = pages.write(check.flush_us.size()); !status.ok()) return status;
    if (Status status = pages.flush(); !status.ok()) return status;
    check.flush_us.push_back(
        std::chrono::duration<double, std::micro>(steady_clock::now() - begin).count());
  } while (check.flush_us.size() < kFlushesMax && steady_clock::now() < end);
  std::sort(check.flush_us.begin(), check.flush_us.end());
  return check;
}

}  // namespace holdfast::cli
