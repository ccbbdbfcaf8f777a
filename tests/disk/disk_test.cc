// What the store flushes, seen by its calls, and what the device makes of it.

#include <doctest/doctest.h>
#include <fmt/format.h>
#include <stdlib.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "disk/calls.h"
#include "disk/device.h"
#include "disk/recorder.h"
#include "store/store.h"

namespace holdfast::disk {
namespace {

class Directory {
 public:
  Directory() {
    std::string pattern =
        (std::filesystem::temp_directory_path() / "holdfast-disk-XXXXXX").string();
    REQUIRE(::mkdtemp(pattern.data()) != nullptr);
    path_ = pattern;
  }
  ~Directory() {
    watch_calls("", nullptr);
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  Directory(const Directory&) = delete;
  Directory& operator=(const Directory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

void open_store(const std::string& directory) {
  broker::StoreOptions options;
  options.directory = directory;
  options.map_bytes = 8 << 20;
  const Result<std::unique_ptr<broker::Store>> store = broker::Store::open(options);
  REQUIRE_MESSAGE(store.ok(), store.status().message());
}

// What was flushed of the directory below `parent` by opening the store, in order.
std::vector<std::string> flushed_by_opening(const std::string& parent,
                                            const std::string& directory) {
  Log log;
  Recorder recorder(log, {});
  watch_calls(parent, &recorder);
  open_store(directory);
  watch_calls("", nullptr);
  std::vector<std::string> flushed;
  for (const Entry* entry : log.entries()) {
    if (entry->kind == EntryKind::kSync) flushed.emplace_back(entry->path.data());
  }
  return flushed;
}

bool holds(const std::vector<std::string>& list, const std::string& what) {
  return std::find(list.begin(), list.end(), what) != list.end();
}

Entry entry_of(EntryKind kind, const std::string& path) {
  Entry entry{.kind = kind};
  path.copy(entry.path.data(), entry.path.size() - 1);
  return entry;
}

// The power is lost at once, and only what is certain is left.
DeviceState left_of(const Log& log, Survival survival = Survival::kNothing) {
  Device device(Lie::kNothing);
  for (const Entry* entry : log.entries()) device.apply(*entry);
  crash::Random random(1);
  return device.state(survival, random);
}

TEST_CASE("a start flushes the name of the store that one before it renamed and did not flush") {
  const Directory directory;
  open_store(directory.path());
  const std::vector<std::string> flushed = flushed_by_opening(directory.path(), directory.path());
  CHECK(holds(flushed, "."));
  CHECK(holds(flushed, "store/data.mdb"));
}

TEST_CASE("a directory that is made for a store has its name flushed, and its parents' too") {
  const Directory directory;
  const std::vector<std::string> flushed =
      flushed_by_opening(directory.path(), directory.path() + "/a/b");
  CHECK(holds(flushed, "."));
  CHECK(holds(flushed, "a"));
  CHECK(holds(flushed, "a/b"));
}

TEST_CASE("a store is created in a directory whose own name was not flushed yet") {
  const Directory directory;
  std::filesystem::create_directory(directory.path() + "/a");
  CHECK(holds(flushed_by_opening(directory.path(), directory.path() + "/a"), "."));
}

// Lets every read of the data file's second meta page fail.
class UnreadableMetaPage : public CallWatcher {
 public:
  Fate before(const Call& call) override {
    const bool is_meta = call.kind == CallKind::kRead && call.offset == 4096 &&
                         std::string_view(call.path).ends_with("data.mdb");
    return {.error = is_meta ? EIO : 0};
  }
  void after(const Call&, std::int64_t) override {}
};

TEST_CASE("a meta page that could not be read was taken for a damaged one") {
  const Directory directory;
  open_store(directory.path());
  UnreadableMetaPage watcher;
  watch_calls(directory.path(), &watcher);
  const Result<std::unique_ptr<broker::Store>> store =
      broker::Store::open({.directory = directory.path(), .map_bytes = 8 << 20});
  watch_calls("", nullptr);
  REQUIRE(!store.ok());
  CHECK(store.status().message() ==
        fmt::format("Reading {}/store/data.mdb failed: Input/output error. Check the disk and the "
                    "system's log.",
                    directory.path()));
}

TEST_CASE("on the device is for certain what was synced or written through, and no more") {
  Log log;
  log.append(entry_of(EntryKind::kCreate, "file"));
  log.append(entry_of(EntryKind::kSync, "."));
  log.append(entry_of(EntryKind::kWrite, "file"), "one");
  log.append(entry_of(EntryKind::kSync, "file"));
  Entry second = entry_of(EntryKind::kWrite, "file");
  second.offset = 4096;
  log.append(second, "two");
  CHECK(left_of(log).nodes.at("file").bytes == Bytes{'o', 'n', 'e'});
  CHECK(left_of(log, Survival::kEverything).nodes.at("file").size == 4099);
  second.through = true;
  log.append(second, "TWO");
  CHECK(left_of(log).nodes.at("file").bytes.at(4096) == 'T');
}

TEST_CASE("a name is certain once its directory was synced") {
  Log log;
  log.append(entry_of(EntryKind::kMakeDirectory, "new"));
  log.append(entry_of(EntryKind::kCreate, "new/file"));
  log.append(entry_of(EntryKind::kSync, "new"));
  CHECK(left_of(log).nodes.empty());
  log.append(entry_of(EntryKind::kSync, "."));
  CHECK(left_of(log).nodes.contains("new/file"));
  Entry rename = entry_of(EntryKind::kRename, "new");
  rename.to = {'o', 'l', 'd'};
  log.append(rename);
  CHECK(left_of(log).nodes.contains("new/file"));
  CHECK(left_of(log, Survival::kEverything).nodes.contains("old/file"));
}

}  // namespace
}  // namespace holdfast::disk
