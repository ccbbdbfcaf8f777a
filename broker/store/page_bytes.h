// Bytes that begin at a page of memory: what is written to a disk directly, past the page cache,
// must.

#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <span>
#include <utility>

namespace holdfast::broker {

// 4 KiB is what every block device and file system takes directly (most take 512 bytes), and no
// smaller than what a device writes as a whole or not.
inline constexpr std::size_t kPageBytes = 4096;

// A vector would set what it grows by, which is about to be written, and with an allocator that
// does not it goes byte by byte.
class PageBytes {
 public:
  PageBytes() = default;
  // Not set.
  explicit PageBytes(std::size_t size) { resize(size); }

  std::uint8_t* data() { return bytes_.get(); }
  std::size_t size() const { return size_; }
  std::span<const std::uint8_t> span() const { return {bytes_.get(), size_}; }

  // What it grows by is not set. The memory stays when it shrinks.
  void resize(std::size_t size) {
    if (size > capacity_) {
      const std::size_t capacity = std::max(size, 2 * capacity_);
      Memory larger(static_cast<std::uint8_t*>(::operator new(capacity, kAlignment)));
      if (size_ > 0) std::memcpy(larger.get(), bytes_.get(), size_);
      bytes_ = std::move(larger);
      capacity_ = capacity;
    }
    size_ = size;
  }

  void append(std::span<const std::uint8_t> more) {
    if (more.empty()) return;
    const std::size_t at = size_;
    resize(at + more.size());
    std::memcpy(data() + at, more.data(), more.size());
  }

 private:
  static constexpr std::align_val_t kAlignment{kPageBytes};
  struct Free {
    void operator()(std::uint8_t* memory) const { ::operator delete(memory, kAlignment); }
  };
  using Memory = std::unique_ptr<std::uint8_t[], Free>;

  Memory bytes_;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
};

}  // namespace holdfast::broker
