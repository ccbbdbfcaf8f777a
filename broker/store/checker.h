// The check of a whole store, as `holdfast check` makes it.

#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "holdfast/status.h"
#include "store/finding.h"

namespace holdfast::broker {

struct CheckReport {
  std::uint64_t queues = 0;
  std::uint64_t blocks = 0;
  std::uint64_t messages = 0;
  std::uint64_t unsettled = 0;
  std::uint64_t bytes = 0;
  std::uint64_t batch_number = 0;
  // Behind that one; the next start brings them into the tables.
  std::uint64_t batches_journaled = 0;
  // Behind those, one that was begun in the journal and is not whole; 0: none.
  std::uint64_t batch_cut_short = 0;
  std::vector<CheckFinding> findings;
};

// Walks everything in a directory that no broker has open, read-only: every record's checksum,
// every message's, sequences and counts against one another. Errors as in Store::open(); findings
// are no error. `progress` (may be empty) is called with blocks done so far.
Result<CheckReport> check_directory(const std::string& directory,
                                    const std::function<void(std::uint64_t)>& progress);

}  // namespace holdfast::broker
