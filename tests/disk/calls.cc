// The declarations below must not be renamed to those for large files: both names are defined here.
#undef _FILE_OFFSET_BITS

#include "disk/calls.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdlib>
#include <cstring>
#include <optional>
#include <string_view>
#include <vector>

namespace holdfast::disk {

namespace {

// A file below the watched directory that is open. Fixed storage: an allocation here would be seen.
struct OpenFile {
  bool open = false;
  bool through = false;
  std::array<char, 48> path{};
};

constexpr std::size_t kDescriptorsMax = 256;

// Nothing but static storage can be reached by a C function of a fixed signature.
std::array<OpenFile, kDescriptorsMax> open_files;
std::array<char, 256> watched_directory;
CallWatcher* call_watcher = nullptr;
constinit thread_local bool is_watched = true;

bool watching() { return call_watcher != nullptr && is_watched; }

// The path relative to the watched directory; null if it is not below it.
const char* relative(const char* path) {
  if (!watching()) return nullptr;
  const std::string_view directory(watched_directory.data());
  if (std::strncmp(path, directory.data(), directory.size()) != 0) return nullptr;
  const char* const rest = path + directory.size();
  if (*rest == '\0') return ".";
  return *rest == '/' ? rest + 1 : nullptr;
}

OpenFile* file_of(int descriptor) {
  if (!watching() || descriptor < 0) return nullptr;
  const auto index = static_cast<std::size_t>(descriptor);
  return index < kDescriptorsMax && open_files[index].open ? &open_files[index] : nullptr;
}

// Tells the watcher, and makes the call if it may.
template <typename Make>
auto tell(const Call& call, const Make& make) -> decltype(make()) {
  const Fate fate = call_watcher->before(call);
  if (fate.error != 0) {
    errno = fate.error;
    return -1;
  }
  const auto result = make();
  const int error = errno;
  call_watcher->after(call, result);
  errno = error;
  return result;
}

void remember(int descriptor, const char* path, int flags) {
  const auto index = static_cast<std::size_t>(descriptor);
  if (descriptor < 0 || index >= kDescriptorsMax) return;
  OpenFile& file = open_files[index];
  if (std::strlen(path) >= file.path.size()) std::abort();
  file.open = true;
  file.through = (flags & O_DSYNC) != 0;
  std::strcpy(file.path.data(), path);
}

int open_file(const char* path, int flags, mode_t mode) {
  const auto make = [=] {
    return static_cast<int>(::syscall(SYS_openat, AT_FDCWD, path, flags, mode));
  };
  const char* const name = relative(path);
  if (name == nullptr) return make();
  const bool creates = (flags & O_CREAT) != 0 && ::syscall(SYS_access, path, F_OK) != 0;
  const Call call{.kind = creates ? CallKind::kCreate : CallKind::kOpen, .path = name};
  const int descriptor = tell(call, make);
  remember(descriptor, name, flags);
  return descriptor;
}

// Reads what the fate allows, at the offset or, without one, at the descriptor's own position.
ssize_t read_bytes(int descriptor, void* bytes, std::size_t size, std::optional<off_t> offset) {
  const auto make = [=](std::size_t count) -> ssize_t {
    if (!offset) return ::syscall(SYS_read, descriptor, bytes, count);
    return ::syscall(SYS_pread64, descriptor, bytes, count, *offset);
  };
  OpenFile* const file = file_of(descriptor);
  if (file == nullptr) return make(size);
  const NotWatched guard;
  const off_t at = offset ? *offset : ::syscall(SYS_lseek, descriptor, 0, SEEK_CUR);
  const Call call{.kind = CallKind::kRead,
                  .path = file->path.data(),
                  .offset = static_cast<std::uint64_t>(at),
                  .size = size};
  const Fate fate = call_watcher->before(call);
  if (fate.error != 0) {
    errno = fate.error;
    return -1;
  }
  const ssize_t read = make(std::min(size, fate.bytes_max));
  const int error = errno;
  call_watcher->after(call, read);
  errno = error;
  return read;
}

// Writes what the fate allows of these pieces at the offset. `advances`: as the descriptor's own
// position, which moves on.
ssize_t write_pieces(int descriptor, std::span<const iovec> pieces, off_t offset, bool advances) {
  const auto make = [=](std::span<const iovec> some) -> ssize_t {
    const auto count = static_cast<int>(some.size());
    if (advances) return ::syscall(SYS_writev, descriptor, some.data(), count);
    return ::syscall(SYS_pwritev, descriptor, some.data(), count, offset, 0);
  };
  OpenFile* const file = file_of(descriptor);
  if (file == nullptr) return make(pieces);
  const NotWatched guard;
  std::uint64_t size = 0;
  for (const iovec& piece : pieces) size += piece.iov_len;
  const off_t at = advances ? ::syscall(SYS_lseek, descriptor, 0, SEEK_CUR) : offset;
  const Call call{.kind = CallKind::kWrite,
                  .path = file->path.data(),
                  .offset = static_cast<std::uint64_t>(at),
                  .size = size,
                  .bytes = pieces,
                  .through = file->through};
  const Fate fate = call_watcher->before(call);
  if (fate.error != 0) {
    errno = fate.error;
    return -1;
  }
  std::vector<iovec> allowed;
  std::size_t left = fate.bytes_max;
  for (const iovec& piece : pieces) {
    if (left == 0) break;
    allowed.push_back({piece.iov_base, std::min(piece.iov_len, left)});
    left -= allowed.back().iov_len;
  }
  const ssize_t written = make(allowed);
  const int error = errno;
  call_watcher->after(call, written);
  errno = error;
  return written;
}

int sync_file(int descriptor, long number) {
  const auto make = [=] { return static_cast<int>(::syscall(number, descriptor)); };
  OpenFile* const file = file_of(descriptor);
  if (file == nullptr) return make();
  return tell(Call{.kind = CallKind::kSync, .path = file->path.data()}, make);
}

int truncate_file(int descriptor, off_t size) {
  const auto make = [=] { return static_cast<int>(::syscall(SYS_ftruncate, descriptor, size)); };
  OpenFile* const file = file_of(descriptor);
  if (file == nullptr) return make();
  return tell(Call{.kind = CallKind::kTruncate,
                   .path = file->path.data(),
                   .size = static_cast<std::uint64_t>(size)},
              make);
}

int claim_blocks(int descriptor, int mode, off_t offset, off_t size) {
  const auto make = [=] {
    return static_cast<int>(::syscall(SYS_fallocate, descriptor, mode, offset, size));
  };
  OpenFile* const file = file_of(descriptor);
  if (file == nullptr) return make();
  return tell(Call{.kind = CallKind::kClaim,
                   .path = file->path.data(),
                   .offset = static_cast<std::uint64_t>(offset),
                   .size = static_cast<std::uint64_t>(size)},
              make);
}

void* map_file(void* at, std::size_t size, int protection, int flags, int descriptor,
               off_t offset) {
  const auto make = [=] {
    return ::syscall(SYS_mmap, at, size, protection, flags, descriptor, offset);
  };
  OpenFile* const file = file_of(descriptor);
  if (file == nullptr) return reinterpret_cast<void*>(make());
  return reinterpret_cast<void*>(
      tell(Call{.kind = CallKind::kMap, .path = file->path.data(), .size = size}, make));
}

int change_name(CallKind kind, const char* path, const char* to, long number, long argument) {
  const auto make = [=] {
    if (to != nullptr) return static_cast<int>(::syscall(number, path, to));
    return static_cast<int>(::syscall(number, path, argument));
  };
  const char* const name = relative(path);
  if (name == nullptr) return make();
  return tell(Call{.kind = kind, .path = name, .to = to == nullptr ? "" : relative(to)}, make);
}

int look_at_disk(const char* path, struct statvfs* info) {
  struct statfs raw {};
  if (::syscall(SYS_statfs, path, &raw) != 0) return -1;
  *info = {};
  info->f_bsize = static_cast<unsigned long>(raw.f_bsize);
  info->f_frsize = static_cast<unsigned long>(raw.f_frsize);
  info->f_blocks = raw.f_blocks;
  const bool full = relative(path) != nullptr && call_watcher->disk_is_full();
  info->f_bfree = full ? 0 : raw.f_bfree;
  info->f_bavail = full ? 0 : raw.f_bavail;
  return 0;
}

// Whether this allocation is to fail.
[[maybe_unused]] bool memory_fails(std::size_t bytes) {
  if (!watching()) return false;
  is_watched = false;
  const Fate fate = call_watcher->before(Call{.kind = CallKind::kMemory, .size = bytes});
  is_watched = true;
  if (fate.error != 0) errno = ENOMEM;
  return fate.error != 0;
}

}  // namespace

void watch_calls(const std::string& directory, CallWatcher* watcher) {
  if (directory.size() >= watched_directory.size()) std::abort();
  std::strcpy(watched_directory.data(), directory.c_str());
  for (OpenFile& file : open_files) file.open = false;
  call_watcher = watcher;
}

NotWatched::NotWatched() : before_(is_watched) { is_watched = false; }
NotWatched::~NotWatched() { is_watched = before_; }
Watched::Watched() : before_(is_watched) { is_watched = true; }
Watched::~Watched() { is_watched = before_; }

}  // namespace holdfast::disk

// ---- what everyone is bound to ----

extern "C" {

using namespace holdfast::disk;

int open(const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(list, mode_t) : 0;
  va_end(list);
  return open_file(path, flags, mode);
}
int open64(const char* path, int flags, ...) {
  va_list list;
  va_start(list, flags);
  const mode_t mode = (flags & O_CREAT) != 0 ? va_arg(list, mode_t) : 0;
  va_end(list);
  return open_file(path, flags, mode);
}
int close(int descriptor) {
  if (descriptor >= 0 && static_cast<std::size_t>(descriptor) < kDescriptorsMax) {
    open_files[static_cast<std::size_t>(descriptor)].open = false;
  }
  return static_cast<int>(::syscall(SYS_close, descriptor));
}

ssize_t read(int descriptor, void* bytes, std::size_t size) {
  return read_bytes(descriptor, bytes, size, std::nullopt);
}
ssize_t pread(int descriptor, void* bytes, std::size_t size, off_t offset) {
  return read_bytes(descriptor, bytes, size, offset);
}
ssize_t pread64(int descriptor, void* bytes, std::size_t size, off64_t offset) {
  return read_bytes(descriptor, bytes, size, offset);
}

ssize_t write(int descriptor, const void* bytes, std::size_t size) {
  const iovec piece{const_cast<void*>(bytes), size};
  return write_pieces(descriptor, {&piece, 1}, 0, true);
}
ssize_t writev(int descriptor, const iovec* pieces, int count) {
  return write_pieces(descriptor, {pieces, static_cast<std::size_t>(count)}, 0, true);
}
ssize_t pwrite(int descriptor, const void* bytes, std::size_t size, off_t offset) {
  const iovec piece{const_cast<void*>(bytes), size};
  return write_pieces(descriptor, {&piece, 1}, offset, false);
}
ssize_t pwrite64(int descriptor, const void* bytes, std::size_t size, off64_t offset) {
  return pwrite(descriptor, bytes, size, offset);
}
ssize_t pwritev(int descriptor, const iovec* pieces, int count, off_t offset) {
  return write_pieces(descriptor, {pieces, static_cast<std::size_t>(count)}, offset, false);
}
ssize_t pwritev64(int descriptor, const iovec* pieces, int count, off64_t offset) {
  return pwritev(descriptor, pieces, count, offset);
}

int fsync(int descriptor) { return sync_file(descriptor, SYS_fsync); }
int fdatasync(int descriptor) { return sync_file(descriptor, SYS_fdatasync); }

int ftruncate(int descriptor, off_t size) noexcept { return truncate_file(descriptor, size); }
int ftruncate64(int descriptor, off64_t size) noexcept { return truncate_file(descriptor, size); }
int fallocate(int descriptor, int mode, off_t offset, off_t size) {
  return claim_blocks(descriptor, mode, offset, size);
}
int fallocate64(int descriptor, int mode, off64_t offset, off64_t size) {
  return claim_blocks(descriptor, mode, offset, size);
}
int posix_fallocate(int descriptor, off_t offset, off_t size) {
  return claim_blocks(descriptor, 0, offset, size) == 0 ? 0 : errno;
}
int posix_fallocate64(int descriptor, off64_t offset, off64_t size) {
  return posix_fallocate(descriptor, offset, size);
}

void* mmap(void* at, std::size_t size, int protection, int flags, int descriptor,
           off_t offset) noexcept {
  return map_file(at, size, protection, flags, descriptor, offset);
}
void* mmap64(void* at, std::size_t size, int protection, int flags, int descriptor,
             off64_t offset) noexcept {
  return map_file(at, size, protection, flags, descriptor, offset);
}

int mkdir(const char* path, mode_t mode) noexcept {
  return change_name(CallKind::kMakeDirectory, path, nullptr, SYS_mkdir, static_cast<long>(mode));
}
int rename(const char* path, const char* to) noexcept {
  return change_name(CallKind::kRename, path, to, SYS_rename, 0);
}
int unlink(const char* path) noexcept {
  return change_name(CallKind::kRemove, path, nullptr, SYS_unlink, 0);
}
int rmdir(const char* path) noexcept {
  return change_name(CallKind::kRemove, path, nullptr, SYS_rmdir, 0);
}
int statvfs(const char* path, struct statvfs* info) noexcept { return look_at_disk(path, info); }
int statvfs64(const char* path, struct statvfs64* info) noexcept {
  static_assert(sizeof(struct statvfs64) == sizeof(struct statvfs));
  return look_at_disk(path, reinterpret_cast<struct statvfs*>(info));
}

#ifndef __SANITIZE_ADDRESS__

void* __libc_malloc(std::size_t size);
void* __libc_calloc(std::size_t count, std::size_t size);
void* __libc_realloc(void* memory, std::size_t size);

void* malloc(std::size_t size) noexcept {
  return memory_fails(size) ? nullptr : __libc_malloc(size);
}
void* calloc(std::size_t count, std::size_t size) noexcept {
  return memory_fails(count * size) ? nullptr : __libc_calloc(count, size);
}
void* realloc(void* memory, std::size_t size) noexcept {
  return memory_fails(size) ? nullptr : __libc_realloc(memory, size);
}

#endif

}  // extern "C"
