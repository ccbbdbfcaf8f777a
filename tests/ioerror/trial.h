// One trial: a life in which one call fails, then what it left is looked at, as it is and as a loss
// of power could have left it; then another life without faults, and the same again. Where a read
// is to fail, the life begins on what one before it left that was killed: there are batches in the
// journal which the tables have not taken in.
//
// What must hold: a store that failed for good says so in a sentence, and nothing is confirmed
// after the fault, one more commit that is handed over neither; a disk that is full is waited for;
// every promise is kept. Without memory a process may end on the spot, and no promise may be broken
// by it. What could not be read is told as that, and not as damage; a read that gives a part is
// gone on with; where the map cannot be read the process ends at once, with a sentence that names
// the data file.

#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "disk/ledger.h"
#include "disk/life.h"
#include "disk/log.h"
#include "ioerror/faults.h"

namespace holdfast::ioerror {

enum class TrialEnd { kDone, kRefused, kFailed, kAborted };

struct TrialResult {
  bool hit = false;
  TrialEnd end = TrialEnd::kDone;
  std::optional<std::string> finding;
  std::uint64_t confirmed = 0;
  std::uint64_t states = 0;  // looked at
};

class Trial {
 public:
  // `directory` exists and belongs to the trial, which empties it.
  Trial(std::string directory, std::uint64_t workload, Fault fault, disk::Log& log)
      : directory_(std::move(directory)), workload_(workload), fault_(fault), log_(log) {}
  TrialResult run();
  // Calls of each kind that a life without a fault makes.
  CallCounts count_calls();

 private:
  // Returns how the process ended, as waitpid() says.
  int live(std::uint64_t seed, std::uint32_t steps, Fault fault);
  // A life that a kill ends.
  void leave_a_journal();
  void begin_anew();
  int in_child(disk::LifePlan plan, Fault fault, bool is_killed);
  disk::Ledger ledger() const;
  std::optional<std::string> judge_end(int status, TrialResult& result) const;
  std::optional<std::string> judge_page_error(TrialResult& result) const;
  std::optional<std::string> judge_said(std::string_view said) const;
  std::optional<std::string> judge_log() const;
  std::optional<std::string> look(TrialResult& result) const;

  std::string directory_;
  std::uint64_t workload_;
  Fault fault_;
  disk::Log& log_;
  std::string said_;  // by the last process, on standard error
};

}  // namespace holdfast::ioerror
