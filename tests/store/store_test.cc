// The store: what a batch says is there after a restart, and nothing else is.

#include "store/store.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "store/record.h"
#include "store/store_fixture.h"

namespace holdfast::broker {
namespace {

constexpr QueueId kQueue{1};
constexpr QueueId kDead{2};
constexpr SubscriptionId kSubscription{3};

std::vector<MessageIdHash> hashes(std::uint64_t from, std::size_t count) {
  std::vector<MessageIdHash> list;
  for (std::uint64_t i = 0; i < count; ++i) list.push_back({from + i, ~(from + i)});
  return list;
}

// The queue "orders", its dead-letter queue, and a record in every table.
Batch first_batch() {
  Batch batch;
  batch.next_id = 5;
  batch.queues = {queue_record(1, "orders", 2), dead_queue_record(2, "orders.dead", 1)};
  REQUIRE(batch.queues[0].settings.set(2, 7).ok());
  batch.queues[0].next_sequence = 10'000;
  batch.queues[0].dedup_from_ms = 1'699'999'999'000;
  batch.queues[0].dedup_from = 8;
  batch.queues[0].bytes_estimated = true;
  batch.subscriptions = {subscription_record(3, 1), subscription_record(4, 2)};
  batch.subscriptions[0].floor = 3;
  batch.subscriptions[0].delivered_to = 40;
  batch.blocks = {block_of(kQueue, range(1, 20)), block_of(kQueue, range(21, 40))};
  AckRecord bitmap{.subscription = kSubscription, .chunk = 0};
  bitmap.bitmap[0] = 0x30;
  AckRecord run{.subscription = kSubscription, .chunk = 1, .full_chunks = 1};
  batch.acks = {bitmap, run};
  RetryRecord retry;
  retry.subscription = kSubscription;
  retry.sequence = 6;
  retry.attempts = 2;
  retry.in_flight = true;
  retry.due = from_unix_ms(1'700'000'900'000);
  retry.history = {{1, wire::Cause_Nacked, from_unix_ms(5), from_unix_ms(9), "worker 1", "no disk"},
                   {2, wire::Cause_LeaseExpired, from_unix_ms(15), from_unix_ms(19), "w", ""}};
  batch.retries = {retry};
  batch.dedup = {{kQueue, 1'700'000'000'000, 1, hashes(100, 20)},
                 {kQueue, 1'700'000'000'000, 21, hashes(200, 20)}};
  return batch;
}

void check_first_batch(StoreFixture* fixture) {
  const StoredState& state = fixture->state;
  CHECK_EQ(state.batch_number, 1);
  CHECK_EQ(state.next_id, 5);
  CHECK_EQ(state.records_corrupt, 0);
  CHECK_EQ(state.node_id.size(), 16);
  REQUIRE_EQ(state.queues.size(), 2);
  CHECK_EQ(state.queues[0].name, "orders");
  CHECK_EQ(state.queues[0].settings.get(QueueSetting::kMaxAttempts), 7);
  CHECK_EQ(state.queues[0].dead_queue, kDead);
  CHECK_EQ(state.queues[0].next_sequence, 10'000);
  CHECK_EQ(state.queues[0].dedup_from_ms, 1'699'999'999'000);
  CHECK_EQ(state.queues[0].dedup_from, 8);
  CHECK(state.queues[0].bytes_estimated);
  CHECK_FALSE(state.queues[1].bytes_estimated);
  CHECK_EQ(to_unix_ms(state.queues[0].created_at), 1'700'000'000'000);
  CHECK_EQ(state.queues[1].source_queue, kQueue);
  CHECK((state.queues[1].settings == QueueSettings::for_dead_letters()));
  REQUIRE_EQ(state.subscriptions.size(), 2);
  CHECK_EQ(state.subscriptions[0].id, kSubscription);
  CHECK_EQ(state.subscriptions[0].queue, kQueue);
  CHECK_EQ(state.subscriptions[0].name, "default");
  CHECK_EQ(state.subscriptions[0].floor, 3);
  CHECK_EQ(state.subscriptions[0].delivered_to, 40);
  REQUIRE_EQ(state.acks.size(), 2);
  CHECK_EQ(state.acks[0].bitmap[0], 0x30);
  CHECK_EQ(state.acks[1].chunk, 1);
  CHECK_EQ(state.acks[1].full_chunks, 1);
  REQUIRE_EQ(state.retries.size(), 1);
  CHECK_EQ(state.retries[0].sequence, 6);
  CHECK_EQ(state.retries[0].attempts, 2);
  CHECK(state.retries[0].in_flight);
  CHECK_EQ(to_unix_ms(state.retries[0].due), 1'700'000'900'000);
  REQUIRE_EQ(state.retries[0].history.size(), 2);
  CHECK_EQ(state.retries[0].history[0].consumer, "worker 1");
  CHECK_EQ(state.retries[0].history[0].error, "no disk");
  CHECK_EQ(state.retries[0].history[1].cause, wire::Cause_LeaseExpired);
  CHECK_EQ(to_unix_ms(state.retries[0].history[1].ended_at), 19);

  const std::vector<DedupRecord> dedup = fixture->load_dedup();
  REQUIRE_EQ(dedup.size(), 2);
  CHECK_EQ(dedup[0].first, 1);
  CHECK((dedup[0].hashes == hashes(100, 20)));
  CHECK_EQ(dedup[1].first, 21);
  CHECK((dedup[1].hashes == hashes(200, 20)));

  const FetchResult fetched = fixture->fetch(kQueue, 1, 1000);
  CHECK((bounds_of(fetched) == Bounds{{1, 20}, {21, 40}}));
  CHECK(fetched.blocks[0]->corrupt().empty());
  const std::vector<std::uint8_t> expected = message_bytes("id 7", 10, 'h');
  const BlockEntry seventh = fetched.blocks[0]->entry(6);
  CHECK((std::vector<std::uint8_t>(seventh.message.begin(), seventh.message.end()) == expected));
}

}  // namespace

TEST_CASE("a new store is empty and numbers batches from 1") {
  StoreFixture fixture;
  fixture.open();
  CHECK_EQ(fixture.state.batch_number, 0);
  CHECK_EQ(fixture.state.next_id, 1);
  CHECK(fixture.state.queues.empty());
  CHECK(fixture.state.space.publishes_allowed);
  CHECK_GT(fixture.state.space.room_bytes, 0);
  CHECK(fixture.fetch(kQueue, 1, 100).blocks.empty());
  fixture.commit({});
  const std::string node_id = fixture.state.node_id;
  fixture.reopen();
  CHECK_EQ(fixture.state.batch_number, 1);
  CHECK_EQ(fixture.state.node_id, node_id);
}

TEST_CASE("every table is read back as it was committed, after each of two restarts") {
  StoreFixture fixture;
  fixture.open();
  const CommitResult result = fixture.commit(first_batch());
  CHECK(result.blocks_left.empty());
  CHECK_GT(result.space.used_bytes, 0);
  CHECK_GE(result.space.file_bytes, result.space.used_bytes);
  for (int round = 0; round < 2; ++round) {
    fixture.reopen();
    check_first_batch(&fixture);
  }
}

TEST_CASE("what a batch removes is gone after a restart") {
  StoreFixture fixture;
  fixture.open();
  fixture.commit(first_batch());
  Batch batch;
  batch.blocks_removed = {{kQueue, 1}};
  batch.acks_removed = {{kSubscription, 0}};
  batch.retries_removed = {{kSubscription, 6}};
  batch.dedup_trims = {{kQueue, 1'700'000'000'000, 21, 10}};
  batch.subscriptions_removed = {SubscriptionId(4)};
  batch.queues_removed = {kDead};
  fixture.commit(std::move(batch));
  fixture.reopen();
  CHECK((bounds_of(fixture.fetch(kQueue, 1, 1000)) == Bounds{{21, 40}}));
  REQUIRE_EQ(fixture.state.acks.size(), 1);
  CHECK_EQ(fixture.state.acks[0].chunk, 1);
  CHECK(fixture.state.retries.empty());
  CHECK_EQ(fixture.state.queues.size(), 1);
  CHECK_EQ(fixture.state.subscriptions.size(), 1);
  const std::vector<DedupRecord> dedup = fixture.load_dedup();
  REQUIRE_EQ(dedup.size(), 1);
  CHECK_EQ(dedup[0].first, 21);
}

// A damaged record, for instance, is removed at the next start, and may be written anew with it.
TEST_CASE("acks and retries that one batch removes and writes are there after a restart") {
  StoreFixture fixture;
  fixture.open();
  fixture.commit(first_batch());
  Batch batch;
  batch.acks_removed = {{kSubscription, 0}};
  batch.acks = {{.subscription = kSubscription, .chunk = 0}};
  batch.acks[0].bitmap[0] = 0x70;
  batch.retries_removed = {{kSubscription, 6}};
  batch.retries.resize(1);
  batch.retries[0].subscription = kSubscription;
  batch.retries[0].sequence = 6;
  batch.retries[0].attempts = 3;
  fixture.commit(std::move(batch));
  fixture.reopen();
  REQUIRE_EQ(fixture.state.acks.size(), 2);
  CHECK_EQ(fixture.state.acks[0].chunk, 0);
  CHECK_EQ(fixture.state.acks[0].bitmap[0], 0x70);
  REQUIRE_EQ(fixture.state.retries.size(), 1);
  CHECK_EQ(fixture.state.retries[0].attempts, 3);
}

TEST_CASE("a block is replaced by its rewritten form in one batch") {
  StoreFixture fixture;
  fixture.open();
  fixture.commit(first_batch());
  Batch batch;
  batch.blocks_removed = {{kQueue, 1}};
  batch.blocks = {block_of(kQueue, {1, 5, 19})};
  fixture.commit(std::move(batch));
  const FetchResult fetched = fixture.fetch(kQueue, 1, 20);
  REQUIRE_EQ(fetched.blocks.size(), 1);
  CHECK_EQ(fetched.blocks[0]->entry_count(), 3);
}

TEST_CASE("the same batches give the same contents in two stores") {
  StoreFixture one;
  StoreFixture other;
  for (StoreFixture* fixture : {&one, &other}) {
    fixture->open();
    fixture->commit(first_batch());
    for (Sequence first = 41; first < 400; first += 20) {
      Batch batch;
      batch.blocks = {block_of(kQueue, range(first, first + 19), first)};
      batch.dedup = {{kQueue, 1'700'000'000'000 + first, first, hashes(first, 20)}};
      batch.block_trims = {{kQueue, first - 30, 1}};
      batch.dedup_trims = {{kQueue, 1'700'000'000'000 + first - 30, 0, 1}};
      fixture->commit(std::move(batch));
    }
    fixture->close();
  }
  std::vector<Records> contents = dump(one.options.directory);
  std::vector<Records> others = dump(other.options.directory);
  // The journal's salt and the node id are all that differs.
  contents[0].erase(contents[0].begin(), contents[0].begin() + 2);
  others[0].erase(others[0].begin(), others[0].begin() + 2);
  CHECK((contents == others));
  CHECK_GT(contents[static_cast<std::size_t>(Table::kBlocks)].size(), 1);
}

TEST_CASE("a trim removes whole blocks below its bound and tells what its limit left") {
  StoreFixture fixture;
  fixture.open();
  Batch batch;
  for (Sequence first = 1; first < 100; first += 10) {
    batch.blocks.push_back(block_of(kQueue, range(first, first + 9)));
    batch.blocks.push_back(block_of(kDead, range(first, first + 9)));
  }
  fixture.commit(std::move(batch));

  Batch limited;
  limited.block_trims = {{kQueue, 46, 3}};  // 1-10 … 31-40 end below it
  CommitResult result = fixture.commit(std::move(limited));
  CHECK((result.blocks_left == std::vector<QueueId>{kQueue}));
  CHECK_EQ(bounds_of(fixture.fetch(kQueue, 1, 1000)).front().first, 31);

  Batch rest;
  rest.block_trims = {{kQueue, 46, 3}};
  result = fixture.commit(std::move(rest));
  CHECK(result.blocks_left.empty());
  CHECK_EQ(bounds_of(fixture.fetch(kQueue, 1, 1000)).front().first, 41);
  CHECK_EQ(bounds_of(fixture.fetch(kDead, 1, 1000)).size(), 10);

  Batch exact;
  exact.block_trims = {{kQueue, 61, 2}};  // 41-50 and 51-60: as many as the limit, and no more
  result = fixture.commit(std::move(exact));
  CHECK(result.blocks_left.empty());
  CHECK_EQ(bounds_of(fixture.fetch(kQueue, 1, 1000)).front().first, 61);
}

TEST_CASE("a trim of the dedup window stops before its bound and tells what its limit left") {
  StoreFixture fixture;
  fixture.open();
  Batch batch;
  for (std::uint64_t time = 100; time < 200; time += 10) {
    batch.dedup.push_back({kQueue, time, time, hashes(time, 3)});
  }
  batch.dedup.push_back({kDead, 1, 1, hashes(1, 1)});
  fixture.commit(std::move(batch));
  Batch trim;
  trim.dedup_trims = {{kQueue, 150, 150, 3}};
  CHECK((fixture.commit(std::move(trim)).dedup_left == std::vector<QueueId>{kQueue}));
  Batch again;
  again.dedup_trims = {{kQueue, 150, 150, 3}};
  CHECK(fixture.commit(std::move(again)).dedup_left.empty());
  fixture.reopen();
  const std::vector<DedupRecord> left = fixture.load_dedup();
  REQUIRE_EQ(left.size(), 6);
  CHECK_EQ(left[0].time_ms, 150);
  CHECK_EQ(left[5].queue, kDead);
}

TEST_CASE("ids are read from their first key to before their last, of their queue alone") {
  StoreFixture fixture;
  fixture.open();
  Batch batch;
  for (std::uint64_t time = 100; time < 200; time += 10) {
    batch.dedup.push_back({kQueue, time, time, hashes(time, 3)});
  }
  batch.dedup.push_back({kDead, 120, 120, hashes(1, 1)});
  fixture.commit(std::move(batch));
  const auto read = [&fixture](QueueId queue, std::uint64_t begin, std::uint64_t end) {
    Result<IdsResult> result = fixture.store->fetch_ids_blocking(
        {.id = FetchId(1), .queue = queue, .begin = {begin, begin}, .end = {end, end}});
    REQUIRE(result.ok());
    return std::move(result->records);
  };
  const std::vector<DedupRecord> middle = read(kQueue, 120, 150);
  REQUIRE_EQ(middle.size(), 3);
  CHECK_EQ(middle[0].first, 120);
  CHECK_EQ(middle[2].time_ms, 140);
  CHECK((middle[1].hashes == hashes(130, 3)));
  CHECK_EQ(read(kQueue, 0, 1'000).size(), 10);
  CHECK_EQ(read(kDead, 0, 1'000).size(), 1);
  CHECK(read(kQueue, 200, 1'000).empty());
}

TEST_CASE("a fetch begins with the block that holds the sequence, or the first behind it") {
  StoreFixture fixture;
  fixture.open();
  Batch batch;
  batch.blocks = {block_of(QueueId(1), range(1, 10)), block_of(QueueId(2), range(5, 14)),
                  block_of(QueueId(2), {20, 25, 29}), block_of(QueueId(2), range(40, 49)),
                  block_of(QueueId(3), range(1, 10))};
  fixture.commit(std::move(batch));
  const QueueId queue{2};
  CHECK((bounds_of(fixture.fetch(queue, 1, 100)) == Bounds{{5, 14}, {20, 29}, {40, 49}}));
  CHECK((bounds_of(fixture.fetch(queue, 5, 100)) == Bounds{{5, 14}, {20, 29}, {40, 49}}));
  CHECK((bounds_of(fixture.fetch(queue, 14, 100)) == Bounds{{5, 14}, {20, 29}, {40, 49}}));
  CHECK((bounds_of(fixture.fetch(queue, 15, 100)) == Bounds{{20, 29}, {40, 49}}));
  CHECK((bounds_of(fixture.fetch(queue, 29, 100)) == Bounds{{20, 29}, {40, 49}}));
  CHECK((bounds_of(fixture.fetch(queue, 30, 100)) == Bounds{{40, 49}}));
  CHECK((bounds_of(fixture.fetch(queue, 5, 19)) == Bounds{{5, 14}}));
  CHECK((bounds_of(fixture.fetch(queue, 5, 20)) == Bounds{{5, 14}, {20, 29}}));
  CHECK((bounds_of(fixture.fetch(queue, 1, 100, 1)) == Bounds{{5, 14}}));
  CHECK(fixture.fetch(queue, 50, 100).blocks.empty());
  CHECK((bounds_of(fixture.fetch(QueueId(3), 1, 100)) == Bounds{{1, 10}}));
  CHECK((bounds_of(fixture.fetch(QueueId(1), 3, 100)) == Bounds{{1, 10}}));
  CHECK(fixture.fetch(QueueId(4), 1, 100).blocks.empty());
}

TEST_CASE(
    "a block whose header is damaged is set aside with its range, its neighbours are served") {
  StoreFixture fixture;
  fixture.open();
  Batch batch;
  batch.blocks = {block_of(kQueue, range(1, 10)), block_of(kQueue, range(11, 20)),
                  block_of(kQueue, range(21, 30))};
  fixture.commit(std::move(batch));
  fixture.close();
  damage(fixture.options.directory, Table::kBlocks, 1, 8);
  fixture.open();
  FetchResult result = fixture.fetch(kQueue, 1, 30);
  CHECK((bounds_of(result) == Bounds{{1, 10}, {21, 30}}));
  REQUIRE_EQ(result.unreadable.size(), 1);
  CHECK_EQ(result.unreadable[0].first, 11);
  CHECK_EQ(result.unreadable[0].last, 20);
  CHECK_EQ(result.unreadable[0].raw.size(), block_of(kQueue, range(11, 20))->bytes().size());
  // From its middle, and cut off by the size bound right behind it.
  result = fixture.fetch(kQueue, 15, 30, 1);
  CHECK(result.blocks.empty());
  REQUIRE_EQ(result.unreadable.size(), 1);
  CHECK_EQ(result.unreadable[0].last, 20);

  Batch trim;
  trim.block_trims = {{kQueue, 21, 10}};
  CHECK(fixture.commit(std::move(trim)).blocks_left.empty());
  CHECK((bounds_of(fixture.fetch(kQueue, 1, 30)) == Bounds{{21, 30}}));
}

TEST_CASE(
    "a damaged header of the last block ends where was asked for, and is trimmed by the queue") {
  StoreFixture fixture;
  fixture.open();
  Batch batch;
  batch.queues = {queue_record(1, "orders", 2)};
  batch.queues[0].next_sequence = 21;
  batch.blocks = {block_of(kQueue, range(11, 20))};
  fixture.commit(std::move(batch));
  fixture.close();
  damage(fixture.options.directory, Table::kBlocks, 0, 8);
  fixture.open();
  const FetchResult result = fixture.fetch(kQueue, 1, 20);
  REQUIRE_EQ(result.unreadable.size(), 1);
  CHECK_EQ(result.unreadable[0].first, 11);
  CHECK_EQ(result.unreadable[0].last, 20);
  Batch below;
  below.block_trims = {{kQueue, 20, 10}};
  fixture.commit(std::move(below));
  CHECK_EQ(fixture.fetch(kQueue, 1, 20).unreadable.size(), 1);
  Batch all;
  all.block_trims = {{kQueue, 21, 10}};
  fixture.commit(std::move(all));
  CHECK(fixture.fetch(kQueue, 1, 20).unreadable.empty());
}

TEST_CASE("a damaged message is marked in its block and never served") {
  StoreFixture fixture;
  fixture.open();
  Batch batch;
  batch.blocks = {block_of(kQueue, range(1, 10))};
  fixture.commit(std::move(batch));
  fixture.close();
  damage(fixture.options.directory, Table::kBlocks, 0, 48 + 32 + 20);  // in the first message
  fixture.open();
  const FetchResult result = fixture.fetch(kQueue, 1, 10);
  REQUIRE_EQ(result.blocks.size(), 1);
  REQUIRE_EQ(result.blocks[0]->corrupt().size(), 1);
  CHECK_EQ(result.blocks[0]->entry(0).sequence, 1);
  CHECK(result.blocks[0]->entry(0).message.empty());
}

TEST_CASE("damaged acks, retries and dedup records are left out and counted") {
  StoreFixture fixture;
  fixture.open();
  fixture.commit(first_batch());
  fixture.close();
  damage(fixture.options.directory, Table::kAcks, 0, 9);
  damage(fixture.options.directory, Table::kRetries, 0, 0);
  damage(fixture.options.directory, Table::kDedup, 1, -1);
  fixture.open();
  CHECK_EQ(fixture.state.records_corrupt, 2);
  REQUIRE_EQ(fixture.state.acks.size(), 1);
  CHECK_EQ(fixture.state.acks[0].chunk, 1);
  CHECK(fixture.state.retries.empty());
  REQUIRE_EQ(fixture.state.acks_corrupt.size(), 1);
  CHECK_EQ(fixture.state.acks_corrupt[0].subscription, kSubscription);
  CHECK_EQ(fixture.state.acks_corrupt[0].chunk, 0);
  REQUIRE_EQ(fixture.state.retries_corrupt.size(), 1);
  CHECK_EQ(fixture.state.retries_corrupt[0].sequence, 6);
  const std::vector<DedupRecord> dedup = fixture.load_dedup();
  REQUIRE_EQ(dedup.size(), 1);
  CHECK_EQ(dedup[0].first, 1);
  const Result<IdsResult> read = fixture.store->fetch_ids_blocking(
      {.id = FetchId(1), .queue = kQueue, .begin = {0, 0}, .end = {~std::uint64_t{0}, 0}});
  REQUIRE(read.ok());
  CHECK_EQ(read->records.size(), 1);
  CHECK_EQ(read->records_corrupt, 1);
}

TEST_CASE("without acks that are damaged the blocks tell what was not settled") {
  StoreFixture fixture;
  fixture.open();
  Batch batch = first_batch();
  batch.blocks = {block_of(kQueue, range(1, 20)),    block_of(kQueue, range(21, 30)),
                  block_of(kQueue, {40, 41, 50}),    block_of(kQueue, range(100, 109)),
                  block_of(kQueue, range(200, 209)), block_of(kDead, range(5, 9))};
  fixture.commit(std::move(batch));
  fixture.close();
  damage(fixture.options.directory, Table::kBlocks, 3, 8);
  fixture.open();
  CHECK(fixture.state.held.empty());
  fixture.close();
  damage(fixture.options.directory, Table::kAcks, 0, 9);
  fixture.open();
  using Ranges = std::vector<SequenceRange>;
  REQUIRE_EQ(fixture.state.held.size(), 1);
  CHECK_EQ(fixture.state.held[0].queue, kQueue);
  CHECK((fixture.state.held[0].ranges == Ranges{{1, 30}, {40, 41}, {50, 50}, {100, 209}}));
  fixture.close();
  // Whose it is is not known.
  const std::uint8_t nonsense[16] = {};
  put_raw(fixture.options.directory, Table::kAcks, ack_key(SubscriptionId(77), 1), nonsense);
  fixture.open();
  REQUIRE_EQ(fixture.state.held.size(), 2);
  CHECK_EQ(fixture.state.held[1].queue, kDead);
  CHECK((fixture.state.held[1].ranges == Ranges{{5, 9}}));
}

TEST_CASE("a damaged last block holds what may be in it, up to the end of the queue") {
  StoreFixture fixture;
  fixture.open();
  Batch batch = first_batch();
  batch.blocks = {block_of(kQueue, range(9'990, 9'999))};
  fixture.commit(std::move(batch));
  fixture.close();
  damage(fixture.options.directory, Table::kBlocks, 0, 8);
  damage(fixture.options.directory, Table::kAcks, 0, 9);
  fixture.open();
  REQUIRE_EQ(fixture.state.held.size(), 1);
  CHECK((fixture.state.held[0].ranges == std::vector<SequenceRange>{{9'990, 9'999}}));
}

TEST_CASE("a damaged queue, subscription or meta record stops the start with its name") {
  const std::vector<std::pair<Table, std::string>> tables = {
      {Table::kQueues, "queue"}, {Table::kSubscriptions, "subscription"}, {Table::kMeta, "record"}};
  for (const auto& [table, word] : tables) {
    StoreFixture fixture;
    fixture.open();
    fixture.commit(first_batch());
    fixture.close();
    damage(fixture.options.directory, table, 0, 3);
    Result<std::unique_ptr<Store>> store = Store::open(fixture.options);
    Status status = store.status();
    if (store.ok()) status = (*store)->load().status();
    CHECK_EQ(status.code(), ErrorCode::kStorageFailed);
    CHECK_NE(status.message().find(word), std::string::npos);
  }
}

TEST_CASE("a record under another record's key is not taken for it") {
  StoreFixture fixture;
  fixture.open();
  Batch batch = first_batch();
  RetryRecord other = batch.retries.front();
  other.sequence = 8;
  batch.retries.push_back(other);
  fixture.commit(std::move(batch));
  fixture.close();
  const Records retries =
      dump(fixture.options.directory)[static_cast<std::size_t>(Table::kRetries)];
  REQUIRE_EQ(retries.size(), 2);
  put_raw(fixture.options.directory, Table::kRetries, retries[0].first, retries[1].second);
  fixture.open();
  CHECK_EQ(fixture.state.records_corrupt, 1);
  REQUIRE_EQ(fixture.state.retries.size(), 1);
  CHECK_EQ(fixture.state.retries[0].sequence, 8);
}

TEST_CASE("every commit is numbered one more than the last, across restarts") {
  StoreFixture fixture;
  for (std::uint64_t round = 1; round <= 3; ++round) {
    fixture.open();
    CHECK_EQ(fixture.state.batch_number, (round - 1) * 5);
    for (int i = 0; i < 5; ++i) fixture.commit({});
    fixture.close();
  }
}

TEST_CASE("a map that cannot be had is refused with the limit") {
  StoreFixture fixture;
  fixture.options.map_bytes = 1ull << 60;
  const Result<std::unique_ptr<Store>> store = Store::open(fixture.options);
  REQUIRE_FALSE(store.ok());
  CHECK_EQ(store.status().code(), ErrorCode::kStorageFailed);
  CHECK_NE(store.status().message().find("address space"), std::string::npos);
}

TEST_CASE("a record that is older than its queue's last commit is not served") {
  StoreFixture fixture;
  fixture.open();
  Batch batch;
  batch.queues = {queue_record(1, "orders", 2), dead_queue_record(2, "orders.dead", 1)};
  batch.subscriptions = {subscription_record(3, 1), subscription_record(4, 2)};
  fixture.commit(std::move(batch));
  fixture.close();
  const auto is_found = [&fixture] {
    const CheckReport report = fixture.check();
    return std::any_of(report.findings.begin(), report.findings.end(), [](const CheckFinding& one) {
      return one.where == "queues and subscriptions";
    });
  };
  for (const Table table : {Table::kQueues, Table::kSubscriptions}) {
    const auto older = dump(fixture.options.directory)[static_cast<std::size_t>(table)];
    fixture.open();
    Batch next;
    next.queues = {queue_record(1, "orders", 2)};
    next.queues[0].next_sequence = table == Table::kQueues ? 5 : 9;
    next.subscriptions = {subscription_record(3, 1)};
    next.subscriptions[0].floor = table == Table::kQueues ? 2 : 4;
    fixture.commit(std::move(next));
    fixture.close();
    const auto newest = dump(fixture.options.directory)[static_cast<std::size_t>(table)];
    CHECK_FALSE(is_found());
    REQUIRE(older[0].first == newest[0].first);
    REQUIRE(older[0].second != newest[0].second);
    put_raw(fixture.options.directory, table, older[0].first, older[0].second);
    Result<std::unique_ptr<Store>> store = Store::open(fixture.options);
    REQUIRE(store.ok());
    const Status status = (*store)->load().status();
    CHECK_EQ(status.code(), ErrorCode::kStorageFailed);
    CHECK_NE(status.message().find("some are older"), std::string::npos);
    store->reset();
    CHECK(is_found());
    put_raw(fixture.options.directory, table, newest[0].first, newest[0].second);
  }
}

}  // namespace holdfast::broker
