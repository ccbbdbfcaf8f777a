#include "store/journaled_records.h"

namespace holdfast::broker {

void JournaledRecords::add(const Batch& batch) {
  const std::lock_guard<std::mutex> lock(mutex_);
  for (const BlockKey& removed : batch.blocks_removed) {
    blocks_[removed.queue][removed.first] = nullptr;
  }
  for (const std::shared_ptr<const Block>& block : batch.blocks) {
    blocks_[block->queue()][block->first_sequence()] = block;
  }
  for (const DedupRecord& record : batch.dedup) {
    ids_[record.queue][{record.time_ms, record.first}] = record.hashes;
  }
}

Outcome JournaledRecords::commit(Transaction* transaction) {
  const std::lock_guard<std::mutex> lock(mutex_);
  const Outcome outcome = transaction->commit();
  if (outcome.ok()) {
    blocks_.clear();
    ids_.clear();
  }
  return outcome;
}

Result<Transaction> JournaledRecords::begin_read(Environment* environment, QueueId queue,
                                                 Sequence to, JournaledBlocks* blocks) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (const auto found = blocks_.find(queue); found != blocks_.end()) {
    blocks->insert(found->second.begin(), found->second.upper_bound(to));
  }
  return environment->begin_read();
}

Result<Transaction> JournaledRecords::begin_read(Environment* environment,
                                                 const IdsRequest& request,
                                                 std::vector<DedupRecord>* ids) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (const auto found = ids_.find(request.queue); found != ids_.end()) {
    const auto& records = found->second;
    for (auto it = records.lower_bound(request.begin);
         it != records.end() && it->first < request.end; ++it) {
      ids->push_back({request.queue, it->first.first, it->first.second, it->second});
    }
  }
  return environment->begin_read();
}

}  // namespace holdfast::broker
