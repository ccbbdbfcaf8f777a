#include "sim/tally.h"

#include <fmt/format.h>

#include <algorithm>
#include <initializer_list>

namespace holdfast::broker::sim {

void Tally::add(const World& world) {
  Tally one;
  one.seeds = 1;
  one.counts = world.counts();
  one.faults = world.faults();
  add(one);
}

void Tally::add(const Tally& other) {
  seeds += other.seeds;
  counts.confirmed += other.counts.confirmed;
  counts.duplicates += other.counts.duplicates;
  counts.delivered += other.counts.delivered;
  counts.redelivered += other.counts.redelivered;
  counts.acked += other.counts.acked;
  counts.dead_lettered += other.counts.dead_lettered;
  counts.redriven += other.counts.redriven;
  counts.crashes += other.counts.crashes;
  faults.frames_lost += other.faults.frames_lost;
  faults.frames_repeated += other.faults.frames_repeated;
  faults.confirms_lost += other.faults.confirms_lost;
  faults.retried += other.faults.retried;
  faults.commits_failed += other.faults.commits_failed;
  faults.commits_without_room += other.faults.commits_without_room;
  faults.commits_slow += other.faults.commits_slow;
  faults.commits_joint += other.faults.commits_joint;
  faults.clock_jumps += other.faults.clock_jumps;
}

void Tally::print() const {
  fmt::print(
      "{} confirmed, {} duplicates, {} delivered, {} of them again, {} acked, {} dead letters, {} "
      "redriven\n"
      "{} crashes, {} failed commits, {} without room, {} slow, {} of several batches, {} frames "
      "lost, {} repeated, {} "
      "confirms lost, {} publishes retried, {} jumps of the clock\n",
      counts.confirmed, counts.duplicates, counts.delivered, counts.redelivered, counts.acked,
      counts.dead_lettered, counts.redriven, counts.crashes, faults.commits_failed,
      faults.commits_without_room, faults.commits_slow, faults.commits_joint, faults.frames_lost,
      faults.frames_repeated, faults.confirms_lost, faults.retried, faults.clock_jumps);
}

bool Tally::is_void() const {
  constexpr std::uint64_t kSeedsJudged = 50;
  if (seeds < kSeedsJudged) return false;
  if (counts.confirmed < 100 * seeds || counts.crashes < seeds) return true;
  const auto seen = {counts.duplicates,          counts.redelivered,   counts.acked,
                     counts.dead_lettered,       counts.redriven,      faults.frames_lost,
                     faults.frames_repeated,     faults.confirms_lost, faults.retried,
                     faults.commits_without_room};
  // Chosen by fewer seeds, or more rarely in each.
  const auto rare = {faults.commits_failed, faults.commits_joint, faults.clock_jumps};
  return std::any_of(seen.begin(), seen.end(), [&](auto count) { return count < seeds; }) ||
         std::any_of(rare.begin(), rare.end(), [&](auto count) { return count < seeds / 10; });
}

}  // namespace holdfast::broker::sim
