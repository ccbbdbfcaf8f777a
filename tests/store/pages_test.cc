// The pages of a data file: all accounted for in a sound one, and none damaged unnoticed.

#include "store/pages.h"

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <future>
#include <map>

#include "store/store_fixture.h"
#include "support/resource_limit.h"

namespace holdfast::broker {
namespace {

constexpr std::size_t kTransactionAt = 16 + 128;  // in a meta page

// Records on one page and on many, pages freed and used again.
void make(StoreFixture* fixture) {
  fixture->open();
  for (Sequence first = 1; first <= 400; first += 4) {
    Batch batch;
    batch.queues = {queue_record(1, "orders", 2)};
    batch.queues[0].next_sequence = first + 4;
    batch.blocks = {block_of(QueueId(1), range(first, first + 3), first % 40 == 1 ? 3000 : 100)};
    if (first > 200) batch.blocks_removed = {{QueueId(1), first - 200}};
    fixture->commit(std::move(batch));
  }
  fixture->close();
}

std::string data_file_of(const StoreFixture& fixture) {
  return fixture.options.directory + "/store/data.mdb";
}

PageReport check_all(const std::string& data_file) {
  Result<PageReport> report = check_pages(data_file, PageScope::kAll);
  REQUIRE_MESSAGE(report.ok(), report.status().message());
  return std::move(*report);
}

// Lets every value that has pages of its own say that it has far more of them.
void damage_overflow_pages(const StoreFixture& fixture) {
  const std::string data_file = data_file_of(fixture);
  std::vector<PageSeen> pages;
  REQUIRE(check_pages(data_file, PageScope::kAll, [&](const PageSeen& seen) {
            if (seen.kind == PageKind::kOverflow) pages.push_back(seen);
          }).ok());
  std::string damaged = read_file(data_file);
  for (const PageSeen& page : pages) damaged[page.first * 4096 + 14] = 0x10;
  write_file(data_file, damaged);
}

// Lets the values of this leaf page that have pages of their own say that they have a gigabyte: the
// size of each is in its node, in the two halves of 32 bits that LMDB has. How many there are.
int damage_sizes_of_values(std::string* bytes, std::uint64_t page) {
  const std::size_t begin = page * 4096;
  std::uint16_t nodes_end = 0;
  std::memcpy(&nodes_end, &(*bytes)[begin + 12], sizeof(nodes_end));
  int damaged = 0;
  for (std::size_t at = begin + 16; at < begin + nodes_end; at += 2) {
    std::uint16_t node = 0;
    std::memcpy(&node, &(*bytes)[at], sizeof(node));
    if (((*bytes)[begin + node + 4] & 1) == 0) continue;
    (*bytes)[begin + node + 3] = 0x40;
    ++damaged;
  }
  return damaged;
}

std::unique_ptr<Batch> removal_of_blocks(std::uint64_t number) {
  auto batch = std::make_unique<Batch>();
  batch->number = number;
  for (Sequence first = 1; first <= 400; first += 4) {
    batch->blocks_removed.push_back({QueueId(1), first});
  }
  return batch;
}

}  // namespace

TEST_CASE("every page of a sound data file is used once, or free") {
  StoreFixture fixture;
  make(&fixture);
  std::map<PageKind, std::uint64_t> kinds;
  const Result<PageReport> report =
      check_pages(data_file_of(fixture), PageScope::kAll,
                  [&](const PageSeen& seen) { kinds[seen.kind] += seen.count; });
  REQUIRE(report.ok());
  for (const CheckFinding& finding : report->findings) {
    FAIL_CHECK(finding.where << ": " << finding.what);
  }
  std::uint64_t sum = 0;
  for (const auto& [kind, count] : kinds) sum += count;
  CHECK_EQ(sum, report->end_page);
  CHECK_EQ(kinds[PageKind::kMeta], 2);
  for (const PageKind kind :
       {PageKind::kBranch, PageKind::kLeaf, PageKind::kOverflow, PageKind::kFree}) {
    CHECK_GT(kinds[kind], 0);
  }
}

TEST_CASE("a damaged byte in any page header is found, and the store does not open") {
  StoreFixture fixture;
  make(&fixture);
  const std::string data_file = data_file_of(fixture);
  std::vector<PageSeen> pages;
  const Result<PageReport> report =
      check_pages(data_file, PageScope::kAll, [&](const PageSeen& seen) {
        if (seen.kind != PageKind::kFree) pages.push_back(seen);
      });
  REQUIRE(report.ok());
  std::filesystem::resize_file(data_file, report->end_page * 4096);  // without the hole behind them
  const std::string sound = read_file(data_file);
  for (const PageSeen& page : pages) {
    const bool read_at_start = page.kind != PageKind::kOverflow || page.table != "blocks";
    for (const std::size_t at : {0u, 7u, 10u, 11u, 12u, 13u, 14u, 15u}) {
      // Not a part of a meta page: the bytes behind its flags.
      if (page.kind == PageKind::kMeta && at > 11) continue;
      CAPTURE(page.first);
      CAPTURE(at);
      std::string damaged = sound;
      damaged[page.first * 4096 + at] ^= 0x02;
      write_file(data_file, damaged);
      CHECK_FALSE(check_all(data_file).findings.empty());
      if (!read_at_start) continue;
      const Result<std::unique_ptr<Store>> opened = Store::open(fixture.options);
      REQUIRE_FALSE(opened.ok());
      CHECK_NE(opened.status().message().find(data_file), std::string::npos);
    }
  }
  write_file(data_file, sound);
  CHECK(check_all(data_file).findings.empty());
}

// The start did not look at it, and whoever read the block ended by SIGBUS.
TEST_CASE("a store opened whose block went on behind the end of the data file") {
  StoreFixture fixture;
  make(&fixture);
  const std::string data_file = data_file_of(fixture);
  std::string bytes = read_file(data_file);
  int damaged = 0;
  REQUIRE(check_pages(data_file, PageScope::kAll, [&](const PageSeen& seen) {
            if (seen.kind != PageKind::kLeaf || seen.table != "blocks") return;
            damaged += damage_sizes_of_values(&bytes, seen.first);
          }).ok());
  REQUIRE(damaged > 0);
  write_file(data_file, bytes);
  const Result<std::unique_ptr<Store>> opened = Store::open(fixture.options);
  REQUIRE_FALSE(opened.ok());
  CHECK_NE(opened.status().message().find("has a value that is not where node"), std::string::npos);
}

TEST_CASE("a block whose overflow page is damaged is not freed: the commit fails and says so") {
  StoreOptions options;
  options.journal_bytes = 0;
  StoreFixture fixture(options);
  make(&fixture);
  damage_overflow_pages(fixture);
  Result<std::unique_ptr<Store>> store = Store::open(fixture.options);
  REQUIRE(store.ok());
  const Result<StoredState> state = (*store)->load();
  REQUIRE(state.ok());
  std::promise<std::string> failed;
  (*store)->start([&](CommitResult) { failed.set_value("committed"); },
                  [&](Status status) { failed.set_value(status.message()); });
  (*store)->commit(only(removal_of_blocks(state->batch_number + 1)));
  std::future<std::string> outcome = failed.get_future();
  REQUIRE(outcome.wait_for(std::chrono::seconds(30)) == std::future_status::ready);
  CHECK_NE(outcome.get().find(data_file_of(fixture)), std::string::npos);
  (*store)->close();
}

TEST_CASE("nothing is confirmed after a change that the journal took and the tables cannot make") {
  StoreFixture fixture;
  make(&fixture);
  damage_overflow_pages(fixture);
  Result<std::unique_ptr<Store>> opened = Store::open(fixture.options);
  REQUIRE(opened.ok());
  Store& store = **opened;
  const Result<StoredState> state = store.load();
  REQUIRE(state.ok());
  const std::uint64_t number = state->batch_number + 1;
  std::atomic<int> committed = 0;
  std::promise<std::string> failed;
  store.start(
      [&](CommitResult) {
        if (++committed > 1) return;
        auto next = std::make_unique<Batch>();
        next->number = number + 1;
        next->blocks = {block_of(QueueId(1), range(1001, 1010))};
        store.commit(only(std::move(next)));
      },
      [&](Status status) { failed.set_value(status.message()); });
  store.commit(only(removal_of_blocks(number)));
  std::future<std::string> outcome = failed.get_future();
  REQUIRE(outcome.wait_for(std::chrono::seconds(30)) == std::future_status::ready);
  CHECK_NE(outcome.get().find(fmt::format("batch {}", number)), std::string::npos);
  store.close();
  CHECK_EQ(committed, 1);
}

TEST_CASE("meta pages that changed places are refused") {
  StoreFixture fixture;
  make(&fixture);
  const std::string data_file = data_file_of(fixture);
  std::string damaged = read_file(data_file);
  std::swap_ranges(damaged.begin(), damaged.begin() + 4096, damaged.begin() + 4096);
  write_file(data_file, damaged);
  CHECK_FALSE(check_all(data_file).findings.empty());
  CHECK_FALSE(Store::open(fixture.options).ok());
}

TEST_CASE("meta pages that do not belong to the same two commits are refused") {
  StoreFixture fixture;
  make(&fixture);
  const std::string data_file = data_file_of(fixture);
  std::string damaged = read_file(data_file);
  damaged[kTransactionAt + 2] ^= 0x01;
  write_file(data_file, damaged);
  REQUIRE_EQ(check_all(data_file).findings.size(), 1);
  const Result<std::unique_ptr<Store>> opened = Store::open(fixture.options);
  REQUIRE_FALSE(opened.ok());
  CHECK_EQ(opened.status().code(), ErrorCode::kStorageFailed);
  CHECK_NE(opened.status().message().find("do not belong together"), std::string::npos);
}

// The older of the two then held, and what the last commit had settled came back. A number that
// became too low cannot be told from what LMDB leaves when a commit fails.
TEST_CASE("a bit of a meta page's transaction does not make the commit before hold") {
  StoreFixture fixture;
  make(&fixture);
  const std::string data_file = data_file_of(fixture);
  int told_by_free_pages = 0;
  for (int commits = 0; commits < 4; ++commits) {
    CAPTURE(commits);
    fixture.open();
    fixture.commit({});
    fixture.close();
    CHECK(check_all(data_file).findings.empty());
    const std::string sound = read_file(data_file);
    for (const std::size_t page : {0, 1}) {
      CAPTURE(page);
      std::string damaged = sound;
      damaged[page * 4096 + kTransactionAt] ^= 0x02;
      if ((damaged[page * 4096 + kTransactionAt] & 0x02) == 0) continue;
      write_file(data_file, damaged);
      const std::vector<CheckFinding> findings = check_all(data_file).findings;
      REQUIRE_FALSE(findings.empty());
      if (findings[0].what.find("its free pages are those of") != std::string::npos) {
        ++told_by_free_pages;
      }
      CHECK_FALSE(Store::open(fixture.options).ok());
    }
    write_file(data_file, sound);
  }
  // Of four consecutive commits: those after which one of the two suits.
  CHECK_GE(told_by_free_pages, 1);
}

// It was read before its first page was looked at: gigabytes of it, where the file is so large.
TEST_CASE("a record of free pages whose size is damaged took as much memory as it said") {
  StoreFixture fixture;
  fixture.open();
  Batch added;
  for (Sequence sequence = 1; sequence <= 4; ++sequence) {
    added.blocks.push_back(block_of(QueueId(1), {sequence}, 1 << 20));
  }
  fixture.commit(std::move(added));
  Batch removed;
  for (Sequence sequence = 1; sequence <= 4; ++sequence) {
    removed.blocks_removed.push_back({QueueId(1), sequence});
  }
  fixture.commit(
      std::move(removed));  // frees so many pages that their numbers take pages of their own
  fixture.close();

  const std::string data_file = data_file_of(fixture);
  std::string bytes = read_file(data_file);
  constexpr std::uint64_t kPages = 1 << 19;
  constexpr std::size_t kFreeRootAt = 80;  // in a meta page, as the next
  constexpr std::size_t kLastPageAt = 136;
  std::uint64_t newest = 0;
  std::uint64_t root = 0;
  for (const std::size_t meta : {0u, 4096u}) {
    std::uint64_t transaction = 0;
    std::memcpy(&transaction, &bytes[meta + kTransactionAt], sizeof(transaction));
    if (transaction >= newest) std::memcpy(&root, &bytes[meta + kFreeRootAt], sizeof(root));
    newest = std::max(newest, transaction);
    const std::uint64_t last_page = kPages - 1;
    std::memcpy(&bytes[meta + kLastPageAt], &last_page, sizeof(last_page));
  }
  REQUIRE(damage_sizes_of_values(&bytes, root) > 0);
  write_file(data_file, bytes);
  std::filesystem::resize_file(data_file, kPages * 4096);

  std::ifstream statm("/proc/self/statm");
  std::uint64_t pages_mapped = 0;
  statm >> pages_mapped;
  const test::ResourceLimit limit(RLIMIT_AS, pages_mapped * 4096 + (256u << 20));
  const PageReport report = check_all(data_file);
  REQUIRE_FALSE(report.findings.empty());
  CHECK_NE(report.findings.front().what.find("has a value that is not where node"),
           std::string::npos);
}

}  // namespace holdfast::broker
