#include "core/outstanding.h"

#include <doctest/doctest.h>

#include <map>
#include <random>

#include "support/test_seed.h"

namespace holdfast::broker {
namespace {

TEST_CASE("an empty table finds nothing") {
  OutstandingTable table{HashKey()};
  CHECK(table.find(1) == nullptr);
  CHECK(table.size() == 0);
  table.clear();
  CHECK(table.find(1) == nullptr);
}

TEST_CASE("a reused entry carries nothing over from the message before") {
  OutstandingTable table{HashKey()};
  Outstanding& first = table.insert(5);
  first.attempts = 3;
  first.bytes = 100;
  first.has_record = true;
  first.state = OutstandingState::kInFlight;
  first.ensure_history().attempts.resize(2);
  table.erase(first);
  Outstanding& second = table.insert(6);
  CHECK(second.sequence == 6);
  CHECK(second.attempts == 0);
  CHECK(second.bytes == 0);
  CHECK_FALSE(second.has_record);
  CHECK(second.state == OutstandingState::kReady);
  CHECK(second.history == nullptr);
}

void run_against_a_map(std::uint64_t seed) {
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  const std::size_t most = 1 + random() % 6000;
  // Multiples of a power of two are what a bad hash would put into one place.
  const Sequence stride = Sequence{1} << random() % 20;
  OutstandingTable table{HashKey()};
  std::map<Sequence, Outstanding*> model;
  Sequence next = 1;
  for (int step = 0; step < 30'000; ++step) {
    const bool grow = model.empty() || (model.size() < most && random() % 100 < 55);
    if (grow) {
      const Sequence sequence = next;
      next += stride * (1 + random() % 3);
      Outstanding& entry = table.insert(sequence);
      entry.attempts = static_cast<std::uint32_t>(sequence);
      REQUIRE(model.emplace(sequence, &entry).second);
    } else {
      auto at = model.lower_bound(model.begin()->first + random() % (stride * 4000));
      if (at == model.end()) at = std::prev(at);
      table.erase(*at->second);
      REQUIRE(table.find(at->first) == nullptr);
      model.erase(at);
    }
    REQUIRE(table.size() == model.size());
    if (step % 1000 != 0) continue;
    for (const auto& [sequence, entry] : model) {
      REQUIRE(table.find(sequence) == entry);  // at the address it always had
      REQUIRE(entry->sequence == sequence);
      REQUIRE(entry->attempts == static_cast<std::uint32_t>(sequence));
      REQUIRE(table.find(sequence + 1) ==
              (model.contains(sequence + 1) ? model.at(sequence + 1) : nullptr));
    }
    std::size_t visited = 0;
    table.for_each([&](Outstanding& entry) {
      ++visited;
      REQUIRE(model.at(entry.sequence) == &entry);
    });
    REQUIRE(visited == model.size());
  }
}

TEST_CASE("inserts and erases in any order agree with a map, and entries stay where they are") {
  const std::uint64_t base = test::test_seed(410);
  for (std::uint64_t i = 0; i < 20; ++i) run_against_a_map(base + i);
}

TEST_CASE("a table that was emptied can be filled again") {
  OutstandingTable table{HashKey()};
  for (int round = 0; round < 3; ++round) {
    std::vector<Outstanding*> entries;
    for (Sequence sequence = 1; sequence <= 10'000; ++sequence) {
      entries.push_back(&table.insert(sequence));
    }
    for (Outstanding* entry : entries) table.erase(*entry);
    CHECK(table.size() == 0);
    CHECK(table.find(77) == nullptr);
  }
}

}  // namespace
}  // namespace holdfast::broker
