// The table writer: makes the changes of a batch in the tables, within one transaction.

#pragma once

#include <cstdint>
#include <vector>

#include "core/records.h"
#include "store/change_sink.h"
#include "store/environment.h"

namespace holdfast::broker {

// Trims that reached their limit before they were done.
struct TrimsLeft {
  std::vector<QueueId> blocks;
  std::vector<QueueId> dedup;
};

class TableWriter : public ChangeSink {
 public:
  // Both outlive it. After an error the transaction is to be aborted.
  TableWriter(Transaction* transaction, TrimsLeft* left) : transaction_(transaction), left_(left) {}

  Outcome put(Table table, ByteSpan key, ByteSpan value) override;
  Outcome remove(Table table, ByteSpan key) override;
  Outcome trim_blocks(const BlockTrim& trim) override;
  Outcome trim_dedup(const DedupTrim& trim) override;

  // About how many bytes of pages were changed, at most: a change may copy a page of its own.
  std::uint64_t bytes_changed() const { return bytes_changed_; }

 private:
  // Whether every message of the block under the cursor is below this sequence.
  bool block_ends_below(Cursor* cursor, const BlockKey& key, Sequence below);

  Transaction* transaction_;
  TrimsLeft* left_;
  std::uint64_t bytes_changed_ = 0;
};

}  // namespace holdfast::broker
