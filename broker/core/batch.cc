#include "core/batch.h"

namespace holdfast::broker {

bool Batch::empty() const {
  return next_id == 0 && queues.empty() && subscriptions.empty() && blocks_removed.empty() &&
         blocks.empty() && block_trims.empty() && acks_removed.empty() && acks.empty() &&
         retries_removed.empty() && retries.empty() && dedup_trims.empty() && dedup.empty() &&
         subscriptions_removed.empty() && queues_removed.empty();
}

std::size_t Batch::bytes() const {
  std::size_t bytes = kRecordBytes * (queues.size() + subscriptions.size());
  for (const RetryRecord& record : retries) {
    bytes += retry_record_bytes(record.history);
  }
  for (const std::shared_ptr<const Block>& block : blocks) bytes += block->bytes().size();
  bytes += acks.size() * sizeof(AckRecord);
  for (const DedupRecord& record : dedup) {
    bytes += kRecordBytes + record.hashes.size() * sizeof(MessageIdHash);
  }
  return bytes;
}

}  // namespace holdfast::broker
