// corrupt_harness: damages the data file of a stopped broker and the journal of a killed one, and
// checks what the check and the broker make of it. See trial.h and journal_trial.h for what is
// owed; tests/corrupt/run starts it.

#include <fmt/format.h>
#include <stdlib.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>

#include "corrupt/journal_trial.h"
#include "corrupt/trial.h"
#include "support/command_line.h"

namespace {

using namespace holdfast::corrupt;  // NOLINT(google-build-using-namespace)
using holdfast::crash::Random;
using std::chrono::steady_clock;

struct Options {
  std::uint64_t seed = 0;
  std::uint64_t trials = 3'000;
  std::uint64_t journal_trials = 500;
  std::uint64_t images = 6;
  double minutes = 0;
  std::optional<std::uint64_t> only;  // this trial alone
  std::string directory;
};

// Of the trials of one seed those of one image.
struct Share {
  std::uint64_t seed = 0;
  std::uint64_t image = 0;
  std::uint64_t first = 0;
  std::uint64_t end = 0;
};

// Trials of one seed: some images, and an equal share of the trials on each; then, with the numbers
// that follow, those of the journal, on an image of their own.
class Run {
 public:
  explicit Run(const Options& options) : options_(options) {}

  std::uint64_t seeds_run() const { return seeds_run_; }
  std::uint64_t images_run() const { return images_run_; }
  std::uint64_t violations() const { return violations_; }

  // Stops after the first violation of an image, and at the deadline.
  void run_seed(std::uint64_t seed, std::optional<steady_clock::time_point> deadline) {
    ++seeds_run_;
    const std::uint64_t trials = options_.trials;
    const std::uint64_t share = (trials + options_.images - 1) / options_.images;
    for (std::uint64_t image = 0; image < options_.images; ++image) {
      run_image<Trials>({seed, image, image * share, std::min((image + 1) * share, trials)},
                        make_image, deadline);
    }
    run_image<JournalTrials>({seed, options_.images, trials, trials + options_.journal_trials},
                             make_journal_image, deadline);
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
    fmt::print(
        "{} trials of the journal: {} refused at the start, {} served whole, {} as if it had been "
        "cut short, and of {} of these that was told\n",
        journal_.trials, journal_.refused, journal_.whole, journal_.cut, journal_.told);
    for (const auto& [kind, count] : kinds_) fmt::print("  {}: {}\n", kind, count);
  }

  // So few trials, or so little damage done, that nothing is shown by them.
  bool is_void() const {
    if (options_.only) return false;
    const bool of_data = options_.trials > 0;
    const bool of_journal = options_.journal_trials > 0;
    return (!of_data && !of_journal) ||
           kinds_.size() < (of_data ? kDamageKinds : 0) + (of_journal ? kJournalDamageKinds : 0) ||
           (of_data && is_void(sum_)) || (of_journal && is_void(journal_));
  }

 private:
  static bool is_void(const TrialCounts& counts) {
    const std::uint64_t trials = counts.trials;
    return trials < 300 || counts.used_pages_hit * 2 < trials ||
           counts.losses_counted * 20 < trials || counts.harmless * 50 < trials ||
           counts.refused_at_start * 50 < trials || counts.inside_blocks * 25 < trials;
  }
  static bool is_void(const JournalTrialCounts& counts) {
    const std::uint64_t trials = counts.trials;
    return trials < 100 || counts.refused * 5 < trials || counts.whole * 100 < trials ||
           counts.told * 20 < trials;
  }

  template <typename TrialsOfImage, typename Make>
  void run_image(const Share& share, const Make& make,
                 std::optional<steady_clock::time_point> deadline) {
    const std::optional<std::uint64_t>& only = options_.only;
    if (share.first >= share.end || (only && (*only < share.first || *only >= share.end))) return;
    if (deadline && steady_clock::now() >= *deadline) return;
    ++images_run_;
    const std::string directory =
        fmt::format("{}/{}-{}", options_.directory, share.seed, share.image);
    std::filesystem::create_directory(directory);
    Random random(holdfast::crash::mix(share.seed) + share.image);
    const auto image = make(directory, random);
    if (!image.ok()) {
      ++violations_;
      fmt::print("VIOLATION in image {} of seed {}: {}\n", share.image, share.seed,
                 image.status().message());
      return;
    }
    TrialsOfImage trials(*image, directory);
    const std::uint64_t before = violations_;
    for (std::uint64_t trial = share.first; trial < share.end && violations_ == before; ++trial) {
      if (only && *only != trial) continue;
      if (deadline && steady_clock::now() >= *deadline) break;
      run_trial(share.seed, trial, *image, trials);
    }
    add(trials.counts());
    std::error_code ignored;
    if (violations_ == before) std::filesystem::remove_all(directory, ignored);
  }

  template <typename ImageOfTrials, typename TrialsOfImage>
  void run_trial(std::uint64_t seed, std::uint64_t trial, const ImageOfTrials& image,
                 TrialsOfImage& trials) {
    Random random(holdfast::crash::mix(seed * 0x9e3779b97f4a7c15u + trial));
    const auto damage = choose_damage(image, random);
    ++kinds_[damage_name(damage.kind)];
    if (options_.only) fmt::print("{}\n", damage.what);
    if (const std::optional<std::string> violation = trials.run(damage)) {
      ++violations_;
      fmt::print("VIOLATION in trial {} of seed {}: {}\n  again: --seed {} --trials {} --only {}\n",
                 trial, seed, *violation, seed, options_.trials, trial);
    }
    report_progress(seed, trial, trials.counts().trials);
  }

  void report_progress(std::uint64_t seed, std::uint64_t trial, std::uint64_t trials) {
    constexpr std::chrono::seconds kInterval{5};
    if (steady_clock::now() - reported_ < kInterval) return;
    reported_ = steady_clock::now();
    fmt::print("seed {}, trial {}: {} trials so far\n", seed, trial,
               sum_.trials + journal_.trials + trials);
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
  void add(const JournalTrialCounts& counts) {
    journal_.trials += counts.trials;
    journal_.whole += counts.whole;
    journal_.refused += counts.refused;
    journal_.cut += counts.cut;
    journal_.told += counts.told;
  }

  const Options& options_;
  TrialCounts sum_;
  JournalTrialCounts journal_;
  std::map<std::string_view, std::uint64_t> kinds_;
  std::uint64_t seeds_run_ = 0;
  std::uint64_t images_run_ = 0;
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
      "Damages the data file of a stopped broker and the journal of a killed one, and checks what "
      "becomes of it.");
  line.seed(&options.seed, "Replays a run");
  line.number("--trials", &options.trials, "Damages of one seed to the data file");
  line.number("--journal-trials", &options.journal_trials, "Likewise to the journal");
  line.number("--images", &options.images, "Data directories of one seed that they are done to",
              {.min = 1});
  line.number("--only", &only, "Of these trials only this one");
  line.number("--minutes", &options.minutes, "Goes on with new seeds for so long");
  line.parse(argc, argv);
  if (line.is_given("--only")) options.only = only;
  options.directory = make_directory();

  fmt::print("seed {}; again: {} --seed {} --trials {} --journal-trials {} --images {}\n",
             options.seed, argv[0], options.seed, options.trials, options.journal_trials,
             options.images);
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
             run.images_run() - std::min(run.violations(), run.images_run()), failed);
  return failed == 0 ? 0 : 1;
}
