// Blocks and ids that stand in the journal and not in the tables yet, for those who read.
//
// begin_read() opens a transaction on the tables together with what they lack at that moment; what
// it gives takes precedence over the tables. The committer adds each batch when it is durable, and
// empties this in the same moment in which a commit brings it into the tables.
//
// Any thread.

#pragma once

#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "core/batch.h"
#include "core/reads.h"
#include "core/records.h"
#include "store/environment.h"

namespace holdfast::broker {

// By first sequence; null: the tables' block was removed.
using JournaledBlocks = std::map<Sequence, std::shared_ptr<const Block>>;

class JournaledRecords {
 public:
  void add(const Batch& batch);

  // Commits and, if that succeeds, forgets everything.
  Outcome commit(Transaction* transaction);

  // With the queue's blocks whose first sequence is not above `to`.
  Result<Transaction> begin_read(Environment* environment, QueueId queue, Sequence to,
                                 JournaledBlocks* blocks);
  // With the records that were asked for.
  Result<Transaction> begin_read(Environment* environment, const IdsRequest& request,
                                 std::vector<DedupRecord>* ids);

 private:
  using IdsKey = std::pair<std::uint64_t, Sequence>;  // time, first

  std::mutex mutex_;
  std::map<QueueId, JournaledBlocks> blocks_;                            // under mutex_
  std::map<QueueId, std::map<IdsKey, std::vector<MessageIdHash>>> ids_;  // likewise
};

}  // namespace holdfast::broker
