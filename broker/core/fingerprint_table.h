// A table of what is left of ids in four bytes each: a fingerprint of 21 bits, and in which of up
// to 2,048 chunks the id is. It never misses an id that was put in; an id that was not is taken for
// one that was about once in 150,000 look-ups of a full table, and then the chunk itself tells.
//
// Fingerprints stand in buckets of 16, which are a line of the processor's cache each; what finds
// its bucket full goes to the next one. Three quarters of the slots are used at most, so that
// nearly every look-up reads one line, and reads it without a branch. Of fixed size: it is made for
// a number of ids, filled, and dropped as a whole.

#pragma once

#include <cstddef>
#include <cstdint>

#include "base/prefetch.h"
#include "base/zeroed_memory.h"

namespace holdfast::broker {

class FingerprintTable {
 public:
  static constexpr std::uint32_t kChunksMax = 2048;

  // `tag_mask` leaves bits out of the fingerprints, so that a test meets mistaken ones.
  FingerprintTable(std::size_t ids_max, std::uint32_t tag_mask);

  std::size_t ids_max() const { return ids_max_; }
  // `place` is the id's: 64 bits scattered from its hash, in every table the same. At most ids_max
  // ids, chunks below kChunksMax.
  void insert(std::uint64_t place, std::uint32_t chunk);
  void prefetch(std::uint64_t place) const { holdfast::prefetch(&buckets_[home(place)]); }
  // Calls visit(chunk) for each chunk that may hold the id, perhaps repeatedly.
  template <typename Visit>
  void visit_chunks(std::uint64_t place, Visit visit) const {
    const std::uint32_t tag = tag_of(place);
    for (std::size_t at = home(place);; at = following(at)) {
      const Bucket& bucket = buckets_[at];
      if (bucket.has(tag)) {
        for (const std::uint32_t slot : bucket.slots) {
          if (slot >> kChunkBits == tag) visit(slot & (kChunksMax - 1));
        }
      }
      if (!bucket.is_full()) return;
    }
  }

 private:
  static constexpr std::uint32_t kChunkBits = 11;
  static constexpr std::size_t kBucketSlots = 16;
  static constexpr std::size_t kBucketIds = 12;  // on average, in a full table
  static_assert(kChunksMax == 1u << kChunkBits);

  // Slots are used in their order; 0 is a free one.
  struct alignas(64) Bucket {
    std::uint32_t slots[kBucketSlots];

    // Four slots at a time, without a branch.
    bool has(std::uint32_t tag) const {
      using Lanes = std::uint32_t __attribute__((vector_size(16), may_alias));
      const auto* const lanes = reinterpret_cast<const Lanes*>(slots);
      const auto found = ((lanes[0] >> kChunkBits) == tag) | ((lanes[1] >> kChunkBits) == tag) |
                         ((lanes[2] >> kChunkBits) == tag) | ((lanes[3] >> kChunkBits) == tag);
      return (found[0] | found[1] | found[2] | found[3]) != 0;
    }
    bool is_full() const { return slots[kBucketSlots - 1] != 0; }
  };
  static_assert(sizeof(Bucket) == 64);

  // Never 0, so that no used slot is 0. The other half says where it goes.
  std::uint32_t tag_of(std::uint64_t place) const {
    const auto tag = (static_cast<std::uint32_t>(place) >> kChunkBits) & tag_mask_;
    return tag == 0 ? 1 : tag;
  }
  std::size_t home(std::uint64_t place) const {
    return static_cast<std::size_t>(((place >> 32) * bucket_count_) >> 32);
  }
  std::size_t following(std::size_t at) const { return at + 1 == bucket_count_ ? 0 : at + 1; }

  std::size_t ids_max_;
  std::uint32_t tag_mask_;
  std::size_t bucket_count_;
  ZeroedMemory memory_;
  Bucket* buckets_;  // in memory_
};

}  // namespace holdfast::broker
