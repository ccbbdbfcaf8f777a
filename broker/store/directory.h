// The data directory as its owner sees it:
//
//   DIR, DIR/store      locked while a broker or a check has them open
//   DIR/holdfast.lock   likewise; shows that broker's pid, and is not empty once a store was there
//   DIR/store/format    one line of text: what this is, and its format version
//   DIR/store/data.mdb  everything stored
//   DIR/store/lock.mdb  LMDB's table of readers
//   DIR/store/journal   batches that data.mdb has not taken in yet
//   DIR/store.new/      the store while it is first created
//
// The store is created whole in store.new, flushed, and renamed: a crash at any moment leaves
// either no store, with a store.new that the next start removes, or a store that opens. Nothing is
// changed in a directory that is foreign, newer, locked or not writable.

#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "holdfast/status.h"
#include "store/file.h"

namespace holdfast::broker {

// The store's directory in the data directory.
inline constexpr std::string_view kStoreName = "store";

// The name of a network file system by the magic number that statfs(2) gives, e.g. "NFS"; empty for
// any other. LMDB's locks and its map cannot be trusted on those.
std::string_view network_file_system_name(std::uint64_t type);

struct DirectoryOptions {
  std::string path;
  bool read_only = false;  // must exist and hold a store; nothing is changed
  bool allow_network_file_system = false;
};

// A data directory that this object keeps locked for itself as long as it lives.
class DataDirectory {
 public:
  // Makes the contents of a new store in this existing, empty directory and flushes its files.
  using Creator = std::function<Status(const std::string& directory)>;

  // Locks the directory, and creates it and the store in it if there is none. Errors:
  // kDirectoryLocked, kDirectoryForeign (also one whose store is gone), kDirectoryNewer,
  // kDirectoryReadOnly, kOperationRefused (a network file system), kStorageFull, kStorageFailed.
  static Result<std::unique_ptr<DataDirectory>> open(const DirectoryOptions& options,
                                                     const Creator& create);
  ~DataDirectory();
  DataDirectory(const DataDirectory&) = delete;
  DataDirectory& operator=(const DataDirectory&) = delete;

  std::string store_path() const;

 private:
  explicit DataDirectory(std::string path) : path_(std::move(path)) {}
  std::string lock_path() const;
  Status lock_directory(bool read_only);
  Status lock_store(bool read_only);
  // `path` is what is said to be in use if it is.
  Status lock(File file, std::string_view path);
  Status check_nothing_is_lost() const;
  Status refuse_empty_store() const;
  Status create_store(const Creator& create);
  void show_pid();

  std::string path_;
  // Locks are on open files: they go with the process, however that ends. The lock file's is known
  // to other hosts, too, where the directory is on a network file system.
  std::vector<File> locks_;
  bool shows_pid_ = false;
};

}  // namespace holdfast::broker
