// What runs saw, added up. Plain numbers, so that processes can share them.

#pragma once

#include <cstdint>

#include "sim/world.h"

namespace holdfast::broker::sim {

struct Tally {
  std::uint64_t seeds = 0;
  Model::Counts counts;
  Faults faults;

  void add(const World& world);
  void add(const Tally& other);
  // Two lines.
  void print() const;
  // Whether so many seeds saw so little of something that they mean nothing. A few are not judged:
  // each chooses what does not happen in it.
  bool is_void() const;
};

}  // namespace holdfast::broker::sim
