#include "core/fingerprint_table.h"

#include <cstdlib>

#include "base/check.h"

namespace holdfast::broker {

FingerprintTable::FingerprintTable(std::size_t ids_max, std::uint32_t tag_mask)
    : ids_max_(ids_max),
      tag_mask_(tag_mask),
      slot_count_(ids_max + ids_max / 3 + 1),
      slots_(static_cast<std::uint32_t*>(std::calloc(slot_count_, sizeof(std::uint32_t)))) {
  CHECK(slots_ != nullptr, "out of memory for the fingerprints of {} ids", ids_max);
  CHECK(slot_count_ <= UINT32_MAX);
}

void FingerprintTable::insert(const MessageIdHash& hash, std::uint32_t chunk) {
  const std::uint32_t slot = tag_of(hash) << kChunkBits | chunk;
  std::size_t at = home(hash);
  while (slots_[at] != 0) {
    if (slots_[at] == slot) return;  // says all that this one would
    at = following(at);
  }
  slots_[at] = slot;
}

}  // namespace holdfast::broker
