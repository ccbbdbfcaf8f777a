#include "store/table_writer.h"

#include <cerrno>
#include <optional>

#include "core/block.h"
#include "store/record.h"

namespace holdfast::broker {

namespace {

constexpr std::uint64_t kPageBytes = 4096;

}  // namespace

Outcome TableWriter::put(Table table, ByteSpan key, ByteSpan value) {
  bytes_changed_ += kPageBytes + value.size();
  return transaction_->put(table, key, value);
}

Outcome TableWriter::remove(Table table, ByteSpan key) {
  bytes_changed_ += kPageBytes;
  const Outcome outcome = transaction_->remove(table, key);
  return outcome.not_found() ? Outcome() : outcome;
}

// Goes by the block's header, which is all of the block that is read. Where that is damaged, the
// messages end before the next block's first, or, in the last block, before the queue's next.
bool TableWriter::block_ends_below(Cursor* cursor, const BlockKey& key, Sequence below) {
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

Outcome TableWriter::trim_blocks(const BlockTrim& trim) {
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
    const Outcome outcome = remove(Table::kBlocks, block_key(key->queue, key->first));
    if (!outcome.ok()) return outcome;
  }
}

Outcome TableWriter::trim_dedup(const DedupTrim& trim) {
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
    const Outcome outcome = remove(Table::kDedup, dedup_key(key->queue, key->time_ms, key->first));
    if (!outcome.ok()) return outcome;
  }
}

}  // namespace holdfast::broker
