// powerloss: rebuilds a store's directory as a loss of power could have left it, at every moment,
// and looks whether every promise is kept. See scenario.h for what is tried, disk/device.h for what
// a loss of power may leave.
//
//   powerloss [--seed S] [--states N | --minutes M] [--jobs J] [--lie sync|write-through]
//
// Scenario k has the seed S + k; `--seed S --scenarios 1` replays one. With --lie the device does
// not do what it says, promises are broken, and finding that is what is wanted. The last line is
// `N passed, N failed`, of scenarios; exit code 0 only if nothing failed and enough was tried.

#include <fmt/format.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "base/check.h"
#include "powerloss/scenario.h"
#include "support/command_line.h"

namespace holdfast::powerloss {
namespace {

namespace fs = std::filesystem;
using std::chrono::steady_clock;

struct Options {
  std::uint64_t seed = 0;
  std::uint64_t states = 20'000;
  std::uint64_t scenarios = 0;  // 0: as many as it takes
  double minutes = 0;           // 0: by states
  unsigned jobs = 2;
  std::uint32_t variants = 8;
  std::string lie = "nothing";
  std::string parent = "/dev/shm";
};

const std::map<std::string, disk::Lie> kLies = {{"nothing", disk::Lie::kNothing},
                                                {"sync", disk::Lie::kSync},
                                                {"write-through", disk::Lie::kWriteThrough}};

// What the workers share with the one that waits for them.
struct Shared {
  std::atomic<std::uint64_t> next_scenario;
  std::atomic<std::uint64_t> scenarios_done;
  std::atomic<std::uint64_t> states;
  std::atomic<std::uint64_t> moments;
  std::atomic<std::uint64_t> uncertain;
  std::atomic<std::uint64_t> in_creation;
  std::atomic<std::uint64_t> kills;
  std::atomic<std::uint64_t> lives;
  std::atomic<std::uint64_t> confirmed;
  std::atomic<std::uint64_t> duplicates;
  std::atomic<std::uint64_t> acked;
  std::atomic<std::uint64_t> rejected;
  std::atomic<std::uint64_t> deleted;
  std::atomic<bool> found;
  std::atomic<bool> finding_whole;
  std::uint64_t finding_seed;
  char finding[8192];
  char about_to[16][256];     // by worker
  std::uint64_t seed_of[16];  // likewise
};

void set_text(char* to, std::size_t size, const std::string& text) {
  to[text.copy(to, size - 1)] = '\0';
}

class Harness {
 public:
  explicit Harness(const Options& options) : options_(options), begin_(steady_clock::now()) {
    void* const memory =
        ::mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    shared_ = new (memory) Shared();
    std::string pattern = options_.parent + "/holdfast-powerloss-XXXXXX";
    CHECK(::mkdtemp(pattern.data()) != nullptr, "no directory can be made in {}", options_.parent);
    directory_ = pattern;
  }
  ~Harness() {
    if (shared_->found && options_.lie == "nothing") {
      fmt::print(stderr, "What was found is in {}, in the image of one of the jobs.\n", directory_);
      return;
    }
    std::error_code ignored;
    fs::remove_all(directory_, ignored);
  }
  Harness(const Harness&) = delete;
  Harness& operator=(const Harness&) = delete;

  bool run() {
    int ends[2];
    CHECK(::pipe(ends) == 0);
    std::vector<pid_t> workers;
    for (unsigned worker = 0; worker < options_.jobs; ++worker) {
      std::fflush(nullptr);
      const pid_t child = ::fork();
      CHECK(child >= 0, "no process can be made");
      if (child == 0) {
        ::close(ends[0]);
        work(worker);
        std::fflush(nullptr);
        ::_exit(0);
      }
      workers.push_back(child);
    }
    ::close(ends[1]);
    wait(ends[0]);
    for (unsigned worker = 0; worker < workers.size(); ++worker) {
      int status = 0;
      CHECK(::waitpid(workers[worker], &status, 0) == workers[worker]);
      if (WIFEXITED(status) && WEXITSTATUS(status) == 0) continue;
      report(shared_->seed_of[worker],
             fmt::format("A process died ({} {}) when it was about to {}.",
                         WIFSIGNALED(status) ? "signal" : "exit code",
                         WIFSIGNALED(status) ? WTERMSIG(status) : WEXITSTATUS(status),
                         shared_->about_to[worker]));
    }
    return judge();
  }

 private:
  // Until all ends of the workers are closed.
  void wait(int descriptor) {
    constexpr int kProgressMs = 5'000;
    pollfd end{.fd = descriptor, .events = POLLIN, .revents = 0};
    while (::poll(&end, 1, kProgressMs) == 0) print_progress();
    ::close(descriptor);
  }

  void print_progress() const {
    const double seconds = std::chrono::duration<double>(steady_clock::now() - begin_).count();
    fmt::print("{:.0f} s: {} states of {} moments in {} scenarios, {:.0f} states/s\n", seconds,
               shared_->states.load(), shared_->moments.load(), shared_->scenarios_done.load(),
               static_cast<double>(shared_->states) / seconds);
    std::fflush(stdout);
  }

  bool more() const {
    if (shared_->found) return false;
    if (options_.minutes > 0) {
      return steady_clock::now() - begin_ <
             std::chrono::duration<double, std::ratio<60>>(options_.minutes);
    }
    return options_.scenarios > 0 || shared_->states < options_.states;
  }

  void work(unsigned worker) {
    const std::string directory = fmt::format("{}/{}", directory_, worker);
    fs::create_directory(directory);
    disk::Log log;
    while (more()) {
      const std::uint64_t number = shared_->next_scenario++;
      if (options_.scenarios > 0 && number >= options_.scenarios) return;
      ScenarioOptions scenario_options;
      scenario_options.seed = options_.seed + number;
      scenario_options.directory = directory;
      scenario_options.variants = options_.variants;
      scenario_options.lie = kLies.at(options_.lie);
      scenario_options.about_to = [this, worker](const std::string& text) {
        set_text(shared_->about_to[worker], sizeof(shared_->about_to[worker]), text);
      };
      shared_->seed_of[worker] = scenario_options.seed;
      Scenario scenario(scenario_options, log);
      const std::optional<std::string> finding = scenario.run();
      count(scenario.counts());
      if (finding) return report(scenario_options.seed, *finding);
      ++shared_->scenarios_done;
    }
  }

  void count(const ScenarioCounts& counts) {
    shared_->states += counts.states;
    shared_->moments += counts.moments;
    shared_->uncertain += counts.uncertain;
    shared_->in_creation += counts.in_creation;
    shared_->kills += counts.kills;
    shared_->lives += counts.promises.lives;
    shared_->confirmed += counts.promises.confirmed;
    shared_->duplicates += counts.promises.duplicates;
    shared_->acked += counts.promises.acked;
    shared_->rejected += counts.promises.rejected;
    shared_->deleted += counts.promises.deleted;
  }

  // The first one counts.
  void report(std::uint64_t seed, const std::string& text) {
    if (shared_->found.exchange(true)) return;
    shared_->finding_seed = seed;
    set_text(shared_->finding, sizeof(shared_->finding), text);
  }

  bool judge() const {
    print_progress();
    fmt::print(
        "{} lives, {} of them killed; {} states with something not synced, {} in the "
        "creation of a store; {} confirmed, {} of them duplicates; {} acked, {} rejected, {} "
        "queues deleted\n",
        shared_->lives.load(), shared_->kills.load(), shared_->uncertain.load(),
        shared_->in_creation.load(), shared_->confirmed.load(), shared_->duplicates.load(),
        shared_->acked.load(), shared_->rejected.load(), shared_->deleted.load());
    const std::uint64_t done = shared_->scenarios_done;
    fmt::print("seeds {} to {}: {} scenarios\n", options_.seed,
               options_.seed + std::max<std::uint64_t>(done, 1) - 1, done);
    const bool lies = options_.lie != "nothing";
    if (shared_->found) {
      fmt::print("VIOLATION: {}\nagain: powerloss --seed {} --scenarios 1\n", shared_->finding,
                 shared_->finding_seed);
      fmt::print("{} passed, {} failed\n", lies ? 1 : done, lies ? 0 : 1);
      return lies;
    }
    if (lies) {
      fmt::print("The device lied, and nothing was found.\n0 passed, 1 failed\n");
      return false;
    }
    const bool is_void =
        options_.scenarios == 0 &&
        (shared_->kills == 0 || shared_->duplicates == 0 || shared_->acked == 0 ||
         shared_->rejected == 0 || shared_->uncertain == 0 || shared_->in_creation == 0);
    if (is_void) fmt::print("Too little happened for this to mean something.\n");
    fmt::print("{} passed, {} failed\n", done, is_void ? 1 : 0);
    return !is_void;
  }

  const Options& options_;
  steady_clock::time_point begin_;
  Shared* shared_;
  std::string directory_;
};

}  // namespace
}  // namespace holdfast::powerloss

int main(int argc, char** argv) {
  using holdfast::powerloss::kLies;
  holdfast::powerloss::Options options;
  std::vector<std::string> lies;
  for (const auto& [name, lie] : kLies) lies.push_back(name);
  holdfast::test::CommandLine line(
      "Rebuilds a store's directory as a loss of power could have left it.");
  line.seed(&options.seed, "Of the first scenario");
  line.number("--states", &options.states, "Stop after so many");
  line.number("--scenarios", &options.scenarios, "Run so many instead");
  line.number("--minutes", &options.minutes, "Run for so long instead");
  line.number("--jobs", &options.jobs, "Processes", {.min = 1, .max = 16});
  line.number("--variants", &options.variants, "States with random remains for each moment");
  line.text("--dir", &options.parent, "Where to work; memory is fastest");
  line.choice("--lie", &options.lie, lies, "What the device says it did and did not");
  line.parse(argc, argv);
  fmt::print("seed {}; again: {} --seed {} --states {} --jobs {}\n", options.seed, argv[0],
             options.seed, options.states, options.jobs);
  std::fflush(stdout);
  return holdfast::powerloss::Harness(options).run() ? 0 : 1;
}
