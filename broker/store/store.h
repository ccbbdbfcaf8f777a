// The store: blocks and tables in one LMDB environment, kept in a directory of their own.
//
// Happy path: open() locks the directory, creates or checks the environment, syncs it, brings what
// the journal holds into the tables, and reads the state; the broker then hands over one commit at
// a time, a batch or several, and asks for blocks with fetch(). close() waits for the commit under
// way.
//
// Failures: a commit that fails for any other reason than lack of space leaves the disk in an
// unknown state; the fatal callback is called, nothing is ever reported as committed afterwards.
// When space is short the commit is tried again until it succeeds (nothing was said that depends on
// it), and SpaceReport refuses publishes long before that. While it refuses them, or has little
// room for them, the room is looked at again every second, so that publishing resumes without a
// commit.
//
// Threads: a Store belongs to one thread, the owner. Commits run on a committer thread, fetches run
// where the owner says (fetch_blocking may be called from any thread, several at a time). Callbacks
// are called on the committer thread: the owner's callback posts to its loop.

#pragma once

#include <chrono>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>

#include "core/batch.h"
#include "core/reads.h"
#include "core/records.h"
#include "core/stored_state.h"
#include "holdfast/status.h"

namespace holdfast::broker {

struct StoreOptions {
  std::string directory;                 // created if it does not exist
  std::uint64_t map_bytes = 1ull << 40;  // address space, not disk
  std::uint64_t size_bytes_max = 0;      // quota on pages in use; 0: the file system's size
  std::uint64_t preallocate_bytes = 64ull << 20;  // step in which the data file is claimed
  std::uint64_t journal_bytes = 16ull << 20;      // at most, of a store that is created; 0: none
  bool allow_network_file_system = false;
  // After so long without a batch the tables catch up with the journal; what else is done at rest
  // comes after that.
  std::chrono::milliseconds catch_up_interval{100};
  // So often a store at rest frees the slots of dead readers, and looks whether its files are
  // there.
  std::chrono::milliseconds reader_check_interval{60'000};
};

// Called at start for each run of ids in the dedup window, by queue, then oldest first.
using DedupLoader = std::function<void(QueueId queue, std::uint64_t time_ms, Sequence first,
                                       std::span<const MessageIdHash> hashes)>;

class Store {
 public:
  // Opens or creates. Errors: kDirectoryLocked, kDirectoryForeign, kDirectoryNewer,
  // kDirectoryReadOnly, kStorageFull, kStorageFailed, kOperationRefused (a network file
  // system). On error nothing was changed, except that an empty directory, or one that did not
  // exist, may now exist and hold a lock file.
  static Result<std::unique_ptr<Store>> open(const StoreOptions& options);
  virtual ~Store() = default;

  // What was there at start; call each once, before start().
  virtual Result<StoredState> load() = 0;
  // Damaged records are left out; the result counts them.
  virtual Result<std::uint64_t> load_dedup(const DedupLoader& loader) = 0;

  // Starts the committer. All callbacks are called on the committer thread. `space` (may be empty)
  // is called between commits when the room was looked at again, and once when a commit begins to
  // wait for room.
  virtual void start(std::function<void(CommitResult)> committed, std::function<void(Status)> fatal,
                     std::function<void(SpaceReport)> space = {}) = 0;

  // Hands over the next batch, or several of kJoinedBytesMax together; their numbers follow the
  // last one's. `committed` is called once for all of them, and there is no next commit before
  // that.
  virtual void commit(Batches batches) = 0;

  // Reads blocks in a short read transaction of its own and checks them. kStorageFailed if LMDB
  // cannot read. Any thread.
  virtual Result<FetchResult> fetch_blocking(const FetchRequest& request) = 0;
  // Likewise the ids of a part of a dedup window. Damaged records are left out and counted.
  virtual Result<IdsResult> fetch_ids_blocking(const IdsRequest& request) = 0;

  // Waits for the commit under way (one that waits for space is given up), stops the committer,
  // releases the directory. May call `fatal` a last time: bringing what is journaled into the
  // tables may fail, too.
  virtual void close() = 0;
};

}  // namespace holdfast::broker
