// ioerror: lets each call with which a store works fail once: every read, write, sync, claim of
// blocks, allocation, map, and change of a name of a small workload, and each page of the data file
// where it is read through a map. See trial.h for what must hold then.
//
//   ioerror [--seed S] [--workloads N | --minutes M] [--jobs J] [--fault NAME]
//
// Workload k has the seed S + k; `--seed S --workloads 1` replays one. The last line is
// `N passed, N failed`, of workloads; exit code 0 only if nothing failed and each fault was hit.

#include <fmt/format.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <bitset>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <string>
#include <vector>

#include "base/check.h"
#include "ioerror/trial.h"
#include "support/command_line.h"

namespace holdfast::ioerror {
namespace {

namespace fs = std::filesystem;
using std::chrono::steady_clock;

struct Options {
  std::uint64_t seed = 0;
  std::uint64_t workloads = 3;
  double minutes = 0;  // 0: by workloads
  unsigned jobs = 4;
  std::string fault;  // empty: all
  std::string parent = "/dev/shm";
};

// What the workers share with the one that waits for them, about one workload.
struct Shared {
  std::atomic<std::size_t> next_trial;
  std::array<std::atomic<std::uint64_t>, kFaultKinds> hits;
  std::atomic<std::uint64_t> pages_hit;            // of those in use
  std::array<std::atomic<std::uint64_t>, 4> ends;  // by TrialEnd
  std::atomic<std::uint64_t> confirmed;
  std::atomic<std::uint64_t> states;
  std::atomic<bool> found;
  std::array<char, 8192> finding;
};

class Harness {
 public:
  explicit Harness(const Options& options) : options_(options), begin_(steady_clock::now()) {
    void* const memory =
        ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    shared_ = new (memory) Shared();
    std::string pattern = options_.parent + "/holdfast-ioerror-XXXXXX";
    CHECK(::mkdtemp(pattern.data()) != nullptr, "no directory can be made in {}", options_.parent);
    directory_ = pattern;
    for (unsigned job = 0; job < options_.jobs; ++job) fs::create_directory(place(job));
  }
  ~Harness() {
    std::error_code ignored;
    fs::remove_all(directory_, ignored);
  }
  Harness(const Harness&) = delete;
  Harness& operator=(const Harness&) = delete;

  bool run() {
    std::uint64_t done = 0;
    while (more(done)) {
      const std::uint64_t seed = options_.seed + done;
      if (!run_workload(seed)) {
        fmt::print("VIOLATION: {}\nagain: ioerror --seed {} --workloads 1\n{} passed, 1 failed\n",
                   shared_->finding.data(), seed, done);
        return false;
      }
      ++done;
    }
    fmt::print("seeds {} to {}: {} workloads; {} states looked at\n", options_.seed,
               options_.seed + done - 1, done, shared_->states.load());
    const bool is_void = done == 0 || shared_->confirmed == 0;
    if (is_void) fmt::print("Too little happened for this to mean something.\n");
    fmt::print("{} passed, {} failed\n", done, is_void ? 1 : 0);
    return !is_void;
  }

 private:
  std::string place(unsigned job) const { return fmt::format("{}/{}", directory_, job); }

  bool more(std::uint64_t done) const {
    if (options_.minutes <= 0) return done < options_.workloads;
    return steady_clock::now() - begin_ <
           std::chrono::duration<double, std::ratio<60>>(options_.minutes);
  }

  // Each call of each kind, and one more, which is not made and hits nothing.
  std::vector<Fault> trials_of(std::uint64_t seed) {
    const auto calls_of = [&](FaultKind kind) {
      return Trial(place(0), seed, {.kind = kind, .at = 0}, log_).count_calls();
    };
    const CallCounts of_changes = calls_of(FaultKind::kWriteError);
    const CallCounts of_reads = calls_of(FaultKind::kReadError);
    pages_in_use_ = of_reads.pages_in_use;
    std::vector<Fault> trials;
    for (std::size_t kind = 0; kind < kFaultKinds; ++kind) {
      const auto fault = static_cast<FaultKind>(kind);
      if (!options_.fault.empty() && options_.fault != fault_name(fault)) continue;
      const auto& calls = is_of_reads(fault) ? of_reads.calls : of_changes.calls;
      for (std::uint64_t at = 1; at <= calls[kind] + 1; ++at) trials.push_back({fault, at});
    }
    return trials;
  }

  bool run_workload(std::uint64_t seed) {
    const std::vector<Fault> trials = trials_of(seed);
    shared_->next_trial = 0;
    shared_->pages_hit = 0;
    for (auto& hits : shared_->hits) hits = 0;
    for (auto& ends : shared_->ends) ends = 0;
    std::vector<pid_t> workers;
    for (unsigned job = 0; job < options_.jobs; ++job) {
      std::fflush(nullptr);
      const pid_t child = ::fork();
      CHECK(child >= 0, "no process can be made");
      if (child == 0) {
        disk::Log log;
        work(job, seed, trials, log);
        ::_exit(0);
      }
      workers.push_back(child);
    }
    for (const pid_t worker : workers) {
      int status = 0;
      CHECK(::waitpid(worker, &status, 0) == worker);
      if (status != 0) report(fmt::format("A process of the harness died with status {}", status));
    }
    print(seed, trials);
    check_hits(trials);
    return !shared_->found;
  }

  void work(unsigned job, std::uint64_t seed, const std::vector<Fault>& trials, disk::Log& log) {
    while (!shared_->found) {
      const std::size_t number = shared_->next_trial++;
      if (number >= trials.size()) return;
      const Fault fault = trials[number];
      const TrialResult result = Trial(place(job), seed, fault, log).run();
      if (result.hit) ++shared_->hits[static_cast<std::size_t>(fault.kind)];
      const bool in_use = fault.kind == FaultKind::kPageError && fault.at <= kPagesMax &&
                          pages_in_use_[fault.at - 1];
      if (result.hit && in_use) ++shared_->pages_hit;
      ++shared_->ends[static_cast<std::size_t>(result.end)];
      shared_->confirmed += result.confirmed;
      shared_->states += result.states;
      if (result.finding) return report(*result.finding);
    }
  }

  // Every call was hit, give or take the few that depend on which thread is faster.
  void check_hits(const std::vector<Fault>& trials) {
    std::array<std::uint64_t, kFaultKinds> wanted{};
    for (const Fault& fault : trials) ++wanted[static_cast<std::size_t>(fault.kind)];
    for (std::size_t kind = 0; kind < kFaultKinds && !shared_->found; ++kind) {
      if (wanted[kind] <= 1) continue;  // the last one is not to hit
      if (static_cast<FaultKind>(kind) == FaultKind::kPageError) {
        check_pages_hit();
      } else if (shared_->hits[kind] < wanted[kind] - 1 - wanted[kind] / 20) {
        report(fmt::format("Of {} faults '{}' only {} were hit", wanted[kind] - 1,
                           fault_name(static_cast<FaultKind>(kind)), shared_->hits[kind].load()));
      }
    }
  }

  // Pages are hit that are read: of those in use most, in 101 workloads 0.71 to 1 of them.
  void check_pages_hit() {
    const std::uint64_t in_use = pages_in_use_.count();
    if (in_use == 0 || shared_->pages_hit < in_use / 2) {
      report(
          fmt::format("Of {} pages in use only {} were read", in_use, shared_->pages_hit.load()));
    }
  }

  void print(std::uint64_t seed, const std::vector<Fault>& trials) const {
    std::string hits;
    for (std::size_t kind = 0; kind < kFaultKinds; ++kind) {
      if (shared_->hits[kind] == 0) continue;
      hits += fmt::format("{}{} {}", hits.empty() ? "" : ", ", shared_->hits[kind].load(),
                          fault_name(static_cast<FaultKind>(kind)));
    }
    fmt::print(
        "workload {}: {} trials ({}); {} went on, {} refused to start, {} stopped, {} "
        "aborted; {:.0f} s\n",
        seed, trials.size(), hits, shared_->ends[0].load(), shared_->ends[1].load(),
        shared_->ends[2].load(), shared_->ends[3].load(),
        std::chrono::duration<double>(steady_clock::now() - begin_).count());
    std::fflush(stdout);
  }

  // The first one counts.
  void report(const std::string& text) {
    if (shared_->found.exchange(true)) return;
    shared_->finding[text.copy(shared_->finding.data(), shared_->finding.size() - 1)] = '\0';
  }

  const Options& options_;
  steady_clock::time_point begin_;
  disk::Log log_;
  Shared* shared_;
  std::string directory_;
  std::bitset<kPagesMax> pages_in_use_;  // of the data file, in this workload
};

}  // namespace
}  // namespace holdfast::ioerror

int main(int argc, char** argv) {
  holdfast::ioerror::Options options;
  holdfast::test::CommandLine line("Lets each call with which a store works fail once.");
  line.seed(&options.seed, "Of the first workload");
  line.number("--workloads", &options.workloads, "Run so many");
  line.number("--minutes", &options.minutes, "Run for so long instead");
  line.number("--jobs", &options.jobs, "Processes; some of them wait", {.min = 1, .max = 64});
  line.text("--fault", &options.fault, "This one alone, e.g. \"sync error\"");
  line.text("--dir", &options.parent, "Where to work; memory is fastest");
  line.parse(argc, argv);
  fmt::print("seed {}; again: {} --seed {} --workloads {}\n", options.seed, argv[0], options.seed,
             options.workloads);
  std::fflush(stdout);
  return holdfast::ioerror::Harness(options).run() ? 0 : 1;
}
