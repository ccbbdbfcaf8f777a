// crash_harness: kills a broker at random moments under load, and checks what it promised.
// tests/crash/run starts it; see harness.h for a round and ledger.h for what is checked.

#include <fmt/format.h>
#include <stdlib.h>

#include <cstdio>
#include <filesystem>
#include <numeric>
#include <string>

#include "crash/harness.h"
#include "support/command_line.h"

namespace {

using holdfast::crash::Harness;
using holdfast::crash::HarnessOptions;
using holdfast::crash::HarnessResult;

constexpr std::size_t kViolationsShown = 5;

void print_result(const HarnessResult& result) {
  const auto& counts = result.counts;
  fmt::print(
      "{} messages asked, {} confirmed, {} answered as duplicates; {} deliveries, {} acked, {} "
      "nacked, {} rejected, {} settles unanswered; {} dead, {} redriven\n",
      counts.asked, counts.confirmed, counts.duplicates, counts.delivered, counts.acked,
      counts.nacked, counts.rejected, counts.unanswered_settles, counts.dead, counts.redriven);
  const auto& kills = result.kills;
  fmt::print(
      "{} rounds, {} void, {} kills: {} creating the directory, {} starting, {} under load, {} "
      "draining, {} redriving, {} at rest; {} drains ended before; {} violations\n",
      result.rounds, result.void_rounds, std::accumulate(kills.begin(), kills.end(), 0u), kills[0],
      kills[1], kills[2], kills[3], kills[4], kills[5], result.drained, result.violations.size());
  for (std::size_t i = 0; i < result.violations.size() && i < kViolationsShown; ++i) {
    fmt::print("VIOLATION {}: {}\n", i + 1, result.violations[i]);
  }
}

}  // namespace

int main(int argc, char** argv) {
  HarnessOptions options;
  std::string broker;
  std::string directory;
  bool keep = false;
  bool is_temporary = false;

  holdfast::test::CommandLine line(
      "Kills a broker at random moments under load, and checks what it promised.");
  line.file("--broker", &broker, "The binary holdfastd");
  line.seed(&options.seed, "Replays the choices of a run (not its timing)");
  line.number("--rounds", &options.rounds, "Rounds that count");
  line.number("--confirmed-min", &options.confirmed_min,
              "A round with fewer confirmed publishes before its kill is void");
  line.text("--dir", &directory, "An empty directory to work in; else a temporary one");
  line.flag("--keep", &keep, "Leave the temporary directory behind");
  line.parse(argc, argv);

  if (directory.empty()) {
    std::string name = (std::filesystem::temp_directory_path() / "holdfast-crash-XXXXXX").string();
    if (::mkdtemp(name.data()) == nullptr) {
      fmt::print(stderr, "No temporary directory can be made at {}.\n", name);
      return 70;
    }
    directory = name;
    is_temporary = true;
  }
  options.broker = broker;
  options.directory = directory;
  fmt::print("seed {}; again: {} --broker {} --seed {} --rounds {}\n", options.seed, argv[0],
             broker, options.seed, options.rounds);
  std::fflush(stdout);

  const HarnessResult result = Harness(options).run();
  print_result(result);
  const bool good = result.violations.empty();
  if (good && is_temporary && !keep) {
    std::error_code ignored;
    std::filesystem::remove_all(directory, ignored);
  } else {
    fmt::print("The data and the broker's log are in {}.\n", directory);
  }
  fmt::print("{} passed, {} failed\n", result.rounds, good ? 0 : 1);
  return good ? 0 : 1;
}
