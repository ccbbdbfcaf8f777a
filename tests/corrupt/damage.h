// Damage: what a failing device makes of a data file.

#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "corrupt/image.h"
#include "crash/random.h"

namespace holdfast::corrupt {

enum class DamageKind : std::uint8_t {
  kBit,
  kByte,
  kBytes,       // up to 64 side by side
  kZeroSector,  // 512 bytes
  kZeroPage,
  kGarbagePage,
  kSwappedPages,
  kStalePage,      // an older version of it
  kMisplacedPage,  // another page was written over it
  kTruncated,
  kCutWhileRunning,
};
inline constexpr std::size_t kDamageKinds = 11;
std::string_view damage_name(DamageKind kind);

struct Damage {
  DamageKind kind = DamageKind::kBit;
  std::string what;                  // for people
  std::string file;                  // the damaged file's bytes
  std::vector<std::size_t> changed;  // places whose byte differs; without those that are cut off
  bool hits_used_page = false;
};

// At least one byte differs from the image's. A meta page is never replaced by its older version:
// that is a sound file, of one commit before.
Damage choose_damage(const Image& image, crash::Random& random);

}  // namespace holdfast::corrupt
