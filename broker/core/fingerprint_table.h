// A table of what is left of ids in four bytes each: a fingerprint of 21 bits, and in which of up
// to 2,048 chunks the id is. It never misses an id that was put in; an id that was not is taken for
// one that was about once in 300,000 look-ups of a full table, and then the chunk itself tells.
//
// Open addressing with linear probing, at most three quarters full. Of fixed size: it is made for a
// number of ids, filled, and dropped as a whole. Memory that is not used yet is not touched.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>

#include "core/batch.h"

namespace holdfast::broker {

class FingerprintTable {
 public:
  static constexpr std::uint32_t kChunksMax = 2048;

  // `tag_mask` leaves bits out of the fingerprints, so that a test meets mistaken ones.
  explicit FingerprintTable(std::size_t ids_max, std::uint32_t tag_mask = ~std::uint32_t{0});

  std::size_t ids_max() const { return ids_max_; }
  // At most ids_max ids, chunks below kChunksMax.
  void insert(const MessageIdHash& hash, std::uint32_t chunk);
  void prefetch(const MessageIdHash& hash) const { __builtin_prefetch(&slots_[home(hash)]); }
  // Calls visit(chunk) for each chunk that may hold the id, perhaps repeatedly.
  template <typename Visit>
  void visit_chunks(const MessageIdHash& hash, Visit visit) const {
    const std::uint32_t tag = tag_of(hash);
    for (std::size_t at = home(hash); slots_[at] != 0; at = following(at)) {
      if (slots_[at] >> kChunkBits == tag) visit(slots_[at] & (kChunksMax - 1));
    }
  }

 private:
  static constexpr std::uint32_t kChunkBits = 11;
  static_assert(kChunksMax == 1u << kChunkBits);

  // Never 0, so that no used slot is 0. The other half of the hash says where it goes.
  std::uint32_t tag_of(const MessageIdHash& hash) const {
    const auto tag = static_cast<std::uint32_t>(hash.low >> (32 + kChunkBits)) & tag_mask_;
    return tag == 0 ? 1 : tag;
  }
  std::size_t home(const MessageIdHash& hash) const {
    return static_cast<std::size_t>(((hash.high >> 32) * slot_count_) >> 32);
  }
  std::size_t following(std::size_t at) const { return at + 1 == slot_count_ ? 0 : at + 1; }

  std::size_t ids_max_;
  std::uint32_t tag_mask_;
  std::size_t slot_count_;
  struct Free {
    void operator()(std::uint32_t* slots) const { std::free(slots); }
  };
  std::unique_ptr<std::uint32_t[], Free> slots_;  // from calloc
};

}  // namespace holdfast::broker
