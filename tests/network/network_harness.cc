// network_harness: a bad network between clients and a broker that is killed now and then.
// tests/network/run starts it; see trial.h for a trial and proxy.h for the network.

#include <fmt/format.h>
#include <stdlib.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <string>

#include "network/trial.h"
#include "support/command_line.h"

namespace {

using Clock = std::chrono::steady_clock;
using holdfast::network::Trial;
using holdfast::network::TrialPlan;
using holdfast::network::TrialResult;

constexpr std::size_t kViolationsShown = 5;
// In the long form a trial is longer, so that the queues and the window of ids grow.
constexpr std::uint64_t kRetriesOfLongTrial = 20'000;

struct Options {
  std::string broker;
  std::string shim;
  std::uint64_t seed = 0;
  std::uint64_t retries = 2'000;
  std::uint32_t early_duplicates = 8;
  std::uint32_t minutes = 0;
};

struct Totals {
  std::uint64_t trials = 0;
  std::uint64_t failed = 0;
  std::uint64_t lost = 0;
  std::uint64_t late = 0;
  std::uint64_t kills = 0;
};

std::filesystem::path make_directory() {
  std::string name = (std::filesystem::temp_directory_path() / "holdfast-network-XXXXXX").string();
  if (::mkdtemp(name.data()) == nullptr) {
    fmt::print(stderr, "No temporary directory can be made at {}.\n", name);
    std::exit(70);
  }
  return name;
}

// What a trial without its faults would prove is nothing.
std::string why_void(const TrialPlan& plan, const TrialResult& result) {
  if (result.proxy.confirms_dropped < plan.retries) return "too few replies were lost";
  if (result.proxy.publishes_late == 0) return "nothing was delivered late over an old connection";
  if (result.firsts == 0) return "no first delivery was looked at";
  if (result.early_duplicates < plan.early_duplicates) return "too few kills at a duplicate";
  if (result.slow_flushes < result.early_duplicates) return "the disk was not slow";
  return {};
}

bool run_trial(const Options& options, std::uint64_t seed, Totals& totals) {
  TrialPlan plan;
  plan.broker = options.broker;
  plan.shim = options.shim;
  plan.seed = seed;
  plan.retries = options.retries;
  plan.early_duplicates = options.early_duplicates;
  plan.directory = make_directory();
  const Clock::time_point begin = Clock::now();
  TrialResult result = Trial(plan).run();
  if (result.violations.empty()) {
    const std::string void_because = why_void(plan, result);
    if (!void_because.empty()) result.violations.push_back("The trial is void: " + void_because);
  }
  const auto& counts = result.counts;
  const auto& proxy = result.proxy;
  fmt::print(
      "seed {}: {:.1f} s, {} kills, {} links, {} cut; {} confirmed, {} replies of publishes lost, "
      "{} "
      "publishes late over an old connection, {} answered as duplicates, {} answers of settles "
      "lost; {} delivered, {} acked, {} dead, {} first deliveries in order; {} violations\n",
      seed, std::chrono::duration<double>(Clock::now() - begin).count(), result.kills, proxy.links,
      proxy.cuts, counts.confirmed, proxy.confirms_dropped, proxy.publishes_late, counts.duplicates,
      proxy.settled_dropped, counts.delivered, counts.acked, counts.dead, result.firsts,
      result.violations.size());
  ++totals.trials;
  totals.lost += proxy.confirms_dropped;
  totals.late += proxy.publishes_late;
  totals.kills += result.kills;
  for (std::size_t i = 0; i < result.violations.size() && i < kViolationsShown; ++i) {
    fmt::print("VIOLATION {}: {}\n", i + 1, result.violations[i]);
  }
  std::error_code ignored;
  if (result.violations.empty()) {
    std::filesystem::remove_all(plan.directory, ignored);
  } else {
    ++totals.failed;
    fmt::print("The data and the broker's log are in {}.\n", plan.directory.string());
  }
  std::fflush(stdout);
  return result.violations.empty();
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  holdfast::test::CommandLine line(
      "A bad network between clients and a Holdfast broker that is killed now and then.");
  line.file("--broker", &options.broker, "The binary holdfastd");
  line.file("--shim", &options.shim, "slow_disk_shim.so");
  line.seed(&options.seed, "Replays the choices of a run (not its timing)");
  line.number("--retries", &options.retries, "Publishes of a trial whose reply is lost",
              {.min = 1, .max = 10'000'000});
  line.number("--early-duplicates", &options.early_duplicates,
              "Kills of a trial at the confirm of a duplicate");
  line.number("--minutes", &options.minutes, "Go on with further seeds for so long");
  line.parse(argc, argv);
  if (options.minutes > 0 && !line.is_given("--retries")) options.retries = kRetriesOfLongTrial;

  fmt::print("seed {}; again: {} --broker {} --shim {} --seed {} --retries {}\n", options.seed,
             argv[0], options.broker, options.shim, options.seed, options.retries);
  std::fflush(stdout);
  Totals totals;
  const Clock::time_point end = Clock::now() + std::chrono::minutes(options.minutes);
  std::uint64_t seed = options.seed;
  while (run_trial(options, seed, totals) && Clock::now() < end) ++seed;
  fmt::print("{} trials, seeds {} to {}: {} replies lost, {} publishes late, {} kills\n",
             totals.trials, options.seed, seed, totals.lost, totals.late, totals.kills);
  fmt::print("{} passed, {} failed\n", totals.trials - totals.failed, totals.failed);
  return totals.failed == 0 ? 0 : 1;
}
