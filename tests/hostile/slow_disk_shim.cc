// Loaded into the broker with LD_PRELOAD: flushes take as long as SlowDiskControl says.
//
// A flush is fdatasync(), fsync(), and a write on a descriptor with O_DSYNC, which is how LMDB
// writes the page that makes a commit valid; a direct write and the fdatasync() after it, as of the
// journal, are one. The delay comes before the real call, so that what is not durable yet is not
// even with the system.

#include <dlfcn.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include <cstdlib>

#include "hostile/slow_disk_control.h"

namespace {

using holdfast::hostile::SlowDiskControl;

SlowDiskControl* open_control() {
  const char* const path = std::getenv(holdfast::hostile::kSlowDiskVariable);
  if (path == nullptr) return nullptr;
  const int descriptor = ::open(path, O_RDWR | O_CLOEXEC);
  if (descriptor < 0) return nullptr;
  void* const mapped =
      ::mmap(nullptr, sizeof(SlowDiskControl), PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
  ::close(descriptor);
  return mapped == MAP_FAILED ? nullptr : static_cast<SlowDiskControl*>(mapped);
}

SlowDiskControl* control() {
  static SlowDiskControl* const opened = open_control();
  return opened;
}

std::uint64_t now_us() {
  timespec now{};
  ::clock_gettime(CLOCK_MONOTONIC, &now);
  return static_cast<std::uint64_t>(now.tv_sec) * 1'000'000 +
         static_cast<std::uint64_t>(now.tv_nsec) / 1'000;
}

void delay() {
  SlowDiskControl* const shared = control();
  if (shared == nullptr || shared->delay_us.load() == 0) return;
  constexpr std::uint64_t kStepUs = 1'000;
  const std::uint64_t begin = now_us();
  ++shared->delayed_now;
  ++shared->delayed_total;
  for (;;) {
    const std::uint64_t passed = now_us() - begin;
    const std::uint64_t wanted = shared->delay_us.load();
    if (passed >= wanted) break;
    const std::uint64_t step = wanted - passed < kStepUs ? wanted - passed : kStepUs;
    const timespec pause{0, static_cast<long>(step) * 1'000};
    ::nanosleep(&pause, nullptr);
  }
  --shared->delayed_now;
}

template <typename Function>
Function next(const char* name) {
  return reinterpret_cast<Function>(::dlsym(RTLD_NEXT, name));
}

}  // namespace

extern "C" {

int fdatasync(int descriptor) {
  static auto* const real = next<int (*)(int)>("fdatasync");
  if ((::fcntl(descriptor, F_GETFL) & O_DIRECT) == 0) delay();
  return real(descriptor);
}

int fsync(int descriptor) {
  static auto* const real = next<int (*)(int)>("fsync");
  delay();
  return real(descriptor);
}

// The file offsets of this build have 64 bits, so that pwrite() is pwrite64() here; LMDB's library
// may call it by either name.
ssize_t pwrite64(int descriptor, const void* bytes, std::size_t count, off64_t offset) {
  static auto* const real = next<ssize_t (*)(int, const void*, std::size_t, off64_t)>("pwrite64");
  if ((::fcntl(descriptor, F_GETFL) & (O_DSYNC | O_DIRECT)) != 0) delay();
  return real(descriptor, bytes, count, offset);
}

ssize_t holdfast_slow_pwrite(int descriptor, const void* bytes, std::size_t count,
                             off64_t offset) __asm__("pwrite");
ssize_t holdfast_slow_pwrite(int descriptor, const void* bytes, std::size_t count, off64_t offset) {
  return pwrite64(descriptor, bytes, count, offset);
}
}
