#include "sim/workers.h"

#include <fmt/format.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <new>
#include <string>
#include <vector>

namespace holdfast::broker::sim {

namespace {

using std::chrono::steady_clock;

constexpr std::uint64_t kFindingsMax = 5;
constexpr timespec kProgressInterval{5, 0};

// In memory that parent and children share. A worker writes its own place only.
struct Place {
  std::uint64_t seed = 0;  // under way
  Tally tally;
};
struct Board {
  std::atomic<std::uint64_t> next_seed;
  std::atomic<std::uint64_t> findings;
};

class Workers {
 public:
  explicit Workers(const Plan& plan);
  ~Workers() { ::munmap(memory_, bytes_); }
  Workers(const Workers&) = delete;
  Workers& operator=(const Workers&) = delete;

  Outcome run();

 private:
  void start(std::size_t index);
  void work(Place& place);
  void print_finding(std::uint64_t seed, const World& world, const std::string& finding) const;
  bool seeds_are_left() const;
  void reap();
  Outcome outcome() const;
  std::uint64_t findings_max() const {
    return plan_.sabotage == Sabotage::kNothing ? kFindingsMax : 1;
  }

  const Plan plan_;
  const steady_clock::time_point begin_ = steady_clock::now();
  std::size_t bytes_;
  void* memory_;
  Board* board_;
  Place* places_;
  std::vector<pid_t> pids_;  // 0: none
};

Workers::Workers(const Plan& plan)
    : plan_(plan), bytes_(sizeof(Board) + plan.jobs * sizeof(Place)), pids_(plan.jobs, 0) {
  memory_ = ::mmap(nullptr, bytes_, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  if (memory_ == MAP_FAILED) {
    fmt::print(stderr, "The processes cannot share {} bytes of memory.\n", bytes_);
    std::exit(70);
  }
  board_ = new (memory_) Board{plan.first_seed, 0};
  places_ = reinterpret_cast<Place*>(board_ + 1);
  for (std::size_t i = 0; i < plan.jobs; ++i) new (places_ + i) Place();
}

bool Workers::seeds_are_left() const {
  if (board_->findings >= findings_max()) return false;
  if (plan_.duration) return steady_clock::now() - begin_ < *plan_.duration;
  return board_->next_seed < plan_.first_seed + plan_.seeds;
}

void Workers::start(std::size_t index) {
  std::fflush(stdout);
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid < 0) {
    fmt::print(stderr, "fork failed.\n");
    std::exit(70);
  }
  if (pid == 0) {
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(127);
    work(places_[index]);
    std::exit(0);  // not _exit: the leak sanitizer looks now
  }
  pids_[index] = pid;
}

void Workers::work(Place& place) {
  while (seeds_are_left()) {
    const std::uint64_t seed = board_->next_seed.fetch_add(1);
    if (!plan_.duration && seed >= plan_.first_seed + plan_.seeds) return;
    place.seed = seed;
    World world(seed, plan_.sabotage, plan_.print_events);
    const std::optional<std::string> finding = world.run(plan_.steps);
    if (!finding) {
      place.tally.add(world);
      continue;
    }
    ++board_->findings;
    print_finding(seed, world, *finding);
  }
}

void Workers::print_finding(std::uint64_t seed, const World& world,
                            const std::string& finding) const {
  std::string text;
  if (plan_.sabotage == Sabotage::kNothing) {
    for (const std::string& event : world.last_events()) text += event + "\n";
  }
  text += fmt::format("seed {}: broken promise: {}\nreplay: sim --seed {} --steps {} --events\n",
                      seed, finding, seed, plan_.steps);
  std::fputs(text.c_str(), stdout);
  std::fflush(stdout);
}

// Takes note of those that ended; one that did not end by itself is a finding.
void Workers::reap() {
  for (std::size_t i = 0; i < pids_.size(); ++i) {
    int status = 0;
    if (pids_[i] == 0 || ::waitpid(pids_[i], &status, WNOHANG) != pids_[i]) continue;
    pids_[i] = 0;
    if (WIFEXITED(status) && WEXITSTATUS(status) == 0) continue;
    ++board_->findings;
    fmt::print("seed {}: the broker stopped itself\nreplay: sim --seed {} --steps {} --events\n",
               places_[i].seed, places_[i].seed, plan_.steps);
    if (seeds_are_left()) start(i);
  }
}

Outcome Workers::outcome() const {
  Outcome outcome;
  for (std::size_t i = 0; i < plan_.jobs; ++i) outcome.tally.add(places_[i].tally);
  outcome.findings = board_->findings;
  return outcome;
}

Outcome Workers::run() {
  sigset_t child_ended;
  sigemptyset(&child_ended);
  sigaddset(&child_ended, SIGCHLD);
  ::sigprocmask(SIG_BLOCK, &child_ended, nullptr);
  for (std::size_t i = 0; i < plan_.jobs; ++i) start(i);
  for (;;) {
    reap();
    bool working = false;
    for (const pid_t pid : pids_) working = working || pid != 0;
    if (!working) return outcome();
    if (::sigtimedwait(&child_ended, nullptr, &kProgressInterval) < 0 && plan_.duration) {
      fmt::print(
          "{} seeds, {} findings after {} s\n", outcome().tally.seeds, outcome().findings,
          std::chrono::duration_cast<std::chrono::seconds>(steady_clock::now() - begin_).count());
      std::fflush(stdout);
    }
  }
}

}  // namespace

Outcome run_plan(const Plan& plan) { return Workers(plan).run(); }

}  // namespace holdfast::broker::sim
