#include "core/recent_ids.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>

#include "base/check.h"
#include "base/prefetch.h"

namespace holdfast::broker {

namespace {
constexpr std::size_t kRunIdsMax = 4096;
constexpr std::size_t kSlotsMin = 16;
constexpr std::size_t kPrefetchIds = 16;
}  // namespace

MessageIdHash hash_message_id(QueueId queue, std::string_view id) {
  const XXH128_hash_t hash = XXH3_128bits_withSeed(id.data(), id.size(), queue.value);
  return {hash.low64, hash.high64};
}

std::optional<Sequence> RecentIds::find(const MessageIdHash& hash) {
  ensure_index();
  if (slots_.empty()) return std::nullopt;
  const std::uint32_t tag = tag_of(hash);
  for (std::size_t at = home(tag); slots_[at].tag != 0; at = following(at)) {
    if (slots_[at].tag != tag) continue;
    const std::uint64_t position = position_of(slots_[at]);
    // One that has left seems to be far behind the last.
    if (position - first_position_ >= hashes_.size()) continue;
    if (hashes_[position - first_position_] != hash) continue;
    const auto run = std::prev(std::upper_bound(
        runs_.begin(), runs_.end(), position, [](std::uint64_t value, const RunBounds& candidate) {
          return value < candidate.position;
        }));
    return run->first + (position - run->position);
  }
  return std::nullopt;
}

bool RecentIds::extend_runs(Sequence first, std::size_t count, std::uint64_t time_ms) {
  const std::uint64_t position = first_position_ + hashes_.size();
  const bool joins = !runs_.empty() &&
                     runs_.back().first + (position - runs_.back().position) == first &&
                     position - runs_.back().position + count <= kRunIdsMax &&
                     time_ms - runs_.back().first_time_ms < kRunTimeMs;
  if (!joins) runs_.push_back({position, first, time_ms, time_ms});
  runs_.back().last_time_ms = time_ms;
  last_time_ms_ = time_ms;
  return !joins;
}

void RecentIds::load(std::span<const MessageIdHash> hashes, Sequence first, std::uint64_t time_ms) {
  if (hashes.empty()) return;
  extend_runs(first, hashes.size(), time_ms);
  hashes_.insert(hashes_.end(), hashes.begin(), hashes.end());
  indexed_ = false;
}

bool RecentIds::insert(const MessageIdHash& hash, Sequence sequence, std::uint64_t time_ms) {
  ensure_index();
  const std::uint64_t position = first_position_ + hashes_.size();
  const bool run_began = extend_runs(sequence, 1, time_ms);
  hashes_.push_back(hash);
  if ((hashes_.size() + stale_) * 5 > slots_.size() * 4) {
    const bool grows = hashes_.size() * 2 > slots_.size();
    resize(grows ? std::max(kSlotsMin, slots_.size() + slots_.size() / 2) : slots_.size());
  } else {
    place({tag_of(hash), static_cast<std::uint32_t>(position)});
  }
  return run_began;
}

void RecentIds::ensure_index() {
  if (indexed_) return;
  indexed_ = true;
  resize(std::max(kSlotsMin, hashes_.size() * 3 / 2));
}

void RecentIds::place(Slot slot) {
  std::size_t at = home(slot.tag);
  while (slots_[at].tag != 0) at = following(at);
  slots_[at] = slot;
}

void RecentIds::resize(std::size_t slots) {
  // Freed first: the index is made anew from the hashes, so both need not stand side by side.
  if (slots_.size() != slots) slots_ = {};
  slots_.assign(slots, Slot());
  stale_ = 0;
  // Every slot is a cache miss: they are asked for a few ids ahead.
  for (std::size_t i = 0; i < hashes_.size(); ++i) {
    const std::size_t ahead = std::min(i + kPrefetchIds, hashes_.size() - 1);
    prefetch(&slots_[home(tag_of(hashes_[ahead]))]);
    place({tag_of(hashes_[i]), static_cast<std::uint32_t>(first_position_ + i)});
  }
}

std::uint64_t RecentIds::oldest_run_end() const {
  return runs_.size() > 1 ? runs_[1].position : first_position_ + hashes_.size();
}

std::size_t RecentIds::drop_run() {
  const std::uint64_t end = oldest_run_end();
  const std::size_t count = end - first_position_;
  if (count == hashes_.size()) {
    clear();
    return count;
  }
  hashes_.erase(hashes_.begin(), hashes_.begin() + static_cast<std::ptrdiff_t>(count));
  first_position_ = end;
  if (indexed_) stale_ += count;
  runs_.pop_front();
  // An index four times too large is given back.
  if (indexed_ && slots_.size() > 1024 && hashes_.size() * 5 < slots_.size())
    resize(hashes_.size() * 2);
  return count;
}

std::size_t RecentIds::expire(std::uint64_t before_ms) {
  std::size_t count = 0;
  while (!runs_.empty() && runs_.front().last_time_ms <= before_ms) count += drop_run();
  return count;
}

RecentIds::Run RecentIds::take_oldest() {
  CHECK(!runs_.empty());
  const RunBounds& bounds = runs_.front();
  Run run{bounds.first, bounds.first_time_ms, bounds.last_time_ms, {}};
  const auto count = static_cast<std::ptrdiff_t>(oldest_run_end() - first_position_);
  run.hashes.assign(hashes_.begin(), hashes_.begin() + count);
  drop_run();
  return run;
}

Sequence RecentIds::oldest_run_last() const {
  if (runs_.empty()) return 0;
  return runs_.front().first + (oldest_run_end() - first_position_) - 1;
}

void RecentIds::clear() {
  first_position_ += hashes_.size();
  hashes_ = {};
  runs_ = {};
  slots_ = {};
  stale_ = 0;
  indexed_ = true;
}

std::pair<std::uint64_t, Sequence> RecentIds::begin_key() const {
  if (runs_.empty()) return {last_time_ms_ + 1, 0};
  return {runs_.front().first_time_ms, runs_.front().first};
}

}  // namespace holdfast::broker
