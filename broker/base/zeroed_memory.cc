#include "base/zeroed_memory.h"

#include <sys/mman.h>

#include <utility>

#include "base/check.h"

namespace holdfast {

namespace {
// A large page of x86-64 and of arm64 with base pages of 4 KiB.
constexpr std::size_t kLargePageBytes = 2u << 20;
}  // namespace

ZeroedMemory::ZeroedMemory(std::size_t bytes)
    : data_(::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)),
      bytes_(bytes) {
  CHECK(data_ != MAP_FAILED, "out of memory for a table of {} bytes", bytes);
  // Whether it is heeded changes nothing but speed.
  if (bytes >= kLargePageBytes) static_cast<void>(::madvise(data_, bytes, MADV_HUGEPAGE));
}

ZeroedMemory::ZeroedMemory(ZeroedMemory&& other) noexcept
    : data_(std::exchange(other.data_, nullptr)), bytes_(other.bytes_) {}

ZeroedMemory::~ZeroedMemory() {
  if (data_ != nullptr) ::munmap(data_, bytes_);
}

}  // namespace holdfast
