// Zeroed memory for a large table that is read at random places.
//
// Large pieces ask for the system's large pages (MADV_HUGEPAGE): with pages of 4 KiB nearly every
// look-up would miss the processor's table of pages, too. Memory that is never touched is never
// there. A system that has no large pages gives small ones.

#pragma once

#include <cstddef>

namespace holdfast {

class ZeroedMemory {
 public:
  explicit ZeroedMemory(std::size_t bytes);
  ~ZeroedMemory();
  ZeroedMemory(ZeroedMemory&& other) noexcept;
  ZeroedMemory& operator=(ZeroedMemory&&) = delete;
  ZeroedMemory(const ZeroedMemory&) = delete;
  ZeroedMemory& operator=(const ZeroedMemory&) = delete;

  // At the beginning of a page.
  void* data() const { return data_; }

 private:
  void* data_;
  std::size_t bytes_;
};

}  // namespace holdfast
