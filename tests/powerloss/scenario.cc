#include "powerloss/scenario.h"

#include <fmt/format.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>

#include "base/check.h"
#include "disk/inspection.h"
#include "disk/life.h"
#include "disk/recorder.h"

namespace holdfast::powerloss {

namespace {

namespace fs = std::filesystem;
using disk::EntryKind;
using disk::Survival;

constexpr std::size_t kEntriesShown = 30;
constexpr unsigned kLifeSecondsMax = 60;

std::string made(std::string directory) {
  fs::create_directory(directory);
  return directory;
}

// How a process ended, in words; empty: as it should.
std::string describe_end(int status) {
  if (WIFEXITED(status)) {
    const int code = WEXITSTATUS(status);
    if (code == 0 || code == disk::kKilled) return {};
    return fmt::format("exit code {}", code);
  }
  return fmt::format("signal {}", WTERMSIG(status));
}

}  // namespace

Scenario::Scenario(ScenarioOptions options, disk::Log& log)
    : options_(std::move(options)),
      log_(log),
      random_(options_.seed),
      device_(options_.lie),
      image_(made(options_.directory + "/image")) {}

std::optional<std::string> Scenario::run() {
  log_.clear();
  fs::remove_all(options_.directory + "/data");
  fs::create_directory(options_.directory + "/data");
  const std::uint64_t lives = 1 + random_.below(4);
  std::size_t told = 0;
  disk::Ledger before;
  for (std::uint32_t life = 0; life < lives; ++life) {
    if (auto finding = live(life, before)) return finding;
    const std::vector<const disk::Entry*> entries = log_.entries();
    for (; told < entries.size(); ++told) before.tell(*entries[told]);
  }
  return lose_power();
}

std::optional<std::string> Scenario::live(std::uint32_t life, const disk::Ledger& before) {
  disk::LifePlan plan;
  plan.directory = options_.directory + "/data";
  plan.seed = random_.next();
  plan.steps = static_cast<std::uint32_t>(5 + random_.below(random_.once_in(4) ? 80 : 30));
  plan.reopen = random_.once_in(3);
  const bool closes = random_.once_in(2);
  disk::Kill kill{.at = 0, .at_commit = random_.once_in(2), .seed = plan.seed};
  if (!random_.once_in(3)) {
    const std::uint64_t commits = random_.once_in(8) ? 2 : plan.steps / 2;
    kill.at = 1 + random_.below(kill.at_commit ? commits : commits * 8);
  }
  options_.about_to(fmt::format("live life {} of seed {}", life, options_.seed));
  std::fflush(nullptr);
  const pid_t child = ::fork();
  CHECK(child >= 0, "no process can be made");
  if (child == 0) {
    ::alarm(kLifeSecondsMax);
    const disk::NotWatched guard;
    disk::Recorder recorder(log_, kill);
    disk::watch_calls(plan.directory, &recorder);
    disk::Life living(plan, before, log_);
    const bool done = living.run() == disk::LifeEnd::kDone;
    if (done && closes) living.close();
    ::_exit(done ? 0 : 1);
  }
  int status = 0;
  CHECK(::waitpid(child, &status, 0) == child);
  const std::string end = describe_end(status);
  if (!end.empty()) {
    std::string why;
    for (const disk::Entry* entry : log_.entries()) {
      if (entry->kind == EntryKind::kFailed || entry->kind == EntryKind::kRefusedToStart) {
        why = entry->text();
      }
    }
    return fmt::format("Life {} ended with {}. {}", life, end, why);
  }
  if (WEXITSTATUS(status) == disk::kKilled) ++counts_.kills;
  return std::nullopt;
}

std::optional<std::string> Scenario::lose_power() {
  const std::vector<const disk::Entry*> entries = log_.entries();
  std::optional<std::string> finding;
  for (std::size_t at = 0; at < entries.size() && !finding; ++at) {
    const disk::Entry& entry = *entries[at];
    if (entry.of_directory()) {
      finding = lose_power_now(at);
      device_.apply(entry);
      certain_ |= entry.kind == EntryKind::kSync || entry.through;
    } else {
      ledger_.tell(entry);
      told_ = true;
    }
    if (options_.states_max > 0 && counts_.states >= options_.states_max) break;
  }
  if (!finding) finding = lose_power_now(entries.size());
  counts_.promises = ledger_.counts();
  return finding;
}

std::optional<std::string> Scenario::lose_power_now(std::size_t at) {
  ++counts_.moments;
  // A state like the one before would find nothing new.
  const bool nothing_is_new = told_ || certain_;
  told_ = certain_ = false;
  if (nothing_is_new) {
    if (auto finding = look(at, Survival::kNothing, 0)) return finding;
  }
  if (device_.certain()) return std::nullopt;
  if (auto finding = look(at, Survival::kEverything, 0)) return finding;
  for (std::uint32_t variant = 0; variant < options_.variants; ++variant) {
    if (auto finding = look(at, Survival::kSome, variant)) return finding;
  }
  return std::nullopt;
}

std::optional<std::string> Scenario::look(std::size_t at, Survival survival,
                                          std::uint32_t variant) {
  const std::string_view remains = survival == Survival::kNothing      ? "nothing"
                                   : survival == Survival::kEverything ? "everything"
                                                                       : "some";
  options_.about_to(
      fmt::format("start after power was lost before entry {} of seed {}, {} of what "
                  "was not synced is left, variant {}",
                  at, options_.seed, remains, variant));
  crash::Random random(crash::mix(options_.seed) + counts_.moments * 1000 + variant);
  const disk::DeviceState state = device_.state(survival, random);
  ++counts_.states;
  if (survival != Survival::kNothing) ++counts_.uncertain;
  if (!state.nodes.contains("store/data.mdb")) ++counts_.in_creation;
  image_.become(state);
  const std::optional<std::string> finding = disk::inspect(image_.directory(), ledger_);
  if (!finding) return std::nullopt;
  std::string shown;
  const std::vector<const disk::Entry*> entries = log_.entries();
  for (std::size_t i = at > kEntriesShown ? at - kEntriesShown : 0; i < at; ++i) {
    shown += fmt::format("  {}: {}\n", i, disk::describe(*entries[i]));
  }
  return fmt::format(
      "{}; the power was lost before entry {} of the log, {} of what was not synced "
      "was left (variant {}). Before it:\n{}",
      *finding, at, remains, variant, shown);
}

}  // namespace holdfast::powerloss
