// The calls with which a store reads and changes its directory, shown to a watcher before and after
// they are made; the watcher may let one fail.
//
// calls.cc defines write(), fdatasync(), malloc() and so on in the program itself, and the dynamic
// linker binds every library to those, LMDB too: nothing needs to be preloaded, and nothing about
// the store differs from what the broker links.
//
// Only calls on files below one directory are told, and only from threads that are watched: a
// thread is from its first moment, until NotWatched says otherwise. Allocations are told without a
// path; under AddressSanitizer, which has its own, they are not.

#pragma once

#include <sys/uio.h>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace holdfast::disk {

enum class CallKind : std::uint8_t {
  kRead,  // but for what is read through a map
  kWrite,
  kSync,
  kTruncate,
  kClaim,  // of a file's blocks, ahead
  kMap,
  kMemory,
  kOpen,
  kCreate,  // of a file
  kMakeDirectory,
  kRename,
  kRemove,  // of a file or an empty directory
};

struct Call {
  CallKind kind = CallKind::kWrite;
  const char* path = "";  // relative to the directory, "." for itself
  const char* to = "";    // the new name
  std::uint64_t offset = 0;
  std::uint64_t size = 0;
  std::span<const iovec> bytes = {};  // to be written
  bool through = false;               // the write is on the device when it returns
};

// What becomes of a call.
struct Fate {
  int error = 0;                     // it is not made, and fails with this
  std::size_t bytes_max = SIZE_MAX;  // a read or a write stops after so many
};

class CallWatcher {
 public:
  virtual ~CallWatcher() = default;
  // May not allocate where the call is an allocation.
  virtual Fate before(const Call& call) = 0;
  // `result` as the call returned it, of a map its address; not called for allocations.
  virtual void after(const Call& call, std::int64_t result) = 0;
  // Whether statvfs() says that the disk has no space left.
  virtual bool disk_is_full() { return false; }
};

// From now on; null ends it. Neither while a watched file is open, nor while other threads run.
void watch_calls(const std::string& directory, CallWatcher* watcher);

// While it lives, this thread's calls are not told.
class NotWatched {
 public:
  NotWatched();
  ~NotWatched();
  NotWatched(const NotWatched&) = delete;
  NotWatched& operator=(const NotWatched&) = delete;

 private:
  bool before_;
};

// Within NotWatched, while it lives, they are told again.
class Watched {
 public:
  Watched();
  ~Watched();
  Watched(const Watched&) = delete;
  Watched& operator=(const Watched&) = delete;

 private:
  bool before_;
};

}  // namespace holdfast::disk
