#include "store/checker.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "core/block.h"
#include "store/directory.h"
#include "store/environment.h"
#include "store/journal.h"
#include "store/owner_sums.h"
#include "store/pages.h"
#include "store/record.h"

namespace holdfast::broker {

namespace {

// Address space for the map; a file that is larger is mapped whole all the same.
constexpr std::uint64_t kCheckMapBytes = 1ull << 40;

// What the walk knows of a subscription.
struct SubscriptionState {
  SubscriptionRecord record;
  std::map<std::uint64_t, AckRecord> acks;  // by chunk

  bool settled(Sequence sequence) const {
    if (sequence <= record.floor) return true;
    const std::uint64_t chunk = sequence / kAckChunk;
    const auto after = acks.upper_bound(chunk);
    if (after == acks.begin()) return false;
    const AckRecord& ack = std::prev(after)->second;
    if (ack.full_chunks > 0) return chunk - ack.chunk < ack.full_chunks;
    const std::uint64_t bit = sequence % kAckChunk;
    return ack.chunk == chunk && (ack.bitmap[bit / 64] >> (bit % 64) & 1) != 0;
  }

  // How many sequences from `first` on and before `end` are not settled.
  std::uint64_t unsettled(Sequence first, Sequence end) const {
    first = std::max(first, record.floor + 1);
    if (first >= end) return 0;
    std::uint64_t count = end - first;
    for (const auto& [chunk, ack] : acks) {
      const Sequence begin = std::max(first, chunk * kAckChunk);
      const std::uint64_t chunks = std::max<std::uint64_t>(ack.full_chunks, 1);
      const Sequence last = std::min(end, (chunk + chunks) * kAckChunk);
      if (begin >= last) continue;
      if (ack.full_chunks > 0) {
        count -= last - begin;
        continue;
      }
      for (Sequence sequence = begin; sequence < last; ++sequence) count -= settled(sequence);
    }
    return count;
  }
};

struct QueueState {
  QueueRecord record;
  std::vector<const SubscriptionState*> subscriptions;
  Sequence last_block_end = 0;
  std::uint64_t unsettled = 0;  // messages in its blocks
  std::uint64_t bytes = 0;      // of those
  bool bytes_known = true;      // false once a message was not legible

  bool settled(Sequence sequence) const {
    return std::all_of(subscriptions.begin(), subscriptions.end(),
                       [sequence](const SubscriptionState* s) { return s->settled(sequence); });
  }
};

// One walk over all tables.
class Checker {
 public:
  Checker(Transaction* transaction, const std::function<void(std::uint64_t)>& progress)
      : transaction_(transaction), progress_(progress) {}

  // `journal_path` is where a journal is, if the store has one.
  Result<CheckReport> run(const std::string& journal_path);

 private:
  template <typename Check>
  Status walk(Table table, const Check& check);
  void find(std::string where, std::string what) {
    report_.findings.push_back({std::move(where), std::move(what)});
  }
  void check_meta();
  void check_journal(const std::string& path);
  void check_queue(ByteSpan key, ByteSpan value);
  void check_subscription(ByteSpan key, ByteSpan value);
  void check_ack(ByteSpan key, ByteSpan value);
  void check_retry(ByteSpan key, ByteSpan value);
  void check_dedup(ByteSpan key, ByteSpan value);
  void check_block(ByteSpan key, ByteSpan value);
  void check_messages(const Block& block, const std::string& where, QueueState* queue);
  void check_owners();
  void check_pairs();
  void check_sums();
  // As people know it: by its name, too, where its record is legible.
  std::string queue_words(std::uint32_t id) const;
  std::string subscription_words(std::uint32_t id) const;
  QueueState* queue_of(std::uint32_t id, const std::string& where);
  SubscriptionState* subscription_of(std::uint32_t id, const std::string& where);

  Transaction* transaction_;
  const std::function<void(std::uint64_t)>& progress_;
  CheckReport report_;
  std::uint32_t next_id_ = 0;                // 0: not known
  std::optional<std::uint64_t> owners_sum_;  // as progress has it
  OwnerSums owners_;
  std::optional<JournalRecord> journal_;
  std::map<std::uint32_t, QueueState> queues_;
  std::map<std::string, std::uint32_t> names_;  // of queues
  std::map<std::uint32_t, SubscriptionState> subscriptions_;
  // Their records are damaged: what belongs to them is not reported once more.
  std::set<std::uint32_t> damaged_owners_;
};

template <typename Check>
Status Checker::walk(Table table, const Check& check) {
  Result<Cursor> cursor = transaction_->cursor(table);
  if (!cursor) return cursor.status();
  for (bool found = cursor->first(); found; found = cursor->next()) {
    check(cursor->key(), cursor->value());
  }
  if (!cursor->outcome().ok()) {
    find(fmt::format("table {}", table_name(table)),
         fmt::format("cannot be read to its end: {}", cursor->outcome().text()));
  }
  return Status();
}

Result<CheckReport> Checker::run(const std::string& journal_path) {
  check_meta();
  check_journal(journal_path);
  using Method = void (Checker::*)(ByteSpan, ByteSpan);
  const auto walk_with = [this](Table table, Method method) {
    return walk(table,
                [this, method](ByteSpan key, ByteSpan value) { (this->*method)(key, value); });
  };
  if (Status s = walk_with(Table::kQueues, &Checker::check_queue); !s) return s;
  if (Status s = walk_with(Table::kSubscriptions, &Checker::check_subscription); !s) return s;
  check_owners();
  check_pairs();
  if (Status s = walk_with(Table::kAcks, &Checker::check_ack); !s) return s;
  if (Status s = walk_with(Table::kRetries, &Checker::check_retry); !s) return s;
  if (Status s = walk_with(Table::kDedup, &Checker::check_dedup); !s) return s;
  if (Status s = walk_with(Table::kBlocks, &Checker::check_block); !s) return s;
  const auto check_due = [this](ByteSpan, ByteSpan) {
    find("table due", "holds a record, and is empty in this format");
  };
  if (Status s = walk(Table::kDue, check_due); !s) return s;
  check_sums();
  return std::move(report_);
}

void Checker::check_meta() {
  ByteSpan value;
  const ByteSpan node_key = meta_key(NodeRecord::kName);
  if (!transaction_->get(Table::kMeta, node_key, &value).ok() || !decode_node(node_key, value)) {
    find("meta, node", "is missing or does not match its checksum");
  }
  const ByteSpan progress_key = meta_key(ProgressRecord::kName);
  std::optional<ProgressRecord> progress;
  if (transaction_->get(Table::kMeta, progress_key, &value).ok()) {
    progress = decode_progress(progress_key, value);
  }
  if (!progress) return find("meta, progress", "is missing or does not match its checksum");
  report_.batch_number = progress->batch_number;
  next_id_ = progress->next_id;
  owners_sum_ = progress->owners_sum;

  const ByteSpan journal_key = meta_key(JournalRecord::kName);
  if (transaction_->get(Table::kMeta, journal_key, &value).ok()) {
    journal_ = decode_journal(journal_key, value);
  }
  if (!journal_) find("meta, journal", "is missing or does not match its checksum");
}

// What is in it, the next start brings into the tables; the walk is of the tables as they are.
void Checker::check_journal(const std::string& path) {
  if (!journal_ || journal_->bytes == 0) return;
  Result<std::unique_ptr<Journal>> journal = Journal::open(path, *journal_, true);
  if (!journal) return find("journal", journal.status().message());
  const Journal::Replayed replayed = (*journal)->replay(report_.batch_number, nullptr);
  report_.batches_journaled = replayed.batches;
  report_.batch_cut_short = replayed.cut_short;
  if (!replayed.outcome.ok()) {
    find("journal", fmt::format("cannot be read: {}", replayed.outcome.text()));
  } else if (replayed.damaged) {
    find(fmt::format("journal, batch {}", report_.batch_number + replayed.batches + 1),
         "does not match its checksum, though later batches do");
  }
}

void Checker::check_queue(ByteSpan key, ByteSpan value) {
  const std::string where = fmt::format("queue {}", key_owner(key));
  std::optional<QueueRecord> record = decode_queue(key, value);
  ++report_.queues;
  if (!record) {
    damaged_owners_.insert(key_owner(key));
    return find(where, "does not match its checksum");
  }
  owners_.put(Table::kQueues, record->id.value, value);
  if (next_id_ != 0 && record->id.value >= next_id_) {
    find(where, fmt::format("has an id that is still to be given away (next: {})", next_id_));
  }
  if (!record->deleted) {
    const auto [other, is_new] = names_.emplace(record->name, record->id.value);
    if (!is_new) {
      find(where,
           fmt::format("has the same name as queue {}: \"{}\"", other->second, record->name));
    }
  }
  queues_[record->id.value].record = std::move(*record);
}

void Checker::check_subscription(ByteSpan key, ByteSpan value) {
  const std::string where = fmt::format("subscription {}", key_owner(key));
  std::optional<SubscriptionRecord> record = decode_subscription(key, value);
  if (!record) {
    damaged_owners_.insert(key_owner(key));
    return find(where, "does not match its checksum");
  }
  owners_.put(Table::kSubscriptions, record->id.value, value);
  QueueState* const queue = queue_of(record->queue.value, where);
  SubscriptionState& state = subscriptions_[record->id.value];
  state.record = std::move(*record);
  if (queue == nullptr) return;
  queue->subscriptions.push_back(&state);
  if (state.record.floor >= queue->record.next_sequence) {
    find(where, fmt::format("has its floor at {}, and the queue's next sequence is {}",
                            state.record.floor, queue->record.next_sequence));
  }
}

void Checker::check_owners() {
  if (!owners_sum_ || !damaged_owners_.empty() || owners_.sum() == *owners_sum_) return;
  find("queues and subscriptions",
       fmt::format("are not as batch {} left them: some of their records are older",
                   report_.batch_number));
}

// Queue and dead-letter queue name each other, and each has a subscription.
void Checker::check_pairs() {
  for (const auto& [id, queue] : queues_) {
    const std::string where = queue_words(id);
    if (queue.record.deleted) continue;
    if (queue.subscriptions.empty() && damaged_owners_.empty()) find(where, "has no subscription");
    const bool is_dead = static_cast<bool>(queue.record.source_queue);
    const QueueId other = is_dead ? queue.record.source_queue : queue.record.dead_queue;
    const auto found = queues_.find(other.value);
    if (found == queues_.end()) {
      if (!damaged_owners_.contains(other.value)) {
        find(where, fmt::format("names queue {}, which does not exist", other.value));
      }
      continue;
    }
    const QueueRecord& back = found->second.record;
    if ((is_dead ? back.dead_queue : back.source_queue).value != id) {
      find(where, fmt::format("names queue {}, which does not name it", other.value));
    }
  }
}

std::string Checker::queue_words(std::uint32_t id) const {
  const auto found = queues_.find(id);
  if (found == queues_.end()) return fmt::format("queue {}", id);
  return fmt::format("queue {} \"{}\"", id, found->second.record.name);
}

std::string Checker::subscription_words(std::uint32_t id) const {
  const auto found = subscriptions_.find(id);
  if (found == subscriptions_.end()) return fmt::format("subscription {}", id);
  return fmt::format("subscription {} of {}", id, queue_words(found->second.record.queue.value));
}

QueueState* Checker::queue_of(std::uint32_t id, const std::string& where) {
  const auto found = queues_.find(id);
  if (found != queues_.end()) return &found->second;
  if (!damaged_owners_.contains(id)) {
    find(where, fmt::format("belongs to queue {}, which does not exist", id));
  }
  return nullptr;
}

SubscriptionState* Checker::subscription_of(std::uint32_t id, const std::string& where) {
  const auto found = subscriptions_.find(id);
  if (found != subscriptions_.end()) return &found->second;
  if (!damaged_owners_.contains(id)) {
    find(where, fmt::format("belongs to subscription {}, which does not exist", id));
  }
  return nullptr;
}

void Checker::check_ack(ByteSpan key, ByteSpan value) {
  const std::optional<AckKey> at = read_ack_key(key);
  const std::string where =
      fmt::format("acks of {}, chunk {}", subscription_words(key_owner(key)), at ? at->chunk : 0);
  std::optional<AckRecord> record = decode_ack(key, value);
  if (!record) {
    // Which messages are settled is not known now, so neither is how many bytes are not.
    const auto owner = subscriptions_.find(key_owner(key));
    if (owner != subscriptions_.end()) {
      const auto queue = queues_.find(owner->second.record.queue.value);
      if (queue != queues_.end()) queue->second.bytes_known = false;
    }
    return find(where,
                "does not match its checksum; what blocks hold of its messages is delivered again");
  }
  SubscriptionState* const subscription = subscription_of(key_owner(key), where);
  if (subscription == nullptr) return;
  if (!subscription->acks.empty()) {
    const AckRecord& last = subscription->acks.rbegin()->second;
    if (record->chunk < last.chunk + std::max<std::uint64_t>(last.full_chunks, 1)) {
      find(where, "overlaps the record before it");
    }
  }
  subscription->acks.emplace(record->chunk, *record);
}

void Checker::check_retry(ByteSpan key, ByteSpan value) {
  const std::optional<RetryKey> at = read_retry_key(key);
  const std::string where = fmt::format("retry of {}, sequence {}",
                                        subscription_words(key_owner(key)), at ? at->sequence : 0);
  const std::optional<RetryRecord> record = decode_retry(key, value);
  if (!record) return find(where, "does not match its checksum; its attempts are not counted");
  SubscriptionState* const subscription = subscription_of(key_owner(key), where);
  if (subscription == nullptr) return;
  if (subscription->settled(record->sequence)) find(where, "is of a message that is settled");
  const auto queue = queues_.find(subscription->record.queue.value);
  if (queue != queues_.end() && record->sequence >= queue->second.record.next_sequence) {
    find(where, fmt::format("is of a message that was never published (next sequence: {})",
                            queue->second.record.next_sequence));
  }
}

void Checker::check_dedup(ByteSpan key, ByteSpan value) {
  const std::optional<DedupKey> at = read_dedup_key(key);
  const std::string where =
      fmt::format("dedup of {}, sequence {}", queue_words(key_owner(key)), at ? at->first : 0);
  std::vector<MessageIdHash> aligned;
  const std::optional<DedupRun> run = decode_dedup(key, value, &aligned);
  if (!run) return find(where, "does not match its checksum; its ids may be stored twice");
  const QueueState* const queue = queue_of(key_owner(key), where);
  if (queue != nullptr && run->key.first + run->hashes.size() > queue->record.next_sequence) {
    find(where,
         fmt::format("has ids beyond the queue's next sequence {}", queue->record.next_sequence));
  }
}

void Checker::check_block(ByteSpan key, ByteSpan value) {
  ++report_.blocks;
  if (progress_) progress_(report_.blocks);
  const std::optional<BlockKey> at = read_block_key(key);
  const std::string where = fmt::format("block of {}, first sequence {}",
                                        queue_words(key_owner(key)), at ? at->first : 0);
  if (!at) return find(where, "has a key of the wrong length");
  QueueState* const queue = queue_of(at->queue.value, where);
  Result<std::shared_ptr<const Block>> read = Block::from_record(at->queue, at->first, value);
  if (!read) {
    if (queue != nullptr) queue->bytes_known = false;
    return find(where,
                "has a header that does not match its checksum and key; its messages are "
                "lost");
  }
  const Block& block = **read;
  report_.bytes += value.size();
  report_.messages += block.entry_count();
  if (block.table_rebuilt()) find(where, "has a damaged table, which costs no message by itself");
  if (queue != nullptr) {
    if (block.last_sequence() >= queue->record.next_sequence) {
      find(where, fmt::format("ends at {}, and the queue's next sequence is {}",
                              block.last_sequence(), queue->record.next_sequence));
    }
    if (block.first_sequence() <= queue->last_block_end) {
      find(where,
           fmt::format("overlaps the block before it, which ends at {}", queue->last_block_end));
    }
    queue->last_block_end = block.last_sequence();
  }
  check_messages(block, where, queue);
}

void Checker::check_messages(const Block& block, const std::string& where, QueueState* queue) {
  for (std::size_t i = 0; i < block.entry_count(); ++i) {
    const BlockEntry entry = block.entry(i);
    if (block.is_corrupt(i)) {
      find(where, fmt::format("message {} does not match its checksum", entry.sequence));
      if (queue != nullptr) queue->bytes_known = false;
    } else if (read_message(entry.message) == nullptr) {
      find(where, fmt::format("message {} is not a message", entry.sequence));
    } else if (!entry.provenance.empty() && read_provenance(entry.provenance) == nullptr) {
      find(where, fmt::format("the provenance of message {} is not one", entry.sequence));
    }
    if (queue == nullptr || queue->record.deleted || entry.sequence < queue->record.trim_below ||
        queue->settled(entry.sequence)) {
      continue;
    }
    ++report_.unsettled;
    ++queue->unsettled;
    queue->bytes += entry.stored_bytes();
  }
}

// What is not settled is in the blocks.
void Checker::check_sums() {
  for (const auto& [id, queue] : queues_) {
    if (queue.record.deleted || !queue.bytes_known || !damaged_owners_.empty()) continue;
    const std::string where = queue_words(id);
    if (queue.bytes != queue.record.bytes && !queue.record.bytes_estimated) {
      find(where, fmt::format("counts {} bytes that are not settled, and its blocks hold {}",
                              queue.record.bytes, queue.bytes));
    }
    if (queue.subscriptions.size() != 1) continue;
    const std::uint64_t unsettled = queue.subscriptions.front()->unsettled(
        std::max<Sequence>(queue.record.trim_below, 1), queue.record.next_sequence);
    if (queue.unsettled != unsettled) {
      find(where, fmt::format("has {} messages that are not settled, and its blocks hold {}",
                              unsettled, queue.unsettled));
    }
  }
}

Status no_creation(const std::string& directory) {
  return Status(ErrorCode::kDirectoryForeign, fmt::format("There is no store in {}.", directory));
}

}  // namespace

Result<CheckReport> check_directory(const std::string& directory,
                                    const std::function<void(std::uint64_t)>& progress) {
  Result<std::unique_ptr<DataDirectory>> opened = DataDirectory::open(
      {.path = directory, .read_only = true, .allow_network_file_system = true}, no_creation);
  if (!opened) return opened.status();
  const std::string data_file = (*opened)->store_path() + "/" + std::string(kDataFileName);
  Result<PageReport> pages = check_pages(data_file, PageScope::kAll);
  if (!pages) return pages.status();
  if (!pages->findings.empty()) {
    CheckReport report;
    report.findings = std::move(pages->findings);
    if (report.findings.front().where != data_file) {
      report.findings.push_back(
          {data_file, "has damaged pages, so its records were not looked at"});
    }
    return report;
  }
  Result<std::unique_ptr<Environment>> environment =
      Environment::open({.directory = (*opened)->store_path(),
                         .map_bytes = kCheckMapBytes,
                         .create = false,
                         .read_only = true});
  if (!environment) return environment.status();
  Result<Transaction> transaction = (*environment)->begin_read();
  if (!transaction) return transaction.status();
  return Checker(&*transaction, progress)
      .run(fmt::format("{}/{}", (*opened)->store_path(), kJournalFileName));
}

}  // namespace holdfast::broker
