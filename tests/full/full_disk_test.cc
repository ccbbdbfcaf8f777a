// A disk that fills up: a broker on a disk of 32 MB, filled until it refuses, killed, restarted,
// drained, filled again; see trial.h.
//
//   full_disk_test --broker PATH                      nine cycles: three disks, three sizes
//   full_disk_test --broker PATH --cycles 200         more of them, with other seeds
//   full_disk_test --broker PATH --minutes 10         for so long
//   full_disk_test --broker PATH --disk ext4 --size 1000 --cycles 1 --seed S
//
// Mounts need root. Without that right a quota of the same size stands in for the disk, and the
// output says so. The last line is `N passed, N failed`.

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "full/trial.h"

namespace {

using holdfast::full::DiskKind;
using holdfast::full::Trial;
using holdfast::full::TrialPlan;

struct Options {
  std::string broker;
  std::uint64_t seed = 0;
  std::uint32_t cycles = 9;
  std::uint32_t minutes = 0;
  std::vector<DiskKind> disks;
  std::vector<std::size_t> sizes;
};

int run(const Options& options) {
  using Clock = std::chrono::steady_clock;
  holdfast::test::Checks checks;
  const Clock::time_point end = Clock::now() + std::chrono::minutes(options.minutes);
  std::uint32_t cycle = 0;
  while (options.minutes > 0 ? Clock::now() < end : cycle < options.cycles) {
    TrialPlan plan;
    plan.broker = options.broker;
    plan.seed = options.seed + cycle;
    plan.disk = options.disks[cycle % options.disks.size()];
    plan.body_bytes = options.sizes[cycle / options.disks.size() % options.sizes.size()];
    Trial(plan, checks).run();
    ++cycle;
    if (checks.failed() == 0) continue;
    fmt::print("Again: full_disk_test --broker {} --disk {} --size {} --cycles 1 --seed {}\n",
               options.broker, holdfast::full::disk_kind_name(plan.disk), plan.body_bytes,
               plan.seed);
    break;
  }
  fmt::print("{} cycles, seeds {} to {}\n", cycle, options.seed, options.seed + cycle - 1);
  if (cycle == 0) checks.check(false, "the run is void: it had no cycle");
  return checks.finish();
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  options.seed = std::random_device()();
  DiskKind disk{};
  std::size_t size = 0;
  std::map<std::string, DiskKind> kinds;
  for (const DiskKind kind : holdfast::full::kDiskKinds) {
    kinds.emplace(holdfast::full::disk_kind_name(kind), kind);
  }
  CLI::App app("A Holdfast broker on a disk of 32 MB.");
  app.add_option("--broker", options.broker, "The holdfastd to start")
      ->required()
      ->check(CLI::ExistingFile);
  app.add_option("--seed", options.seed, "Of the first cycle; the others follow");
  app.add_option("--cycles", options.cycles, "Disks to fill")->capture_default_str();
  app.add_option("--minutes", options.minutes, "Go on for so long instead");
  CLI::Option* const one_disk = app.add_option("--disk", disk, "Only this kind of disk")
                                    ->transform(CLI::CheckedTransformer(kinds, CLI::ignore_case));
  CLI::Option* const one_size = app.add_option("--size", size, "Only bodies of this many bytes")
                                    ->check(CLI::Range(1, 65'536));
  CLI11_PARSE(app, argc, argv);
  if (*one_disk) {
    options.disks = {disk};
  } else {
    options.disks.assign(std::begin(holdfast::full::kDiskKinds),
                         std::end(holdfast::full::kDiskKinds));
  }
  options.sizes =
      *one_size ? std::vector<std::size_t>{size} : std::vector<std::size_t>{100, 1'000, 65'536};
  fmt::print("seed {}\n", options.seed);
  std::fflush(stdout);
  holdfast::full::keep_mounts_private();
  return run(options);
}
