// What a seed decides: which things happen how often, and how large everything is. Runs differ in
// kind, not only in order: in one the disk is slow, in another the broker crashes all the time, in
// a third nothing but deliveries goes wrong, in a fourth the network loses every tenth frame.

#pragma once

#include <array>
#include <cstdint>
#include <random>
#include <vector>

#include "core/core.h"

namespace holdfast::broker::sim {

// The same numbers on every platform: of the standard library only the engine is used.
class Random {
 public:
  explicit Random(std::uint64_t seed) : engine_(seed) {}
  // 0 to bound - 1; bound > 0.
  std::uint64_t below(std::uint64_t bound) { return engine_() % bound; }
  std::uint64_t between(std::uint64_t first, std::uint64_t last) {
    return first + below(last - first + 1);
  }
  bool once_in(std::uint64_t count) { return below(count) == 0; }
  template <typename Value>
  Value one_of(std::initializer_list<Value> values) {
    return values.begin()[below(values.size())];
  }

 private:
  std::mt19937_64 engine_;
};

enum class Action : std::uint8_t {
  kPublish,
  kSubscribe,
  kUnsubscribe,
  kCredit,
  kDisconnect,
  kRoom,
  kUnread,
  kSettle,
  kExtend,
  kPass,
  kJumpWall,
  kCommit,
  kFetch,
  kCrash,
  kShutDown,
  kPurge,
  kEdit,
  kDelete,
  kMove,
  kPeek,
  kAttempts,
  kSpace,
  kFailCommit,  // an error of the device: the broker stops, and what is on disk is unknown
  kFullCommit,  // the batch under way finds no room, several times
};
inline constexpr std::size_t kActionCount = 24;

class Script {
 public:
  explicit Script(std::uint64_t seed);

  Random random;
  Action next();

  std::vector<SettingChange> queue_settings();
  // The dedup window is not among them.
  std::vector<SettingChange> changed_settings();
  std::size_t body_bytes();
  std::uint32_t lease_ms();
  Milliseconds some_time();
  wire::SettleKind settle_kind();
  // With its connection, as TCP loses frames.
  bool loses_frame() { return random.below(1000) < lost_permille_; }
  bool repeats_frame() { return random.below(1000) < repeated_permille_; }
  // Whether the consumers of a client never settle anything, so that every lease runs out.
  bool never_settles(std::size_t client) const { return (silent_clients_ >> client & 1) != 0; }
  bool disk_is_slow() { return random.below(100) < slow_percent_; }
  CoreOptions core_options() const { return options_; }

  // Percent of the steps after which every commit and fetch is finished at once.
  std::uint64_t prompt_percent = 0;
  // Whether dedup's bound by count may forget ids early.
  bool few_ids = false;
  // Whether older ids are known by fingerprints, and some are read to tell.
  bool reads_ids = false;
  // Whether so few attempts end between two commits that leases that are over may have to wait for
  // one.
  bool few_ends = false;

 private:
  void set_weight(Action action, std::uint32_t usual, std::uint32_t absent_once_in);

  std::array<std::uint32_t, kActionCount> weights_{};
  std::uint32_t weights_sum_ = 0;
  CoreOptions options_;
  std::size_t body_bytes_max_ = 0;
  bool large_bodies_ = false;
  bool tight_ = false;
  std::uint64_t lost_permille_ = 0;
  std::uint64_t repeated_permille_ = 0;
  std::uint64_t silent_clients_ = 0;
  std::uint64_t slow_percent_ = 0;  // of the commits
  std::array<std::uint64_t, 4> settle_weights_{};
};

}  // namespace holdfast::broker::sim
