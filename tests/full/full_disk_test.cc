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

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "full/trial.h"
#include "support/command_line.h"

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
  std::vector<std::size_t> sizes = {100, 1'000, 65'536};
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
  std::string disk;
  std::uint64_t size = 0;
  std::vector<std::string> disks;
  for (const DiskKind kind : holdfast::full::kDiskKinds) {
    disks.emplace_back(holdfast::full::disk_kind_name(kind));
  }
  holdfast::test::CommandLine line("A Holdfast broker on a disk of 32 MB.");
  line.file("--broker", &options.broker, "The holdfastd to start");
  line.seed(&options.seed, "Of the first cycle; the others follow");
  line.number("--cycles", &options.cycles, "Disks to fill");
  line.number("--minutes", &options.minutes, "Go on for so long instead");
  line.choice("--disk", &disk, disks, "Only this kind of disk");
  line.number("--size", &size, "Only bodies of this many bytes", {.min = 1, .max = 65'536});
  line.parse(argc, argv);
  for (const DiskKind kind : holdfast::full::kDiskKinds) {
    if (disk.empty() || disk == holdfast::full::disk_kind_name(kind)) options.disks.push_back(kind);
  }
  if (line.is_given("--size")) options.sizes = {size};
  fmt::print("seed {}\n", options.seed);
  std::fflush(stdout);
  holdfast::full::keep_mounts_private();
  return run(options);
}
