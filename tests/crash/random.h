// Random numbers that a seed replays, the same on every platform: splitmix64
// (Steele, Lea, Flood: "Fast splittable pseudorandom number generators", 2014).

#pragma once

#include <cstdint>
#include <string_view>

namespace holdfast::crash {

constexpr std::uint64_t mix(std::uint64_t bits) {
  bits = (bits ^ (bits >> 30)) * 0xbf58476d1ce4e5b9u;
  bits = (bits ^ (bits >> 27)) * 0x94d049bb133111ebu;
  return bits ^ (bits >> 31);
}

// FNV-1a: for telling ids apart, not for security.
constexpr std::uint64_t hash_text(std::string_view text) {
  std::uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : text) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return hash;
}

class Random {
 public:
  explicit Random(std::uint64_t seed) : state_(seed) {}

  std::uint64_t next() { return mix(state_ += 0x9e3779b97f4a7c15u); }
  // 0 to bound - 1; the bias is below 2^-40 for the bounds used here. bound > 0.
  std::uint64_t below(std::uint64_t bound) { return next() % bound; }
  bool once_in(std::uint64_t count) { return below(count) == 0; }

 private:
  std::uint64_t state_;
};

}  // namespace holdfast::crash
