// One scenario: a store lives a few lives, each ended in order, abandoned or killed, and every
// change of its directory is recorded. Then the power is lost before each of those changes and
// after the last, several times with other remains of what was not synced, and what a start then
// finds is held against what had been promised by that moment.

#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>

#include "disk/device.h"
#include "disk/image.h"
#include "disk/ledger.h"
#include "disk/log.h"

namespace holdfast::powerloss {

struct ScenarioCounts {
  std::uint64_t states = 0;
  std::uint64_t moments = 0;    // at which the power was lost
  std::uint64_t uncertain = 0;  // states where something was not synced
  std::uint64_t kills = 0;
  std::uint64_t in_creation = 0;  // states without a store, or with one half made
  disk::Ledger::Counts promises;
};

struct ScenarioOptions {
  std::uint64_t seed = 1;
  std::string directory;         // empty, for both the store and the image
  std::uint32_t variants = 8;    // states with random remains for each moment
  std::uint64_t states_max = 0;  // 0: no bound
  disk::Lie lie = disk::Lie::kNothing;
  std::function<void(const std::string&)> about_to;  // do what the text says
};

class Scenario {
 public:
  Scenario(ScenarioOptions options, disk::Log& log);
  // A broken promise and where, as a sentence; nullopt: none.
  std::optional<std::string> run();
  const ScenarioCounts& counts() const { return counts_; }

 private:
  std::optional<std::string> live(std::uint32_t life, const disk::Ledger& before);
  std::optional<std::string> lose_power();
  std::optional<std::string> lose_power_now(std::size_t at);
  std::optional<std::string> look(std::size_t at, disk::Survival survival, std::uint32_t variant);

  ScenarioOptions options_;
  disk::Log& log_;
  crash::Random random_;
  disk::Ledger ledger_;
  disk::Device device_;
  disk::Image image_;
  ScenarioCounts counts_;
  bool told_ = true;     // something was promised since the last state
  bool certain_ = true;  // something became certain since
};

}  // namespace holdfast::powerloss
