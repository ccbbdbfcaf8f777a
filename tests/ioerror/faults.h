// Faults: lets the n-th call of a kind fail, and logs that it did. What the calls change is
// recorded all the same.
//
// What LMDB reads through its map is no call: there a page of the data file is one that cannot be
// read. It gives the signal that a failing device gives, and whoever never reads it goes on.

#pragma once

#include <array>
#include <bitset>
#include <cstdint>
#include <string>
#include <string_view>

#include "disk/recorder.h"

namespace holdfast::ioerror {

enum class FaultKind : std::uint8_t {
  kWriteError,  // EIO
  kWriteShort,  // half of it is written; the disk has space
  kWriteFull,   // ENOSPC, once
  kDiskFull,    // half of it is written, then ENOSPC, no space is left; then there is some again
  kSyncError,   // EIO; what was to be synced may never be
  kSyncFull,    // ENOSPC
  kClaimFull,   // ENOSPC
  kClaimError,  // EIO
  kMemory,      // ENOMEM
  kMap,         // ENOMEM
  kName,        // EIO when a file is opened, made, renamed or removed
  kReadError,   // EIO
  kReadShort,   // of several pages half
  kPageError,   // SIGBUS where the map is read
};
inline constexpr std::size_t kFaultKinds = 14;
std::string_view fault_name(FaultKind kind);
// Of what a start finds: a life before it left that behind.
bool is_of_reads(FaultKind kind);

struct Fault {
  FaultKind kind = FaultKind::kWriteError;
  std::uint64_t at = 0;  // counted from 1; 0: none, the calls are counted only
};

// Of the data file of a small workload.
inline constexpr std::size_t kPagesMax = 4096;

struct CallCounts {
  // Of each kind; of page errors, the pages of the data file when it was mapped.
  std::array<std::uint64_t, kFaultKinds> calls{};
  // Which of those pages were not free, looked at where no fault is to come.
  std::bitset<kPagesMax> pages_in_use;
};

class FaultInjector : public disk::Recorder {
 public:
  FaultInjector(disk::Log& log, const std::string& directory, Fault fault)
      : Recorder(log, {}), log_(log), directory_(directory), fault_(fault) {}
  disk::Fate before(const disk::Call& call) override;
  void after(const disk::Call& call, std::int64_t result) override;
  bool disk_is_full() override { return full_; }

  const CallCounts& counted() const { return counted_; }

 private:
  disk::Fate fate_of(const disk::Call& call);
  void after_map(const std::string& data_file, std::uint8_t* map);

  disk::Log& log_;
  const std::string& directory_;
  Fault fault_;
  CallCounts counted_;
  bool full_ = false;
};

}  // namespace holdfast::ioerror
