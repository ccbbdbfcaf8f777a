// Writes every change of the watched directory into the log. It may end the process at the n-th
// of them, as a kill would: what the call has written by then is in the page cache and goes on to
// the device only with the next sync of somebody else.

#pragma once

#include <cstdint>

#include "crash/random.h"
#include "disk/calls.h"
#include "disk/log.h"

namespace holdfast::disk {

// How a process ends that its recorder has ended.
inline constexpr int kKilled = 77;

struct Kill {
  std::uint64_t at = 0;    // counted from 1; 0: never
  bool at_commit = false;  // of the writes alone that end a commit, when they are made
  std::uint64_t seed = 0;
};

class Recorder : public CallWatcher {
 public:
  Recorder(Log& log, Kill kill) : log_(log), kill_(kill), random_(kill.seed) {}
  Fate before(const Call& call) override;
  void after(const Call& call, std::int64_t result) override;

 private:
  Log& log_;
  Kill kill_;
  crash::Random random_;
  std::uint64_t counted_ = 0;
  bool killed_ = false;
};

}  // namespace holdfast::disk
