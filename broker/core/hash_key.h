// A secret of this run that decides where ids and sequences stand in the core's tables. Clients
// choose both, and know how an id is hashed: without it they could choose ones that all stand in
// one place, and every look-up would walk past them.

#pragma once

#include <cstdint>

namespace holdfast::broker {

// Set at random by whoever makes a core; a test or a simulation leaves it as it is.
struct HashKey {
  std::uint64_t a = 0x9E3779B97F4A7C15;
  std::uint64_t b = 0xC2B2AE3D27D4EB4F;
};

// The two halves of a 128-bit product, folded: the mixer of the wyhash family. Both arguments
// decide every bit.
inline std::uint64_t scatter(const HashKey& key, std::uint64_t first, std::uint64_t second) {
  const auto product = static_cast<unsigned __int128>(first ^ key.a) * (second ^ key.b);
  return static_cast<std::uint64_t>(product >> 64) ^ static_cast<std::uint64_t>(product);
}

}  // namespace holdfast::broker
