// Space: how much room the store has, claimed ahead of need so that settles, dead-letter moves and
// deletes go on when the disk is full.
//
// The data file only grows; what is deleted leaves free pages inside it. What is left is therefore
// what the file may still grow by plus the free pages; a reserve of it is kept from publishes. The
// file's blocks are claimed from the file system (fallocate) ahead of its end, so that nobody else
// on the disk can take the reserve away.
//
//   0 ......... end of pages ......... claimed ......... limit (disk, quota or map)
//     used, free     |<- reserve, margin ->|
//
// A message's block needs pages side by side. So the room that is reported is also bounded by the
// longest stretch that is free: as long as what is not yet committed is less, it fits in, however
// it is cut into blocks. A margin is kept, of that stretch or as another, for dead-letter moves.
//
// Reserve: an eighth of the limit, 512 KiB to 32 MiB. Margin: a thirty-second, 128 KiB to 18 MiB (a
// batch, the largest message and some pages). Publishes are refused when the room is used up, and
// allowed again when it is at least a quarter of the reserve. Where the file system cannot claim
// ahead, its free space stands in for it.
//
// While publishes are refused, blocks of which little is left may be written anew, which frees more
// than it takes two commits later, and messages may be moved to dead-letter queues, as long as half
// of the reserve is left, and none that would leave less than a quarter. The records that
// count retries before they are sent may take three quarters; below that retries are counted later.
//
// Belongs to the committer thread (before that to whoever opens the store).

#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "core/batch.h"
#include "store/environment.h"

namespace holdfast::broker {

struct SpaceOptions {
  std::string directory;  // as a reason for a refusal names it
  std::uint64_t map_bytes = 0;
  std::uint64_t size_bytes_max = 0;  // 0: the file system's size
  std::uint64_t preallocate_bytes = 0;
};

class Space {
 public:
  // `environment` outlives it. Claims the reserve as far as the disk allows.
  Space(Environment* environment, const SpaceOptions& options);

  // Claims ahead and reports, after `committed_bytes` were added by a commit. Counting free pages
  // takes time in proportion to them, and a little to the file, so it is done only near the limit,
  // and the seldomer the more there are; in between, what was committed is taken off the last
  // count. `open_bytes`: what a transaction that is not committed to the tables yet takes, at most.
  Result<SpaceReport> measure(std::uint64_t committed_bytes, std::uint64_t open_bytes);
  // Likewise without a commit, and counting in any case.
  Result<SpaceReport> measure_now(std::uint64_t open_bytes);

  // Whether the free pages were counted since the last commit that was measured.
  bool is_counted() const { return commits_since_count_ == 0; }
  // As last reported.
  bool publishes_allowed() const { return allowed_; }
  // Whether, when last measured, a large message might not have been taken.
  bool is_short() const { return short_; }
  // Whether, when last measured, there was so much room that nothing needs to be counted exactly.
  bool is_ample() const { return ample_; }

  // Whether so little is left on the file system that a short write means a full disk.
  bool disk_nearly_full() const;

 private:
  struct Disk {
    std::uint64_t free_bytes = 0;
    std::uint64_t total_bytes = 0;
  };
  // What bounds the data file beside its disk.
  struct Limit {
    std::uint64_t bytes = 0;
    std::string_view name;  // as the reason for a refusal says it
  };
  Disk look_at_disk() const;
  std::uint64_t allocated_bytes() const;
  void claim_ahead(std::uint64_t end_bytes);
  std::uint64_t growable_bytes(std::uint64_t end_bytes, const Disk& disk) const;
  bool is_near_limit(std::uint64_t growable) const;
  Status count_free_pages(bool runs);
  // Of so many free pages, what no commit has used since they were counted.
  std::uint64_t unused_bytes(const PageUse& use, std::uint64_t pages) const;
  // All that commits may still use, the reserve included.
  std::uint64_t left_bytes(const PageUse& use, std::uint64_t growable) const;
  std::uint64_t room_bytes(const PageUse& use, std::uint64_t growable) const;
  std::uint64_t reserve_room_bytes(const PageUse& use, std::uint64_t growable) const;
  bool can_retry(const PageUse& use, std::uint64_t growable) const;
  SpaceReport report(const PageUse& use, const Disk& disk, std::uint64_t growable,
                     std::uint64_t open_bytes);

  Environment* environment_;
  SpaceOptions options_;
  Limit limit_;  // the least one; the disk's is looked up
  std::uint64_t reserve_bytes_ = 0;
  std::uint64_t margin_bytes_ = 0;
  std::uint64_t step_bytes_ = 0;
  std::uint64_t claimed_bytes_ = 0;  // the file's blocks are claimed up to here
  bool claim_failed_ = false;        // the last attempt found no room
  bool can_claim_ = true;            // the file system knows how
  bool whole_file_claimed_ = false;  // holes before claimed_bytes_ have been claimed too

  FreePages free_;                      // as last counted
  std::uint64_t used_since_count_ = 0;  // bytes committed since, at most
  std::uint64_t commits_since_count_ = 0;
  bool allowed_ = true;
  bool ample_ = false;
  bool short_ = false;
};

}  // namespace holdfast::broker
