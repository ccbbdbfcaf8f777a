#include "store/batch_writer.h"

#include <algorithm>
#include <span>

namespace holdfast::broker {

Outcome BatchWriter::write(const Batch& batch, ProgressRecord* progress, ChangeSink* sink) {
  sink_ = sink;
  Outcome outcome = put_records(batch);
  if (outcome.ok()) outcome = put_blocks(batch);
  if (outcome.ok()) outcome = put_settlements(batch);
  if (outcome.ok()) outcome = put_dedup(batch);
  if (outcome.ok()) outcome = remove_owners(batch);
  if (!outcome.ok()) return outcome;
  progress->batch_number = batch.number;
  if (batch.next_id != 0) progress->next_id = batch.next_id;
  progress->owners_sum = owners_.sum();
  const ByteSpan key = meta_key(ProgressRecord::kName);
  return sink_->put(Table::kMeta, key, encoder_.encode(key, *progress));
}

Outcome BatchWriter::put_owner(Table table, std::uint32_t owner, ByteSpan key, ByteSpan record) {
  owners_.put(table, owner, record);
  return sink_->put(table, key, record);
}

Outcome BatchWriter::remove_owner(Table table, std::uint32_t owner, ByteSpan key) {
  owners_.remove(table, owner);
  return sink_->remove(table, key);
}

Outcome BatchWriter::put_records(const Batch& batch) {
  for (const QueueRecord& record : batch.queues) {
    const RecordKey key = queue_key(record.id);
    const Outcome outcome =
        put_owner(Table::kQueues, record.id.value, key, encoder_.encode(key, record));
    if (!outcome.ok()) return outcome;
  }
  for (const SubscriptionRecord& record : batch.subscriptions) {
    const RecordKey key = subscription_key(record.id);
    const Outcome outcome =
        put_owner(Table::kSubscriptions, record.id.value, key, encoder_.encode(key, record));
    if (!outcome.ok()) return outcome;
  }
  return Outcome();
}

Outcome BatchWriter::put_blocks(const Batch& batch) {
  for (const BlockKey& removed : batch.blocks_removed) {
    const Outcome outcome = sink_->remove(Table::kBlocks, block_key(removed.queue, removed.first));
    if (!outcome.ok()) return outcome;
  }
  for (const std::shared_ptr<const Block>& block : batch.blocks) {
    const Outcome outcome = sink_->put(
        Table::kBlocks, block_key(block->queue(), block->first_sequence()), block->bytes());
    if (!outcome.ok()) return outcome;
  }
  for (const BlockTrim& trim : batch.block_trims) {
    const Outcome outcome = sink_->trim_blocks(trim);
    if (!outcome.ok()) return outcome;
  }
  return Outcome();
}

Outcome BatchWriter::put_settlements(const Batch& batch) {
  for (const AckKey& removed : batch.acks_removed) {
    const Outcome outcome =
        sink_->remove(Table::kAcks, ack_key(removed.subscription, removed.chunk));
    if (!outcome.ok()) return outcome;
  }
  for (const AckRecord& record : batch.acks) {
    const RecordKey key = ack_key(record.subscription, record.chunk);
    const Outcome outcome = sink_->put(Table::kAcks, key, encoder_.encode(key, record));
    if (!outcome.ok()) return outcome;
  }
  for (const RetryKey& removed : batch.retries_removed) {
    const Outcome outcome =
        sink_->remove(Table::kRetries, retry_key(removed.subscription, removed.sequence));
    if (!outcome.ok()) return outcome;
  }
  for (const RetryRecord& record : batch.retries) {
    const RecordKey key = retry_key(record.subscription, record.sequence);
    const Outcome outcome = sink_->put(Table::kRetries, key, encoder_.encode(key, record));
    if (!outcome.ok()) return outcome;
  }
  return Outcome();
}

Outcome BatchWriter::put_dedup(const Batch& batch) {
  for (const DedupTrim& trim : batch.dedup_trims) {
    const Outcome outcome = sink_->trim_dedup(trim);
    if (!outcome.ok()) return outcome;
  }
  for (const DedupRecord& record : batch.dedup) {
    const Outcome outcome = put_ids(record);
    if (!outcome.ok()) return outcome;
  }
  return Outcome();
}

// In pieces that fill the pages well. A leaf that is full keeps all records but its last when the
// next one is appended, so they are small; or one fills a page of its own.
Outcome BatchWriter::put_ids(const DedupRecord& record) {
  constexpr std::size_t kIdsOfLeafRecord = 20;
  constexpr std::size_t kIdsOfPage = 254;  // 4,096 bytes without a page's header and the checksum
  constexpr std::size_t kIdsOfPageMin = kIdsOfPage * 4 / 5;
  const std::span<const MessageIdHash> hashes(record.hashes);
  for (std::size_t at = 0; at < hashes.size();) {
    const std::size_t left = hashes.size() - at;
    const std::size_t count = std::min(left, left >= kIdsOfPageMin ? kIdsOfPage : kIdsOfLeafRecord);
    const RecordKey key = dedup_key(record.queue, record.time_ms, record.first + at);
    const Outcome outcome =
        sink_->put(Table::kDedup, key, encoder_.encode(key, hashes.subspan(at, count)));
    if (!outcome.ok()) return outcome;
    at += count;
  }
  return Outcome();
}

Outcome BatchWriter::remove_owners(const Batch& batch) {
  for (const SubscriptionId removed : batch.subscriptions_removed) {
    const Outcome outcome =
        remove_owner(Table::kSubscriptions, removed.value, subscription_key(removed));
    if (!outcome.ok()) return outcome;
  }
  for (const QueueId removed : batch.queues_removed) {
    const Outcome outcome = remove_owner(Table::kQueues, removed.value, queue_key(removed));
    if (!outcome.ok()) return outcome;
  }
  return Outcome();
}

}  // namespace holdfast::broker
