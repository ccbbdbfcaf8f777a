#include "store/store.h"

#include <fmt/format.h>
#include <sys/random.h>
#include <sys/statvfs.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <limits>
#include <optional>
#include <set>
#include <utility>

#include "base/check.h"
#include "store/committer.h"
#include "store/directory.h"
#include "store/environment.h"
#include "store/file.h"
#include "store/held_sequences.h"
#include "store/journal.h"
#include "store/journaled_records.h"
#include "store/owner_sums.h"
#include "store/record.h"
#include "store/space.h"
#include "store/table_writer.h"

namespace holdfast::broker {

namespace {

Status damaged(const std::string& data_file, std::string_view what) {
  return Status(ErrorCode::kStorageFailed,
                fmt::format("The {} in {} does not match its checksum. Run `holdfast check` on the "
                            "data directory, and restore it from a backup.",
                            what, data_file));
}

Status older(const std::string& data_file, std::uint64_t batch_number) {
  return Status(ErrorCode::kStorageFailed,
                fmt::format("The records of the queues and subscriptions in {} are not as batch {} "
                            "left them: some are older, as if a write had not reached the disk. "
                            "Run `holdfast check` on the data directory, and restore it from a "
                            "backup.",
                            data_file, batch_number));
}

Result<std::uint64_t> random_number(std::string_view what) {
  std::uint64_t number = 0;
  if (::getrandom(&number, sizeof(number), 0) != sizeof(number)) {
    return Outcome(EIO).to_status(fmt::format("Choosing {}", what));
  }
  return number;
}

std::string journal_path(const std::string& directory) {
  return fmt::format("{}/{}", directory, kJournalFileName);
}

// A small part of what the store may have; none where that is too little for some batches.
std::uint64_t journal_bytes(const std::string& directory, const StoreOptions& options) {
  constexpr std::uint64_t kShare = 64;
  constexpr std::uint64_t kStepBytes = 64 << 10;
  constexpr std::uint64_t kBytesMin = 4 * kStepBytes;
  struct statvfs disk {};
  if (::statvfs(directory.c_str(), &disk) != 0) return 0;
  std::uint64_t limit = std::min(std::uint64_t{disk.f_blocks} * disk.f_frsize, file_bytes_max());
  if (options.size_bytes_max > 0) limit = std::min(limit, options.size_bytes_max);
  const std::uint64_t bytes = std::min(options.journal_bytes, limit / kShare);
  return bytes < kBytesMin ? 0 : bytes / kStepBytes * kStepBytes;
}

// The records of meta, in the transaction that makes the tables.
Outcome put_meta(Transaction* transaction, const NodeRecord& node, const JournalRecord& journal) {
  RecordEncoder encoder;
  const auto put = [&](const auto& record) {
    const ByteSpan key = meta_key(record.kName);
    return transaction->put(Table::kMeta, key, encoder.encode(key, record));
  };
  Outcome outcome = put(node);
  if (outcome.ok()) outcome = put(journal);
  if (outcome.ok()) outcome = put(ProgressRecord());
  return outcome;
}

// A new store: all tables, and the records of meta, in one transaction; and the journal.
Status create_store(const std::string& directory, const StoreOptions& options) {
  // The map is as large as a first transaction needs; the store is opened anew with its own.
  constexpr std::uint64_t kCreationMapBytes = 1 << 20;
  const Result<std::uint64_t> node_id = random_number("a node id");
  if (!node_id) return node_id.status();
  const Result<std::uint64_t> salt = random_number("the journal's salt");
  if (!salt) return salt.status();
  const JournalRecord journal{.bytes = journal_bytes(directory, options), .salt = *salt};
  if (journal.bytes > 0) {
    if (Status status = Journal::create(journal_path(directory), journal); !status) return status;
  }
  Result<std::unique_ptr<Environment>> environment =
      Environment::open({.directory = directory, .map_bytes = kCreationMapBytes, .create = true});
  if (!environment) return environment.status();
  std::optional<Transaction> transaction;
  Outcome outcome = (*environment)->begin_write(&transaction);
  if (outcome.ok()) {
    outcome =
        put_meta(&*transaction,
                 {.format = kFormatVersion, .node_id = fmt::format("{:016x}", *node_id)}, journal);
  }
  if (outcome.ok()) outcome = transaction->commit();
  if (!outcome.ok()) return outcome.to_status("Creating a store in " + directory);
  return Status();
}

// What meta holds, checked.
struct Meta {
  NodeRecord node;
  ProgressRecord progress;
  JournalRecord journal;
};

Result<Meta> read_meta(Environment* environment) {
  Result<Transaction> transaction = environment->begin_read();
  if (!transaction) return transaction.status();
  const std::string& data_file = environment->data_file();
  const auto read = [&](auto decode, auto* record) -> Status {
    const std::string_view name = record->kName;
    ByteSpan value;
    const Outcome outcome = transaction->get(Table::kMeta, meta_key(name), &value);
    if (!outcome.ok()) {
      return outcome.to_status(fmt::format("Reading the record {} of {}", name, data_file));
    }
    auto decoded = decode(meta_key(name), value);
    if (!decoded) return damaged(data_file, fmt::format("record {}", name));
    *record = std::move(*decoded);
    return Status();
  };
  Meta meta;
  if (Status status = read(decode_node, &meta.node); !status) return status;
  if (meta.node.format != kFormatVersion) {
    return Status(meta.node.format > kFormatVersion ? ErrorCode::kDirectoryNewer
                                                    : ErrorCode::kDirectoryForeign,
                  fmt::format("{} has format {}; this Holdfast ({}) knows format {}. Run the "
                              "version that wrote it.",
                              data_file, meta.node.format, HOLDFAST_VERSION, kFormatVersion));
  }
  if (Status status = read(decode_progress, &meta.progress); !status) return status;
  if (Status status = read(decode_journal, &meta.journal); !status) return status;
  return meta;
}

Status journal_damaged(const std::string& path, std::uint64_t batch_number) {
  return Status(ErrorCode::kStorageFailed,
                fmt::format("Batch {} in {} does not match its checksum, though later ones do: "
                            "what was confirmed with it is lost. Restore the whole data directory "
                            "from a backup.",
                            batch_number, path));
}

// Brings what the journal holds behind the tables' last batch into them. Gives the batch that was
// left out because it is not whole; 0: none.
Result<std::uint64_t> replay(Journal* journal, Environment* environment, const Meta& meta,
                             const std::string& path) {
  std::optional<Transaction> transaction;
  Outcome outcome = environment->begin_write(&transaction);
  if (!outcome.ok()) return outcome.to_status("Writing " + environment->data_file());
  TrimsLeft left;
  TableWriter tables(&*transaction, &left);
  const Journal::Replayed replayed = journal->replay(meta.progress.batch_number, &tables);
  if (!replayed.outcome.ok()) return replayed.outcome.to_status("Applying " + path);
  if (replayed.damaged) {
    return journal_damaged(path, meta.progress.batch_number + replayed.batches + 1);
  }
  if (replayed.batches > 0) outcome = transaction->commit();
  if (!outcome.ok()) return outcome.to_status("Applying " + path);
  journal->clear();
  return replayed.cut_short;
}

struct OpenJournal {
  std::unique_ptr<Journal> journal;  // null: there is none
  std::uint64_t batch_cut_short = 0;
};

Result<OpenJournal> open_journal(Environment* environment, const std::string& directory) {
  Result<Meta> meta = read_meta(environment);
  if (!meta) return meta.status();
  if (meta->journal.bytes == 0) return OpenJournal();
  const std::string path = journal_path(directory);
  if (meta->journal.bytes > file_bytes_max()) {
    return Status(ErrorCode::kStorageFailed,
                  fmt::format("{} has {} bytes, and a file of this process may have {}. Raise that "
                              "limit (ulimit -f).",
                              path, meta->journal.bytes, file_bytes_max()));
  }
  Result<std::unique_ptr<Journal>> journal = Journal::open(path, meta->journal, false);
  if (!journal) return journal.status();
  const Result<std::uint64_t> cut_short = replay(journal->get(), environment, *meta, path);
  if (!cut_short) return cut_short.status();
  return OpenJournal{.journal = std::move(*journal), .batch_cut_short = *cut_short};
}

// A copied record, to be checked when no transaction is open any more.
struct RawBlock {
  BlockKey key;
  BlockBytes bytes;
  std::size_t size = 0;
  Sequence last_if_unreadable = 0;
};

RawBlock copy_block(const BlockKey& key, ByteSpan record) {
  RawBlock raw{.key = key,
               .bytes = BlockBytes(static_cast<std::uint8_t*>(
                   std::malloc(std::max<std::size_t>(record.size(), 1)))),
               .size = record.size(),
               .last_if_unreadable = 0};
  CHECK(raw.bytes != nullptr, "out of memory for a block of {} bytes", record.size());
  if (!record.empty()) std::memcpy(raw.bytes.get(), record.data(), record.size());
  return raw;
}

// To the queue's first block that may hold `request.from` or what follows it: the one before the
// first that begins there or later may reach up to it. Whether the cursor then stands on a record,
// which may be another queue's.
bool seek_first(Cursor* cursor, const FetchRequest& request) {
  const bool found = cursor->seek(block_key(request.queue, request.from));
  std::optional<BlockKey> key = found ? read_block_key(cursor->key()) : std::nullopt;
  if (key && key->queue == request.queue && key->first == request.from) return true;
  const bool before = found ? cursor->previous() : cursor->last();
  if (!before) return cursor->outcome().ok() && cursor->first();
  key = read_block_key(cursor->key());
  return (key && key->queue == request.queue) || cursor->next();
}

class LmdbStore : public Store {
 public:
  LmdbStore(std::unique_ptr<DataDirectory> directory, std::unique_ptr<Environment> environment,
            OpenJournal journal, const StoreOptions& options)
      : directory_(std::move(directory)),
        environment_(std::move(environment)),
        journal_(std::move(journal.journal)),
        batch_cut_short_(journal.batch_cut_short),
        space_(environment_.get(), {.directory = options.directory,
                                    .map_bytes = options.map_bytes,
                                    .size_bytes_max = options.size_bytes_max,
                                    .preallocate_bytes = options.preallocate_bytes}),
        catch_up_interval_(options.catch_up_interval),
        reader_check_interval_(options.reader_check_interval) {}
  ~LmdbStore() override { close(); }

  Result<StoredState> load() override;
  Result<std::uint64_t> load_dedup(const DedupLoader& loader) override;
  void start(std::function<void(CommitResult)> committed, std::function<void(Status)> fatal,
             std::function<void(SpaceReport)> space) override;
  void commit(Batches batches) override;
  Result<FetchResult> fetch_blocking(const FetchRequest& request) override;
  Result<IdsResult> fetch_ids_blocking(const IdsRequest& request) override;
  void close() override;

 private:
  const std::string& data_file() const { return environment_->data_file(); }
  // Calls `take` with each record of the table; it returns whether the record could be trusted.
  template <typename Take>
  Result<std::uint64_t> for_each_record(Transaction* transaction, Table table, const Take& take);
  // The tables' blocks but for those that are journaled, which it adds to `journaled`. At most
  // bytes_max and one block; then those that begin later are taken from `journaled`, too.
  Result<std::vector<RawBlock>> copy_blocks(const FetchRequest& request,
                                            JournaledBlocks* journaled);

  // Destroyed from the last to the first: nothing outlives what it works on.
  std::unique_ptr<DataDirectory> directory_;
  std::unique_ptr<Environment> environment_;
  std::unique_ptr<Journal> journal_;  // null: there is none
  const std::uint64_t batch_cut_short_;
  JournaledRecords journaled_;
  Space space_;
  const std::chrono::milliseconds catch_up_interval_;
  const std::chrono::milliseconds reader_check_interval_;
  std::optional<ProgressRecord> progress_;  // once loaded
  OwnerSums owners_;                        // likewise, until the committer has them
  std::unique_ptr<Committer> committer_;
};

template <typename Take>
Result<std::uint64_t> LmdbStore::for_each_record(Transaction* transaction, Table table,
                                                 const Take& take) {
  Result<Cursor> cursor = transaction->cursor(table);
  if (!cursor) return cursor.status();
  std::uint64_t corrupt = 0;
  for (bool found = cursor->first(); found; found = cursor->next()) {
    if (!take(cursor->key(), cursor->value())) ++corrupt;
  }
  if (!cursor->outcome().ok()) {
    return cursor->outcome().to_status(
        fmt::format("Reading the table {} of {}", table_name(table), data_file()));
  }
  return corrupt;
}

// Moves a decoded record to the end of a list.
template <typename Record>
bool keep(std::optional<Record> record, std::vector<Record>* list) {
  if (record) list->push_back(std::move(*record));
  return record.has_value();
}

// What the blocks of the subscriptions' queues hold; those of all queues, if one of them is
// unknown.
Status load_held(Transaction* transaction, const std::set<SubscriptionId>& subscriptions,
                 StoredState* state) {
  std::set<QueueId> queues;
  std::size_t known = 0;
  for (const SubscriptionRecord& record : state->subscriptions) {
    if (!subscriptions.contains(record.id)) continue;
    queues.insert(record.queue);
    ++known;
  }
  const bool all = known < subscriptions.size();
  for (const QueueRecord& record : state->queues) {
    if (record.deleted || (!all && !queues.contains(record.id))) continue;
    Result<std::vector<SequenceRange>> ranges =
        held_sequences(transaction, record.id, record.next_sequence);
    if (!ranges) return ranges.status();
    state->held.push_back({record.id, std::move(*ranges)});
  }
  return Status();
}

Result<StoredState> LmdbStore::load() {
  Result<Transaction> transaction = environment_->begin_read();
  if (!transaction) return transaction.status();
  Result<Meta> meta = read_meta(environment_.get());
  if (!meta) return meta.status();
  progress_ = meta->progress;
  StoredState state;
  state.node_id = meta->node.node_id;
  state.batch_number = progress_->batch_number;
  state.batch_cut_short = batch_cut_short_;
  state.next_id = progress_->next_id;

  OwnerSums owners;
  const auto load_owners = [&](Table table, auto decode, auto* list) {
    return for_each_record(&*transaction, table, [&](ByteSpan key, ByteSpan value) {
      const bool kept = keep(decode(key, value), list);
      if (kept) owners.put(table, list->back().id.value, value);
      return kept;
    });
  };
  Result<std::uint64_t> corrupt = load_owners(Table::kQueues, decode_queue, &state.queues);
  if (!corrupt) return corrupt.status();
  if (*corrupt > 0) return damaged(data_file(), "record of a queue");
  corrupt = load_owners(Table::kSubscriptions, decode_subscription, &state.subscriptions);
  if (!corrupt) return corrupt.status();
  if (*corrupt > 0) return damaged(data_file(), "record of a subscription");
  if (owners.sum() != progress_->owners_sum) return older(data_file(), progress_->batch_number);
  owners_ = std::move(owners);
  // What is lost with these is told apart again: messages without their acks are delivered again as
  // far as blocks still hold them, and those without their retries from the first attempt on.
  std::set<SubscriptionId> acks_lost;
  corrupt = for_each_record(&*transaction, Table::kAcks, [&](ByteSpan key, ByteSpan value) {
    if (keep(decode_ack(key, value), &state.acks)) return true;
    acks_lost.insert(SubscriptionId(key_owner(key)));
    keep(read_ack_key(key), &state.acks_corrupt);
    return false;
  });
  if (!corrupt) return corrupt.status();
  state.records_corrupt += *corrupt;
  if (Status status = load_held(&*transaction, acks_lost, &state); !status) return status;
  corrupt = for_each_record(&*transaction, Table::kRetries, [&](ByteSpan key, ByteSpan value) {
    if (keep(decode_retry(key, value), &state.retries)) return true;
    keep(read_retry_key(key), &state.retries_corrupt);
    return false;
  });
  if (!corrupt) return corrupt.status();
  state.records_corrupt += *corrupt;

  Result<SpaceReport> space = space_.measure_now(0);
  if (!space) return space.status();
  state.space = std::move(*space);
  return state;
}

Result<std::uint64_t> LmdbStore::load_dedup(const DedupLoader& loader) {
  Result<Transaction> transaction = environment_->begin_read();
  if (!transaction) return transaction.status();
  std::vector<MessageIdHash> aligned;
  return for_each_record(&*transaction, Table::kDedup, [&](ByteSpan key, ByteSpan value) {
    const std::optional<DedupRun> run = decode_dedup(key, value, &aligned);
    if (run) loader(run->key.queue, run->key.time_ms, run->key.first, run->hashes);
    return run.has_value();
  });
}

void LmdbStore::start(std::function<void(CommitResult)> committed,
                      std::function<void(Status)> fatal, std::function<void(SpaceReport)> space) {
  CHECK(progress_.has_value() && committer_ == nullptr, "start() without load(), or twice");
  committer_ =
      std::make_unique<Committer>(CommitterParts{.environment = environment_.get(),
                                                 .space = &space_,
                                                 .journal = journal_.get(),
                                                 .journaled = &journaled_,
                                                 .catch_up_interval = catch_up_interval_,
                                                 .reader_check_interval = reader_check_interval_},
                                  *progress_, std::move(owners_));
  committer_->start(
      {.committed = std::move(committed), .fatal = std::move(fatal), .space = std::move(space)});
}

void LmdbStore::commit(Batches batches) {
  CHECK(committer_ != nullptr, "commit() before start()");
  committer_->commit(std::move(batches));
}

// The records are copied within the transaction and checked after it, so that it stays short.
Result<std::vector<RawBlock>> LmdbStore::copy_blocks(const FetchRequest& request,
                                                     JournaledBlocks* journaled) {
  std::vector<RawBlock> copied;
  Result<Transaction> transaction =
      journaled_.begin_read(environment_.get(), request.queue, request.to, journaled);
  if (!transaction) return transaction.status();
  Result<Cursor> cursor = transaction->cursor(Table::kBlocks);
  if (!cursor) return cursor.status();

  std::size_t bytes = 0;
  bool last_unreadable = false;
  for (bool found = seek_first(&*cursor, request); found; found = cursor->next()) {
    const std::optional<BlockKey> key = read_block_key(cursor->key());
    if (!key || key->queue != request.queue) break;
    if (last_unreadable) copied.back().last_if_unreadable = key->first - 1;
    const bool enough = bytes > 0 && bytes >= request.bytes_max;
    if (enough) journaled->erase(journaled->lower_bound(key->first), journaled->end());
    if (key->first > request.to || enough) {
      last_unreadable = false;
      break;
    }
    if (journaled->contains(key->first)) {
      last_unreadable = false;
      continue;
    }
    const std::optional<BlockHeader> header =
        read_block_header(request.queue, key->first, cursor->value());
    last_unreadable = !header.has_value();
    if (header && header->last_sequence < request.from) continue;
    copied.push_back(copy_block(*key, cursor->value()));
    if (header) copied.back().last_if_unreadable = header->last_sequence;
    bytes += copied.back().size;
  }
  if (!cursor->outcome().ok()) {
    return cursor->outcome().to_status("Reading the blocks of " + data_file());
  }
  if (last_unreadable) {
    copied.back().last_if_unreadable = std::max(request.to, copied.back().key.first);
  }
  return copied;
}

Result<FetchResult> LmdbStore::fetch_blocking(const FetchRequest& request) {
  JournaledBlocks journaled;
  Result<std::vector<RawBlock>> copied = copy_blocks(request, &journaled);
  if (!copied) return copied.status();
  FetchResult result{.id = request.id, .from = request.from, .blocks = {}, .unreadable = {}};
  std::size_t bytes = 0;
  auto next = journaled.begin();
  const auto take_journaled = [&](Sequence before) {
    for (; next != journaled.end() && next->first < before; ++next) {
      const std::shared_ptr<const Block>& block = next->second;
      if (block == nullptr || block->last_sequence() < request.from) continue;
      if (bytes > 0 && bytes >= request.bytes_max) continue;
      result.blocks.push_back(block);
      bytes += block->bytes().size();
    }
  };
  for (RawBlock& raw : *copied) {
    take_journaled(raw.key.first);
    if (bytes > 0 && bytes >= request.bytes_max) break;
    Result<std::shared_ptr<const Block>> block =
        Block::from_bytes(raw.key.queue, raw.key.first, &raw.bytes, raw.size);
    if (block) {
      result.blocks.push_back(std::move(*block));
      bytes += raw.size;
      continue;
    }
    if (next != journaled.end()) {
      raw.last_if_unreadable = std::min(raw.last_if_unreadable, next->first - 1);
    }
    if (raw.last_if_unreadable >= request.from) {
      result.unreadable.push_back({.first = raw.key.first,
                                   .last = raw.last_if_unreadable,
                                   .raw = {raw.bytes.get(), raw.bytes.get() + raw.size}});
      bytes += raw.size;
    }
  }
  take_journaled(std::numeric_limits<Sequence>::max());
  return result;
}

Result<IdsResult> LmdbStore::fetch_ids_blocking(const IdsRequest& request) {
  IdsResult result{.id = request.id, .queue = request.queue, .records = {}};
  std::vector<DedupRecord> journaled;
  Result<Transaction> transaction = journaled_.begin_read(environment_.get(), request, &journaled);
  if (!transaction) return transaction.status();
  Result<Cursor> cursor = transaction->cursor(Table::kDedup);
  if (!cursor) return cursor.status();
  std::vector<MessageIdHash> aligned;
  bool found = cursor->seek(dedup_key(request.queue, request.begin.first, request.begin.second));
  for (; found; found = cursor->next()) {
    const std::optional<DedupKey> key = read_dedup_key(cursor->key());
    if (!key || key->queue != request.queue || std::pair(key->time_ms, key->first) >= request.end) {
      break;
    }
    const std::optional<DedupRun> run = decode_dedup(cursor->key(), cursor->value(), &aligned);
    if (!run) {
      ++result.records_corrupt;
      continue;
    }
    result.records.push_back(
        {key->queue, key->time_ms, key->first, {run->hashes.begin(), run->hashes.end()}});
  }
  if (!cursor->outcome().ok()) {
    return cursor->outcome().to_status("Reading the ids of " + data_file());
  }
  // Their time never goes back within a queue: what is journaled is younger than the tables' ids.
  std::move(journaled.begin(), journaled.end(), std::back_inserter(result.records));
  return result;
}

void LmdbStore::close() {
  if (committer_ != nullptr) committer_->stop();
  committer_.reset();
}

}  // namespace

Result<std::unique_ptr<Store>> Store::open(const StoreOptions& options) {
  Result<std::unique_ptr<DataDirectory>> directory = DataDirectory::open(
      {.path = options.directory, .allow_network_file_system = options.allow_network_file_system},
      [&options](const std::string& path) { return create_store(path, options); });
  if (!directory) return directory.status();
  Result<std::unique_ptr<Environment>> environment =
      Environment::open({.directory = (*directory)->store_path(), .map_bytes = options.map_bytes});
#ifdef HOLDFAST_BREAK_ABORT_ON_DAMAGE
  if (!environment) std::abort();
#endif
  if (!environment) return environment.status();
#ifndef HOLDFAST_BREAK_SKIP_START_SYNC
  // Before anything is served: a commit that only reached the page cache before the last process
  // died must not be answered for and then be lost with the power.
  if (Outcome outcome = (*environment)->sync(); !outcome.ok()) {
    return outcome.to_status("Flushing " + (*environment)->data_file());
  }
#endif
  if (Outcome outcome = (*environment)->check_readers(); !outcome.ok()) {
    return outcome.to_status("Checking the readers of " + (*environment)->data_file());
  }
  Result<OpenJournal> journal = open_journal(environment->get(), (*directory)->store_path());
  if (!journal) return journal.status();
  return std::unique_ptr<Store>(std::make_unique<LmdbStore>(
      std::move(*directory), std::move(*environment), std::move(*journal), options));
}

}  // namespace holdfast::broker
