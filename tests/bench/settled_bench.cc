// Settled sets: acks in several orders, with the records that each commit takes.

#include "core/settled_set.h"

#include <random>
#include <utility>
#include <vector>

#include "base/check.h"
#include "bench/messages.h"

namespace holdfast::broker {
namespace {

// How many messages are outstanding, and settled in one iteration.
constexpr std::size_t kWindow = 4096;
constexpr std::size_t kSettlesPerCommit = 256;

// Settles a window's worth of what `next_sequence` names, with a commit after every few.
template <typename NextSequence>
void settle_windows(benchmark::State& state, NextSequence next_sequence) {
  SettledSet set(SubscriptionId(1), 0);
  std::vector<AckKey> removed;
  std::vector<AckRecord> put;
  for (auto _ : state) {
    for (std::size_t i = 1; i <= kWindow; ++i) {
      CHECK(set.settle(next_sequence()));
      if (i % kSettlesPerCommit != 0) continue;
      removed.clear();
      put.clear();
      set.collect(removed, put);
      const AckRecord* records = put.data();
      benchmark::DoNotOptimize(records);
      benchmark::ClobberMemory();
    }
  }
  count_messages(state, kWindow);
}

void settled_in_order(benchmark::State& state) {
  Sequence last = 0;
  settle_windows(state, [&] { return ++last; });
}
BENCHMARK(settled_in_order);

// The floor moves only when the first of a window is settled, which comes last.
void settled_in_reverse(benchmark::State& state) {
  Sequence settled = 0;
  settle_windows(state, [&] {
    const Sequence window_first = settled / kWindow * kWindow + 1;
    return window_first + kWindow - 1 - settled++ % kWindow;
  });
}
BENCHMARK(settled_in_reverse);

// Any of those outstanding, and the next one takes its place: as workers settle whose messages take
// them different times. What stays long keeps the floor, and more than one record, behind.
void settled_at_random(benchmark::State& state) {
  std::minstd_rand random(1);
  std::vector<Sequence> outstanding(kWindow);
  for (std::size_t i = 0; i < kWindow; ++i) outstanding[i] = i + 1;
  Sequence last = kWindow;
  settle_windows(state, [&] {
    Sequence& place = outstanding[random() % kWindow];
    return std::exchange(place, ++last);
  });
}
BENCHMARK(settled_at_random);

}  // namespace
}  // namespace holdfast::broker
