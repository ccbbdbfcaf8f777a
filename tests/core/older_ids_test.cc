#include "core/older_ids.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "core/dedup_window.h"

namespace holdfast::broker {
namespace {

constexpr QueueId kQueue{3};

MessageIdHash hash_of(std::uint64_t number) {
  return hash_message_id(kQueue, "id-" + std::to_string(number));
}

// The ids first to first + count - 1, published under sequences of the same numbers.
RecentIds::Run run_of(std::uint64_t first, std::size_t count, std::uint64_t time_ms) {
  RecentIds::Run run{first, time_ms, time_ms, {}};
  for (std::uint64_t number = first; number < first + count; ++number) {
    run.hashes.push_back(hash_of(number));
  }
  return run;
}

std::vector<std::uint64_t> chunks_of(const OlderIds& ids, std::uint64_t number) {
  std::vector<std::uint64_t> chunks;
  ids.find_chunks(hash_of(number), &chunks);
  return chunks;
}

bool contains(const std::vector<std::uint64_t>& chunks, std::uint64_t chunk) {
  return std::find(chunks.begin(), chunks.end(), chunk) != chunks.end();
}

TEST_CASE("every id that was put in is found in its chunk, and few others are found at all") {
  OlderIds ids{OlderIdsOptions(), HashKey()};
  constexpr std::uint64_t kIds = 200'000;
  for (std::uint64_t first = 0; first < kIds; first += 2000) {
    ids.add(run_of(first + 1, 2000, first));
  }
  CHECK(ids.size() == kIds);
  std::uint64_t missed = 0;
  std::uint64_t mistaken = 0;
  for (std::uint64_t number = 1; number <= kIds; ++number) {
    bool found = false;
    for (const std::uint64_t chunk : chunks_of(ids, number)) {
      const OlderIds::ChunkKeys keys = ids.chunk_keys(chunk);
      found = found || (keys.begin.second <= number && number < keys.begin.second + keys.ids);
    }
    missed += found ? 0 : 1;
    mistaken += chunks_of(ids, kIds + number).size();
  }
  CHECK(missed == 0);
  CHECK(mistaken < 50);
}

TEST_CASE("a chunk's records are those from its first to the next chunk's") {
  OlderIdsOptions options;
  options.chunk_ids_max = 10;
  OlderIds ids(options, HashKey());
  ids.add(run_of(1, 4, 100));
  ids.add(run_of(5, 4, 200));
  ids.add(run_of(9, 4, 300));
  const OlderIds::ChunkKeys first = ids.chunk_keys(0);
  CHECK(first.begin == IdKey(100, 1));
  REQUIRE(first.has_end);
  CHECK(first.end == IdKey(300, 9));
  CHECK(first.ids == 8);
  CHECK_FALSE(ids.chunk_keys(1).has_end);
  CHECK(ids.begin_key() == IdKey(100, 1));
}

TEST_CASE("chunks leave from the front when their youngest id is too old, and keep their numbers") {
  OlderIdsOptions options;
  options.chunk_ids_max = 4;
  options.table_ids_max = 8;
  OlderIds ids(options, HashKey());
  for (std::uint64_t run = 0; run < 10; ++run) ids.add(run_of(run * 4 + 1, 4, run * 100));
  CHECK(ids.expire(99) == 4);
  CHECK(ids.expire(99) == 0);
  CHECK(chunks_of(ids, 1).empty());
  CHECK(contains(chunks_of(ids, 5), 1));
  CHECK(ids.begin_key() == IdKey(100, 5));
  CHECK(ids.drop_oldest() == 4);
  CHECK(contains(chunks_of(ids, 40), 9));
  CHECK(ids.expire(900) == 32);
  CHECK(ids.empty());
  ids.add(run_of(100, 4, 1000));
  CHECK(contains(chunks_of(ids, 101), 10));
}

TEST_CASE("a table is full at its bound of chunks as well") {
  OlderIdsOptions options;
  options.chunk_ids_max = 1;
  OlderIds ids(options, HashKey());
  constexpr std::uint64_t kIds = FingerprintTable::kChunksMax + 100;
  for (std::uint64_t number = 1; number <= kIds; ++number) ids.add(run_of(number, 1, number));
  std::uint64_t missed = 0;
  for (std::uint64_t number = 1; number <= kIds; ++number) {
    missed += contains(chunks_of(ids, number), number - 1) ? 0 : 1;
  }
  CHECK(missed == 0);
}

TEST_CASE("ids age in whole durable runs while there are too many recent ones") {
  DedupOptions options;
  options.recent_ids_of_queue_max = 10;
  DedupTotals totals;
  {
    DedupWindow window(options, HashKey(), totals);
    for (std::uint64_t number = 1; number <= 30; ++number) {
      // A gap every ten sequences begins a run.
      window.insert(hash_of(number), number + number / 10 * 100, 1000);
    }
    CHECK(totals.recent_ids == 30);
    window.age(105);  // only the first run is durable
    CHECK(totals.recent_ids == 21);
    CHECK(totals.ids == 30);
    CHECK_FALSE(window.find_recent(hash_of(1)).has_value());
    std::vector<std::uint64_t> chunks;
    window.find_chunks(hash_of(1), &chunks);
    REQUIRE(chunks.size() == 1);
    CHECK(window.chunk_keys(chunks[0]).begin == IdKey(1000, 1));
    CHECK(window.begin_key() == IdKey(1000, 1));
    window.age(1000);
    CHECK(totals.recent_ids <= 10);
    CHECK(window.size() == 30);
    CHECK(window.expire(1000));
    CHECK(window.size() == 0);
    CHECK(totals.ids == 0);
    window.insert(hash_of(1), 500, 2000);
  }
  CHECK(totals.ids == 0);
  CHECK(totals.recent_ids == 0);
}

TEST_CASE("hashes that differ in few bits, as a client may choose them, are spread by the key") {
  constexpr std::size_t kPlaces = 256;
  constexpr std::uint64_t kHashes = 65'536;
  for (const int shift : {0, 24, 40}) {
    std::vector<std::size_t> at(kPlaces);
    std::uint64_t moved = 0;
    for (std::uint64_t i = 0; i < kHashes; ++i) {
      const std::uint64_t place = scatter(HashKey(), i << shift, 7) >> 56;
      ++at[place];
      moved += place != scatter({.a = 1, .b = HashKey().b}, i << shift, 7) >> 56 ? 1 : 0;
    }
    for (const std::size_t count : at) CHECK(count < 2 * kHashes / kPlaces);
    CHECK(moved > kHashes / 2);
  }
}

}  // namespace
}  // namespace holdfast::broker
