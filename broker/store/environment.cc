#include "store/environment.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <lmdb.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <tuple>
#include <utility>

#include "base/standard_streams.h"
#include "holdfast/text.h"
#include "store/file.h"
#include "store/page_set.h"
#include "store/pages.h"

namespace holdfast::broker {

namespace {

constexpr std::array<std::string_view, kTableCount> kTableNames = {
    "meta", "queues", "subscriptions", "blocks", "acks", "retries", "dedup", "due"};
constexpr unsigned kFreeTable = 0;  // LMDB's own table of free pages
constexpr unsigned kReadersMax = 126;
constexpr std::uint64_t kPageBytesMin = 4096;
// Half of it is more than what one transaction can take: two journals' worth and a batch, or
// several of no more bytes.
constexpr std::uint64_t kFileAheadBytes = 128ull << 20;
// The keeper: the first record of every table from its creation on, without a value, which no
// cursor shows. LMDB gives up the last page of a table that becomes empty, and still writes it: a
// queue whose messages are consumed one by one would cost a page for each of them.
constexpr std::array<std::uint8_t, 1> kKeeperKey = {0};

// LMDB's interface takes pointers to what it does not change.
MDB_val to_value(ByteSpan bytes) {
  return {.mv_size = bytes.size(), .mv_data = const_cast<std::uint8_t*>(bytes.data())};
}
ByteSpan to_span(const MDB_val& value) {
  return {static_cast<const std::uint8_t*>(value.mv_data), value.mv_size};
}

// A broken invariant inside LMDB: the file is damaged. There is no way back into LMDB from here.
[[noreturn]] void on_assert(MDB_env* environment, const char* message) {
  const char* path = "";
  mdb_env_get_path(environment, &path);
  write_to_standard_error(
      fmt::format("holdfast: the data file in {} is damaged: {}. Restore the whole data directory "
                  "from a backup; what can still be read is shown by `holdfast check`.\n",
                  path, message));
  std::_Exit(70);
}

std::string address_space_limit() {
  rlimit limit{};
  if (getrlimit(RLIMIT_AS, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY) return "unlimited";
  return format_bytes(limit.rlim_cur);
}

Status open_error(int code, const EnvironmentOptions& options, const std::string& data_file) {
  switch (code) {
    case ENOMEM:
      return Status(ErrorCode::kStorageFailed,
                    fmt::format("The data file {} cannot be mapped: {} of address space are wanted "
                                "and the limit of this process is {}. Raise the limit (ulimit -v).",
                                data_file, format_bytes(options.map_bytes), address_space_limit()));
    case MDB_INVALID:
    case MDB_VERSION_MISMATCH:
      return Status(ErrorCode::kDirectoryForeign,
                    fmt::format("{} is not a data file of this store ({}). Name another directory, "
                                "or restore the whole data directory from a backup.",
                                data_file, mdb_strerror(code)));
    default:
      if (means_no_access(code)) return no_access(data_file, code, options.read_only);
      return Outcome(code).to_status("Opening " + data_file);
  }
}

// LMDB makes its table of readers as a file with a hole and writes to it through a map, which on a
// full disk ends in SIGBUS. So its blocks are claimed here first.
Status claim_lock_file(const EnvironmentOptions& options) {
  constexpr off_t kLockFileBytes = 16 * 1024;
  const std::string path = options.directory + "/" + std::string(kLockFileName);
  const File file(path, O_RDWR | O_CREAT, kFileMode);
  if (!file.ok()) return open_error(file.error(), options, path);
  const int code = ::posix_fallocate(file.descriptor(), 0, kLockFileBytes);
  return code == 0 ? Status() : Outcome(code).to_status("Claiming the blocks of " + path);
}

// LMDB believes its pages, so it is not let at a file whose trees are damaged.
Status check_trees(const std::string& data_file) {
  const Result<PageReport> report = check_pages(data_file, PageScope::kForStart);
  if (!report) return report.status();
  // What is not LMDB's at all LMDB itself refuses.
  if (report->findings.empty()) return Status();
  const CheckFinding& first = report->findings.front();
  if (first.where == data_file) {
    return Status(ErrorCode::kStorageFailed,
                  fmt::format("{} {}. Restore the whole data directory from a backup.", first.where,
                              first.what));
  }
  return Status(ErrorCode::kStorageFailed,
                fmt::format("The data file {} is damaged: {} {}. Run `holdfast check` on the data "
                            "directory, and restore it from a backup.",
                            data_file, first.where, first.what));
}

// A page beyond what a file may have could not be written: its number is not given out.
std::uint64_t map_bytes(const EnvironmentOptions& options) {
  return std::min(options.map_bytes, file_bytes_max() / kPageBytesMin * kPageBytesMin);
}

bool ascends(ByteSpan key, ByteSpan next) {
  return std::lexicographical_compare(key.begin(), key.end(), next.begin(), next.end());
}

bool is_keeper(const MDB_val& key, const MDB_val& value) {
  return value.mv_size == 0 && std::ranges::equal(to_span(key), kKeeperKey);
}

}  // namespace

std::string_view table_name(Table table) { return kTableNames[static_cast<std::size_t>(table)]; }

bool Outcome::not_found() const { return code_ == MDB_NOTFOUND; }

bool Outcome::out_of_space() const {
  return code_ == ENOSPC || code_ == EDQUOT || code_ == MDB_MAP_FULL;
}

bool Outcome::out_of_memory() const { return code_ == ENOMEM; }

bool Outcome::is_io_error() const { return code_ == EIO; }

std::string Outcome::text() const { return mdb_strerror(code_); }

Status Outcome::to_status(std::string_view doing) const {
  if (out_of_space()) {
    return Status(ErrorCode::kStorageFull,
                  fmt::format("{} failed: {}. Free some space on its disk.", doing, text()));
  }
  return Status(ErrorCode::kStorageFailed,
                fmt::format("{} failed: {}. Check the disk and the system's log.", doing, text()));
}

bool means_no_access(int error) { return error == EACCES || error == EPERM || error == EROFS; }

Status no_access(const std::string& path, int error, bool read_only) {
  return Status(
      ErrorCode::kDirectoryReadOnly,
      fmt::format("{} cannot be {}: {}. {}", path, read_only ? "read" : "written",
                  Outcome(error).text(),
                  read_only ? kReadAsAnotherUser : "Give the broker's user write access."));
}

// ---- Cursor ----

Cursor::Cursor(Cursor&& other) noexcept
    : cursor_(std::exchange(other.cursor_, nullptr)),
      key_(other.key_),
      value_(other.value_),
      outcome_(other.outcome_) {}

Cursor::~Cursor() {
  if (cursor_ != nullptr) mdb_cursor_close(cursor_);
}

bool Cursor::move(int operation, ByteSpan key) {
  MDB_val key_value = to_value(key);
  MDB_val data{};
  int code = mdb_cursor_get(cursor_, &key_value, &data, static_cast<MDB_cursor_op>(operation));
  // In a damaged tree a walk may come by the same page again, for ever.
  if (code == 0 && operation == MDB_NEXT && !ascends(key_, to_span(key_value))) {
    code = MDB_CORRUPTED;
  }
  if (code == 0 && is_keeper(key_value, data)) {
    const bool backwards = operation == MDB_LAST || operation == MDB_PREV;
    code = backwards ? MDB_NOTFOUND : mdb_cursor_get(cursor_, &key_value, &data, MDB_NEXT);
  }
  outcome_ = Outcome(code == MDB_NOTFOUND ? 0 : code);
  if (code != 0) {
    key_ = value_ = {};
    return false;
  }
  key_ = to_span(key_value);
  value_ = to_span(data);
  return true;
}

bool Cursor::first() { return move(MDB_FIRST, {}); }
bool Cursor::last() { return move(MDB_LAST, {}); }
bool Cursor::next() { return move(MDB_NEXT, {}); }
bool Cursor::previous() { return move(MDB_PREV, {}); }
bool Cursor::seek(ByteSpan key) { return move(MDB_SET_RANGE, key); }

// ---- Transaction ----

Transaction::Transaction(Transaction&& other) noexcept
    : transaction_(std::exchange(other.transaction_, nullptr)), file_(other.file_) {}

Transaction::~Transaction() {
  if (transaction_ != nullptr) mdb_txn_abort(transaction_);
}

Outcome Transaction::get(Table table, ByteSpan key, ByteSpan* value) {
  MDB_val key_value = to_value(key);
  MDB_val data{};
  const int code = mdb_get(transaction_, handle(table), &key_value, &data);
  if (code == 0) *value = to_span(data);
  return Outcome(code);
}

Outcome Transaction::put(Table table, ByteSpan key, ByteSpan value) {
  MDB_val key_value = to_value(key);
  MDB_val data = to_value(value);
  return Outcome(mdb_put(transaction_, handle(table), &key_value, &data, 0));
}

Outcome Transaction::remove(Table table, ByteSpan key) {
  MDB_val key_value = to_value(key);
  MDB_val value{};
  const int code = mdb_get(transaction_, handle(table), &key_value, &value);
  if (code != 0) return Outcome(code);
  if (!can_be_freed(table, to_span(value))) return Outcome(MDB_CORRUPTED);
  return Outcome(mdb_del(transaction_, handle(table), &key_value, nullptr));
}

// Whether LMDB can be let free the pages of this value. It frees as many as the first of them says.
// Those of blocks nobody has looked at before; but no block is ever put over another.
bool Transaction::can_be_freed(Table table, ByteSpan value) const {
  const auto address = reinterpret_cast<std::uintptr_t>(value.data());
  // Elsewhere it is one that was written in this transaction.
  if (address < file_->begin || address - file_->begin >= file_->bytes) return true;
  const std::uint64_t place = address - file_->begin;
  // A value inside a leaf page never begins where that of an overflow page does.
  if (place % file_->page_bytes != kPageHeaderBytes) return true;
  const std::uint64_t count =
      overflow_run(value.data() - kPageHeaderBytes, place / file_->page_bytes);
  const std::uint64_t needed = overflow_pages(value.size(), file_->page_bytes);
  return table == Table::kBlocks ? count == needed : count >= needed;
}

Result<Cursor> Transaction::cursor(Table table) {
  MDB_cursor* cursor = nullptr;
  const int code = mdb_cursor_open(transaction_, handle(table), &cursor);
  if (code != 0) {
    return Outcome(code).to_status(fmt::format("Opening the table {}", table_name(table)));
  }
  return Cursor(cursor);
}

Outcome Transaction::commit() {
  return Outcome(mdb_txn_commit(std::exchange(transaction_, nullptr)));
}

// ---- Environment ----

Result<std::unique_ptr<Environment>> Environment::open(const EnvironmentOptions& options) {
  std::unique_ptr<Environment> environment(
      new Environment(options.directory + "/" + std::string(kDataFileName)));
  const std::string& data_file = environment->data_file_;
  int code = mdb_env_create(&environment->environment_);
  if (code != 0) return Outcome(code).to_status("Preparing to open " + data_file);
  MDB_env* const env = environment->environment_;
  code = mdb_env_set_mapsize(env, map_bytes(options));
  if (code == 0) code = mdb_env_set_maxdbs(env, kTableCount);
  if (code == 0) code = mdb_env_set_maxreaders(env, kReadersMax);
  if (code == 0) code = mdb_env_set_assert(env, on_assert);
  if (code != 0) return Outcome(code).to_status("Preparing to open " + data_file);

  if (!options.create) {
    if (Status status = check_trees(data_file); !status) return status;
  }
  unsigned flags = MDB_NOTLS | MDB_NORDAHEAD;
  if (options.read_only) {
    flags |= MDB_RDONLY | MDB_NOLOCK;
  } else if (Status status = claim_lock_file(options); !status) {
    return status;
  }
  code = mdb_env_open(env, options.directory.c_str(), flags, kFileMode);
  if (code != 0) return open_error(code, options, data_file);
  // Nothing that the process starts may inherit the file.
  fcntl(environment->file_descriptor(), F_SETFD, FD_CLOEXEC);

  struct stat file {};
  if (fstat(environment->file_descriptor(), &file) != 0) {
    return Outcome(errno).to_status("Looking at " + data_file);
  }
  environment->file_bytes_ = static_cast<std::uint64_t>(file.st_size);
  if (!options.read_only) environment->extend_file();
  if (Status status = environment->open_tables(options.create); !status) return status;
  if (Status status = environment->find_map(); !status) return status;
  return environment;
}

Environment::~Environment() {
  if (environment_ != nullptr) mdb_env_close(environment_);
}

Status Environment::open_tables(bool create) {
  MDB_txn* transaction = nullptr;
  int code = mdb_txn_begin(environment_, nullptr, create ? 0 : MDB_RDONLY, &transaction);
  if (code != 0) return Outcome(code).to_status("Reading " + data_file_);
  for (std::size_t i = 0; i < kTableCount; ++i) {
    code =
        mdb_dbi_open(transaction, kTableNames[i].data(), create ? MDB_CREATE : 0, &file_.tables[i]);
    if (code == 0 && create) {
      MDB_val key = to_value(kKeeperKey);
      MDB_val value{};
      code = mdb_put(transaction, file_.tables[i], &key, &value, 0);
    }
    if (code == 0) continue;
    mdb_txn_abort(transaction);
    if (code == MDB_NOTFOUND || code == MDB_INCOMPATIBLE) {
      return Status(ErrorCode::kDirectoryForeign,
                    fmt::format("{} has no table \"{}\": it is not a data file of Holdfast. Name "
                                "another directory.",
                                data_file_, kTableNames[i]));
    }
    return Outcome(code).to_status(fmt::format("Opening the table {}", kTableNames[i]));
  }
  // The handles stay valid only if the transaction that opened them is committed.
  code = mdb_txn_commit(transaction);
  if (code != 0) return Outcome(code).to_status("Opening the tables of " + data_file_);
  return Status();
}

// LMDB does not tell where it mapped the file, but every page holds its number.
Status Environment::find_map() {
  Result<Transaction> transaction = begin_read();
  if (!transaction) return transaction.status();
  Result<Cursor> cursor = transaction->cursor(Table::kMeta);
  if (!cursor) return cursor.status();
  if (!cursor->first()) return Status();  // just created: nothing is in it that could be damaged
  MDB_envinfo info{};
  mdb_env_info(environment_, &info);
  file_.page_bytes = page_use().page_bytes;
  file_.bytes = info.me_mapsize;
  const auto value = reinterpret_cast<std::uintptr_t>(cursor->value().data());
  const std::uintptr_t page = value - value % file_.page_bytes;
  std::uint64_t number = 0;
  std::memcpy(&number, reinterpret_cast<const void*>(page), sizeof(number));
  file_.begin = page - number * file_.page_bytes;
  return Status();
}

Outcome Environment::sync() { return Outcome(mdb_env_sync(environment_, 1)); }

Outcome Environment::check_readers() {
  int dead = 0;
  return Outcome(mdb_reader_check(environment_, &dead));
}

Result<Transaction> Environment::begin_read() {
  MDB_txn* transaction = nullptr;
  const int code = mdb_txn_begin(environment_, nullptr, MDB_RDONLY, &transaction);
  if (code != 0) return Outcome(code).to_status("Reading " + data_file_);
  return Transaction(transaction, &file_);
}

Outcome Environment::begin_write(std::optional<Transaction>* transaction) {
  MDB_txn* begun = nullptr;
  const int code = mdb_txn_begin(environment_, nullptr, 0, &begun);
  if (code == 0) transaction->emplace(Transaction(begun, &file_));
  return Outcome(code);
}

PageUse Environment::page_use() const {
  MDB_stat stat{};
  MDB_envinfo info{};
  mdb_env_stat(environment_, &stat);
  mdb_env_info(environment_, &info);
  return {.page_bytes = std::max<std::uint64_t>(stat.ms_psize, kPageBytesMin),
          .end_page = info.me_last_pgno + 1,
          .last_transaction = info.me_last_txnid};
}

void Environment::extend_file() {
  const PageUse use = page_use();
  const std::uint64_t end_bytes = use.end_page * use.page_bytes;
  if (file_bytes_ >= end_bytes + kFileAheadBytes / 2) return;
  MDB_envinfo info{};
  mdb_env_info(environment_, &info);
  const std::uint64_t wanted =
      std::min<std::uint64_t>(end_bytes + kFileAheadBytes, info.me_mapsize);
  if (wanted <= file_bytes_) return;
  if (::ftruncate(file_descriptor(), static_cast<off_t>(wanted)) == 0) file_bytes_ = wanted;
}

Result<FreePages> Environment::free_pages(bool runs) {
  Result<Transaction> reading = begin_read();
  if (!reading) return reading.status();
  MDB_txn* const transaction = reading->transaction_;
  // What a commit freed can be used by the second commit after it: until then the state before that
  // commit is one that a crash may go back to.
  const std::size_t usable_below = mdb_txn_id(transaction);
  MDB_cursor* opened = nullptr;
  if (const int code = mdb_cursor_open(transaction, kFreeTable, &opened); code != 0) {
    return Outcome(code).to_status("Opening the table of free pages");
  }
  // Closes before `reading` ends.
  const std::unique_ptr<MDB_cursor, decltype(&mdb_cursor_close)> cursor(opened, mdb_cursor_close);

  const auto damaged = [this] {
    return Status(ErrorCode::kStorageFailed,
                  fmt::format("The table of free pages of {} is damaged. Restore the whole data "
                              "directory from a backup.",
                              data_file_));
  };
  // A record: key, the transaction; value, the number of pages and then their numbers.
  FreePages free;
  PageSet usable(runs ? page_use().end_page : 0);
  MDB_val key{};
  MDB_val value{};
  int code = 0;
  while ((code = mdb_cursor_get(cursor.get(), &key, &value, MDB_NEXT)) == 0) {
    const ByteSpan record = to_span(value);
    std::size_t count = 0;
    std::size_t freed_by = 0;
    if (key.mv_size == sizeof(freed_by) && record.size() >= sizeof(count)) {
      std::memcpy(&freed_by, key.mv_data, sizeof(freed_by));
      std::memcpy(&count, record.data(), sizeof(count));
    }
    if (freed_by == 0 || count > record.size() / sizeof(count) - 1) return damaged();
    free.pages += count;
    if (freed_by >= usable_below) continue;
    free.usable += count;
    for (std::size_t i = 0; runs && i < count; ++i) {
      std::uint64_t page = 0;
      std::memcpy(&page, record.data() + (i + 1) * sizeof(page), sizeof(page));
      if (!usable.insert(page)) return damaged();
    }
  }
  if (code != MDB_NOTFOUND) return Outcome(code).to_status("Reading the table of free pages");
  std::tie(free.longest_run, free.second_run) = usable.longest_runs();
  return free;
}

int Environment::file_descriptor() const {
  mdb_filehandle_t descriptor = -1;
  mdb_env_get_fd(environment_, &descriptor);
  return descriptor;
}

}  // namespace holdfast::broker
