#include "store/batch_writer.h"

#include <cerrno>
#include <optional>

namespace holdfast::broker {

Outcome BatchWriter::apply(const Batch& batch, std::uint32_t next_id, Transaction* transaction,
                           TrimsLeft* left) {
  transaction_ = transaction;
  left_ = left;
  const ByteSpan key = meta_key(ProgressRecord::kName);
  const ProgressRecord progress{.batch_number = batch.number, .next_id = next_id};
  Outcome outcome = transaction_->put(Table::kMeta, key, encoder_.encode(key, progress));
  if (outcome.ok()) outcome = put_records(batch);
  if (outcome.ok()) outcome = put_blocks(batch);
  if (outcome.ok()) outcome = put_settlements(batch);
  if (outcome.ok()) outcome = put_dedup(batch);
  if (outcome.ok()) outcome = remove_owners(batch);
  return outcome;
}

Outcome BatchWriter::put_records(const Batch& batch) {
  for (const QueueRecord& record : batch.queues) {
    const RecordKey key = queue_key(record.id);
    const Outcome outcome = transaction_->put(Table::kQueues, key, encoder_.encode(key, record));
    if (!outcome.ok()) return outcome;
  }
  for (const SubscriptionRecord& record : batch.subscriptions) {
    const RecordKey key = subscription_key(record.id);
    const Outcome outcome =
        transaction_->put(Table::kSubscriptions, key, encoder_.encode(key, record));
    if (!outcome.ok()) return outcome;
  }
  return Outcome();
}

Outcome BatchWriter::put_blocks(const Batch& batch) {
  for (const BlockKey& removed : batch.blocks_removed) {
    const Outcome outcome = remove(Table::kBlocks, block_key(removed.queue, removed.first));
    if (!outcome.ok()) return outcome;
  }
  for (const std::shared_ptr<const Block>& block : batch.blocks) {
    const Outcome outcome = transaction_->put(
        Table::kBlocks, block_key(block->queue(), block->first_sequence()), block->bytes());
    if (!outcome.ok()) return outcome;
  }
  for (const BlockTrim& trim : batch.block_trims) {
    const Outcome outcome = trim_blocks(trim);
    if (!outcome.ok()) return outcome;
  }
  return Outcome();
}

Outcome BatchWriter::put_settlements(const Batch& batch) {
  for (const AckKey& removed : batch.acks_removed) {
    const Outcome outcome = remove(Table::kAcks, ack_key(removed.subscription, removed.chunk));
    if (!outcome.ok()) return outcome;
  }
  for (const AckRecord& record : batch.acks) {
    const RecordKey key = ack_key(record.subscription, record.chunk);
    const Outcome outcome = transaction_->put(Table::kAcks, key, encoder_.encode(key, record));
    if (!outcome.ok()) return outcome;
  }
  for (const RetryKey& removed : batch.retries_removed) {
    const Outcome outcome =
        remove(Table::kRetries, retry_key(removed.subscription, removed.sequence));
    if (!outcome.ok()) return outcome;
  }
  for (const RetryRecord& record : batch.retries) {
    const RecordKey key = retry_key(record.subscription, record.sequence);
    const Outcome outcome = transaction_->put(Table::kRetries, key, encoder_.encode(key, record));
    if (!outcome.ok()) return outcome;
  }
  return Outcome();
}

Outcome BatchWriter::put_dedup(const Batch& batch) {
  for (const DedupTrim& trim : batch.dedup_trims) {
    const Outcome outcome = trim_dedup(trim);
    if (!outcome.ok()) return outcome;
  }
  for (const DedupRecord& record : batch.dedup) {
    const RecordKey key = dedup_key(record.queue, record.time_ms, record.first);
    const Outcome outcome = transaction_->put(Table::kDedup, key, encoder_.encode(key, record));
    if (!outcome.ok()) return outcome;
  }
  return Outcome();
}

Outcome BatchWriter::remove_owners(const Batch& batch) {
  for (const SubscriptionId removed : batch.subscriptions_removed) {
    const Outcome outcome = remove(Table::kSubscriptions, subscription_key(removed));
    if (!outcome.ok()) return outcome;
  }
  for (const QueueId removed : batch.queues_removed) {
    const Outcome outcome = remove(Table::kQueues, queue_key(removed));
    if (!outcome.ok()) return outcome;
  }
  return Outcome();
}

Outcome BatchWriter::remove(Table table, const RecordKey& key) {
  const Outcome outcome = transaction_->remove(table, key);
  return outcome.not_found() ? Outcome() : outcome;
}

// Goes by the block's header, which is all of the block that is read. Where that is damaged, the
// messages end before the next block's first, or, in the last block, before the queue's next.
bool BatchWriter::block_ends_below(Cursor* cursor, const BlockKey& key, Sequence below) {
  if (key.first >= below) return false;
  if (const std::optional<BlockHeader> header =
          read_block_header(key.queue, key.first, cursor->value())) {
    return header->last_sequence < below;
  }
  if (cursor->next()) {
    const std::optional<BlockKey> next = read_block_key(cursor->key());
    if (next && next->queue == key.queue) return next->first <= below;
  }
  const RecordKey owner = queue_key(key.queue);
  ByteSpan value;
  if (!transaction_->get(Table::kQueues, owner, &value).ok()) return true;
  const std::optional<QueueRecord> queue = decode_queue(owner, value);
  return !queue || queue->next_sequence <= below;
}

Outcome BatchWriter::trim_blocks(const BlockTrim& trim) {
  Result<Cursor> cursor = transaction_->cursor(Table::kBlocks);
  if (!cursor) return Outcome(ENOMEM);
  const RecordKey from = block_key(trim.queue, 0);
  for (std::uint32_t removed = 0;; ++removed) {
    if (!cursor->seek(from)) return cursor->outcome();
    const std::optional<BlockKey> key = read_block_key(cursor->key());
    if (!key || key->queue != trim.queue) return Outcome();
    if (!block_ends_below(&*cursor, *key, trim.below)) return cursor->outcome();
    if (removed == trim.limit) {
      left_->blocks.push_back(trim.queue);
      return Outcome();
    }
    const Outcome outcome = transaction_->remove(Table::kBlocks, block_key(key->queue, key->first));
    if (!outcome.ok()) return outcome;
  }
}

Outcome BatchWriter::trim_dedup(const DedupTrim& trim) {
  Result<Cursor> cursor = transaction_->cursor(Table::kDedup);
  if (!cursor) return Outcome(ENOMEM);
  const RecordKey from = dedup_key(trim.queue, 0, 0);
  for (std::uint32_t removed = 0;; ++removed) {
    if (!cursor->seek(from)) return cursor->outcome();
    const std::optional<DedupKey> key = read_dedup_key(cursor->key());
    if (!key || key->queue != trim.queue) return Outcome();
    const bool before =
        key->time_ms < trim.time_ms || (key->time_ms == trim.time_ms && key->first < trim.first);
    if (!before) return Outcome();
    if (removed == trim.limit) {
      left_->dedup.push_back(trim.queue);
      return Outcome();
    }
    const Outcome outcome =
        transaction_->remove(Table::kDedup, dedup_key(key->queue, key->time_ms, key->first));
    if (!outcome.ok()) return outcome;
  }
}

}  // namespace holdfast::broker
