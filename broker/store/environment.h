// The environment: what Holdfast needs of LMDB and nothing more, in types that clean up after
// themselves. This is the only place that knows lmdb.h.
//
// An Environment is one open data file with its tables. Transactions read or change it; a cursor
// walks one table within a transaction. Spans that get() and a cursor hand out point into the map
// and are valid until the transaction ends or changes something.
//
// Full sync, no writable map: a commit that returns ok is on the device.
//
// Threads: reads may run on any thread, several at a time, each transaction on one thread at a
// time. A write transaction begins and ends on one and the same thread, one at a time.

#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "holdfast/status.h"
#include "schema/frame.h"

struct MDB_env;
struct MDB_txn;
struct MDB_cursor;

namespace holdfast::broker {

// The tables, in the order of docs/STORAGE.md. `kDue` is reserved: empty in this format.
enum class Table : std::uint8_t {
  kMeta,
  kQueues,
  kSubscriptions,
  kBlocks,
  kAcks,
  kRetries,
  kDedup,
  kDue,
};
inline constexpr std::size_t kTableCount = 8;
std::string_view table_name(Table table);

// What LMDB or the system answered.
class [[nodiscard]] Outcome {
 public:
  Outcome() = default;
  explicit Outcome(int code) : code_(code) {}
  bool ok() const { return code_ == 0; }
  bool not_found() const;
  // The disk, a quota or the map is used up, for certain.
  bool out_of_space() const;
  bool out_of_memory() const;
  // A write was cut short, or the device failed: the free space tells which.
  bool is_io_error() const;
  std::string text() const;
  // kStorageFull or kStorageFailed: "`doing` failed: …".
  Status to_status(std::string_view doing) const;

 private:
  int code_ = 0;
};

// Whether this says that a file may not be opened as it was tried to.
bool means_no_access(int error);
// What to do about it in a check, which only reads.
inline constexpr std::string_view kReadAsAnotherUser =
    "Check it as the broker's user, or as another one that may read it.";
// What is said of such a file of the store, to a broker or to a check.
Status no_access(const std::string& path, int error, bool read_only);

class Transaction;

// Walks one table in key order. Belongs to its transaction and must not outlive it.
class Cursor {
 public:
  Cursor(Cursor&& other) noexcept;
  ~Cursor();

  // Each returns whether the cursor now stands on a record. False at the end, and after an error,
  // which outcome() then holds.
  bool first();
  bool last();
  bool next();
  bool previous();
  bool seek(ByteSpan key);  // the first record whose key is not below this one

  // Of the record it stands on.
  ByteSpan key() const { return key_; }
  ByteSpan value() const { return value_; }

  // The last error; ok at the end of the table.
  Outcome outcome() const { return outcome_; }

 private:
  friend class Transaction;
  explicit Cursor(MDB_cursor* cursor) : cursor_(cursor) {}
  bool move(int operation, ByteSpan key);

  MDB_cursor* cursor_;
  ByteSpan key_;
  ByteSpan value_;
  Outcome outcome_;
};

// What transactions need to know of the environment they belong to.
struct MappedFile {
  std::array<unsigned, kTableCount> tables{};
  std::uintptr_t begin = 0;  // where it is in memory
  std::uint64_t bytes = 0;
  std::uint64_t page_bytes = 4096;
};

// Aborted when it is destroyed without a commit.
class Transaction {
 public:
  Transaction(Transaction&& other) noexcept;
  ~Transaction();

  Outcome get(Table table, ByteSpan key, ByteSpan* value);
  Outcome put(Table table, ByteSpan key, ByteSpan value);
  Outcome remove(Table table, ByteSpan key);
  Result<Cursor> cursor(Table table);
  // After any error nothing of it is stored and the transaction is over.
  Outcome commit();

 private:
  friend class Environment;
  Transaction(MDB_txn* transaction, const MappedFile* file)
      : transaction_(transaction), file_(file) {}
  unsigned handle(Table table) const { return file_->tables[static_cast<std::size_t>(table)]; }
  bool can_be_freed(Table table, ByteSpan value) const;

  MDB_txn* transaction_;
  const MappedFile* file_;
};

// The pages of the data file.
struct PageUse {
  std::uint64_t page_bytes = 4096;
  std::uint64_t end_page = 0;          // pages from here on were never used
  std::uint64_t last_transaction = 0;  // the last committed
};

// Pages that were given back and may be used again.
struct FreePages {
  std::uint64_t pages = 0;        // all of them
  std::uint64_t usable = 0;       // of those, what the next commit may use
  std::uint64_t longest_run = 0;  // of the usable ones, side by side
  std::uint64_t second_run = 0;   // likewise, the next longest
};

struct EnvironmentOptions {
  std::string directory;        // holds data.mdb and lock.mdb; must exist
  std::uint64_t map_bytes = 0;  // address space
  bool create = false;          // make the tables
  bool read_only = false;       // touches nothing, takes no lock: nobody else may have it open
};

class Environment {
 public:
  // kStorageFull, kStorageFailed, kDirectoryForeign (not a data file of LMDB, or not ours).
  static Result<std::unique_ptr<Environment>> open(const EnvironmentOptions& options);
  Environment(const Environment&) = delete;
  Environment& operator=(const Environment&) = delete;
  ~Environment();

  // Flushes what a process that died may have left in the page cache.
  Outcome sync();
  // Frees the slots of readers that died.
  Outcome check_readers();

  Result<Transaction> begin_read();
  // An outcome of its own, because what a commit does next depends on it.
  Outcome begin_write(std::optional<Transaction>* transaction);

  PageUse page_use() const;
  // Pages that a transaction took and gave back again are counted and never written. So that the
  // file is not taken for one that was cut short, its size is kept ahead of what one transaction
  // can take; that is a hole and costs nothing. Done when it is opened; to be called now and then
  // between transactions.
  void extend_file();
  // Counts the free pages. Takes time in proportion to them and, much less, to the pages of the
  // file; or without `runs`, which leaves the runs at 0, to the number of commits that freed them.
  Result<FreePages> free_pages(bool runs);

  int file_descriptor() const;
  const std::string& data_file() const { return data_file_; }

 private:
  explicit Environment(std::string data_file) : data_file_(std::move(data_file)) {}
  Status open_tables(bool create);
  Status find_map();

  MDB_env* environment_ = nullptr;
  MappedFile file_;
  std::string data_file_;
  std::uint64_t file_bytes_ = 0;
};

// The names of LMDB's files in a directory.
inline constexpr std::string_view kDataFileName = "data.mdb";
inline constexpr std::string_view kLockFileName = "lock.mdb";

}  // namespace holdfast::broker
