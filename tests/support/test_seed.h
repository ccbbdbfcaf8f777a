// The seed of a randomized test: the one in HOLDFAST_SEED, which gives back what a run has printed.

#pragma once

#include <doctest/doctest.h>

#include <charconv>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>

namespace holdfast::test {

// Prints it. `otherwise` is taken where none is given.
inline std::uint32_t test_seed(std::uint32_t otherwise = std::random_device()()) {
  std::uint32_t seed = otherwise;
  if (const char* const given = std::getenv("HOLDFAST_SEED"); given != nullptr) {
    const char* const end = given + std::strlen(given);
    const auto [read_to, error] = std::from_chars(given, end, seed);
    REQUIRE_MESSAGE((error == std::errc() && read_to == end), "HOLDFAST_SEED is \"",
                    std::string(given), "\"; it is a number from 0 to 4294967295.");
  }
  MESSAGE("HOLDFAST_SEED=", seed);
  return seed;
}

}  // namespace holdfast::test
