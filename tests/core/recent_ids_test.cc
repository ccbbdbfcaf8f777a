#include "core/recent_ids.h"

#include <doctest/doctest.h>

#include <deque>
#include <map>
#include <random>
#include <string>
#include <vector>

#include "core/dedup_window.h"
#include "support/test_seed.h"

namespace holdfast::broker {
namespace {

constexpr QueueId kQueue{3};

MessageIdHash hash_of(std::uint64_t number) {
  return hash_message_id(kQueue, "id-" + std::to_string(number));
}

TEST_CASE("the same id has another hash in another queue") {
  CHECK(hash_message_id(QueueId(1), "order-1") == hash_message_id(QueueId(1), "order-1"));
  CHECK_FALSE(hash_message_id(QueueId(1), "order-1") == hash_message_id(QueueId(2), "order-1"));
}

TEST_CASE("an id is found with the sequence it was published under") {
  RecentIds window{HashKey()};
  CHECK_FALSE(window.find(hash_of(1)).has_value());
  window.insert(hash_of(1), 10, 1000);
  window.insert(hash_of(2), 11, 1000);
  window.insert(hash_of(3), 20, 1000);  // others came between
  CHECK(window.find(hash_of(1)) == 10);
  CHECK(window.find(hash_of(2)) == 11);
  CHECK(window.find(hash_of(3)) == 20);
  CHECK_FALSE(window.find(hash_of(4)).has_value());
  CHECK(window.size() == 3);
}

TEST_CASE("ids leave when they are too old, and not before") {
  RecentIds window{HashKey()};
  window.insert(hash_of(1), 1, 1000);
  window.insert(hash_of(2), 2, 5000);
  CHECK(window.expire(999) == 0);
  CHECK(window.find(hash_of(1)) == 1);
  CHECK(window.expire(1000) == 1);
  CHECK_FALSE(window.find(hash_of(1)).has_value());
  CHECK(window.find(hash_of(2)) == 2);
  CHECK(window.expire(4999) == 0);
  CHECK(window.expire(5000) == 1);
  CHECK(window.size() == 0);
  window.insert(hash_of(1), 3, 6000);
  CHECK(window.find(hash_of(1)) == 3);
}

TEST_CASE("an empty window begins past everything that was in it") {
  RecentIds window{HashKey()};
  window.insert(hash_of(1), 9, 1234);
  CHECK(window.begin_key() == std::pair<std::uint64_t, Sequence>(1234, 9));
  window.expire(1234);
  CHECK(window.begin_key() > std::pair<std::uint64_t, Sequence>(1234, 9));
}

TEST_CASE("the oldest run is taken out whole") {
  RecentIds window{HashKey()};
  window.insert(hash_of(1), 1, 1000);
  window.insert(hash_of(2), 2, 1000);
  window.insert(hash_of(3), 3, 9000);
  CHECK(window.run_count() == 2);
  CHECK(window.oldest_run_last() == 2);
  const RecentIds::Run run = window.take_oldest();
  CHECK(run.first == 1);
  CHECK(run.first_time_ms == 1000);
  CHECK(run.hashes == std::vector<MessageIdHash>{hash_of(1), hash_of(2)});
  CHECK_FALSE(window.find(hash_of(1)).has_value());
  CHECK(window.find(hash_of(3)) == 3);
  window.take_oldest();
  CHECK(window.oldest_run_last() == 0);
  CHECK_FALSE(window.find(hash_of(3)).has_value());
}

TEST_CASE("the only run is not dropped for the count bound") {
  const DedupOptions options;
  DedupTotals totals;
  DedupWindow window(options, HashKey(), totals);
  window.insert(hash_of(1), 1, 1000);
  window.insert(hash_of(2), 2, 1000);
  CHECK(window.drop_oldest() == 0);
  window.insert(hash_of(3), 3, 9000);
  CHECK(window.drop_oldest() == 2);
  CHECK(window.drop_oldest() == 0);
  CHECK(window.find_recent(hash_of(3)) == 3);
  CHECK(totals.ids == 1);
}

TEST_CASE("a million ids are all found, and all forgotten") {
  RecentIds window{HashKey()};
  constexpr std::uint64_t kIds = 1'000'000;
  for (std::uint64_t i = 0; i < kIds; ++i) window.insert(hash_of(i), i + 1, 1000 + i / 100);
  for (std::uint64_t i = 0; i < kIds; ++i) REQUIRE(window.find(hash_of(i)) == i + 1);
  REQUIRE_FALSE(window.find(hash_of(kIds)).has_value());
  std::size_t gone = 0;
  for (std::uint64_t ms = 1000; ms < 1000 + kIds / 100; ms += 500) gone += window.expire(ms);
  gone += window.expire(1000 + kIds / 100);
  CHECK(gone == kIds);
  CHECK(window.size() == 0);
}

struct Remembered {
  MessageIdHash hash;
  Sequence sequence = 0;
  std::uint64_t time_ms = 0;
};

struct MapModel {
  std::deque<Remembered> order;
  std::map<std::pair<std::uint64_t, std::uint64_t>, Sequence> by_hash;

  void insert(const MessageIdHash& hash, Sequence sequence, std::uint64_t time_ms) {
    order.push_back({hash, sequence, time_ms});
    REQUIRE(by_hash.emplace(std::pair(hash.low, hash.high), sequence).second);
  }
  void drop(std::size_t count) {
    for (; count > 0; --count) {
      by_hash.erase({order.front().hash.low, order.front().hash.high});
      order.pop_front();
    }
  }
};

void run_against_a_map(std::uint64_t seed) {
  CAPTURE(seed);
  std::mt19937_64 random(seed);
  RecentIds window{HashKey()};
  MapModel model;
  std::uint64_t time_ms = 1;
  Sequence next = 1;
  std::uint64_t next_id = 0;
  const std::uint64_t window_ms = 1 + random() % 20'000;
  const std::size_t most = 10 + random() % 20'000;
  for (int step = 0; step < 3000; ++step) {
    time_ms += random() % 3 == 0 ? random() % 400 : 0;
    if (random() % 10 == 0) next += random() % 3;  // sequences of messages without a known id

    for (std::uint64_t burst = random() % 30; burst > 0; --burst, ++next) {
      // Ids that left the window come back.
      const std::uint64_t id = random() % 4 == 0 && next_id > 0 ? random() % next_id : next_id++;
      const MessageIdHash hash = hash_of(id);
      const auto known = model.by_hash.find({hash.low, hash.high});
      REQUIRE(window.find(hash).has_value() == (known != model.by_hash.end()));
      if (known != model.by_hash.end()) {
        REQUIRE(window.find(hash) == known->second);
        continue;
      }
      window.insert(hash, next, time_ms);
      model.insert(hash, next, time_ms);
    }
    if (random() % 5 == 0) {
      const std::uint64_t before = time_ms > window_ms ? time_ms - window_ms : 0;
      model.drop(window.expire(before));
      // Runs span less than a second: what is a second too old is gone, what is not too old stays.
      if (!model.order.empty()) REQUIRE(model.order.front().time_ms + 1000 > before);
      for (const Remembered& one : model.order) {
        if (one.time_ms > before) break;
        REQUIRE(window.find(one.hash).has_value());
      }
    }
    if (model.order.size() > most && window.run_count() > 1) {
      model.drop(window.take_oldest().hashes.size());
    }
    REQUIRE(window.size() == model.order.size());
    if (!model.order.empty()) {
      const Remembered& oldest = model.order.front();
      REQUIRE(window.begin_key() == std::pair(oldest.time_ms, oldest.sequence));
    }
  }
  for (const Remembered& one : model.order) REQUIRE(window.find(one.hash) == one.sequence);
  window.clear();
  for (const Remembered& one : model.order) REQUIRE_FALSE(window.find(one.hash).has_value());
}

TEST_CASE("ids that come, expire and come again agree with a map") {
  const std::uint64_t base = test::test_seed(5150);
  for (std::uint64_t i = 0; i < 30; ++i) run_against_a_map(base + i);
}

// As the core does it: a record of the store begins where insert() says so, or with a new batch.
TEST_CASE("what leaves the window are whole records, also of a window that was read back") {
  std::mt19937_64 random(test::test_seed(77));
  RecentIds window{HashKey()};
  std::map<std::pair<std::uint64_t, Sequence>, std::vector<MessageIdHash>> records;
  std::vector<MessageIdHash>* last = nullptr;
  std::uint64_t time_ms = 1;
  Sequence next = 1;
  for (int step = 0; step < 20'000; ++step) {
    if (random() % 100 == 0) {
      time_ms += random() % 300;
      last = nullptr;  // a new batch
    }
    if (window.insert(hash_of(next), next, time_ms) || last == nullptr) {
      last = &records[{time_ms, next}];
    }
    last->push_back(hash_of(next));
    ++next;
  }
  RecentIds reloaded{HashKey()};
  for (const auto& [key, hashes] : records) reloaded.load(hashes, key.second, key.first);
  REQUIRE(reloaded.size() == window.size());
  for (RecentIds* each : {&window, &reloaded}) {
    for (std::uint64_t ms = 0; each->size() > 0; ms += 100) {
      each->expire(ms);
      if (each->size() == 0) break;
      const auto at = records.find(each->begin_key());
      REQUIRE(at != records.end());
      REQUIRE(each->find(at->second.front()) == at->first.second);
    }
  }
}

TEST_CASE("an id that is too old is never kept because of a younger one that is expired with it") {
  RecentIds window{HashKey()};
  // More ids at one time than share a run.
  for (std::uint64_t i = 0; i < 10'000; ++i) window.insert(hash_of(i), i + 1, 1000);
  window.insert(hash_of(10'000), 10'001, 3000);
  CHECK(window.expire(1000) == 10'000);
  CHECK(window.size() == 1);
  CHECK(window.find(hash_of(10'000)) == 10'001);
}

}  // namespace
}  // namespace holdfast::broker
