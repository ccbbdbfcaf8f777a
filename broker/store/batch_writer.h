// The batch writer: turns one batch into changes of records. It takes no clock and no chance: the
// same batch gives the same changes.

#pragma once

#include "core/batch.h"
#include "store/change_sink.h"
#include "store/record.h"

namespace holdfast::broker {

class BatchWriter {
 public:
  // Writes everything of the batch, its number, and the next id as it is after the batch. The
  // sink's first error ends it.
  Outcome write(const Batch& batch, std::uint32_t next_id, ChangeSink* sink);

 private:
  Outcome put_records(const Batch& batch);
  Outcome put_blocks(const Batch& batch);
  Outcome put_settlements(const Batch& batch);
  Outcome put_dedup(const Batch& batch);
  Outcome put_ids(const DedupRecord& record);
  Outcome remove_owners(const Batch& batch);

  RecordEncoder encoder_;
  ChangeSink* sink_ = nullptr;  // during write()
};

}  // namespace holdfast::broker
