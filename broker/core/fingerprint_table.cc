#include "core/fingerprint_table.h"

#include "base/check.h"

namespace holdfast::broker {

FingerprintTable::FingerprintTable(std::size_t ids_max, std::uint32_t tag_mask)
    : ids_max_(ids_max),
      tag_mask_(tag_mask),
      bucket_count_(ids_max / kBucketIds + 1),
      memory_(bucket_count_ * sizeof(Bucket)),
      buckets_(static_cast<Bucket*>(memory_.data())) {
  CHECK(bucket_count_ <= UINT32_MAX);
}

void FingerprintTable::insert(std::uint64_t place, std::uint32_t chunk) {
  const std::uint32_t added = tag_of(place) << kChunkBits | chunk;
  for (std::size_t at = home(place);; at = following(at)) {
    for (std::uint32_t& slot : buckets_[at].slots) {
      if (slot == added) return;  // says all that this one would
      if (slot != 0) continue;
      slot = added;
      return;
    }
  }
}

}  // namespace holdfast::broker
