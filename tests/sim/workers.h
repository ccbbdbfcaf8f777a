// Seeds run by several processes, so that a core that stops its process costs one seed: that seed
// is the finding, and another process takes its place.

#pragma once

#include <chrono>
#include <cstdint>
#include <optional>

#include "sim/tally.h"
#include "sim/world.h"

namespace holdfast::broker::sim {

struct Plan {
  std::uint64_t first_seed = 1;
  std::uint64_t seeds = 1;
  std::uint64_t steps = 1500;
  // Instead of a count of seeds.
  std::optional<std::chrono::minutes> duration;
  std::uint32_t jobs = 1;
  bool print_events = false;
  Sabotage sabotage = Sabotage::kNothing;
};

struct Outcome {
  Tally tally;  // of the seeds in which every promise was kept
  std::uint64_t findings = 0;
};

// Each finding is printed with what led to it, and the command that replays it. Ends early after
// some findings; a store that was broken on purpose needs one.
Outcome run_plan(const Plan& plan);

}  // namespace holdfast::broker::sim
