// The data directory: who may open it, and what a first creation that was cut short leaves.

#include "store/directory.h"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>

#include "store/store_fixture.h"

namespace holdfast::broker {
namespace {

Status open_status(const std::string& directory) {
  StoreOptions options;
  options.directory = directory;
  options.map_bytes = 1 << 30;
  Result<std::unique_ptr<Store>> store = Store::open(options);
  if (!store) return store.status();
  const Result<StoredState> state = (*store)->load();
  return state ? Status() : state.status();
}

void check_refused(const std::string& directory, ErrorCode code, const std::string& word) {
  const Status status = open_status(directory);
  CHECK_EQ(status.code(), code);
  CHECK_MESSAGE(status.message().find(word) != std::string::npos, status.message());
}

}  // namespace

TEST_CASE("a directory that does not exist is created with its parents") {
  const TemporaryDirectory temporary;
  const std::string path = temporary.path() + "/a/b";
  CHECK(open_status(path).ok());
  CHECK((names_in(path) == std::vector<std::string>{"holdfast.lock", "store"}));
  CHECK((names_in(path + "/store") ==
         std::vector<std::string>{"data.mdb", "format", "journal", "lock.mdb"}));
  CHECK_EQ(read_file(path + "/store/format"), "holdfast store 3\n");
}

TEST_CASE("a second store on an open directory is refused and names the first one's process") {
  StoreFixture fixture;
  fixture.open();
  check_refused(fixture.options.directory, ErrorCode::kDirectoryLocked,
                "pid " + std::to_string(::getpid()));
  const Result<CheckReport> report = check_directory(fixture.options.directory, {});
  REQUIRE_FALSE(report.ok());
  CHECK_EQ(report.status().code(), ErrorCode::kDirectoryLocked);
  fixture.commit({});
  fixture.close();
  CHECK(open_status(fixture.options.directory).ok());
}

TEST_CASE(
    "a directory whose lock file had been removed was opened, and checked, beside its broker") {
  StoreFixture fixture;
  fixture.open();
  std::filesystem::remove(fixture.options.directory + "/holdfast.lock");
  const auto check = [&fixture] { return check_directory(fixture.options.directory, {}).status(); };
  CHECK_EQ(check().code(), ErrorCode::kDirectoryLocked);
  check_refused(fixture.options.directory, ErrorCode::kDirectoryLocked, "a broker or");
  CHECK_FALSE(std::filesystem::exists(fixture.options.directory + "/holdfast.lock"));
  CHECK_EQ(check().code(), ErrorCode::kDirectoryLocked);
  check_refused(fixture.options.directory, ErrorCode::kDirectoryLocked, "a broker or");
  fixture.commit({});
  fixture.close();
  CHECK(check().ok());
  CHECK(open_status(fixture.options.directory).ok());
}

TEST_CASE("a store that two directories have by a link was opened by two brokers") {
  StoreFixture fixture;
  fixture.open();
  const TemporaryDirectory other;
  std::filesystem::create_directory_symlink(fixture.options.directory + "/store",
                                            other.path() + "/store");
  check_refused(other.path(), ErrorCode::kDirectoryLocked, "/store is in use by another process");
  CHECK_EQ(check_directory(other.path(), {}).status().code(), ErrorCode::kDirectoryLocked);
  fixture.close();
  CHECK(open_status(other.path()).ok());
}

TEST_CASE("a directory without a lock file was opened while it was being checked") {
  StoreFixture fixture;
  fixture.open();
  Batch batch;
  batch.blocks = {block_of(QueueId(1), {1})};
  fixture.commit(std::move(batch));
  fixture.close();
  const std::string& path = fixture.options.directory;
  std::filesystem::remove(path + "/holdfast.lock");
  std::uint64_t tried = 0;
  const auto open_meanwhile = [&](std::uint64_t blocks) {
    tried = blocks;
    check_refused(path, ErrorCode::kDirectoryLocked, "`holdfast check`");
  };
  CHECK(check_directory(path, open_meanwhile).ok());
  CHECK_EQ(tried, 1);
}

TEST_CASE("a directory that is being checked was said to be in use by a broker that was killed") {
  const TemporaryDirectory temporary;
  REQUIRE(open_status(temporary.path()).ok());
  const std::string lock = temporary.path() + "/holdfast.lock";
  CHECK_EQ(read_file(lock), "\n");
  // Of a process that is there, and has the file open, but not locked.
  write_file(lock, fmt::format("{}\n", ::getppid()));
  const File file(lock, O_RDONLY);
  REQUIRE_EQ(::flock(file.descriptor(), LOCK_EX), 0);
  check_refused(temporary.path(), ErrorCode::kDirectoryLocked, "a broker or `holdfast check`");
}

TEST_CASE("a directory with something else in it is refused and left as it is") {
  const TemporaryDirectory temporary;
  write_file(temporary.path() + "/notes.txt", "mine");
  check_refused(temporary.path(), ErrorCode::kDirectoryForeign, "notes.txt");
  CHECK((names_in(temporary.path()) == std::vector<std::string>{"notes.txt"}));
}

TEST_CASE("a file is no directory") {
  const TemporaryDirectory temporary;
  write_file(temporary.path() + "/file", "");
  check_refused(temporary.path() + "/file", ErrorCode::kDirectoryForeign, "not a directory");
}

TEST_CASE("the lost+found of a fresh file system is no stranger") {
  const TemporaryDirectory temporary;
  std::filesystem::create_directory(temporary.path() + "/lost+found");
  CHECK(open_status(temporary.path()).ok());
}

TEST_CASE("a store without its format file, or with another's, is refused") {
  for (const std::string& format :
       {std::string(), std::string("holdfast store\n"), std::string("holdfast store 0\n"),
        std::string("holdfast store 1"), std::string("holdfast store 1x\n"),
        std::string("holdfast store 2\n"), std::string("another program's\n"),
        std::string(200, 'x')}) {
    const TemporaryDirectory temporary;
    REQUIRE(open_status(temporary.path()).ok());
    write_file(temporary.path() + "/store/format", format);
    check_refused(temporary.path(), ErrorCode::kDirectoryForeign, "store");
    std::filesystem::remove(temporary.path() + "/store/format");
    check_refused(temporary.path(), ErrorCode::kDirectoryForeign, "no file \"format\"");
  }
}

TEST_CASE("a newer store is refused and nothing in it is touched") {
  const TemporaryDirectory temporary;
  REQUIRE(open_status(temporary.path()).ok());
  write_file(temporary.path() + "/store/format", "holdfast store 4\n");
  std::filesystem::remove(temporary.path() + "/holdfast.lock");
  const std::string data = read_file(temporary.path() + "/store/data.mdb");
  check_refused(temporary.path(), ErrorCode::kDirectoryNewer, "format 4");
  CHECK((names_in(temporary.path()) == std::vector<std::string>{"store"}));
  CHECK((read_file(temporary.path() + "/store/data.mdb") == data));
}

TEST_CASE("a data file that is not LMDB's is refused") {
  const TemporaryDirectory temporary;
  REQUIRE(open_status(temporary.path()).ok());
  write_file(temporary.path() + "/store/data.mdb", std::string(16384, 'x'));
  check_refused(temporary.path(), ErrorCode::kDirectoryForeign, "data.mdb");
}

TEST_CASE("a data file that was cut short is refused before it is read") {
  StoreFixture fixture;
  fixture.open();
  Batch batch;
  batch.blocks = {block_of(QueueId(1), range(1, 100), 1000)};
  fixture.commit(std::move(batch));
  const std::string data = fixture.options.directory + "/store/data.mdb";
  fixture.close();
  std::filesystem::resize_file(data, 3 * 4096);
  check_refused(fixture.options.directory, ErrorCode::kStorageFailed, "cut short");
}

TEST_CASE("a start on an empty data file took it for another program's and rewrote it") {
  StoreFixture fixture;
  fixture.open();
  fixture.commit({});
  fixture.close();
  const std::string store = fixture.options.directory + "/store";
  for (const std::size_t bytes : {0, 1, 100}) {
    const std::string left(bytes, '\0');
    write_file(store + "/data.mdb", left);
    std::filesystem::remove(store + "/lock.mdb");
    check_refused(fixture.options.directory, ErrorCode::kStorageFailed,
                  fmt::format("data.mdb is cut short: it has {} bytes. Restore the whole data "
                              "directory from a backup.",
                              bytes));
    CHECK_EQ(read_file(store + "/data.mdb"), left);
    CHECK((names_in(store) == std::vector<std::string>{"data.mdb", "format", "journal"}));
  }
  std::filesystem::remove(store + "/data.mdb");
  check_refused(fixture.options.directory, ErrorCode::kStorageFailed,
                "data.mdb is missing. Restore");
  CHECK((names_in(store) == std::vector<std::string>{"format", "journal"}));
}

TEST_CASE("a first creation that was cut short anywhere is begun anew") {
  // What a crash leaves is a prefix of the creation's steps; each state is built by hand.
  const std::vector<std::vector<std::string>> leftovers = {
      {},
      {"journal"},
      {"journal", "lock.mdb"},
      {"journal", "data.mdb", "lock.mdb"},
      {"journal", "data.mdb", "lock.mdb", "format"},
  };
  for (const std::vector<std::string>& names : leftovers) {
    for (const std::string& text :
         {std::string(), std::string("half a fi"), std::string(8192, 0)}) {
      const TemporaryDirectory temporary;
      write_file(temporary.path() + "/holdfast.lock", "");
      std::filesystem::create_directory(temporary.path() + "/store.new");
      for (const std::string& name : names) {
        write_file(temporary.path() + "/store.new/" + name, text);
      }
      CHECK(open_status(temporary.path()).ok());
      CHECK((names_in(temporary.path()) == std::vector<std::string>{"holdfast.lock", "store"}));
      CHECK(open_status(temporary.path()).ok());
    }
  }
}

TEST_CASE("a leftover beside a finished store is removed") {
  const TemporaryDirectory temporary;
  REQUIRE(open_status(temporary.path()).ok());
  std::filesystem::create_directory(temporary.path() + "/store.new");
  CHECK(open_status(temporary.path()).ok());
  CHECK((names_in(temporary.path()) == std::vector<std::string>{"holdfast.lock", "store"}));
}

TEST_CASE("a directory whose store was gone was taken for a new one") {
  for (const bool killed : {false, true}) {
    const TemporaryDirectory temporary;
    const TemporaryDirectory elsewhere;
    REQUIRE(open_status(temporary.path()).ok());
    const std::string lock = temporary.path() + "/holdfast.lock";
    if (killed) write_file(lock, "4711\n");
    std::filesystem::rename(temporary.path() + "/store", elsewhere.path() + "/store");
    for (int starts = 0; starts < 2; ++starts) {
      check_refused(temporary.path(), ErrorCode::kDirectoryForeign,
                    fmt::format("remove {} to begin with an empty store.", lock));
      CHECK((names_in(temporary.path()) == std::vector<std::string>{"holdfast.lock"}));
    }
    std::filesystem::rename(elsewhere.path() + "/store", temporary.path() + "/store");
    CHECK(open_status(temporary.path()).ok());
    std::filesystem::remove_all(temporary.path() + "/store");
    std::filesystem::remove(lock);
    CHECK(open_status(temporary.path()).ok());
  }
}

// It was told to name an empty directory.
TEST_CASE("a fresh file system as the store, or a mount that is missing, was called foreign") {
  for (const bool fresh : {false, true}) {
    const TemporaryDirectory temporary;
    const std::string store = temporary.path() + "/store";
    std::filesystem::create_directory(store);
    if (fresh) std::filesystem::create_directory(store + "/lost+found");
    check_refused(temporary.path(), ErrorCode::kDirectoryForeign, store + " is empty");
    CHECK((names_in(temporary.path()) == std::vector<std::string>{"store"}));
    CHECK_EQ(check_directory(temporary.path(), {}).status().code(), ErrorCode::kDirectoryForeign);
    std::filesystem::remove_all(store);
    REQUIRE(open_status(temporary.path()).ok());
    // What is told to be done: a copy beside the lost+found of a disk.
    const TemporaryDirectory disk;
    if (fresh) std::filesystem::create_directory(disk.path() + "/lost+found");
    std::filesystem::copy(store, disk.path(), std::filesystem::copy_options::recursive);
    std::filesystem::remove_all(store);
    std::filesystem::create_directory(store);
    check_refused(temporary.path(), ErrorCode::kDirectoryForeign, "is a disk not mounted?");
    std::filesystem::remove(store);
    std::filesystem::create_directory_symlink(disk.path(), store);
    CHECK(open_status(temporary.path()).ok());
  }
}

TEST_CASE("a store.new with something else in it is refused and left as it is") {
  const TemporaryDirectory temporary;
  std::filesystem::create_directory(temporary.path() + "/store.new");
  write_file(temporary.path() + "/store.new/thesis.tex", "mine");
  check_refused(temporary.path(), ErrorCode::kDirectoryForeign, "thesis.tex");
  CHECK_EQ(read_file(temporary.path() + "/store.new/thesis.tex"), "mine");
}

TEST_CASE("a directory that cannot be written is refused, and can be checked") {
  const TemporaryDirectory temporary;
  const std::string path = temporary.path() + "/data";
  REQUIRE(open_status(path).ok());
  bool mounted = false;
  if (::geteuid() == 0) {
    mounted =
        ::mount(path.c_str(), path.c_str(), nullptr, MS_BIND, nullptr) == 0 &&
        ::mount(nullptr, path.c_str(), nullptr, MS_BIND | MS_REMOUNT | MS_RDONLY, nullptr) == 0;
    if (!mounted) {
      MESSAGE("not permitted to mount: the case of a read-only file system was not tried");
      return;
    }
  } else {
    REQUIRE_EQ(::chmod((path + "/holdfast.lock").c_str(), 0400), 0);
  }
  check_refused(path, ErrorCode::kDirectoryReadOnly, path);
  const Result<CheckReport> report = check_directory(path, {});
  CHECK_MESSAGE(report.ok(), report.status().message());
  if (mounted) CHECK_EQ(::umount2(path.c_str(), MNT_DETACH), 0);
}

TEST_CASE("network file systems are known by their magic numbers") {
  CHECK_EQ(network_file_system_name(0x6969), "NFS");
  CHECK_EQ(network_file_system_name(0xFF534D42), "CIFS");
  CHECK_EQ(network_file_system_name(0x01021997), "9P");
  CHECK(network_file_system_name(0xEF53).empty());      // ext4
  CHECK(network_file_system_name(0x01021994).empty());  // tmpfs
}

}  // namespace holdfast::broker
