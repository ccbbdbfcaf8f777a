// A broker, a steady pair beside the attackers, and what is measured meanwhile.
//
// A round: the pair's latency, the broker's memory and its descriptors before; attacks, alone or
// several at once; then the same again. The bounds are in bounds.h. After it connections and
// descriptors are as they were, and the messages that hostile consumers were sent come to a good
// one, each byte for byte.

#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "crash/broker_process.h"
#include "holdfast/client.h"
#include "hostile/attack.h"
#include "hostile/launcher.h"
#include "hostile/steady_pair.h"
#include "support/checks.h"

namespace holdfast::hostile {

struct ArenaOptions {
  std::filesystem::path broker;
  std::filesystem::path shim;
  std::string own_binary;
  std::uint64_t seed = 0;
  std::uint32_t descriptors_max = 0;  // 0: as many as there are
};

class Arena {
 public:
  Arena(const ArenaOptions& options, test::Checks& checks);
  ~Arena();
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // Starts the broker and the pair. Throws std::runtime_error where that fails; so do the others.
  void start();
  const Target& target() const { return target_; }
  // From now on the broker may have so many.
  void leave_descriptors(std::uint32_t descriptors_max) const;
  // Returns the hits of all.
  std::uint64_t round(std::vector<std::unique_ptr<Attack>> attacks,
                      std::chrono::milliseconds duration);
  // The most descriptors that the broker had in a round.
  std::size_t descriptors_highest() const { return descriptors_highest_; }
  // Whether the broker's log has this.
  bool said(const std::string& words) const { return log().find(words) != std::string::npos; }
  // The pair's last message, and the broker's end.
  void finish();

 private:
  struct Measured {
    std::uint64_t rss_anon_bytes = 0;  // highest
    double cpu_share = 0;              // of one processor
    PairPhase pair;
  };

  Measured measure(std::chrono::milliseconds duration, const std::vector<Attack*>& attacks);
  void fill_held();
  void drain_held();
  void check_pair(const Measured& calm, const Measured& attacked,
                  const std::vector<Attack*>& attacks, const std::string& names);
  void check_memory(std::uint64_t before, const Measured& attacked,
                    const std::vector<Attack*>& attacks);
  void check_recovery(std::size_t descriptors_before, std::uint32_t connections_before);
  void check_cpu(const Measured& calm, const Measured& attacked,
                 const std::vector<Attack*>& attacks);
  void broker_lives() const;
  std::string log() const;
  void must(const Status& status) const;
  template <typename T>
  T must(Result<T> result) const {
    must(result.status());
    return std::move(*result);
  }

  const ArenaOptions options_;
  test::Checks& checks_;
  const std::filesystem::path directory_;
  std::optional<SlowDisk> disk_;
  std::optional<crash::BrokerProcess> broker_;
  std::optional<Client> client_;
  std::optional<SteadyPair> pair_;
  Target target_;
  pid_t pid_ = 0;
  std::uint64_t held_number_ = 0;
  std::size_t descriptors_highest_ = 0;
  int failed_before_ = 0;
  std::chrono::steady_clock::time_point started_at_;
};

}  // namespace holdfast::hostile
