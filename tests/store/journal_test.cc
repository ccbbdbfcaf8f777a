// The journal: what it holds is there after a kill, whole batches only, and nothing is taken for an
// entry that is none.

#include "store/journal.h"

#include <doctest/doctest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstring>
#include <filesystem>
#include <random>

#include "store/store_fixture.h"
#include "support/test_seed.h"

namespace holdfast::broker {
namespace {

constexpr QueueId kQueue{1};

Batch batch_with(Sequence first, Sequence last) {
  Batch batch;
  batch.blocks = {block_of(kQueue, range(first, last))};
  batch.dedup = {{kQueue, first, first, std::vector<MessageIdHash>(last - first + 1, {first, 1})}};
  return batch;
}

// Of a store whose tables do not catch up with the journal by themselves, however long a commit is
// not followed by another.
StoreOptions lagging_tables() {
  StoreOptions options;
  options.catch_up_interval = std::chrono::hours(1);
  return options;
}

// The directory that a kill leaves of a store with batches 1 to `batches`, each with one block of
// ten messages, in one page of the journal.
class KilledStore {
 public:
  explicit KilledStore(std::uint64_t batches) {
    StoreFixture fixture(lagging_tables());
    fixture.open();
    for (std::uint64_t i = 0; i < batches; ++i) {
      fixture.commit(batch_with(i * 10 + 1, i * 10 + 10));
    }
    fixture.copy_as_if_killed(path());
  }
  const std::string& path() const { return directory_.path(); }
  std::string journal() const { return path() + "/store/journal"; }
  void damage(std::size_t at) const {
    std::string bytes = read_file(journal());
    bytes.at(at) = static_cast<char>(bytes[at] ^ 0x20);
    write_file(journal(), bytes);
  }
  StoreFixture open() const {
    StoreOptions options;
    options.directory = path();
    return StoreFixture(options);
  }
  Status open_status() const {
    StoreOptions options;
    options.directory = path();
    return Store::open(options).status();
  }

 private:
  TemporaryDirectory directory_;
};

// Everything but what is random.
std::vector<Records> contents_of(const std::string& directory) {
  std::vector<Records> contents = dump(directory);
  contents[0].erase(contents[0].begin(), contents[0].begin() + 2);
  return contents;
}

// Takes blocks and ids in, rewrites and removes some of them, as a seed says.
class RandomBatches {
 public:
  explicit RandomBatches(unsigned seed) : random_(seed) {}

  Batch next() {
    Batch batch;
    const Sequence last = next_ + below(40);
    // Now and then too large for the journal.
    const std::size_t body_bytes = below(10) == 0 ? 20'000 : below(300);
    batch.blocks = {block_of(kQueue, range(next_, last), body_bytes)};
    batch.dedup = {{kQueue, ++time_, next_, std::vector<MessageIdHash>(below(50), {next_, 2})}};
    if (below(10) == 0) batch.next_id = static_cast<std::uint32_t>(2 + time_);
    firsts_.push_back(next_);
    next_ = last + 1;
    if (below(3) == 0) {
      const std::size_t one = below(firsts_.size());
      batch.blocks_removed.push_back({kQueue, firsts_[one]});
      // What is left of it stands under its last sequence.
      if (below(2) == 0 && one + 1 < firsts_.size()) {
        firsts_[one] = firsts_[one + 1] - 1;
        batch.blocks.push_back(block_of(kQueue, {firsts_[one]}));
      } else {
        firsts_.erase(firsts_.begin() + static_cast<std::ptrdiff_t>(one));
      }
    }
    if (below(8) == 0) batch.dedup_trims = {{kQueue, time_ - below(time_), 0, 3}};
    if (below(20) == 0) batch.block_trims = {{kQueue, next_ / 3, 2}};
    return batch;
  }

 private:
  std::uint64_t below(std::uint64_t bound) { return random_() % bound; }

  std::mt19937_64 random_;
  Sequence next_ = 1;
  std::uint64_t time_ = 0;
  std::vector<Sequence> firsts_;
};

}  // namespace

TEST_CASE("what only the journal holds is there after a kill, and after the next start") {
  const KilledStore killed(5);
  StoreFixture fixture = killed.open();
  for (int start = 0; start < 2; ++start) {
    fixture.open();
    CHECK_EQ(fixture.state.batch_number, 5);
    CHECK_EQ(fixture.fetch(kQueue, 1, 1000).blocks.size(), 5);
    CHECK_EQ(fixture.load_dedup().size(), 5);
    fixture.close();
  }
}

TEST_CASE("an id that was given away in a journaled batch is not given again after a kill") {
  const TemporaryDirectory copy;
  {
    StoreFixture fixture(lagging_tables());
    fixture.open();
    Batch batch;
    batch.next_id = 5;
    batch.queues = {queue_record(4, "orders", 0)};
    fixture.commit(std::move(batch));
    fixture.copy_as_if_killed(copy.path());
  }
  StoreOptions options;
  options.directory = copy.path();
  StoreFixture fixture(options);
  fixture.open();
  CHECK_EQ(fixture.state.next_id, 5);
}

TEST_CASE("an entry that was cut short is not applied, those before it are") {
  for (const std::size_t at : {std::size_t{0}, std::size_t{9}, std::size_t{500}}) {
    const KilledStore killed(5);
    killed.damage(4 * kPageBytes + at);
    StoreFixture fixture = killed.open();
    fixture.open();
    CHECK_EQ(fixture.state.batch_number, 4);
    CHECK_EQ(fixture.fetch(kQueue, 1, 1000).blocks.size(), 4);
    // The number is given again, to another batch.
    fixture.commit(batch_with(101, 105));
    fixture.reopen();
    CHECK_EQ(fixture.state.batch_number, 5);
    CHECK((bounds_of(fixture.fetch(kQueue, 41, 1000)) == Bounds{{101, 105}}));
  }
}

TEST_CASE("a batch of the journal that is not whole was left out without a word") {
  const KilledStore killed(5);
  CHECK_EQ(killed.open().check().batch_cut_short, 0);
  killed.damage(4 * kPageBytes + 500);
  StoreFixture fixture = killed.open();
  const CheckReport report = fixture.check();
  CHECK_EQ(report.batches_journaled, 4);
  CHECK_EQ(report.batch_cut_short, 5);
  CHECK(report.findings.empty());
  fixture.open();
  CHECK_EQ(fixture.state.batch_cut_short, 5);
  // Once another has its number there is nothing left to tell.
  fixture.commit(batch_with(101, 105));
  fixture.reopen();
  CHECK_EQ(fixture.state.batch_cut_short, 0);
}

TEST_CASE("what an entry does not fill of its last page is zero, not of the entry before") {
  constexpr std::size_t kPage = 4096;
  const TemporaryDirectory killed;
  {
    StoreFixture fixture(lagging_tables());
    fixture.open();
    fixture.commit(batch_with(1, 100));
    fixture.commit(batch_with(101, 101));
    fixture.copy_as_if_killed(killed.path());
  }
  const std::string bytes = read_file(killed.path() + "/store/journal");
  // The small entry stands in one page, behind the large one.
  std::size_t page = 0;
  for (std::size_t at = kPage; at < bytes.size(); at += kPage) {
    if (bytes.compare(at, 4, "HFJ1") == 0) page = at;
  }
  REQUIRE(page > kPage);
  std::uint32_t changes = 0;
  std::memcpy(&changes, bytes.data() + page + 4, sizeof(changes));
  const std::size_t end = page + 32 + changes;
  REQUIRE(end < page + kPage);
  CHECK(std::all_of(bytes.begin() + static_cast<std::ptrdiff_t>(end),
                    bytes.begin() + static_cast<std::ptrdiff_t>(page + kPage),
                    [](char byte) { return byte == 0; }));
}

TEST_CASE("a record that got shorter where it stood is not taken for damage") {
  const SubscriptionId subscription{1};
  const auto retry = [&](std::size_t error_bytes) {
    RetryRecord record;
    record.subscription = subscription;
    record.sequence = 7;
    record.attempts = 16;
    for (std::uint32_t attempt = 1; attempt <= 16; ++attempt) {
      AttemptRecord ended;
      ended.number = attempt;
      ended.error = std::string(error_bytes, 'e');
      record.history.push_back(ended);
    }
    return record;
  };
  StoreFixture fixture(lagging_tables());
  fixture.open();
  // Two pages of a value and then one, within one transaction.
  for (const std::size_t error_bytes : {250u, 150u}) {
    Batch batch;
    batch.retries = {retry(error_bytes)};
    fixture.commit(std::move(batch));
  }
  fixture.reopen();
  REQUIRE_EQ(fixture.state.retries.size(), 1);
  CHECK_EQ(fixture.state.retries[0].history.back().error.size(), 150);
  Batch removal;
  removal.retries_removed = {{subscription, 7}};
  fixture.commit(std::move(removal));
  fixture.reopen();
  CHECK(fixture.state.retries.empty());
  fixture.close();
  CHECK(fixture.check().findings.empty());
}

TEST_CASE("damage before a legible entry stops the start and names the batch") {
  for (const std::size_t at : {std::size_t{0}, std::size_t{9}, std::size_t{500}}) {
    const KilledStore killed(5);
    killed.damage(2 * kPageBytes + at);
    // Nor need the later one be whole.
    if (at == 9) killed.damage(3 * kPageBytes + 500);
    const Status status = killed.open_status();
    CHECK_EQ(status.code(), ErrorCode::kStorageFailed);
    CHECK_NE(status.message().find("Batch 3 in "), std::string::npos);
    const CheckReport report = killed.open().check();
    CHECK_EQ(report.batches_journaled, 2);
    REQUIRE_EQ(report.findings.size(), 1);
    CHECK_EQ(report.findings[0].where, "journal, batch 3");
  }
}

TEST_CASE("a journal that is missing or has another size stops the start") {
  const KilledStore killed(2);
  const std::string bytes = read_file(killed.journal());
  write_file(killed.journal(), bytes.substr(0, bytes.size() - 1));
  CHECK_EQ(killed.open_status().code(), ErrorCode::kStorageFailed);
  CHECK_NE(killed.open_status().message().find("cut short"), std::string::npos);
  std::filesystem::remove(killed.journal());
  CHECK_EQ(killed.open_status().code(), ErrorCode::kStorageFailed);
  CHECK_NE(killed.open_status().message().find("is missing"), std::string::npos);
  REQUIRE_EQ(killed.open().check().findings.size(), 1);
  write_file(killed.journal(), bytes);
  CHECK(killed.open_status().ok());
}

TEST_CASE("a journal that the broker may not write was said to be a failing disk") {
  const TemporaryDirectory temporary;
  const std::string path = temporary.path() + "/journal";
  const JournalRecord record{.bytes = kPageBytes, .salt = 1};
  REQUIRE(Journal::create(path, record).ok());
  REQUIRE_EQ(::chmod(temporary.path().c_str(), 0755), 0);
  REQUIRE_EQ(::chmod(path.c_str(), 0), 0);
  constexpr uid_t kNobody = 65534;
  const uid_t user = ::geteuid();
  if (user == 0) REQUIRE_EQ(::seteuid(kNobody), 0);  // root may write everything
  const Status by_a_broker = Journal::open(path, record, false).status();
  const Status by_a_check = Journal::open(path, record, true).status();
  if (user == 0) REQUIRE_EQ(::seteuid(user), 0);
  CHECK_EQ(by_a_broker.code(), ErrorCode::kDirectoryReadOnly);
  CHECK_EQ(by_a_broker.message(),
           path + " cannot be written: Permission denied. Give the broker's user write access.");
  CHECK_EQ(by_a_check.code(), ErrorCode::kDirectoryReadOnly);
  CHECK_EQ(by_a_check.message(), path +
                                     " cannot be read: Permission denied. Check it as the broker's "
                                     "user, or as another one that may read it.");
}

TEST_CASE("the check tells how many batches only the journal holds") {
  const KilledStore killed(5);
  const CheckReport report = killed.open().check();
  CHECK(report.findings.empty());
  CHECK_EQ(report.batch_number, 0);
  CHECK_EQ(report.batches_journaled, 5);
}

TEST_CASE("bytes that look like an entry are none without the journal's salt") {
  const TemporaryDirectory temporary;
  const std::string path = temporary.path() + "/journal";
  const JournalRecord mine{.bytes = 64 << 10, .salt = 1};
  const JournalRecord others{.bytes = 64 << 10, .salt = 2};
  REQUIRE(Journal::create(path, mine).ok());
  {
    auto journal = Journal::open(path, others, false);
    REQUIRE(journal.ok());
    JournalEntry entry;
    for (const std::uint64_t number : {1u, 2u}) {
      entry.begin(number);
      REQUIRE((*journal)->append(&entry).ok());
    }
    CHECK_EQ((*journal)->replay(0, nullptr).batches, 2);
  }
  auto journal = Journal::open(path, mine, false);
  REQUIRE(journal.ok());
  const Journal::Replayed replayed = (*journal)->replay(0, nullptr);
  CHECK_EQ(replayed.batches, 0);
  CHECK_FALSE(replayed.damaged);
}

TEST_CASE("older entries behind the last one are not applied again") {
  const TemporaryDirectory temporary;
  const std::string path = temporary.path() + "/journal";
  const JournalRecord record{.bytes = 64 << 10, .salt = 7};
  REQUIRE(Journal::create(path, record).ok());
  auto journal = Journal::open(path, record, false);
  REQUIRE(journal.ok());
  JournalEntry entry;
  std::uint64_t number = 0;
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 9 - 2 * round; ++i) {
      entry.begin(++number);
      REQUIRE((*journal)->append(&entry).ok());
    }
    (*journal)->clear();
  }
  // What was written meanwhile without being reported is no batch of the tables.
  CHECK_EQ((*journal)->replay(16, 18, nullptr).batches, 2);
  CHECK_FALSE((*journal)->replay(16, 18, nullptr).damaged);
  // Rounds of 9, 7 and 5: the third is what counts, and only what the tables lack of it.
  CHECK_EQ((*journal)->replay(16, nullptr).batches, 5);
  CHECK_EQ((*journal)->replay(16, nullptr).last_batch, 21);
  CHECK_EQ((*journal)->replay(21, nullptr).batches, 0);
  CHECK_FALSE((*journal)->replay(21, nullptr).damaged);
}

TEST_CASE("blocks in the journal and in the tables are read as one") {
  StoreFixture fixture(lagging_tables());
  fixture.open();
  Batch first;
  for (Sequence at = 1; at <= 91; at += 10)
    first.blocks.push_back(block_of(kQueue, range(at, at + 9)));
  fixture.commit(std::move(first));
  fixture.reopen();  // all of these are in the tables

  Batch second;
  second.blocks_removed = {{kQueue, 11}, {kQueue, 31}};
  second.blocks = {block_of(kQueue, {35, 38}), block_of(kQueue, range(101, 110))};
  fixture.commit(std::move(second));
  Batch third;
  third.blocks = {block_of(kQueue, {51, 60}), block_of(kQueue, range(111, 120))};
  fixture.commit(std::move(third));

  const auto read_all = [&fixture] {
    const FetchResult all = fixture.fetch(kQueue, 1, 1000);
    CHECK((bounds_of(all) == Bounds{{1, 10},
                                    {21, 30},
                                    {35, 38},
                                    {41, 50},
                                    {51, 60},
                                    {61, 70},
                                    {71, 80},
                                    {81, 90},
                                    {91, 100},
                                    {101, 110},
                                    {111, 120}}));
    CHECK_EQ(all.blocks.at(4)->entry_count(), 2);
    CHECK((bounds_of(fixture.fetch(kQueue, 12, 52)) ==
           Bounds{{21, 30}, {35, 38}, {41, 50}, {51, 60}}));
    CHECK((bounds_of(fixture.fetch(kQueue, 105, 111)) == Bounds{{101, 110}, {111, 120}}));
    CHECK(fixture.fetch(kQueue, 121, 1000).blocks.empty());
    // However few bytes at a time: nothing is left out and nothing comes twice.
    Bounds parts;
    for (Sequence from = 1;;) {
      const FetchResult part = fixture.fetch(kQueue, from, 1000, 1);
      if (part.blocks.empty()) break;
      REQUIRE_EQ(part.blocks.size(), 1);
      parts.push_back(bounds_of(part)[0]);
      from = parts.back().second + 1;
    }
    CHECK((parts == bounds_of(all)));
  };
  read_all();
  fixture.reopen();
  read_all();
}

TEST_CASE("a journaled block is read although the tables' block before it is not legible") {
  StoreFixture fixture(lagging_tables());
  fixture.open();
  Batch first;
  first.blocks = {block_of(kQueue, range(1, 10)), block_of(kQueue, range(11, 20), 3000)};
  fixture.commit(std::move(first));
  fixture.close();
  damage(fixture.options.directory, Table::kBlocks, 1, 4);  // its header
  fixture.open();
  Batch second;
  second.blocks = {block_of(kQueue, range(21, 30))};
  fixture.commit(std::move(second));
  for (const std::size_t bytes_max : {std::size_t{1}, std::size_t{1} << 20}) {
    const FetchResult fetched = fixture.fetch(kQueue, 25, 25, bytes_max);
    CHECK((bounds_of(fetched) == Bounds{{21, 30}}));
    CHECK(fetched.unreadable.empty());
  }
  const FetchResult all = fixture.fetch(kQueue, 11, 30);
  CHECK((bounds_of(all) == Bounds{{21, 30}}));
  REQUIRE_EQ(all.unreadable.size(), 1);
  CHECK_EQ(all.unreadable[0].last, 20);
}

TEST_CASE("ids in the journal and in the tables are read as one") {
  StoreFixture fixture(lagging_tables());
  fixture.open();
  fixture.commit(batch_with(1, 10));
  fixture.reopen();
  fixture.commit(batch_with(11, 20));
  fixture.commit(batch_with(21, 30));
  Result<IdsResult> ids = fixture.store->fetch_ids_blocking({FetchId(1), kQueue, {1, 0}, {21, 21}});
  REQUIRE(ids.ok());
  REQUIRE_EQ(ids->records.size(), 2);
  CHECK_EQ(ids->records[0].first, 1);
  CHECK_EQ(ids->records[1].first, 11);
}

TEST_CASE("random batches give the same contents with a journal, without one, and after kills") {
  const std::uint32_t seed = test::test_seed();
  StoreOptions none;
  none.journal_bytes = 0;
  StoreFixture plain(none);
  StoreFixture journaled(lagging_tables());
  plain.open();
  journaled.open();
  RandomBatches batches(seed);
  std::mt19937_64 random(seed);
  for (int i = 0; i < 300; ++i) {
    const Batch batch = batches.next();
    const CommitResult one = plain.commit(batch);
    const CommitResult other = journaled.commit(batch);
    CHECK((one.blocks_left == other.blocks_left));
    CHECK((one.dedup_left == other.dedup_left));
    if (random() % 30 != 0) continue;
    CHECK((bounds_of(plain.fetch(kQueue, 1, 100'000)) ==
           bounds_of(journaled.fetch(kQueue, 1, 100'000))));
    const TemporaryDirectory copy;
    journaled.copy_as_if_killed(copy.path());
    StoreOptions options;
    options.directory = copy.path();
    StoreFixture killed(options);
    killed.open();
    CHECK_EQ(killed.state.batch_number, plain.last_batch);
    killed.close();
    plain.close();
    CHECK((contents_of(copy.path()) == contents_of(plain.options.directory)));
    plain.open();
  }
}

}  // namespace holdfast::broker
