#include "ioerror/trial.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <utility>

#include "base/check.h"
#include "disk/device.h"
#include "disk/image.h"
#include "disk/inspection.h"
#include "store/faults.h"

namespace holdfast::ioerror {

namespace {

namespace fs = std::filesystem;
using disk::EntryKind;

constexpr unsigned kLifeSecondsMax = 30;
constexpr std::uint32_t kSteps = 20;
constexpr std::uint32_t kStepsAfter = 5;
constexpr std::uint64_t kStates = 4;
constexpr int kExitRefused = 3;
constexpr int kExitFailed = 4;
constexpr int kExitPageError = 70;  // and what is said then, see store/faults.h
constexpr std::string_view kPageErrorSaid = "(SIGBUS)";
constexpr std::chrono::hours kNever{24};
constexpr std::size_t kEntriesShown = 30;

void make_anew(const std::string& directory) {
  fs::remove_all(directory);
  fs::create_directory(directory);
}

// What a process prints that ends at once is not for whoever watches the harness.
void say_into(int file) {
  ::dup2(file, STDERR_FILENO);
  const rlimit no_core{0, 0};
  ::setrlimit(RLIMIT_CORE, &no_core);
}

std::string read_all(int file) {
  std::string text(static_cast<std::size_t>(::lseek(file, 0, SEEK_END)), '\0');
  CHECK(::pread(file, text.data(), text.size(), 0) == static_cast<ssize_t>(text.size()));
  return text;
}

// Whether it tells an outside that something is durable.
bool is_promise(EntryKind kind) {
  return kind == EntryKind::kQueueCreated || kind == EntryKind::kDeleteDone ||
         kind == EntryKind::kPurgeDone || kind == EntryKind::kConfirmed ||
         kind == EntryKind::kAckDone || kind == EntryKind::kRejectDone ||
         kind == EntryKind::kCommitted;
}

// After such a fault it is not known what the data file holds.
bool is_final(FaultKind kind, const disk::Entry& fault) {
  const std::string_view path(fault.path.data());
  if (!path.ends_with("data.mdb") || fault.only_zeroes) return false;
  return kind == FaultKind::kWriteError || kind == FaultKind::kWriteShort ||
         kind == FaultKind::kSyncError;
}

bool is_sentence(std::string_view text) {
  return text.size() > 20 && text.find(' ') != std::string_view::npos && text.ends_with('.');
}

}  // namespace

int Trial::live(std::uint64_t seed, std::uint32_t steps, Fault fault) {
  disk::LifePlan plan;
  plan.seed = seed;
  plan.steps = steps;
  plan.reopen = true;
  return in_child(std::move(plan), fault, false);
}

void Trial::leave_a_journal() {
  disk::LifePlan plan;
  plan.seed = crash::mix(workload_ + 1);
  plan.steps = kSteps;
  plan.catch_up_interval = kNever;
  const int status = in_child(std::move(plan), {}, true);
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a life without faults ended with {}",
        status);
}

int Trial::in_child(disk::LifePlan plan, Fault fault, bool is_killed) {
  plan.directory = directory_ + "/data";
  const disk::Ledger before = ledger();
  const int said = ::memfd_create("said", MFD_CLOEXEC);
  CHECK(said >= 0);
  std::fflush(nullptr);
  const pid_t child = ::fork();
  CHECK(child >= 0, "no process can be made");
  if (child == 0) {
    ::alarm(kLifeSecondsMax);
    say_into(said);
    const disk::NotWatched guard;
    FaultInjector injector(log_, plan.directory, fault);
    broker::explain_faults("holdfastd", plan.directory);
    disk::watch_calls(plan.directory, &injector);
    disk::Life life(plan, before, log_);
    const disk::LifeEnd end = life.run();
    // A broker whose store failed leaves it as it is.
    if (end == disk::LifeEnd::kDone && !is_killed) life.close();
    if (fault.at == 0) {
      const CallCounts& counted = injector.counted();
      log_.append({.kind = EntryKind::kNothing},
                  {reinterpret_cast<const char*>(&counted), sizeof(counted)});
    }
    ::_exit(end == disk::LifeEnd::kDone      ? 0
            : end == disk::LifeEnd::kRefused ? kExitRefused
                                             : kExitFailed);
  }
  int status = 0;
  CHECK(::waitpid(child, &status, 0) == child);
  said_ = read_all(said);
  ::close(said);
  return status;
}

disk::Ledger Trial::ledger() const {
  disk::Ledger ledger;
  for (const disk::Entry* entry : log_.entries()) ledger.tell(*entry);
  return ledger;
}

void Trial::begin_anew() {
  log_.clear();
  make_anew(directory_ + "/data");
  if (is_of_reads(fault_.kind)) leave_a_journal();
}

CallCounts Trial::count_calls() {
  begin_anew();
  const int status = live(workload_, kSteps, {});
  CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 0, "a life without faults ended with {}",
        status);
  CallCounts counted;
  for (const disk::Entry* entry : log_.entries()) {
    if (entry->kind != EntryKind::kNothing) continue;  // the last of them counts
    std::memcpy(&counted, entry->bytes().data(), sizeof(counted));
  }
  return counted;
}

TrialResult Trial::run() {
  begin_anew();
  TrialResult result;
  result.finding = judge_end(live(workload_, kSteps, fault_), result);
  for (const disk::Entry* entry : log_.entries()) result.hit |= entry->kind == EntryKind::kFault;
  result.hit |= said_.find(kPageErrorSaid) != std::string::npos;
  if (!result.finding) result.finding = judge_log();
  if (!result.finding) result.finding = look(result);
  result.confirmed = ledger().counts().confirmed;
  if (!result.finding && result.hit) {
    const int status = live(crash::mix(workload_), kStepsAfter, {});
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
      result.finding = fmt::format("The start after it ended with status {}", status);
    } else {
      result.finding = look(result);
      // The directory itself, which a look may change.
      if (!result.finding) result.finding = disk::inspect(directory_ + "/data", ledger());
    }
  }
  if (!result.finding) return result;
  const std::vector<const disk::Entry*> entries = log_.entries();
  std::string shown;
  for (std::size_t i = entries.size() - std::min(entries.size(), kEntriesShown); i < entries.size();
       ++i) {
    shown += fmt::format("  {}: {}\n", i, disk::describe(*entries[i]));
  }
  result.finding = fmt::format("{}; call {} of its kind failed: {}. The log's end:\n{}",
                               *result.finding, fault_.at, fault_name(fault_.kind), shown);
  return result;
}

std::optional<std::string> Trial::judge_end(int status, TrialResult& result) const {
  if (WIFSIGNALED(status)) {
    result.end = TrialEnd::kAborted;
    const bool may_abort = fault_.kind == FaultKind::kMemory && WTERMSIG(status) == SIGABRT;
    if (may_abort) return std::nullopt;
    return fmt::format("The process died of signal {}{}", WTERMSIG(status),
                       WTERMSIG(status) == SIGALRM ? ": it hung" : "");
  }
  switch (WEXITSTATUS(status)) {
    case 0:
      result.end = TrialEnd::kDone;
      return std::nullopt;
    case kExitRefused:
      result.end = TrialEnd::kRefused;
      break;
    case kExitFailed:
      result.end = TrialEnd::kFailed;
      break;
    case kExitPageError:
      return judge_page_error(result);
    default:
      return fmt::format("The process ended with exit code {}", WEXITSTATUS(status));
  }
  for (const disk::Entry* entry : log_.entries()) {
    const bool says_why =
        entry->kind == EntryKind::kFailed || entry->kind == EntryKind::kRefusedToStart;
    if (says_why) {
      if (auto finding = judge_said(entry->text())) return finding;
    }
    // Of a full disk a start may say so, and a commit waits; but a meta page is never written
    // twice.
    const bool waits = fault_.kind == FaultKind::kWriteFull ||
                       fault_.kind == FaultKind::kDiskFull || fault_.kind == FaultKind::kSyncFull ||
                       fault_.kind == FaultKind::kClaimFull;
    if (entry->kind == EntryKind::kFault && entry->through && waits) return std::nullopt;
    if (entry->kind == EntryKind::kFailed && waits) {
      return fmt::format("A disk that was full ended the store: {}", entry->text());
    }
  }
  return std::nullopt;
}

std::optional<std::string> Trial::judge_page_error(TrialResult& result) const {
  result.end = TrialEnd::kFailed;
  const bool names_file = said_.find(directory_ + "/data/store/data.mdb") != std::string::npos;
  if (fault_.kind == FaultKind::kPageError && names_file &&
      said_.find(kPageErrorSaid) != std::string::npos) {
    return std::nullopt;
  }
  return fmt::format("The process ended with exit code {} and said '{}'", kExitPageError, said_);
}

std::optional<std::string> Trial::judge_said(std::string_view said) const {
  if (!is_sentence(said)) return fmt::format("What the store says is no sentence: '{}'", said);
  if (fault_.kind == FaultKind::kReadError && said.find("Input/output error") == said.npos) {
    return fmt::format("What could not be read is told as something else: '{}'", said);
  }
  if (fault_.kind == FaultKind::kReadShort) {
    return fmt::format("A read that gave a part of the bytes ended the store: '{}'", said);
  }
  return std::nullopt;
}

std::optional<std::string> Trial::judge_log() const {
  bool final_fault = false;
  bool failed = false;
  for (const disk::Entry* entry : log_.entries()) {
    if (entry->kind == EntryKind::kFault) final_fault |= is_final(fault_.kind, *entry);
    failed |= entry->kind == EntryKind::kFailed;
    if ((final_fault || failed) && is_promise(entry->kind)) {
      return fmt::format("After the {} something was promised: {}",
                         failed ? "store failed," : "fault", disk::describe(*entry));
    }
  }
  return std::nullopt;
}

std::optional<std::string> Trial::look(TrialResult& result) const {
  const disk::Ledger promised = ledger();
  disk::Device device(disk::Lie::kNothing);
  for (const disk::Entry* entry : log_.entries()) {
    if (entry->of_directory()) device.apply(*entry);
  }
  crash::Random random(crash::mix(workload_) + fault_.at);
  make_anew(directory_ + "/image");
  disk::Image image(directory_ + "/image");
  for (std::uint64_t i = 0; i < kStates; ++i) {
    ++result.states;
    // Everything is what the page cache has, that is, without a loss of power.
    image.become(device.state(i == 0   ? disk::Survival::kEverything
                              : i == 1 ? disk::Survival::kNothing
                                       : disk::Survival::kSome,
                              random));
    if (auto finding = disk::inspect(image.directory(), promised)) {
      return *finding + (i == 0 ? "" : ", after a loss of power");
    }
  }
  return std::nullopt;
}

}  // namespace holdfast::ioerror
