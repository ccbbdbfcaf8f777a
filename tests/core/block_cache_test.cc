#include "core/block_cache.h"

#include <doctest/doctest.h>

#include <array>
#include <random>

#include "support/test_seed.h"

namespace holdfast::broker {
namespace {

constexpr QueueId kQueue{1};
constexpr QueueId kOther{2};

std::shared_ptr<const Block> make_block(QueueId queue, Sequence first, Sequence last,
                                        std::size_t body_bytes = 100) {
  const std::vector<std::uint8_t> message(body_bytes, 'x');
  BlockBuilder builder(queue);
  for (Sequence sequence = first; sequence <= last; ++sequence) {
    builder.append(sequence, from_unix_ms(1), checksum(message), message, {});
  }
  return builder.finish();
}

TEST_CASE("a block is found by every sequence it spans, in its own queue only") {
  BlockCache cache(1 << 20);
  cache.insert(make_block(kQueue, 10, 19));
  cache.insert(make_block(kOther, 5, 30));
  CHECK(cache.find(kQueue, 9) == nullptr);
  CHECK(cache.find(kQueue, 20) == nullptr);
  for (Sequence sequence = 10; sequence < 20; ++sequence) {
    REQUIRE(cache.find(kQueue, sequence) != nullptr);
    CHECK(cache.find(kQueue, sequence)->queue() == kQueue);
  }
  CHECK(cache.find(QueueId(3), 10) == nullptr);
}

TEST_CASE("what was used least lately goes first") {
  const std::size_t one = make_block(kQueue, 1, 1)->bytes().size();
  BlockCache cache(3 * one);
  for (Sequence sequence = 1; sequence <= 3; ++sequence) {
    cache.insert(make_block(kQueue, sequence, sequence));
  }
  REQUIRE(cache.find(kQueue, 1) != nullptr);
  cache.insert(make_block(kQueue, 4, 4));
  CHECK(cache.find(kQueue, 2) == nullptr);
  CHECK(cache.find(kQueue, 1) != nullptr);
  CHECK(cache.find(kQueue, 3) != nullptr);
  CHECK(cache.find(kQueue, 4) != nullptr);
}

TEST_CASE("the newest block stays even if it alone is over the bound") {
  BlockCache cache(1000);
  cache.insert(make_block(kQueue, 1, 1));
  cache.insert(make_block(kQueue, 2, 2, 5000));
  CHECK(cache.find(kQueue, 1) == nullptr);
  CHECK(cache.find(kQueue, 2) != nullptr);
  cache.insert(make_block(kQueue, 3, 3));
  CHECK(cache.find(kQueue, 2) == nullptr);
  CHECK(cache.bytes() == make_block(kQueue, 3, 3)->bytes().size());
}

TEST_CASE("a block inserted again replaces the one before") {
  BlockCache cache(1 << 20);
  cache.insert(make_block(kQueue, 1, 9));
  const auto rewritten = make_block(kQueue, 1, 2);
  cache.insert(rewritten);
  CHECK(cache.bytes() == rewritten->bytes().size());
  CHECK(cache.find(kQueue, 1) == rewritten);
  CHECK(cache.find(kQueue, 5) == nullptr);
}

TEST_CASE("erasing a queue leaves the others") {
  BlockCache cache(1 << 20);
  for (Sequence sequence = 1; sequence <= 5; ++sequence) {
    cache.insert(make_block(kQueue, sequence, sequence));
    cache.insert(make_block(kOther, sequence, sequence));
  }
  cache.erase_queue(kQueue);
  cache.erase(kOther, 3);
  cache.erase(kOther, 77);  // one that is not there
  for (Sequence sequence = 1; sequence <= 5; ++sequence) {
    CHECK(cache.find(kQueue, sequence) == nullptr);
    CHECK((cache.find(kOther, sequence) != nullptr) == (sequence != 3));
  }
}

TEST_CASE("the bytes held are those of the blocks held, and stay within the bound") {
  std::mt19937_64 random(test::test_seed(99));
  constexpr std::size_t kBound = 20'000;
  BlockCache cache(kBound);
  constexpr Sequence kPlaces = 60;
  std::array<std::shared_ptr<const Block>, kPlaces> known;
  for (int step = 0; step < 5000; ++step) {
    const Sequence place = random() % kPlaces;
    const Sequence first = place * 10 + 1;
    if (random() % 5 == 0) {
      cache.erase(kQueue, first);
      CHECK(cache.find(kQueue, first) == nullptr);
    } else {
      known[place] = make_block(kQueue, first, first + random() % 10, 1 + random() % 500);
      cache.insert(known[place]);
      CHECK(cache.find(kQueue, first) == known[place]);
    }
    REQUIRE(cache.bytes() <= kBound);
    std::size_t held = 0;
    for (Sequence at = 0; at < kPlaces; ++at) {
      if (const auto block = cache.find(kQueue, at * 10 + 1)) {
        REQUIRE(block == known[at]);
        held += block->bytes().size();
      }
    }
    REQUIRE(cache.bytes() == held);
  }
}

}  // namespace
}  // namespace holdfast::broker
