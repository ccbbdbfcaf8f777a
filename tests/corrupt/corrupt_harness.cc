// corrupt_harness: damages the data file of a stopped broker, and checks what the check and the
// broker make of it. See trial.h for what is owed; tests/corrupt/run starts it.

#include <fmt/format.h>
#include <stdlib.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <map>
#include <optional>
#include <string>

#include "corrupt/trial.h"
#include "support/command_line.h"

namespace {

using namespace holdfast::corrupt;  // NOLINT(google-build-using-namespace)
using holdfast::crash::Random;
using std::chrono::steady_clock;

struct Options {
  std::uint64_t seed = 0;
  std::uint64_t trials = 3'000;
  std::uint64_t images = 6;
  double minutes = 0;
  std::optional<std::uint64_t> only;  // this trial alone
  std::string directory;
};

// Trials of one seed: some images, and an equal share of the trials on each.
class Run {
 public:
  explicit Run(const Options& options) : options_(options) {}

  std::uint64_t seeds_run() const { return seeds_run_; }
  std::uint64_t violations() const { return violations_; }

  // Stops after the first violation of an image, and at the deadline.
  void run_seed(std::uint64_t seed, std::optional<steady_clock::time_point> deadline) {
    ++seeds_run_;
    const std::uint64_t share = (options_.trials + options_.images - 1) / options_.images;
    for (std::uint64_t image = 0; image < options_.images; ++image) {
      if (options_.only && *options_.only / share != image) continue;
      if (deadline && steady_clock::now() >= *deadline) return;
      run_image(seed, image, image * share, std::min((image + 1) * share, options_.trials),
                deadline);
    }
  }

  void print() const {
    fmt::print(
        "{} trials, {} hit used pages; the check found {}, {} were harmless; of {} inside blocks "
        "only what was hit was lost; {} refused at the start, {} stopped by the store, {} by a "
        "signal after the start, with a sentence; messages set aside in {}; attempts rolled back "
        "in {}\n",
        sum_.trials, sum_.used_pages_hit, sum_.found_by_check, sum_.harmless, sum_.inside_blocks,
        sum_.refused_at_start, sum_.stopped_by_status, sum_.stopped_by_signal, sum_.losses_counted,
        sum_.rolled_back);
    for (const auto& [kind, count] : kinds_) fmt::print("  {}: {}\n", damage_name(kind), count);
  }

  // So few trials, or so little damage done, that nothing is shown by them.
  bool is_void() const {
    if (options_.only) return false;
    const std::uint64_t trials = sum_.trials;
    return trials < 300 || kinds_.size() < kDamageKinds || sum_.used_pages_hit * 2 < trials ||
           sum_.losses_counted * 20 < trials || sum_.harmless * 50 < trials ||
           sum_.refused_at_start * 50 < trials || sum_.inside_blocks * 25 < trials;
  }

 private:
  void run_image(std::uint64_t seed, std::uint64_t number, std::uint64_t first, std::uint64_t end,
                 std::optional<steady_clock::time_point> deadline) {
    const std::string directory = fmt::format("{}/{}-{}", options_.directory, seed, number);
    std::filesystem::create_directory(directory);
    Random random(holdfast::crash::mix(seed) + number);
    const holdfast::Result<Image> image = make_image(directory, random);
    if (!image.ok()) {
      ++violations_;
      fmt::print("VIOLATION in image {} of seed {}: {}\n", number, seed, image.status().message());
      return;
    }
    Trials trials(*image, directory);
    const std::uint64_t before = violations_;
    for (std::uint64_t trial = first; trial < end && violations_ == before; ++trial) {
      if (options_.only && *options_.only != trial) continue;
      if (deadline && steady_clock::now() >= *deadline) break;
      run_trial(seed, trial, *image, trials);
    }
    add(trials.counts());
    std::error_code ignored;
    if (violations_ == before) std::filesystem::remove_all(directory, ignored);
  }

  void run_trial(std::uint64_t seed, std::uint64_t trial, const Image& image, Trials& trials) {
    Random random(holdfast::crash::mix(seed * 0x9e3779b97f4a7c15u + trial));
    const Damage damage = choose_damage(image, random);
    ++kinds_[damage.kind];
    if (options_.only) fmt::print("{}\n", damage.what);
    if (const std::optional<std::string> violation = trials.run(damage)) {
      ++violations_;
      fmt::print("VIOLATION in trial {} of seed {}: {}\n  again: --seed {} --trials {} --only {}\n",
                 trial, seed, *violation, seed, options_.trials, trial);
    }
    report_progress(seed, trial, trials.counts());
  }

  void report_progress(std::uint64_t seed, std::uint64_t trial, const TrialCounts& counts) {
    constexpr std::chrono::seconds kInterval{5};
    if (steady_clock::now() - reported_ < kInterval) return;
    reported_ = steady_clock::now();
    fmt::print("seed {}, trial {}: {} trials so far\n", seed, trial, sum_.trials + counts.trials);
    std::fflush(stdout);
  }

  void add(const TrialCounts& counts) {
    sum_.trials += counts.trials;
    sum_.used_pages_hit += counts.used_pages_hit;
    sum_.found_by_check += counts.found_by_check;
    sum_.harmless += counts.harmless;
    sum_.refused_at_start += counts.refused_at_start;
    sum_.stopped_by_status += counts.stopped_by_status;
    sum_.stopped_by_signal += counts.stopped_by_signal;
    sum_.losses_counted += counts.losses_counted;
    sum_.inside_blocks += counts.inside_blocks;
    sum_.rolled_back += counts.rolled_back;
  }

  const Options& options_;
  TrialCounts sum_;
  std::map<DamageKind, std::uint64_t> kinds_;
  std::uint64_t seeds_run_ = 0;
  std::uint64_t violations_ = 0;
  steady_clock::time_point reported_ = steady_clock::now();
};

std::string make_directory() {
  // In memory where there is room: the harness is about bytes, not about devices.
  const char* const parent = std::filesystem::is_directory("/dev/shm") ? "/dev/shm" : "/tmp";
  std::string name = std::string(parent) + "/holdfast-corrupt-XXXXXX";
  if (::mkdtemp(name.data()) == nullptr) {
    fmt::print(stderr, "No temporary directory can be made at {}.\n", name);
    std::exit(70);
  }
  return name;
}

}  // namespace

int main(int argc, char** argv) {
  Options options;
  std::uint64_t only = 0;
  holdfast::test::CommandLine line(
      "Damages the data file of a stopped broker, and checks what becomes of it.");
  line.seed(&options.seed, "Replays a run");
  line.number("--trials", &options.trials, "Damages of one seed");
  line.number("--images", &options.images, "Data directories of one seed that they are done to",
              {.min = 1});
  line.number("--only", &only, "Of these trials only this one");
  line.number("--minutes", &options.minutes, "Goes on with new seeds for so long");
  line.parse(argc, argv);
  if (line.is_given("--only")) options.only = only;
  options.directory = make_directory();

  fmt::print("seed {}; again: {} --seed {} --trials {} --images {}\n", options.seed, argv[0],
             options.seed, options.trials, options.images);
  std::fflush(stdout);
  Run run(options);
  if (options.minutes <= 0) {
    run.run_seed(options.seed, std::nullopt);
  } else {
    const auto deadline =
        steady_clock::now() + std::chrono::duration_cast<steady_clock::duration>(
                                  std::chrono::duration<double, std::ratio<60>>(options.minutes));
    for (std::uint64_t seed = options.seed; steady_clock::now() < deadline; ++seed) {
      run.run_seed(seed, deadline);
    }
  }
  run.print();
  const bool is_void = run.is_void();
  if (is_void) fmt::print("VOID: too few trials, or too little came of them, to show anything.\n");
  fmt::print("{} seeds from {} on\n", run.seeds_run(), options.seed);
  const std::uint64_t failed = run.violations() + (is_void ? 1 : 0);
  std::error_code ignored;
  if (failed == 0) {
    std::filesystem::remove_all(options.directory, ignored);
  } else {
    fmt::print("The damaged directories are in {}.\n", options.directory);
  }
  fmt::print("{} passed, {} failed\n",
             run.seeds_run() * options.images -
                 std::min(run.violations(), run.seeds_run() * options.images),
             failed);
  return failed == 0 ? 0 : 1;
}
