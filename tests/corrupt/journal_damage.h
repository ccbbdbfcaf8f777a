// Damage of a journal: what a failing device makes of it.

#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "corrupt/journal_image.h"
#include "crash/random.h"

namespace holdfast::corrupt {

enum class JournalDamageKind : std::uint8_t {
  kBit,
  kByte,
  kBytes,       // up to 64 side by side
  kSize,        // of an entry, as its header claims it
  kZeroSector,  // 512 bytes
  kZeroPages,   // one or several side by side
  kGarbagePage,
  kSwappedPages,
  kSwappedEntries,  // the first pages of two of them
  kStalePages,      // older versions of one or several
  kMisplacedPage,   // another page was written over it
  kTruncated,
  kGrown,
  kMissing,
};
inline constexpr std::size_t kJournalDamageKinds = 14;
std::string_view damage_name(JournalDamageKind kind);

struct JournalDamage {
  JournalDamageKind kind = JournalDamageKind::kBit;
  std::string what;     // for people
  std::string journal;  // the damaged file's bytes
};

// The journal differs from the image's by at least one byte, or is missing.
JournalDamage choose_damage(const JournalImage& image, crash::Random& random);

}  // namespace holdfast::corrupt
