// The dedup window: looked up and added to by every publish, at sizes that no cache holds.

#include "core/dedup_window.h"

#include <algorithm>
#include <random>
#include <string>
#include <vector>

#include "base/check.h"
#include "bench/messages.h"

namespace holdfast::broker {
namespace {

constexpr QueueId kQueue{3};
constexpr std::size_t kLookUps = 1024;
// Ids that are published within one millisecond.
constexpr std::size_t kIdsPerMs = 100;

// The hashes of `count` ids; those with different seeds are different.
std::vector<MessageIdHash> random_hashes(std::size_t count, std::uint64_t seed) {
  std::mt19937_64 random(seed);
  std::vector<MessageIdHash> hashes(count);
  for (MessageIdHash& hash : hashes) hash = {random(), random()};
  return hashes;
}

std::size_t window_size(const benchmark::State& state) {
  return static_cast<std::size_t>(state.range(0));
}

// A window with what it needs around it.
struct Window {
  DedupOptions options;
  DedupTotals totals;
  DedupWindow ids{options, HashKey(), totals};

  // As a commit for every so many publishes does.
  void publish(const MessageIdHash& hash, Sequence sequence, std::uint64_t time_ms) {
    ids.insert(hash, sequence, time_ms);
    if (sequence % kLookUps == 0) ids.age(sequence);
  }
};

void fill(Window& window, const std::vector<MessageIdHash>& hashes) {
  for (std::size_t i = 0; i < hashes.size(); ++i) {
    window.publish(hashes[i], i + 1, 1 + i / kIdsPerMs);
  }
}

// From the id's text to its hash, which is the first step of each of the others.
void dedup_hash(benchmark::State& state) {
  const std::string id = "0123456789abcdef0123456789";
  for (auto _ : state) {
    MessageIdHash hash = hash_message_id(kQueue, id);
    benchmark::DoNotOptimize(hash);
  }
  count_messages(state, 1);
}
BENCHMARK(dedup_hash);

// Into an empty window until it is full: with all the growing of its index.
void dedup_insert(benchmark::State& state) {
  const std::vector<MessageIdHash> hashes = random_hashes(window_size(state), 1);
  for (auto _ : state) {
    Window window;
    fill(window, hashes);
    CHECK(window.ids.size() == hashes.size());
    state.PauseTiming();  // to free it is not publishing
    window.ids.clear();
    state.ResumeTiming();
  }
  count_messages(state, hashes.size());
}
BENCHMARK(dedup_insert)->ArgName("ids")->Arg(100'000)->Arg(1'000'000);

// A window that stays as large as it is: as many ids leave it as come.
void dedup_turn_over(benchmark::State& state) {
  const std::size_t size = window_size(state);
  const std::uint64_t window_ms = size / kIdsPerMs;
  // An id may come again once it has left the window; runs leave late, so it takes more ids than
  // are in the window at a time.
  const std::vector<MessageIdHash> hashes = random_hashes(2 * size, 1);
  Window window;
  std::size_t published = 0;
  const auto publish = [&] {
    const std::uint64_t time_ms = 1 + published / kIdsPerMs;
    window.publish(hashes[published % hashes.size()], published + 1, time_ms);
    ++published;
    if (published % kLookUps == 0 && time_ms > window_ms) window.ids.expire(time_ms - window_ms);
  };
  while (published < size) publish();
  for (auto _ : state) {
    for (std::size_t i = 0; i < kLookUps; ++i) publish();
  }
  CHECK(window.ids.size() < hashes.size());
  count_messages(state, kLookUps);
}
BENCHMARK(dedup_turn_over)->ArgName("ids")->Arg(100'000)->Arg(1'000'000);

// In random order, so that neither table nor ids are read one after the other.
void dedup_find_hit(benchmark::State& state) {
  std::vector<MessageIdHash> hashes = random_hashes(window_size(state), 1);
  Window window;
  fill(window, hashes);
  std::shuffle(hashes.begin(), hashes.end(), std::mt19937_64(2));
  std::size_t next = 0;
  std::vector<std::uint64_t> chunks;
  for (auto _ : state) {
    for (std::size_t i = 0; i < kLookUps; ++i) {
      chunks.clear();
      if (!window.ids.find_recent(hashes[next])) window.ids.find_chunks(hashes[next], &chunks);
      benchmark::DoNotOptimize(chunks.data());
      next = next + 1 == hashes.size() ? 0 : next + 1;
    }
  }
  count_messages(state, kLookUps);
}
BENCHMARK(dedup_find_hit)->ArgName("ids")->Arg(100'000)->Arg(1'000'000);

// As a publish does it.
void dedup_find_miss(benchmark::State& state) {
  Window window;
  fill(window, random_hashes(window_size(state), 1));
  const std::vector<MessageIdHash> unknown = random_hashes(window_size(state), 2);
  std::size_t next = 0;
  std::vector<std::uint64_t> chunks;
  for (auto _ : state) {
    for (std::size_t i = 0; i < kLookUps; ++i) {
      window.ids.prefetch_older(unknown[next]);
      CHECK(!window.ids.find_recent(unknown[next]).has_value());
      chunks.clear();
      window.ids.find_chunks(unknown[next], &chunks);
      benchmark::DoNotOptimize(chunks.data());
      next = next + 1 == unknown.size() ? 0 : next + 1;
    }
  }
  count_messages(state, kLookUps);
}
BENCHMARK(dedup_find_miss)->ArgName("ids")->Arg(100'000)->Arg(1'000'000)->Arg(10'000'000);

}  // namespace
}  // namespace holdfast::broker
