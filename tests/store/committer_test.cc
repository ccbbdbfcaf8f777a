// A commit that fails for another reason than space ends everything.

#include "store/committer.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <future>

#include "store/store_fixture.h"
#include "support/resource_limit.h"

namespace holdfast::broker {
namespace {

std::unique_ptr<Batch> batch_with_block(std::uint64_t number, Sequence first) {
  auto batch = std::make_unique<Batch>();
  batch->number = number;
  batch->blocks = {block_of(QueueId(1), range(first, first + 9), 100'000)};
  return batch;
}

}  // namespace

TEST_CASE("a write error is fatal: it is told, and its batch is neither reported nor stored") {
  StoreFixture fixture;
  fixture.open();
  fixture.commit(std::move(*batch_with_block(1, 1)));
  fixture.close();

  Result<std::unique_ptr<Store>> store = Store::open(fixture.options);
  REQUIRE(store.ok());
  REQUIRE((*store)->load().ok());
  std::promise<Status> failed;
  int committed = 0;
  (*store)->start([&committed](CommitResult) { ++committed; },
                  [&failed](Status status) { failed.set_value(std::move(status)); });
  {
    const test::ResourceLimit limit(RLIMIT_FSIZE, 64 * 1024);
    (*store)->commit(only(batch_with_block(2, 11)));
    std::future<Status> told = failed.get_future();
    REQUIRE((told.wait_for(std::chrono::seconds(30)) == std::future_status::ready));
    const Status status = told.get();
    CHECK_EQ(status.code(), ErrorCode::kStorageFailed);
    CHECK_NE(status.message().find("batch 2"), std::string::npos);
  }
  // Though the disk would take it now.
  (*store)->commit(only(batch_with_block(2, 11)));
  (*store)->close();
  store->reset();
  CHECK_EQ(committed, 0);
  fixture.open();
  CHECK_EQ(fixture.state.batch_number, 1);
  CHECK_EQ(fixture.fetch(QueueId(1), 1, 100).blocks.size(), 1);
}

TEST_CASE("what the journal holds outlives a write error of the tables") {
  StoreFixture fixture;
  fixture.open();
  for (Sequence first = 1; first <= 21; first += 10) {
    Batch batch;
    batch.blocks = {block_of(QueueId(1), range(first, first + 9))};
    fixture.commit(std::move(batch));
  }
  {
    const test::ResourceLimit limit(RLIMIT_FSIZE, 64 * 1024);
    fixture.store->commit(only(batch_with_block(4, 31)));
    fixture.close();
  }
  fixture.open();
  CHECK_EQ(fixture.state.batch_number, 3);
  CHECK_EQ(fixture.fetch(QueueId(1), 1, 100).blocks.size(), 3);
}

TEST_CASE("what was published was confirmed though the data directory had been removed") {
  for (const std::string name : {"data.mdb", "journal"}) {
    CAPTURE(name);
    StoreFixture fixture;
    fixture.open();
    fixture.commit({});
    std::filesystem::remove(fixture.options.directory + "/store/" + name);
    fixture.store->commit(only(batch_with_block(2, 1)));
    const Status status = fixture.wait_for_failure();
    CHECK_EQ(status.code(), ErrorCode::kStorageFailed);
    CHECK_NE(status.message().find("was removed under the running broker"), std::string::npos);
    CHECK_NE(status.message().find(name == "journal" ? "The journal beside" : "The data file"),
             std::string::npos);
  }
}

// It wakes after commits have ended, and where it looks for dead readers.
TEST_CASE("a broker at rest did not notice that its data directory had been removed") {
  StoreOptions options;
  options.reader_check_interval = std::chrono::milliseconds(10);
  StoreFixture fixture(options);
  fixture.open();
  fixture.commit({});
  std::filesystem::remove_all(fixture.options.directory + "/store");
  CHECK_EQ(fixture.wait_for_failure().code(), ErrorCode::kStorageFailed);
}

TEST_CASE("batches of one commit are made in their order") {
  StoreFixture fixture;
  fixture.open();
  Batches batches;
  for (std::uint64_t number = 1; number <= 3; ++number) {
    batches.push_back(batch_with_block(number, number * 10));
  }
  // The block of the first is not there any more, that of the third is.
  batches[1]->blocks_removed = {{QueueId(1), 10}};
  batches[2]->blocks_removed = {{QueueId(1), 20}};
  fixture.commit_all(std::move(batches));
  for (int starts = 0; starts < 2; ++starts) {
    const FetchResult result = fixture.fetch(QueueId(1), 1, 100);
    REQUIRE_EQ(result.blocks.size(), 1);
    CHECK_EQ(result.blocks[0]->first_sequence(), 30);
    fixture.reopen();
    CHECK_EQ(fixture.state.batch_number, 3);
  }
}

TEST_CASE("a write error takes all batches of the commit with it") {
  StoreFixture fixture;
  fixture.open();
  {
    const test::ResourceLimit limit(RLIMIT_FSIZE, 64 * 1024);
    Batches batches;
    for (std::uint64_t number = 1; number <= 3; ++number) {
      batches.push_back(batch_with_block(number, number * 10));
    }
    fixture.store->commit(std::move(batches));
    CHECK_FALSE(fixture.wait_for_failure().ok());
  }
  // Though the disk would take it now.
  fixture.store->commit(only(batch_with_block(1, 10)));
  fixture.close();
  fixture.open();
  CHECK_EQ(fixture.state.batch_number, 0);
  CHECK(fixture.fetch(QueueId(1), 1, 100).blocks.empty());
}

TEST_CASE("a batch that was handed over before the close is committed") {
  StoreFixture fixture;
  fixture.open();
  for (std::uint64_t number = 1; number <= 20; ++number) {
    fixture.store->commit(only(batch_with_block(number, number * 10)));
    fixture.reopen();
    CHECK_EQ(fixture.state.batch_number, number);
  }
}

}  // namespace holdfast::broker
