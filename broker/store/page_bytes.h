// Bytes that begin at a page of memory: what is written to a disk directly, past the page cache,
// must.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <new>
#include <span>
#include <vector>

namespace holdfast::broker {

// 4 KiB is what every block device and file system takes directly (most take 512 bytes), and no
// smaller than what a device writes as a whole or not.
inline constexpr std::size_t kPageBytes = 4096;

template <typename T>
struct PageAllocator {
  using value_type = T;

  PageAllocator() = default;
  template <typename Other>
  explicit PageAllocator(const PageAllocator<Other>&) {}
  T* allocate(std::size_t count) {
    return static_cast<T*>(::operator new (count * sizeof(T), std::align_val_t{kPageBytes}));
  }
  void deallocate(T* memory, std::size_t) {
    ::operator delete (memory, std::align_val_t{kPageBytes});
  }
  // What a vector grows by is not set: it is about to be written.
  template <typename Element>
  void construct(Element* place) {
    ::new (static_cast<void*>(place)) Element;
  }
  friend bool operator==(const PageAllocator&, const PageAllocator&) { return true; }
};

// What it is made with, or grows by without a value, is not set.
using PageBytes = std::vector<std::uint8_t, PageAllocator<std::uint8_t>>;

// With an allocator of its own a vector inserts byte by byte.
inline void append(PageBytes& bytes, std::span<const std::uint8_t> more) {
  if (more.empty()) return;
  const std::size_t at = bytes.size();
  bytes.resize(at + more.size());
  std::memcpy(bytes.data() + at, more.data(), more.size());
}

}  // namespace holdfast::broker
