// Where the changes of a batch go: the tables, or an entry of the journal. A batch is written as a
// list of them by the BatchWriter, and replay() does the same from an entry.

#pragma once

#include "core/records.h"
#include "store/environment.h"

namespace holdfast::broker {

class ChangeSink {
 public:
  virtual ~ChangeSink() = default;

  // After an error the rest of the batch is not to be written.
  virtual Outcome put(Table table, ByteSpan key, ByteSpan value) = 0;
  // What is to be removed and is not there is no error: what a batch asks for is that it be gone.
  virtual Outcome remove(Table table, ByteSpan key) = 0;
  virtual Outcome trim_blocks(const BlockTrim& trim) = 0;
  virtual Outcome trim_dedup(const DedupTrim& trim) = 0;
};

}  // namespace holdfast::broker
