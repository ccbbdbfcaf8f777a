// The simulation's command line.
//
//   sim [--seed N] [--seeds COUNT] [--steps M] [--events] [--broken NAME]
//
// Runs COUNT seeds from N on, each for M steps and then until everything is drained. Exit 0: every
// promise was kept, and the runs saw enough traffic and faults to mean something; 1: a promise was
// broken, or they did not. With --broken the store is broken on purpose, and a run that finds it is
// what is wanted: exit 0 if one did. --events prints every event as it happens.

#include <fmt/format.h>

#include <charconv>
#include <cstdio>
#include <optional>
#include <string>
#include <string_view>

#include "sim/world.h"

namespace holdfast::broker::sim {
namespace {

struct Options {
  std::uint64_t seed = 1;
  std::uint64_t seeds = 1;
  std::uint64_t steps = 1500;
  bool events = false;
  Sabotage sabotage = Sabotage::kNothing;
};

bool read_number(std::string_view text, std::uint64_t& number) {
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  return error == std::errc() && end == text.data() + text.size();
}

std::optional<Options> read_options(int count, char** words) {
  Options options;
  for (int i = 1; i < count; ++i) {
    const std::string_view word = words[i];
    if (word == "--events") {
      options.events = true;
      continue;
    }
    if (++i == count) return std::nullopt;
    const std::string_view value = words[i];
    if (word == "--broken") {
      const std::optional<Sabotage> sabotage = find_sabotage(value);
      if (!sabotage) return std::nullopt;
      options.sabotage = *sabotage;
    } else if (word == "--seed"    ? !read_number(value, options.seed)
               : word == "--seeds" ? !read_number(value, options.seeds)
               : word == "--steps" ? !read_number(value, options.steps)
                                   : true) {
      return std::nullopt;
    }
  }
  return options;
}

void add(Model::Counts& sum, const Model::Counts& run) {
  sum.confirmed += run.confirmed;
  sum.duplicates += run.duplicates;
  sum.delivered += run.delivered;
  sum.redelivered += run.redelivered;
  sum.acked += run.acked;
  sum.dead_lettered += run.dead_lettered;
  sum.redriven += run.redriven;
  sum.crashes += run.crashes;
}

int run_seeds(const Options& options) {
  Model::Counts sum;
  for (std::uint64_t seed = options.seed; seed < options.seed + options.seeds; ++seed) {
    std::printf("seed %llu\n", static_cast<unsigned long long>(seed));
    std::fflush(stdout);  // the core may stop the process
    World world(seed, options.sabotage, options.events);
    const std::optional<std::string> finding = world.run(options.steps);
    add(sum, world.counts());
    if (!finding) continue;
    if (options.sabotage != Sabotage::kNothing) {
      fmt::print("found: {}\n1 passed, 0 failed\n", *finding);
      return 0;
    }
    for (const std::string& event : world.last_events()) fmt::print("{}\n", event);
    fmt::print(
        "broken promise: {}\nreplay: sim --seed {} --steps {} --events\n"
        "{} passed, 1 failed\n",
        *finding, seed, options.steps, seed - options.seed);
    return 1;
  }
  fmt::print(
      "{} confirmed, {} duplicates, {} delivered, {} of them again, {} acked, {} dead "
      "letters, {} redriven, {} crashes\n",
      sum.confirmed, sum.duplicates, sum.delivered, sum.redelivered, sum.acked, sum.dead_lettered,
      sum.redriven, sum.crashes);
  if (options.sabotage != Sabotage::kNothing) {
    fmt::print("nothing was found, and the store was broken\n0 passed, 1 failed\n");
    return 1;
  }
  const bool void_run = options.seeds >= 50 &&
                        (sum.duplicates == 0 || sum.redelivered == 0 || sum.dead_lettered == 0 ||
                         sum.redriven == 0 || sum.crashes < options.seeds);
  if (void_run) fmt::print("too little happened for this to mean something\n");
  fmt::print("{} passed, {} failed\n", options.seeds, void_run ? 1 : 0);
  return void_run ? 1 : 0;
}

}  // namespace
}  // namespace holdfast::broker::sim

int main(int count, char** words) {
  const auto options = holdfast::broker::sim::read_options(count, words);
  if (!options) {
    fmt::print(stderr,
               "usage: sim [--seed N] [--seeds COUNT] [--steps M] [--events] [--broken NAME]\n"
               "NAME is one of {}.\n",
               holdfast::broker::sim::sabotage_names());
    return 64;
  }
  return holdfast::broker::sim::run_seeds(*options);
}
