#include "corrupt/looks.h"

#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "store/checker.h"
#include "store/faults.h"

namespace holdfast::corrupt {

namespace {

constexpr int kTimeLimitMs = 60'000;
// A hundred times what a sound store takes; also under the sanitizers.
constexpr std::uint64_t kMemoryBytesMax = 1ull << 30;

int check(const std::string& directory) {
  broker::explain_faults("holdfast", directory);
  const Result<broker::CheckReport> report = broker::check_directory(directory, {});
  if (!report) {
    fmt::print(stderr, "holdfast: {}\n", report.status().to_string());
    return kExitStatus;
  }
  for (const broker::CheckFinding& finding : report->findings) {
    fmt::print(stderr, "{}: {}\n", finding.where, finding.what);
  }
  return report->findings.empty() ? 0 : kExitFindings;
}

int serve_or_say_why(const ServingPlan& plan, ServingResult* result) {
  broker::explain_faults("holdfastd", plan.directory);
  const Status status = serve(plan, result);
  if (status.ok()) return 0;
  fmt::print(stderr, "holdfastd: {}\n", status.message());
  return kExitStatus;
}

std::string read_all(int file) {
  std::string text(static_cast<std::size_t>(lseek(file, 0, SEEK_END)), '\0');
  [[maybe_unused]] const ssize_t got = pread(file, text.data(), text.size(), 0);
  return text;
}

}  // namespace

bool Ending::exited_with(int code) const {
  return !timed_out && WIFEXITED(status) && WEXITSTATUS(status) == code;
}

int Ending::signal() const {
  if (WIFSIGNALED(status)) return WTERMSIG(status);
  return said.find("(SIGBUS)") != std::string::npos ? SIGBUS : 0;
}

Looks::Looks(std::string directory) : directory_(std::move(directory)) {
  void* const shared = mmap(nullptr, sizeof(ServingResult), PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_ANONYMOUS, -1, 0);
  CHECK(shared != MAP_FAILED);
  result_ = static_cast<ServingResult*>(shared);
}

Looks::~Looks() { munmap(result_, sizeof(ServingResult)); }

// Runs this in a process of its own, which returns an exit code, and waits for its end.
template <typename Body>
Ending Looks::in_child(const Body& body) {
  const int said = memfd_create("said", MFD_CLOEXEC);
  int ends[2];
  CHECK(said >= 0 && pipe(ends) == 0);
  std::fflush(nullptr);
  const pid_t child = fork();
  CHECK(child >= 0, "fork: {}", std::strerror(errno));
  if (child == 0) {
    dup2(said, STDERR_FILENO);
    close(ends[0]);
    const rlimit no_core{0, 0};
    setrlimit(RLIMIT_CORE, &no_core);
    const int code = body();
    std::fflush(nullptr);
    _exit(code);
  }
  close(ends[1]);
  Ending ending;
  // The child's end closes its side of the pipe.
  pollfd waited{ends[0], POLLIN, 0};
  if (poll(&waited, 1, kTimeLimitMs) == 0) {
    ending.timed_out = true;
    kill(child, SIGKILL);
  }
  rusage used{};
  wait4(child, &ending.status, 0, &used);
  ending.memory_bytes = static_cast<std::uint64_t>(used.ru_maxrss) * 1024;
  ending.said = read_all(said);
  close(ends[0]);
  close(said);
  return ending;
}

Ending Looks::check() {
  return in_child([this] { return corrupt::check(directory_); });
}

Ending Looks::serve(const ServingPlan& plan) {
  std::memset(static_cast<void*>(result_), 0, sizeof(*result_));
  return in_child([&] { return serve_or_say_why(plan, result_); });
}

std::optional<std::string> Looks::judge_ending(std::string_view who, const Ending& ending,
                                               bool signal_allowed) const {
  if (ending.timed_out) return fmt::format("end: the {} hangs", who);
  if (ending.memory_bytes > kMemoryBytesMax) {
    return fmt::format("end: the {} took {} bytes of memory", who, ending.memory_bytes);
  }
  if (ending.exited_with(0) || (who == "check" && ending.exited_with(kExitFindings))) {
    return std::nullopt;
  }
  // An assertion of LMDB is none of the broker's: it is told in a sentence, with an exit code.
  const int signal = ending.signal();
  const bool by_damage = signal == SIGBUS || signal == SIGSEGV;
  if (signal != 0 && !(signal_allowed && by_damage)) {
    return fmt::format("end: the {} crashed by signal {} ({})", who, signal, sigabbrev_np(signal));
  }
  if (ending.said.find(directory_) != std::string::npos) return std::nullopt;
  return fmt::format("end: the {} ended by {} {} and does not say which file it was about", who,
                     signal != 0 ? "signal" : "exit code",
                     signal != 0 ? signal : WEXITSTATUS(ending.status));
}

}  // namespace holdfast::corrupt
