#include "core/settled_set.h"

#include <doctest/doctest.h>

#include <random>
#include <set>
#include <string>

#include "support/test_seed.h"

namespace holdfast::broker {
namespace {

constexpr SubscriptionId kSubscription{7};

// The acks table of a store, for one subscription, with the floor that is stored beside it.
struct StoredAcks {
  std::map<std::uint64_t, AckRecord> records;
  Sequence floor = 0;

  // What one commit does.
  void take(SettledSet& set) {
    std::vector<AckKey> removed;
    std::vector<AckRecord> put;
    set.collect(removed, put);
    for (const AckKey& key : removed) {
      CHECK(key.subscription == kSubscription);
      CHECK_MESSAGE(records.erase(key.chunk) == 1, "removes a record that is not there");
    }
    for (const AckRecord& record : put) records[record.chunk] = record;
    floor = set.floor();
  }
  SettledSet reload() const {
    SettledSet set(kSubscription, floor);
    for (const auto& [chunk, record] : records) set.load(record);
    return set;
  }
};

std::uint64_t last_chunk(const AckRecord& record) {
  return record.chunk + (record.full_chunks > 0 ? record.full_chunks - 1 : 0);
}

// Compares everything that can be asked with the plain set of unsettled sequences up to `last`.
void check_equal(const SettledSet& set, const std::set<Sequence>& unsettled, Sequence last,
                 std::mt19937_64& random) {
  const Sequence floor = unsettled.empty() ? last : *unsettled.begin() - 1;
  REQUIRE(set.floor() == floor);
  REQUIRE(set.unsettled_count(last) == unsettled.size());
  for (int i = 0; i < 50; ++i) {
    const Sequence first = random() % last + 1;
    const Sequence end = std::min(last, first + random() % 300);
    REQUIRE(set.contains(first) == !unsettled.contains(first));
    std::vector<Sequence> expected(unsettled.lower_bound(first), unsettled.upper_bound(end));
    std::vector<Sequence> visited;
    set.for_each_unsettled(first, end, [&](Sequence sequence) { visited.push_back(sequence); });
    REQUIRE(visited == expected);
    REQUIRE(set.any_unsettled(first, end) == !expected.empty());
  }
  Sequence highest = last;
  while (highest > floor && unsettled.contains(highest)) --highest;
  REQUIRE(set.highest() == highest);
}

TEST_CASE("settling one after the other moves the floor and keeps no record") {
  SettledSet set(kSubscription, 0);
  StoredAcks stored;
  for (Sequence sequence = 1; sequence <= 10'000; ++sequence) {
    CHECK(set.settle(sequence));
    if (sequence % 1000 == 0) stored.take(set);
  }
  CHECK(set.floor() == 10'000);
  CHECK(stored.records.empty());
}

TEST_CASE("settling twice is told apart from settling") {
  SettledSet set(kSubscription, 3);
  CHECK_FALSE(set.settle(3));
  CHECK(set.settle(6));
  CHECK_FALSE(set.settle(6));
  CHECK(set.settle(4));
  CHECK_FALSE(set.settle(4));
  CHECK(set.settle(5));
  CHECK(set.floor() == 6);
}

TEST_CASE("a run of full chunks takes one record, however long it is") {
  SettledSet set(kSubscription, 0);
  StoredAcks stored;
  constexpr Sequence kLast = 40 * kAckChunk + 100;
  for (Sequence sequence = 2; sequence <= kLast; ++sequence) {
    set.settle(sequence);
    if (sequence % 5000 == 0) stored.take(set);
  }
  stored.take(set);
  // The first chunk lacks sequence 1, the last is not full; all between is one run.
  REQUIRE(stored.records.size() == 3);
  CHECK(stored.records.at(0).full_chunks == 0);
  CHECK(stored.records.at(1).full_chunks == 39);
  CHECK(stored.records.at(40).full_chunks == 0);
  CHECK(stored.reload().unsettled_count(kLast) == 1);
  set.settle(1);
  stored.take(set);
  CHECK(stored.floor == kLast);
  CHECK(stored.records.empty());
}

TEST_CASE("two runs that meet become one record") {
  SettledSet set(kSubscription, 0);
  StoredAcks stored;
  for (Sequence sequence = kAckChunk; sequence < 5 * kAckChunk; ++sequence) {
    if (sequence != 3 * kAckChunk + 5) set.settle(sequence);
  }
  stored.take(set);
  CHECK(stored.records.size() == 3);
  set.settle(3 * kAckChunk + 5);
  stored.take(set);
  REQUIRE(stored.records.size() == 1);
  CHECK(stored.records.at(1).full_chunks == 4);
}

TEST_CASE("a subscription that goes names every record it has in the store") {
  SettledSet set(kSubscription, 0);
  StoredAcks stored;
  for (Sequence sequence = 2; sequence < 9 * kAckChunk; sequence += 3) set.settle(sequence);
  stored.take(set);
  REQUIRE(stored.records.size() == 9);
  SettledSet reloaded = stored.reload();
  std::vector<AckKey> removed;
  reloaded.collect_removal(removed);
  for (const AckKey& key : removed) stored.records.erase(key.chunk);
  CHECK(stored.records.empty());
}

TEST_CASE("all but some ranges is settled, whatever was known before, and stored anew") {
  const std::uint64_t base = test::test_seed(1);
  for (std::uint64_t seed = base; seed < base + 50; ++seed) {
    CAPTURE(seed);
    std::mt19937_64 random(seed);
    const Sequence last = 1 + random() % (6 * kAckChunk);
    SettledSet whole(kSubscription, 0);
    for (int i = 0; i < 5; ++i) {
      const Sequence first = 1 + random() % last;
      const Sequence end = std::min(last, first + random() % kAckChunk);
      for (Sequence sequence = first; sequence <= end; ++sequence) whole.settle(sequence);
    }
    // Some of its records are lost.
    StoredAcks stored;
    stored.take(whole);
    std::erase_if(stored.records, [&random](const auto&) { return random() % 2 == 0; });
    SettledSet set = stored.reload();

    std::vector<SequenceRange> kept;
    std::set<Sequence> unsettled;
    for (Sequence next = 1 + random() % 3; next <= last + 100; next += 2 + random() % 3000) {
      kept.push_back({next, next + random() % 2000});
      for (; next <= std::min(last, kept.back().last); ++next) {
        if (!set.contains(next)) unsettled.insert(next);
      }
      next = kept.back().last;
    }
    set.settle_all_but(kept, last);
    check_equal(set, unsettled, last, random);
    stored.take(set);
    check_equal(stored.reload(), unsettled, last, random);
  }
}

// Settles in a random order with a random locality, commits and restarts at random moments.
void run_against_a_set(std::uint64_t seed) {
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  const Sequence last = 1 + random() % (8 * kAckChunk);
  const Sequence window = 1 + random() % (random() % 2 == 0 ? 200 : last);
  SettledSet set(kSubscription, 0);
  StoredAcks stored;
  std::set<Sequence> unsettled;
  for (Sequence sequence = 1; sequence <= last; ++sequence) unsettled.insert(sequence);
  std::set<Sequence> unsettled_stored = unsettled;
  const std::uint64_t commit_one_in = 1 + random() % 2000;
  while (!unsettled.empty()) {
    const auto pick = [&] {
      const auto at = unsettled.lower_bound(*unsettled.begin() + random() % window);
      return at == unsettled.end() ? *unsettled.rbegin() : *at;
    };
    const std::uint64_t what = random() % 1000;
    if (what < 960) {
      const Sequence sequence = pick();
      REQUIRE(set.settle(sequence));
      REQUIRE_FALSE(set.settle(sequence));
      unsettled.erase(sequence);
    } else if (what < 998) {
      // A whole stretch, as one settle with a range does.
      const Sequence first = pick();
      const Sequence end = std::min(last, first + random() % 6000);
      for (Sequence sequence = first; sequence <= end; ++sequence) {
        REQUIRE(set.settle(sequence) == (unsettled.erase(sequence) > 0));
      }
    } else if (what == 998 && random() % 20 == 0) {
      const Sequence through = pick();
      set.settle_through(through);
      unsettled.erase(unsettled.begin(), unsettled.upper_bound(through));
    }
    if (random() % commit_one_in == 0) {
      stored.take(set);
      unsettled_stored = unsettled;
      for (const auto& [first_chunk, record] : stored.records) {
        const std::uint64_t chunk = first_chunk;
        REQUIRE_MESSAGE(last_chunk(record) * kAckChunk + kAckChunk - 1 > stored.floor,
                        "record of chunk " << chunk << " is behind the floor " << stored.floor);
      }
      check_equal(stored.reload(), unsettled, last, random);
    }
    if (random() % 2000 == 0) {
      set = stored.reload();
      unsettled = unsettled_stored;
      if (random() % 10 != 0) continue;
      check_equal(set, unsettled, last, random);
    }
  }
  stored.take(set);
  CHECK(stored.records.empty());
  CHECK(stored.floor == last);
}

TEST_CASE("settles in any order, committed and reloaded at any moment, agree with a plain set") {
  const std::uint64_t base = test::test_seed(20'240'117);
  for (std::uint64_t i = 0; i < 40; ++i) run_against_a_set(base + i);
}

}  // namespace
}  // namespace holdfast::broker
