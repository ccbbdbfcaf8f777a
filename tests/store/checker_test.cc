// The check: nothing to say about a sound directory, and a finding for each kind of damage.

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "store/pages.h"
#include "store/record.h"
#include "store/store_fixture.h"

namespace holdfast::broker {
namespace {

std::uint64_t stored_bytes(const Block& block) {
  std::uint64_t bytes = 0;
  for (std::size_t i = 0; i < block.entry_count(); ++i) bytes += block.entry(i).stored_bytes();
  return bytes;
}

// A queue with 40 messages of which the first 20 and 25 are settled, consistent in every count.
Batch sound_batch() {
  const auto settled = block_of(QueueId(1), range(11, 20));
  const auto partly = block_of(QueueId(1), range(21, 40));
  Batch batch;
  batch.next_id = 5;
  batch.queues = {queue_record(1, "orders", 2), dead_queue_record(2, "orders.dead", 1)};
  batch.queues[0].next_sequence = 41;
  batch.queues[0].bytes = stored_bytes(*partly) - partly->entry(4).stored_bytes();
  batch.subscriptions = {subscription_record(3, 1), subscription_record(4, 2)};
  batch.subscriptions[0].floor = 20;
  batch.blocks = {settled, partly};
  AckRecord ack{.subscription = SubscriptionId(3)};
  ack.bitmap[0] = 1ull << 25;
  batch.acks = {ack};
  RetryRecord retry;
  retry.subscription = SubscriptionId(3);
  retry.sequence = 22;
  retry.attempts = 1;
  batch.retries = {retry};
  batch.dedup = {{QueueId(1), 1'700'000'000'000, 21, {20, MessageIdHash{1, 2}}}};
  return batch;
}

void make(StoreFixture* fixture, Batch batch) {
  fixture->open();
  fixture->commit(std::move(batch));
  fixture->close();
}

// Exactly one finding, which says these words.
void check_finding(StoreFixture* fixture, const std::string& where, const std::string& what) {
  const CheckReport report = fixture->check();
  std::string all;
  for (const CheckFinding& finding : report.findings) {
    all += finding.where + ": " + finding.what + "\n";
  }
  INFO(all);
  REQUIRE_EQ(report.findings.size(), 1);
  CHECK_NE(report.findings[0].where.find(where), std::string::npos);
  CHECK_NE(report.findings[0].what.find(what), std::string::npos);
}

}  // namespace

TEST_CASE("a sound directory has no findings, and its counts are shown") {
  StoreFixture fixture;
  make(&fixture, sound_batch());
  std::uint64_t told = 0;
  const Result<CheckReport> report =
      check_directory(fixture.options.directory, [&](std::uint64_t blocks) { told = blocks; });
  REQUIRE(report.ok());
  for (const CheckFinding& finding : report->findings) {
    FAIL_CHECK(finding.where << ": " << finding.what);
  }
  CHECK_EQ(report->queues, 2);
  CHECK_EQ(report->blocks, 2);
  CHECK_EQ(report->messages, 30);
  CHECK_EQ(report->unsettled, 19);
  CHECK_EQ(report->batch_number, 1);
  CHECK_GT(report->bytes, 0);
  CHECK_EQ(told, 2);
}

TEST_CASE("a directory without a store cannot be checked, and is left empty") {
  const TemporaryDirectory temporary;
  const Result<CheckReport> report = check_directory(temporary.path(), {});
  REQUIRE_FALSE(report.ok());
  CHECK_EQ(report.status().code(), ErrorCode::kDirectoryForeign);
  CHECK(names_in(temporary.path()).empty());
}

// What the check says of a directory that it does not take.
std::string refusal(const std::string& directory, ErrorCode code) {
  const Result<CheckReport> report = check_directory(directory, {});
  REQUIRE_FALSE(report.ok());
  CHECK_EQ(report.status().code(), code);
  return report.status().message();
}

TEST_CASE("a check was told to take an empty directory, or to let the broker write") {
  const TemporaryDirectory temporary;
  const std::string& path = temporary.path();
  CHECK_EQ(refusal(path, ErrorCode::kDirectoryForeign),
           "There is no store in " + path + ". Name the data directory of a broker.");
  CHECK_EQ(refusal(path + "/mistyped", ErrorCode::kDirectoryForeign),
           "There is no directory " + path + "/mistyped. Name the data directory of a broker.");
  write_file(path + "/notes.txt", "mine");
  CHECK_EQ(refusal(path, ErrorCode::kDirectoryForeign),
           path +
               " holds \"notes.txt\", which is not Holdfast's. Name the data directory of a "
               "broker.");

  constexpr uid_t kNobody = 65534;
  const uid_t user = ::geteuid();
  REQUIRE_EQ(::chmod(path.c_str(), 0), 0);
  if (user == 0) REQUIRE_EQ(::seteuid(kNobody), 0);  // root may read everything
  const std::string unreadable = refusal(path, ErrorCode::kDirectoryReadOnly);
  if (user == 0) REQUIRE_EQ(::seteuid(user), 0);
  REQUIRE_EQ(::chmod(path.c_str(), 0700), 0);
  CHECK_NE(unreadable.find("Permission denied. Check it as the broker's user, or as another one "
                           "that may read it."),
           std::string::npos);
}

TEST_CASE("a data file that may not be read was said to be on a failing disk") {
  namespace fs = std::filesystem;
  StoreFixture fixture;
  fixture.open();
  fixture.close();
  const std::string& directory = fixture.options.directory;
  const std::string data = directory + "/store/data.mdb";
  fs::permissions(directory, fs::perms(0755));
  for (const auto& entry : fs::recursive_directory_iterator(directory)) {
    fs::permissions(entry.path(), fs::perms(entry.is_directory() ? 0755 : 0644));
  }
  REQUIRE_EQ(::chmod(data.c_str(), 0), 0);
  constexpr uid_t kNobody = 65534;
  const uid_t user = ::geteuid();
  if (user == 0) REQUIRE_EQ(::seteuid(kNobody), 0);  // root may read everything
  const Status of_a_start = check_pages(data, PageScope::kForStart).status();
  const std::string unreadable = refusal(directory, ErrorCode::kDirectoryReadOnly);
  if (user == 0) REQUIRE_EQ(::seteuid(user), 0);
  CHECK_EQ(of_a_start.message(),
           data + " cannot be written: Permission denied. Give the broker's user write access.");
  CHECK_EQ(unreadable, data +
                           " cannot be read: Permission denied. Check it as the broker's user, or "
                           "as another one that may read it.");
}

TEST_CASE("a data file that is missing or cut short was an error of the check, not a finding") {
  StoreFixture fixture;
  make(&fixture, sound_batch());
  const std::string data_file = fixture.options.directory + "/store/data.mdb";
  std::filesystem::resize_file(data_file, 3 * 4096);
  check_finding(&fixture, data_file, "is cut short: it has 12288 bytes, and its last page is");
  std::filesystem::resize_file(data_file, 0);
  check_finding(&fixture, data_file, "is cut short: it has 0 bytes");
  std::filesystem::remove(data_file);
  check_finding(&fixture, data_file, "is missing");
}

TEST_CASE("a damaged record of each table is a finding that names it") {
  struct Case {
    Table table;
    std::size_t record;
    std::ptrdiff_t at;
    std::string where;
    std::string what;
  };
  const std::vector<Case> cases = {
      {Table::kMeta, 0, 1, "meta, journal", "checksum"},
      {Table::kMeta, 1, 1, "meta, node", "checksum"},
      {Table::kMeta, 2, 1, "meta, progress", "checksum"},
      {Table::kQueues, 0, 10, "queue 1", "checksum"},
      {Table::kSubscriptions, 0, 10, "subscription 3", "checksum"},
      {Table::kAcks, 0, 12, R"(acks of subscription 3 of queue 1 "orders", chunk 0)", "checksum"},
      {Table::kRetries, 0, -1, R"(retry of subscription 3 of queue 1 "orders", sequence 22)",
       "checksum"},
      {Table::kDedup, 0, 20, R"(dedup of queue 1 "orders", sequence 21)", "checksum"},
      {Table::kBlocks, 1, 4, R"(block of queue 1 "orders", first sequence 21)", "header"},
      {Table::kBlocks, 1, -1, R"(block of queue 1 "orders", first sequence 21)", "table"},
      {Table::kBlocks, 1, 48 + 40, R"(block of queue 1 "orders", first sequence 21)",
       "message 21 "},
  };
  for (const Case& one : cases) {
    CAPTURE(one.what);
    StoreFixture fixture;
    make(&fixture, sound_batch());
    damage(fixture.options.directory, one.table, one.record, one.at);
    check_finding(&fixture, one.where, one.what);
  }
}

TEST_CASE("records that contradict one another are findings") {
  struct Case {
    std::string where;
    std::string what;
    std::function<void(Batch*)> spoil;
  };
  const std::vector<Case> cases = {
      {"queue 2", "still to be given", [](Batch* b) { b->next_id = 2; }},
      {"queue 1", "which does not name it",
       [](Batch* b) { b->queues[1].source_queue = QueueId(7); }},
      {"subscription 3", "floor", [](Batch* b) { b->subscriptions[0].floor = 41; }},
      {"retry", "settled", [](Batch* b) { b->retries[0].sequence = 25; }},
      {"retry", "never published", [](Batch* b) { b->retries[0].sequence = 41; }},
      {"retry", "does not exist", [](Batch* b) { b->retries[0].subscription = SubscriptionId(9); }},
      {"acks", "does not exist",
       [](Batch* b) { b->acks.push_back({.subscription = SubscriptionId(9), .chunk = 1}); }},
      {"acks", "overlaps",
       [](Batch* b) {
         b->acks.push_back({.subscription = SubscriptionId(3), .chunk = 8, .full_chunks = 2});
         b->acks.push_back({.subscription = SubscriptionId(3), .chunk = 9});
       }},
      {"dedup", "beyond", [](Batch* b) { b->dedup[0].first = 22; }},
      {"block", "does not exist", [](Batch* b) { b->blocks.push_back(block_of(QueueId(9), {1})); }},
      {"block", "overlaps", [](Batch* b) { b->blocks.push_back(block_of(QueueId(1), {12})); }},
      {"queue 1", "bytes", [](Batch* b) { b->queues[0].bytes += 1; }},
      {"queue 1", "29 messages that are not settled, and its blocks hold 19",
       [](Batch* b) {
         b->subscriptions[0].floor = 10;
         b->blocks.erase(b->blocks.begin());
       }},
      {"queue 3", "same name",
       [](Batch* b) {
         b->queues.push_back(b->queues[0]);
         b->queues.back().id = QueueId(3);
         b->queues.back().deleted = true;
         b->queues.push_back(b->queues[0]);
         b->queues.back().id = QueueId(3);
       }},
  };
  for (const Case& one : cases) {
    CAPTURE(one.what);
    StoreFixture fixture;
    Batch batch = sound_batch();
    one.spoil(&batch);
    make(&fixture, std::move(batch));
    const CheckReport report = fixture.check();
    bool found = false;
    for (const CheckFinding& finding : report.findings) {
      found = found || (finding.where.find(one.where) != std::string::npos &&
                        finding.what.find(one.what) != std::string::npos);
    }
    CHECK(found);
  }
}

TEST_CASE("bytes that damage made an estimate of were a finding when no damage was left") {
  StoreFixture fixture;
  Batch batch = sound_batch();
  batch.queues[0].bytes += 1;
  batch.queues[0].bytes_estimated = true;
  make(&fixture, std::move(batch));
  CHECK(fixture.check().findings.empty());
}

TEST_CASE("checking changes nothing in the directory") {
  StoreFixture fixture;
  make(&fixture, sound_batch());
  const std::string& directory = fixture.options.directory;
  const std::string data = read_file(directory + "/store/data.mdb");
  const std::string lock = read_file(directory + "/store/lock.mdb");
  fixture.check();
  CHECK((read_file(directory + "/store/data.mdb") == data));
  CHECK((read_file(directory + "/store/lock.mdb") == lock));
}

}  // namespace holdfast::broker
