// The simulation's command line; tests/sim/run starts it.
//
// Runs seeds, each for some steps and then until everything is drained. Exit 0: every promise was
// kept, and the runs saw enough traffic and faults to mean something; 1: a promise was broken, or
// they did not. With --broken the store is broken on purpose, and a run that finds it is what is
// wanted: exit 0 if one did.

#include <fmt/format.h>

#include <cstdio>
#include <random>
#include <string>

#include "sim/workers.h"
#include "support/command_line.h"

namespace holdfast::broker::sim {
namespace {

int run(const Plan& plan) {
  fmt::print("seed {}\n", plan.first_seed);
  std::fflush(stdout);
  const Outcome outcome = run_plan(plan);
  outcome.tally.print();
  const std::uint64_t seeds = outcome.tally.seeds;
  if (plan.sabotage != Sabotage::kNothing) {
    const bool found = outcome.findings > 0;
    if (!found) fmt::print("nothing was found, and the store was broken\n");
    fmt::print("{}\n", found ? "1 passed, 0 failed" : "0 passed, 1 failed");
    return found ? 0 : 1;
  }
  const bool is_void = outcome.tally.is_void();
  if (is_void) fmt::print("too little happened for this to mean something\n");
  if (plan.duration) {
    const std::uint64_t trials = seeds + outcome.findings;
    fmt::print("trials: {}, seeds: {}..{}\n", trials, plan.first_seed,
               plan.first_seed + trials - 1);
  }
  fmt::print("{} passed, {} failed\n", seeds, outcome.findings + (is_void ? 1 : 0));
  return outcome.findings > 0 || is_void ? 1 : 0;
}

}  // namespace
}  // namespace holdfast::broker::sim

int main(int argc, char** argv) {
  using namespace holdfast::broker::sim;
  Plan plan;
  std::uint32_t minutes = 0;
  std::string broken = "nothing";

  holdfast::test::CommandLine line(
      "Drives the core through faults in virtual time, against a plain model.");
  line.number("--seed", &plan.first_seed, "The first seed");
  line.number("--seeds", &plan.seeds, "How many");
  line.number("--minutes", &minutes, "Instead of a count: new seeds until the time is up");
  line.number("--steps", &plan.steps, "Steps with faults of each seed");
  line.number("--jobs", &plan.jobs, "Processes", {.min = 1, .max = 256});
  line.flag("--events", &plan.print_events, "Print every event as it happens");
  line.choice("--broken", &broken, sabotage_names(), "Break the store");
  line.parse(argc, argv);

  plan.sabotage = *find_sabotage(broken);
  if (minutes > 0) {
    plan.duration = std::chrono::minutes(minutes);
    // Short enough to be typed.
    constexpr std::uint64_t kSeedBound = 1'000'000'000'000;
    std::random_device random;
    if (!line.is_given("--seed")) {
      plan.first_seed = (std::uint64_t{random()} << 32 | random()) % kSeedBound;
    }
  }
  return run(plan);
}
