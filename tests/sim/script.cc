#include "sim/script.h"

#include <algorithm>
#include <numeric>

namespace holdfast::broker::sim {

namespace {
SettingChange change(QueueSetting setting, std::uint64_t value) {
  return {static_cast<std::uint16_t>(setting), value};
}
}  // namespace

Script::Script(std::uint64_t seed) : random(seed) {
  set_weight(Action::kPublish, 200, 0);
  set_weight(Action::kSubscribe, 40, 0);
  set_weight(Action::kUnsubscribe, 12, 3);
  set_weight(Action::kCredit, 15, 4);
  set_weight(Action::kDisconnect, 10, 3);
  set_weight(Action::kRoom, 10, 3);
  set_weight(Action::kUnread, 10, 3);
  set_weight(Action::kSettle, 300, 0);
  set_weight(Action::kExtend, 20, 3);
  set_weight(Action::kPass, 150, 0);
  set_weight(Action::kJumpWall, 3, 2);
  set_weight(Action::kCommit, 200, 0);
  set_weight(Action::kFetch, 200, 0);
  set_weight(Action::kCrash, 12, 4);
  set_weight(Action::kShutDown, 3, 3);
  set_weight(Action::kPurge, 3, 3);
  set_weight(Action::kEdit, 5, 3);
  set_weight(Action::kDelete, 2, 3);
  set_weight(Action::kMove, 15, 4);
  set_weight(Action::kPeek, 8, 3);
  set_weight(Action::kAttempts, 20, 3);
  set_weight(Action::kSpace, 4, 3);
  set_weight(Action::kFailCommit, 4, 3);
  set_weight(Action::kFullCommit, 20, 3);
  prompt_percent = random.one_of<std::uint64_t>({0, 5, 30, 80, 100});
  options_.cache_bytes_max = random.one_of<std::size_t>({1, 4000, 40'000, 32 << 20});
  options_.batch_bytes_max = random.one_of<std::size_t>({1, 1000, 1 << 20});
  options_.trim_limit = random.one_of<std::uint32_t>({1, 10, 256});
  few_ends = random.once_in(2);
  if (few_ends) options_.ends_max = random.one_of<std::uint32_t>({1, 3});
  few_ids = random.once_in(8);
  if (few_ids) options_.dedup.ids_max = random.between(1, 300);
  constexpr std::size_t kMoreThanAny = 65'536;
  options_.dedup.recent_ids_of_queue_max = random.one_of<std::size_t>({0, 3, 30, kMoreThanAny});
  reads_ids = options_.dedup.recent_ids_of_queue_max < kMoreThanAny;
  options_.dedup.older.chunk_ids_max = random.one_of<std::size_t>({1, 10, 100});
  options_.dedup.older.table_ids_max = random.one_of<std::size_t>({1, 20, 1000});
  options_.dedup.older.tag_mask = random.one_of<std::uint32_t>({1, 15, ~0u});
  // Where half of all fingerprints match, each publish reads half of all chunks.
  if (options_.dedup.older.tag_mask == 1) options_.dedup.older.chunk_ids_max = 100;
  // A table has a chunk at least.
  if (options_.dedup.older.tag_mask != ~0u) {
    options_.dedup.older.table_ids_max =
        std::max<std::size_t>(options_.dedup.older.table_ids_max, 20);
  }
  body_bytes_max_ = random.one_of<std::size_t>({1, 200, 3000});
  large_bodies_ = random.once_in(8);
  tight_ = random.once_in(2);
  lost_permille_ = random.one_of<std::uint64_t>({0, 1, 10, 100});
  repeated_permille_ = random.one_of<std::uint64_t>({0, 10, 200});
  slow_percent_ = random.one_of<std::uint64_t>({0, 0, 30, 100});
  if (random.once_in(3)) silent_clients_ = random.below(32);
  for (std::uint64_t& weight : settle_weights_) {
    weight = random.once_in(4) ? 0 : random.between(1, 100);
  }
  settle_weights_[0] = std::max<std::uint64_t>(settle_weights_[0], 1);
}

void Script::set_weight(Action action, std::uint32_t usual, std::uint32_t absent_once_in) {
  std::uint32_t weight = static_cast<std::uint32_t>(random.between(1, usual));
  if (absent_once_in > 0 && random.once_in(absent_once_in)) weight = 0;
  weights_[static_cast<std::size_t>(action)] = weight;
  weights_sum_ += weight;
}

Action Script::next() {
  std::uint64_t at = random.below(weights_sum_);
  for (std::size_t action = 0;; ++action) {
    if (at < weights_[action]) return static_cast<Action>(action);
    at -= weights_[action];
  }
}

std::vector<SettingChange> Script::queue_settings() {
  std::vector<SettingChange> settings = changed_settings();
  settings.push_back(change(QueueSetting::kDedupWindow, random.between(1000, 60'000)));
  return settings;
}

std::vector<SettingChange> Script::changed_settings() {
  const std::uint64_t backoff_min = random.one_of<std::uint64_t>({0, 1, 200, 2000});
  return {
      change(QueueSetting::kLease, random.between(100, 10'000)),
      change(QueueSetting::kMaxAttempts, random.one_of<std::uint64_t>({0, 1, 2, 3, 5, 20})),
      change(QueueSetting::kBackoffMin, backoff_min),
      change(QueueSetting::kBackoffMax, backoff_min * random.between(1, 20)),
      change(QueueSetting::kMaxMessages,
             random.once_in(2) ? 0 : random.between(1, tight_ ? 40 : 500)),
      change(QueueSetting::kMaxBytes, random.once_in(4) ? random.between(1024, 100'000) : 0),
      change(QueueSetting::kOutstandingMax, random.between(1, tight_ ? 10 : 300)),
  };
}

std::size_t Script::body_bytes() {
  if (large_bodies_ && random.once_in(20)) return random.between(100'000, 600'000);
  return random.below(body_bytes_max_ + 1);
}

std::uint32_t Script::lease_ms() {
  return random.once_in(2) ? 0 : static_cast<std::uint32_t>(random.between(100, 10'000));
}

wire::SettleKind Script::settle_kind() {
  constexpr wire::SettleKind kKinds[] = {wire::SettleKind_Ack, wire::SettleKind_Nack,
                                         wire::SettleKind_Reject, wire::SettleKind_Release};
  std::uint64_t at = random.below(
      std::accumulate(settle_weights_.begin(), settle_weights_.end(), std::uint64_t{0}));
  std::size_t kind = 0;
  while (at >= settle_weights_[kind]) at -= settle_weights_[kind++];
  return kKinds[kind];
}

Milliseconds Script::some_time() {
  const std::uint64_t longest =
      random.one_of<std::uint64_t>({0, 50, 50, 1000, 1000, 10'000, 90'000});
  return Milliseconds(static_cast<std::int64_t>(random.below(longest + 1)));
}

}  // namespace holdfast::broker::sim
