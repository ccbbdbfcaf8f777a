// The batch writer: turns one batch into changes of records. It takes no clock and no chance: the
// same batch gives the same changes.

#pragma once

#include <cstdint>
#include <utility>

#include "core/batch.h"
#include "core/records.h"
#include "store/change_sink.h"
#include "store/owner_sums.h"
#include "store/record.h"

namespace holdfast::broker {

class BatchWriter {
 public:
  // `owners` are those that are stored.
  explicit BatchWriter(OwnerSums owners) : owners_(std::move(owners)) {}

  // Writes everything of the batch. `progress` is as it was before, or as it is after the batch if
  // that is written once more; it is stored, and left, as it is after it. The sink's first error
  // ends it.
  Outcome write(const Batch& batch, ProgressRecord* progress, ChangeSink* sink);

 private:
  Outcome put_records(const Batch& batch);
  Outcome put_blocks(const Batch& batch);
  Outcome put_settlements(const Batch& batch);
  Outcome put_dedup(const Batch& batch);
  Outcome put_ids(const DedupRecord& record);
  Outcome remove_owners(const Batch& batch);
  Outcome put_owner(Table table, std::uint32_t owner, ByteSpan key, ByteSpan record);
  Outcome remove_owner(Table table, std::uint32_t owner, ByteSpan key);

  RecordEncoder encoder_;
  OwnerSums owners_;
  ChangeSink* sink_ = nullptr;  // during write()
};

}  // namespace holdfast::broker
