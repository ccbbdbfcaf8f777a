// Rounds of load, SIGKILL, restart and drain against a real broker over TCP.
//
// First the data directory is created several times, killed while it is. Then the rounds. A round:
// 4 producers and 4 consumers work; at a random moment the broker is killed, sometimes while it
// drains after a SIGTERM, sometimes once more while it starts; it is started again and the same
// clients go on. Then the load ends, the queues are drained by new clients, the broker is killed
// and started a last time, and what it says it holds is compared with the ledger. The dead letters
// are then discarded or redriven; sometimes the broker is killed in the middle of redriving, too.

#pragma once

#include <array>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "crash/broker_process.h"
#include "crash/drain.h"
#include "crash/ledger.h"
#include "crash/producer.h"
#include "crash/random.h"
#include "crash/settler.h"
#include "holdfast/client.h"

namespace holdfast::crash {

struct HarnessOptions {
  std::filesystem::path broker;     // the binary
  std::filesystem::path directory;  // exists, empty
  std::uint64_t seed = 0;
  std::uint32_t rounds = 40;
  // A round whose load had fewer confirmed publishes before the kill says nothing and is repeated.
  std::uint32_t confirmed_min = 100;
};

// What the broker did when it was killed.
enum class Moment : std::uint8_t { kCreating, kStarting, kLoad, kDraining, kRedriving, kRest };
inline constexpr std::size_t kMomentCount = 6;
using Kills = std::array<std::uint32_t, kMomentCount>;

struct HarnessResult {
  std::uint32_t rounds = 0;  // full ones
  std::uint32_t void_rounds = 0;
  Kills kills{};
  std::uint32_t drained = 0;  // stops that ended before the kill came
  std::vector<std::string> violations;
  LedgerCounts counts;
};

class Harness {
 public:
  explicit Harness(HarnessOptions options);

  // Ends early at the first violation, and when more rounds are void than were asked for.
  HarnessResult run();

 private:
  bool found_something() const { return !ledger_.violations().empty(); }
  ClientOptions client_options(const std::string& name) const;

  void create_under_kills();
  void check_moments();
  bool create_queues();
  void run_round(std::uint32_t round);
  void start_load(std::uint32_t round);
  void end_load();
  void clear_dead_letters();
  void redrive_under_kill(const std::string& queue);

  void start_broker();
  void kill_broker(Moment moment);
  void kill_draining_broker();
  // Before or soon after it is ready.
  void start_and_kill(Moment moment);
  void start_until_ready();
  // After some starts that are killed.
  void restart_broker();
  void report_round(std::uint32_t round, bool is_void, std::chrono::milliseconds until_kill,
                    std::uint64_t confirmed) const;

  const HarnessOptions options_;
  const std::vector<std::string> queues_{"letters", "parcels"};
  Random random_;
  Ledger ledger_;
  Drain drain_;
  BrokerProcess broker_;
  Life life_ = 0;
  HarnessResult result_;
  std::chrono::microseconds start_takes_{20'000};  // the last one
  std::vector<std::unique_ptr<Producer>> producers_;
  std::vector<std::unique_ptr<Settler>> settlers_;
};

}  // namespace holdfast::crash
