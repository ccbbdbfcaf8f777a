// A full disk: publishes are refused in time, everything stored can be settled, moved and deleted,
// and publishing resumes. Tried on a file system of 32 MB where mounting one is permitted, and with
// a quota of 32 MB in any case.

#include <doctest/doctest.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <thread>

#include "store/pages.h"
#include "store/store_fixture.h"
#include "support/resource_limit.h"
#include "support/test_seed.h"

namespace holdfast::broker {
namespace {

constexpr std::uint64_t kMiB = 1 << 20;
constexpr std::uint64_t kDiskBytes = 32 * kMiB;
constexpr QueueId kDeadQueue{99};

// A file's size may be ahead of it.
std::uint64_t bytes_on_disk(const std::string& path) {
  struct stat info {};
  REQUIRE_EQ(::stat(path.c_str(), &info), 0);
  return static_cast<std::uint64_t>(info.st_blocks) * 512;
}

// A file system of its own in memory; mounted() is false where that is not permitted.
class SmallDisk {
 public:
  SmallDisk() {
    mounted_ = ::mount("tmpfs", directory_.path().c_str(), "tmpfs", 0, "size=32m") == 0;
    if (!mounted_) MESSAGE("not permitted to mount: tried with a quota only");
  }
  ~SmallDisk() {
    if (mounted_) ::umount2(directory_.path().c_str(), MNT_DETACH);
  }
  bool mounted() const { return mounted_; }
  std::string data() const { return directory_.path() + "/data"; }
  std::uint64_t free_bytes() const {
    struct statvfs info {};
    REQUIRE_EQ(::statvfs(directory_.path().c_str(), &info), 0);
    return std::uint64_t{info.f_bavail} * info.f_frsize;
  }
  // Takes all free space but this, as another program on the disk would.
  void fill_up_to(std::uint64_t left) {
    std::ofstream file(directory_.path() + "/filler", std::ios::binary);
    const std::string piece(4096, 'x');
    for (std::uint64_t bytes = free_bytes(); bytes > left + piece.size(); bytes = free_bytes()) {
      file << piece << std::flush;
      if (!file.good()) break;
    }
  }
  void remove_filler() { std::filesystem::remove(directory_.path() + "/filler"); }

 private:
  TemporaryDirectory directory_;
  bool mounted_ = false;
};

StoreOptions options_in(const std::string& directory, std::uint64_t size_bytes_max = 0) {
  StoreOptions options;
  options.directory = directory;
  options.size_bytes_max = size_bytes_max;
  return options;
}

bool allows_publishes(const SpaceReport& report) { return report.publishes_allowed; }

// In memory where there is such a place: thousands of flushes are not what is tried here.
std::string quick_place() { return ::access("/dev/shm", W_OK) == 0 ? "/dev/shm" : ""; }

// What is stored, kept as the core would.
class Load {
 public:
  Load(StoreFixture* fixture, unsigned seed) : fixture_(fixture), random_(seed) {}

  std::size_t below(std::size_t bound) {
    return std::uniform_int_distribution<std::size_t>(0, bound - 1)(random_);
  }

  void commit(Batch batch) { space_ = fixture_->commit(std::move(batch)).space; }

  // Publishes to one of a few queues if there is room, as the core does: never more than the room
  // that was last reported. False when it is refused.
  bool publish(std::size_t messages, std::size_t body_bytes, std::uint32_t queues) {
    const QueueId queue(static_cast<std::uint32_t>(1 + below(queues)));
    const Sequence first = next_;
    auto block = block_of(queue, range(first, first + messages - 1), body_bytes);
    if (!space_.publishes_allowed || block->bytes().size() > space_.room_bytes) return false;
    next_ += messages;
    Batch batch;
    batch.blocks = {block};
    batch.dedup = {{queue, first, first, std::vector<MessageIdHash>(messages, {first, first})}};
    batch.subscriptions = {subscription_record(1, 1)};
    blocks_.push_back({queue, first, first + messages - 1, body_bytes, block->bytes().size()});
    commit(std::move(batch));
    return true;
  }

  std::uint64_t stored_bytes() const {
    std::uint64_t bytes = 0;
    for (const Stored& stored : blocks_) bytes += stored.block_bytes;
    return bytes;
  }

  // Every block is there with every byte.
  void check_stored() {
    for (const Stored& stored : blocks_) {
      const FetchResult fetched =
          fixture_->fetch(stored.queue, stored.first, stored.last, stored.block_bytes);
      REQUIRE_EQ(fetched.blocks.size(), 1);
      const auto expected =
          block_of(stored.queue, range(stored.first, stored.last), stored.body_bytes);
      REQUIRE(std::equal(expected->bytes().begin(), expected->bytes().end(),
                         fetched.blocks[0]->bytes().begin(), fetched.blocks[0]->bytes().end()));
    }
  }

  // Acks, single and out of order, and failed attempts; nothing is freed by them.
  void settle_here_and_there(int commits) {
    for (int i = 0; i < commits; ++i) {
      Batch batch;
      AckRecord ack{.subscription = SubscriptionId(1), .chunk = below(50)};
      ack.bitmap[0] = random_();
      batch.acks = {ack};
      RetryRecord retry;
      retry.subscription = SubscriptionId(1);
      retry.sequence = 1 + below(200);
      retry.attempts = 3;
      batch.retries = {retry};
      batch.subscriptions = {subscription_record(1, 1)};
      commit(std::move(batch));
    }
  }

  // Takes one of the oldest blocks out, and moves its first message to the dead-letter queue.
  void drain_one(bool dead_letter) {
    const std::size_t at = below(std::min<std::size_t>(blocks_.size(), 4));
    const Stored stored = blocks_[at];
    blocks_.erase(blocks_.begin() + static_cast<std::ptrdiff_t>(at));
    Batch batch;
    batch.blocks_removed = {{stored.queue, stored.first}};
    if (dead_letter) {
      batch.blocks = {block_of(kDeadQueue, {++dead_}, stored.body_bytes)};
    }
    batch.dedup_trims = {{stored.queue, stored.first, stored.first + 1, 8}};
    commit(std::move(batch));
  }

  // What takes space though publishes are refused.
  void use_reserve() {
    Batch batch;
    batch.blocks = {block_of(kDeadQueue, {++dead_}, 64 * 1024)};
    commit(std::move(batch));
  }

  // In one commit, as a queue that is purged.
  void remove_all() {
    Batch batch;
    batch.block_trims = {{QueueId(1), next_, 1'000'000}};
    blocks_.clear();
    commit(std::move(batch));
  }

  void empty_dead_queue() {
    Batch batch;
    batch.block_trims = {{kDeadQueue, dead_ + 1, 100'000}};
    commit(std::move(batch));
  }

  bool empty() const { return blocks_.empty(); }
  const SpaceReport& space() const { return space_; }
  void set_space(const SpaceReport& space) { space_ = space; }

 private:
  struct Stored {
    QueueId queue;
    Sequence first = 0;
    Sequence last = 0;
    std::size_t body_bytes = 0;
    std::size_t block_bytes = 0;
  };
  StoreFixture* fixture_;
  std::mt19937_64 random_;
  std::vector<Stored> blocks_;
  Sequence next_ = 1;
  Sequence dead_ = 0;
  SpaceReport space_;
};

// Not open where no disk can be mounted.
struct StoreOnSmallDisk {
  StoreOnSmallDisk() {
    if (!disk.mounted()) return;
    fixture.open();
    load.set_space(fixture.state.space);
  }

  SmallDisk disk;
  StoreFixture fixture{options_in(disk.data())};
  Load load{&fixture, 1};
};

struct Shape {
  std::size_t messages = 0;
  std::size_t body_bytes = 0;
  std::uint32_t queues = 1;
};

void fill_and_drain(const StoreOptions& options, const Shape& shape) {
  const std::uint32_t seed = test::test_seed();
  MESSAGE(shape.messages, " messages of ", shape.body_bytes, " bytes, ", shape.queues, " queues");
  StoreFixture fixture(options);
  fixture.open();
  Load load(&fixture, seed);
  load.set_space(fixture.state.space);
  for (int round = 0; round < 3; ++round) {
    while (load.publish(shape.messages, shape.body_bytes, shape.queues)) {
    }
    CAPTURE(round);
    INFO("stored ", load.stored_bytes(), ", room ", load.space().room_bytes, ", file ",
         load.space().file_bytes);
    // Most of it is used the first time; later its free pages are in pieces, some of them too
    // small.
    CHECK_GT(load.space().used_bytes, kDiskBytes * (round == 0 ? 80 : 50) / 100);
    load.settle_here_and_there(100);
    load.check_stored();
    fixture.reopen();
    load.set_space(fixture.state.space);
    load.check_stored();
    // Down to what fits once more: the dead letters take new space while the old is given back.
    for (int i = 0; !load.empty(); ++i) load.drain_one(i % 4 == 0);
    load.empty_dead_queue();
    if (!load.space().publishes_allowed) load.set_space(fixture.wait_for_space(allows_publishes));
  }
}

const std::vector<Shape> kShapes = {
    {.messages = 64, .body_bytes = 1024, .queues = 1},
    {.messages = 900, .body_bytes = 1024, .queues = 3},
    {.messages = 20, .body_bytes = 200, .queues = 1},
    {.messages = 1, .body_bytes = 1 << 20, .queues = 2},
};

}  // namespace

TEST_CASE("a full disk refuses publishes, lets everything be settled and deleted, and recovers") {
  for (const Shape& shape : kShapes) {
    const SmallDisk disk;
    if (!disk.mounted()) return;
    fill_and_drain(options_in(disk.data()), shape);
  }
}

TEST_CASE("a quota that is used up does the same") {
  for (const Shape& shape : kShapes) {
    const TemporaryDirectory temporary(quick_place());
    fill_and_drain(options_in(temporary.path(), kDiskBytes), shape);
    CHECK_LE(bytes_on_disk(temporary.path() + "/store/data.mdb"), kDiskBytes);
  }
}

// Its writes ended in errors, and those were taken for a disk that fails.
TEST_CASE("a limit on the size of a file (ulimit -f) stopped the broker instead of being a quota") {
  const test::ResourceLimit limit(RLIMIT_FSIZE, kDiskBytes);
  const TemporaryDirectory temporary(quick_place());
  fill_and_drain(options_in(temporary.path()), kShapes[0]);
  StoreFixture fixture(options_in(temporary.path()));
  fixture.open();
  Load load(&fixture, 1);
  load.set_space(fixture.state.space);
  while (load.publish(1, kMiB, 1) || load.publish(16, 1024, 1)) {
  }
  CAPTURE(load.space().reason);
  CHECK_NE(load.space().reason.find("of the 32MiB that the limit on the size of a file"),
           std::string::npos);
}

// Pages that one transaction takes and gives back are numbered and never written; the hole at the
// file's end, which is to stand for them, was left out where the limit did not allow all of it.
TEST_CASE(
    "under a limit on the size of a file a sound store was taken for one that was cut short") {
  for (const std::uint64_t limit_bytes : {24 * kMiB, 100 * kMiB + 1, 200 * kMiB}) {
    CAPTURE(limit_bytes);
    const test::ResourceLimit limit(RLIMIT_FSIZE, limit_bytes);
    const TemporaryDirectory temporary(quick_place());
    StoreFixture fixture(options_in(temporary.path()));
    for (int start = 0; start < 3; ++start) {
      fixture.open();
      Load load(&fixture, 1);
      load.set_space(fixture.state.space);
      // In one transaction: what it takes is more than what it writes.
      for (int i = 0; i < 3; ++i) {
        REQUIRE(load.publish(1, 60'000, 1));
        load.drain_one(false);
      }
      fixture.close();
      const Result<PageReport> report =
          check_pages(temporary.path() + "/store/data.mdb", PageScope::kAll);
      REQUIRE(report.ok());
      CHECK(report->findings.empty());
    }
    CHECK_LE(std::filesystem::file_size(temporary.path() + "/store/data.mdb"), limit_bytes);
  }
}

// A burst that the room allowed, while the tables lagged behind the journal, took the reserve.
TEST_CASE("the room that was told of left out what was journaled and not in the tables") {
  StoreFixture fixture(options_in("", 64 * kMiB));
  fixture.open();
  Load load(&fixture, 1);
  load.set_space(fixture.state.space);
  constexpr std::uint64_t kMessageBytes = 20'000;
  std::uint64_t room = load.space().room_bytes;
  for (int i = 0; i < 100; ++i) {
    REQUIRE(load.publish(1, kMessageBytes, 1));
    // For the message, and the pages that a commit writes anew; when the tables are committed no
    // more than that.
    CHECK_LE(room, load.space().room_bytes + 8 * kMessageBytes);
    room = load.space().room_bytes;
  }
}

TEST_CASE(
    "a store that is nearly empty said that it was full, and nothing of what had been freed") {
  const TemporaryDirectory temporary(quick_place());
  StoreFixture fixture(options_in(temporary.path(), kDiskBytes));
  fixture.open();
  Load load(&fixture, 1);
  load.set_space(fixture.state.space);
  while (load.publish(16, 1024, 1)) {
  }
  REQUIRE_FALSE(load.space().publishes_allowed);
  CHECK_EQ(load.space().reason.find("in a moment"), std::string::npos);
  load.remove_all();
  REQUIRE_FALSE(load.space().publishes_allowed);
  CHECK_NE(load.space().reason.find("that were freed can be used in a moment"), std::string::npos);
  load.set_space(fixture.wait_for_space(allows_publishes));
}

TEST_CASE("a journal larger than a file may be (ulimit -f) stopped the broker at some commit") {
  StoreFixture fixture;
  fixture.open();
  fixture.close();
  const std::uint64_t bytes =
      std::filesystem::file_size(fixture.options.directory + "/store/journal");
  {
    const test::ResourceLimit limit(RLIMIT_FSIZE, bytes - 1);
    const Status status = Store::open(fixture.options).status();
    CHECK_EQ(status.code(), ErrorCode::kStorageFailed);
    CHECK_MESSAGE(status.message().find("ulimit -f") != std::string::npos, status.message());
    // That of a new store is smaller.
    const TemporaryDirectory fresh;
    CHECK(Store::open(options_in(fresh.path())).ok());
  }
  CHECK(Store::open(fixture.options).ok());
}

TEST_CASE_FIXTURE(StoreOnSmallDisk, "the reserve is the store's even when others fill the disk") {
  if (!disk.mounted()) return;
  for (int i = 0; i < 20; ++i) REQUIRE(load.publish(64, 1024, 1));
  disk.fill_up_to(0);
  load.settle_here_and_there(1);
  while (load.publish(64, 1024, 1)) {
  }
  CHECK_FALSE(load.space().publishes_allowed);
  CHECK_NE(load.space().reason.find("full"), std::string::npos);
  // The reserve is for this, too, but for the half of it that settles may need.
  CHECK_GT(load.space().reserve_room_bytes, 0);
  load.settle_here_and_there(200);
  load.check_stored();
  for (int i = 0; i < 1'000 && load.space().reserve_room_bytes > 0; ++i) load.use_reserve();
  CHECK_EQ(load.space().reserve_room_bytes, 0);
  for (int i = 0; i < 10; ++i) load.drain_one(true);
  // Room comes back without a commit once the others have gone.
  disk.remove_filler();
  load.set_space(fixture.wait_for_space(allows_publishes));
  CHECK(load.publish(64, 1024, 1));
}

// Publishes are allowed, but a large one would be refused, which makes no commit that would
// measure.
TEST_CASE_FIXTURE(StoreOnSmallDisk, "little room is looked at again, without a commit") {
  if (!disk.mounted()) return;
  fixture.commit({});
  disk.fill_up_to(kMiB);
  const SpaceReport little = fixture.commit({}).space;
  REQUIRE(little.publishes_allowed);
  CHECK_LT(little.room_bytes, 8 * kMiB);
  disk.remove_filler();
  fixture.wait_for_space(
      [&](const SpaceReport& report) { return report.room_bytes > little.room_bytes + 8 * kMiB; });
}

TEST_CASE("what the last commit freed is room, without another commit") {
  const TemporaryDirectory temporary(quick_place());
  StoreFixture fixture(options_in(temporary.path(), kDiskBytes));
  fixture.open();
  Batch filling;
  filling.blocks = {block_of(QueueId(1), range(1, 20), kMiB)};
  fixture.commit(std::move(filling));
  Batch emptying;
  emptying.blocks_removed = {{QueueId(1), 1}};
  const SpaceReport little = fixture.commit(std::move(emptying)).space;
  REQUIRE(little.publishes_allowed);
  CHECK_LT(little.room_bytes, 8 * kMiB);
  fixture.wait_for_space(
      [&](const SpaceReport& report) { return report.room_bytes > little.room_bytes + 2 * kMiB; });
}

// Free pages were counted with each thousandth commit alone.
TEST_CASE("what the last commits freed showed as in use as long as nothing else was committed") {
  StoreFixture fixture;
  fixture.open();
  Batch filling;
  filling.blocks = {block_of(QueueId(1), range(1, 20), kMiB)};
  const SpaceReport full = fixture.commit(std::move(filling)).space;
  CHECK_GT(full.used_bytes, 20 * kMiB);
  Batch emptying;
  emptying.block_trims = {{QueueId(1), 21, 100}};
  CHECK_GT(fixture.commit(std::move(emptying)).space.used_bytes, 20 * kMiB);
  fixture.wait_for_space([](const SpaceReport& report) { return report.used_bytes < kMiB; });
  // And then it is idle.
  CHECK_FALSE(fixture.reports_space_within(std::chrono::milliseconds(2'500)));
}

// It was never looked at again, because nobody had said that it was wanted.
TEST_CASE_FIXTURE(StoreOnSmallDisk, "a start without room looks at it again, without a commit") {
  if (!disk.mounted()) return;
  REQUIRE(load.publish(64, 1024, 1));
  disk.fill_up_to(0);
  for (int starts = 0; fixture.state.space.publishes_allowed; ++starts) {
    REQUIRE_LT(starts, 20);
    while (load.publish(64, 1024, 1)) {
    }
    fixture.reopen();
    load.set_space(fixture.state.space);
  }
  disk.remove_filler();
  fixture.wait_for_space(allows_publishes);
}

TEST_CASE_FIXTURE(StoreOnSmallDisk,
                  "a commit without space waits, and is done when there is space") {
  if (!disk.mounted()) return;
  fixture.commit({});
  disk.fill_up_to(0);

  // Beyond the reserve, which no core would send. Given up at the close: it is as if never begun.
  const auto make_batch = [](std::uint64_t number) {
    auto batch = std::make_unique<Batch>();
    batch->number = number;
    batch->blocks = {block_of(QueueId(1), range(1, 10), kMiB)};
    return batch;
  };
  fixture.store->commit(only(make_batch(2)));
  const SpaceReport waits =
      fixture.wait_for_space([](const SpaceReport& report) { return report.commits_wait; });
  CHECK_FALSE(waits.publishes_allowed);
  CHECK_EQ(waits.reserve_room_bytes, 0);
  CHECK_NE(waits.reason.find("is full"), std::string::npos);
  fixture.reopen();
  CHECK_EQ(fixture.state.batch_number, 1);
  CHECK(fixture.fetch(QueueId(1), 1, 10).blocks.empty());

  std::thread others([this] { disk.remove_filler(); });
  Batch batch = std::move(*make_batch(2));
  fixture.commit(std::move(batch));
  others.join();
  CHECK_EQ(fixture.fetch(QueueId(1), 1, 10).blocks.size(), 1);
}

TEST_CASE("a new store on a disk without space says so and leaves nothing half made") {
  SmallDisk disk;
  if (!disk.mounted()) return;
  disk.fill_up_to(0);
  const StoreOptions options = options_in(disk.data());
  const Result<std::unique_ptr<Store>> store = Store::open(options);
  REQUIRE_FALSE(store.ok());
  CHECK_EQ(store.status().code(), ErrorCode::kStorageFull);
  disk.remove_filler();
  StoreFixture fixture(options);
  fixture.open();
  fixture.commit({});
}

TEST_CASE("of a store on a disk of its own the data directory's disk was measured") {
  const SmallDisk disk;
  if (!disk.mounted()) return;
  StoreFixture made(options_in(disk.data()));
  made.open();
  made.close();
  StoreFixture fixture;
  std::filesystem::create_directory_symlink(disk.data() + "/store",
                                            fixture.options.directory + "/store");
  fixture.open();
  CHECK_LE(fixture.state.space.disk_free_bytes, kDiskBytes);
  CHECK_GT(fixture.state.space.disk_free_bytes, 0);
  CHECK_LE(fixture.state.space.room_bytes, kDiskBytes);
}

}  // namespace holdfast::broker
