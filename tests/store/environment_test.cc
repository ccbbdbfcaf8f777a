// The environment: its tables as they are to be seen, and what LMDB writes for them.

#include "store/environment.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <optional>

#include "store/record.h"
#include "store/store_fixture.h"

namespace holdfast::broker {
namespace {

std::unique_ptr<Environment> make(const TemporaryDirectory& directory) {
  Result<std::unique_ptr<Environment>> made =
      Environment::open({.directory = directory.path(), .map_bytes = 1ull << 30, .create = true});
  REQUIRE_MESSAGE(made.ok(), made.status().message());
  return std::move(*made);
}

std::optional<Transaction> write_to(Environment* environment) {
  std::optional<Transaction> transaction;
  REQUIRE(environment->begin_write(&transaction).ok());
  return transaction;
}

}  // namespace

TEST_CASE("a queue whose messages were consumed one by one cost the tables a page for each") {
  constexpr std::uint64_t kMessages = 1000;
  const TemporaryDirectory directory;
  const std::unique_ptr<Environment> environment = make(directory);
  const std::uint64_t end_before = environment->page_use().end_page;
  std::optional<Transaction> transaction = write_to(environment.get());
  for (std::uint64_t sequence = 1; sequence <= kMessages; ++sequence) {
    const RecordKey key = block_key(QueueId(1), sequence);
    REQUIRE(transaction->put(Table::kBlocks, key, ByteSpan(key)).ok());
    REQUIRE(transaction->remove(Table::kBlocks, key).ok());
  }
  REQUIRE(transaction->commit().ok());
  CHECK(environment->page_use().end_page < end_before + kMessages / 100);
}

TEST_CASE("a cursor shows the records that were put, and an empty table as empty") {
  const TemporaryDirectory directory;
  const std::unique_ptr<Environment> environment = make(directory);
  std::optional<Transaction> transaction = write_to(environment.get());
  const RecordKey lowest = block_key(QueueId(0), 0);
  const RecordKey low = block_key(QueueId(1), 1);
  const RecordKey high = block_key(QueueId(1), 2);

  const auto check_empty = [&] {
    Result<Cursor> cursor = transaction->cursor(Table::kBlocks);
    REQUIRE(cursor.ok());
    CHECK(!cursor->next());
    CHECK(!cursor->first());
    CHECK(!cursor->last());
    CHECK(!cursor->previous());
    CHECK(!cursor->seek(lowest));
    CHECK(cursor->outcome().ok());
  };
  check_empty();

  for (const RecordKey& key : {low, high}) {
    REQUIRE(transaction->put(Table::kBlocks, key, ByteSpan(key)).ok());
  }
  {
    Result<Cursor> cursor = transaction->cursor(Table::kBlocks);
    REQUIRE(cursor.ok());
    const auto stands_on = [&](const RecordKey& key) {
      return std::ranges::equal(cursor->key(), ByteSpan(key));
    };
    CHECK((cursor->next() && stands_on(low)));
    CHECK((cursor->next() && stands_on(high)));
    CHECK(!cursor->next());
    CHECK((cursor->first() && stands_on(low)));
    CHECK(!cursor->previous());
    CHECK((cursor->last() && stands_on(high)));
    CHECK((cursor->previous() && stands_on(low)));
    CHECK((cursor->seek(lowest) && stands_on(low)));
    CHECK(cursor->outcome().ok());
  }

  for (const RecordKey& key : {low, high}) {
    REQUIRE(transaction->remove(Table::kBlocks, key).ok());
  }
  check_empty();
}

}  // namespace holdfast::broker
