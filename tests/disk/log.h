// The log: what was done to a directory and what was said meanwhile, in one order. It lies in
// memory that a process shares with those that it forks, so that it outlives them.
//
// Appending is safe from several threads of one process, one process at a time. An entry counts
// once it is whole: a process may end at any moment.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <mutex>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "disk/calls.h"

namespace holdfast::disk {

enum class EntryKind : std::uint8_t {
  // The directory's.
  kWrite,
  kTruncate,
  kSync,
  kSyncFailed,
  kCreate,
  kMakeDirectory,
  kRename,
  kRemove,
  kNothing,
  // What was asked and said, of a message or a queue.
  kLifeBegins,
  kQueueAsked,
  kQueueCreated,
  kDeleteAsked,
  kDeleteDone,
  kPurgeAsked,
  kPurgeDone,
  kRedriveAsked,
  kRedriveDone,
  kPublishAsked,
  kPublishRefused,
  kConfirmed,
  kDelivered,
  kAckAsked,
  kAckDone,
  kAckRefused,
  kRejectAsked,
  kRejectDone,
  // Of a run with faults.
  kFault,      // a call was made to fail
  kCommitted,  // the store reported a batch
  kFailed,     // the store failed for good: the text says why
  kRefusedToStart,
};

struct Entry {
  EntryKind kind = EntryKind::kWrite;
  bool through = false;      // a write that is on the device
  bool duplicate = false;    // a confirm that says so
  bool only_zeroes = false;  // a fault in a write of nothing else
  std::uint32_t size = 0;    // of the bytes behind this
  std::uint64_t offset = 0;  // of a write; the size of a truncated file; the error of a fault
  std::uint32_t message = 0;
  std::uint32_t queue = 0;
  std::uint64_t sequence = 0;
  std::array<char, 48> path{};
  std::array<char, 48> to{};

  bool of_directory() const { return kind <= EntryKind::kRemove; }
  std::span<const std::uint8_t> bytes() const {
    return {reinterpret_cast<const std::uint8_t*>(this + 1), size};
  }
  std::string_view text() const { return {reinterpret_cast<const char*>(this + 1), size}; }
};

// In words.
std::string describe(const Entry& entry);

class Log {
 public:
  Log();
  ~Log();
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  void clear();
  // With the first `size` bytes of the pieces.
  void append(Entry entry, std::span<const iovec> pieces, std::size_t size);
  void append(Entry entry, std::string_view text = {});
  std::vector<const Entry*> entries() const;

 private:
  struct Header;
  Header* header_;
  std::mutex mutex_;
};

}  // namespace holdfast::disk
