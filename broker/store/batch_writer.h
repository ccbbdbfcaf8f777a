// The batch writer: applies one batch to the tables within one transaction. It takes no clock and
// no chance: the same batch applied to the same tables gives the same tables.
//
// A record that is to be removed and is not there is no error: what a batch asks for is that it be
// gone.

#pragma once

#include <vector>

#include "core/batch.h"
#include "store/environment.h"
#include "store/record.h"

namespace holdfast::broker {

// Trims that reached their limit before they were done.
struct TrimsLeft {
  std::vector<QueueId> blocks;
  std::vector<QueueId> dedup;
};

class BatchWriter {
 public:
  // Writes everything of the batch, and its number. `next_id` is the one stored before; it becomes
  // the stored one. After an error the transaction is to be aborted.
  Outcome apply(const Batch& batch, std::uint32_t next_id, Transaction* transaction,
                TrimsLeft* left);

 private:
  Outcome put_records(const Batch& batch);
  Outcome put_blocks(const Batch& batch);
  Outcome put_settlements(const Batch& batch);
  Outcome put_dedup(const Batch& batch);
  Outcome remove_owners(const Batch& batch);
  Outcome trim_blocks(const BlockTrim& trim);
  Outcome trim_dedup(const DedupTrim& trim);
  Outcome remove(Table table, const RecordKey& key);
  // Whether every message of the block under the cursor is below this sequence.
  bool block_ends_below(Cursor* cursor, const BlockKey& key, Sequence below);

  RecordEncoder encoder_;
  Transaction* transaction_ = nullptr;  // during apply()
  TrimsLeft* left_ = nullptr;           // likewise
};

}  // namespace holdfast::broker
