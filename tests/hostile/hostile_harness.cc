// hostile_harness: hostile clients and a slow disk against a real broker. tests/hostile/run starts
// it; see arena.h for a round, attack.h for what is done, bounds.h for the bounds.

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "crash/random.h"
#include "hostile/arena.h"
#include "support/checks.h"
#include "support/command_line.h"
#include "support/process.h"

namespace {

using std::chrono::milliseconds;
using namespace holdfast::hostile;
using holdfast::crash::Random;
using holdfast::test::Checks;

using Clock = std::chrono::steady_clock;
using Attacks = std::vector<std::unique_ptr<Attack>>;

// So few that the system refuses: the broker's own and the steady clients' are about 25. It is
// started with more, because with so few it would not begin.
constexpr std::uint32_t kDescriptorsFew = 56;
constexpr std::uint32_t kDescriptorsAtFirst = 2 * kDescriptorsFew;
// Enough for the broker's own reserve of 64: it refuses by itself.
constexpr std::uint32_t kDescriptorsCapped = 200;
// In the long form all attacks meet one broker.
constexpr std::uint32_t kDescriptorsLong = 1'500;

Attacks alone(std::unique_ptr<Attack> attack) {
  Attacks attacks;
  attacks.push_back(std::move(attack));
  return attacks;
}

// Where the system refuses, libuv takes what waits with a descriptor that it keeps for that, and
// closes it.
void refused_by_the_system(ArenaOptions options, Checks& checks) {
  options.descriptors_max = kDescriptorsAtFirst;
  fmt::print("== a broker with {} descriptors\n", kDescriptorsFew);
  Arena arena(options, checks);
  arena.start();
  arena.leave_descriptors(kDescriptorsFew);
  arena.round(alone(exhaustion(arena.target(), 2 * kDescriptorsFew)), milliseconds(2'500));
  checks.check(
      arena.descriptors_highest() + 1 >= kDescriptorsFew,
      fmt::format("it had {} descriptors of {}", arena.descriptors_highest(), kDescriptorsFew));
  arena.finish();
}

void refused_by_the_broker(ArenaOptions options, Checks& checks) {
  options.descriptors_max = kDescriptorsCapped;
  fmt::print("== a broker with {} descriptors\n", kDescriptorsCapped);
  Arena arena(options, checks);
  arena.start();
  arena.round(alone(exhaustion(arena.target(), 2 * kDescriptorsCapped)), milliseconds(2'500));
  checks.check(arena.descriptors_highest() < kDescriptorsCapped && arena.said("connections_max"),
               fmt::format("it had {} descriptors of {} and named connections_max",
                           arena.descriptors_highest(), kDescriptorsCapped));
  arena.finish();
}

// Each situation once.
void run_quick(const ArenaOptions& options, Checks& checks) {
  {
    Arena arena(options, checks);
    arena.start();
    const Target& target = arena.target();
    arena.round(alone(never_reading_consumers(target, 3)), milliseconds(3'500));
    arena.round(alone(slowly_reading_consumers(target, 3)), milliseconds(3'500));
    arena.round(alone(stopped_consumers(target, 3)), milliseconds(4'500));
    arena.round(alone(slow_loris(target, 500)), milliseconds(3'000));
    arena.round(alone(half_frames(target, 100)), milliseconds(3'000));
    arena.round(alone(resets(target, 20'000, options.seed)), milliseconds(0));
    arena.round(alone(garbage(target, 64, options.seed)), milliseconds(2'500));
    arena.round(alone(slow_disk(target, milliseconds(10), 4, true)), milliseconds(2'000));
    arena.round(alone(slow_disk(target, milliseconds(200), 2, true)), milliseconds(2'500));
    arena.round(alone(slow_disk(target, milliseconds(5'000), 1, true)), milliseconds(6'000));
    arena.round(alone(askers_that_go(target, milliseconds(4'000))), milliseconds(4'000));
    arena.finish();
  }
  refused_by_the_system(options, checks);
  refused_by_the_broker(options, checks);
}

std::unique_ptr<Attack> choose(int kind, const Target& target, bool is_alone, Random& random) {
  const auto count = [&random](std::uint32_t least, std::uint32_t most) {
    return least + static_cast<std::uint32_t>(random.below(most - least + 1));
  };
  switch (kind) {
    case 0:
      return never_reading_consumers(target, count(1, 3));
    case 1:
      return slowly_reading_consumers(target, count(1, 3));
    case 2:
      return stopped_consumers(target, count(1, 4));
    case 3:
      return slow_loris(target, count(50, 500));
    case 4:
      return half_frames(target, count(10, 150));
    case 5:
      return resets(target, count(1'000, 20'000), random.next());
    case 6:
      return garbage(target, count(4, 100), random.next());
    case 7: {
      const std::uint64_t longest = random.once_in(3) ? 5'000 : 300;
      const milliseconds delay(10 + random.below(longest - 9));
      if (random.once_in(4)) return askers_that_go(target, delay);
      return slow_disk(target, delay, count(1, 3), is_alone);
    }
    default:
      return exhaustion(target, 2 * kDescriptorsLong);
  }
}

// One to three at once, against one broker. What takes all descriptors is alone, because the others
// could not do what they are for.
void run_long(const ArenaOptions& base, std::uint32_t minutes, Checks& checks) {
  ArenaOptions options = base;
  options.descriptors_max = kDescriptorsLong;
  Random random(options.seed);
  Arena arena(options, checks);
  arena.start();
  const Clock::time_point end = Clock::now() + std::chrono::minutes(minutes);
  std::uint64_t rounds = 0;
  std::uint64_t attacks_made = 0;
  std::uint64_t hits = 0;
  while (Clock::now() < end && checks.failed() == 0) {
    constexpr int kKinds = 9;
    std::vector<int> kinds;
    const std::uint64_t wanted = 1 + random.below(3);
    while (kinds.size() < wanted) {
      const int kind = static_cast<int>(random.below(kKinds));
      if (std::find(kinds.begin(), kinds.end(), kind) == kinds.end()) kinds.push_back(kind);
    }
    if (std::find(kinds.begin(), kinds.end(), kKinds - 1) != kinds.end()) kinds = {kKinds - 1};
    Attacks attacks;
    for (const int kind : kinds) {
      attacks.push_back(choose(kind, arena.target(), kinds.size() == 1, random));
    }
    attacks_made += attacks.size();
    hits += arena.round(std::move(attacks), milliseconds(1'000 + random.below(5'000)));
    ++rounds;
  }
  arena.finish();
  fmt::print("seed {}: {} rounds, {} attacks, {} hits\n", options.seed, rounds, attacks_made, hits);
  if (rounds == 0) checks.check(false, "the run is void: it had no round");
}

}  // namespace

int main(int argc, char** argv) {
  ArenaOptions options;
  std::string broker;
  std::string shim;
  std::string consume;
  std::uint32_t minutes = 0;
  bool only_limit = false;
  holdfast::test::CommandLine line("Hostile clients and a slow disk against a Holdfast broker.");
  line.text("--broker", &broker, "The binary holdfastd");
  line.text("--shim", &shim, "slow_disk_shim.so");
  line.seed(&options.seed, "Replays the choices of a run (not its timing)");
  line.number("--minutes", &minutes, "Random rounds against one broker for so long");
  line.flag("--connection-limit", &only_limit, "Only the situation that meets this limit");
  line.text("--consume", &consume, "Be the consumer that is stopped, of the broker there");
  line.parse(argc, argv);
  if (!consume.empty()) return consume_until_stopped(consume);
  if (broker.empty() || shim.empty()) {
    fmt::print(stderr, "--broker and --shim are needed.\n");
    return 64;
  }
  options.broker = broker;
  options.shim = shim;
  options.own_binary = std::filesystem::canonical("/proc/self/exe").string();
  holdfast::test::raise_descriptor_limit();
  fmt::print("seed {}; again: {} --broker {} --shim {} --seed {}{}\n", options.seed, argv[0],
             broker, shim, options.seed, minutes > 0 ? fmt::format(" --minutes {}", minutes) : "");
  std::fflush(stdout);

  Checks checks;
  try {
    if (minutes > 0) {
      run_long(options, minutes, checks);
    } else if (only_limit) {
      refused_by_the_broker(options, checks);
    } else {
      run_quick(options, checks);
    }
  } catch (const std::runtime_error& error) {
    checks.check(false, error.what());
  }
  return checks.finish();
}
