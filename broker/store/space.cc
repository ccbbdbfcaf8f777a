#include "store/space.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "holdfast/text.h"
#include "schema/frame.h"
#include "store/file.h"

namespace holdfast::broker {

namespace {

constexpr std::uint64_t kKiB = 1024;
constexpr std::uint64_t kMiB = 1024 * kKiB;
constexpr std::uint64_t kReserveMin = 512 * kKiB;
constexpr std::uint64_t kReserveMax = 32 * kMiB;
constexpr std::uint64_t kMarginMin = 128 * kKiB;
constexpr std::uint64_t kMarginMax = 18 * kMiB;
constexpr std::uint64_t kStepMin = 256 * kKiB;
constexpr std::uint64_t kClaimMin = kStepMin / 4;
// Of what a commit adds, its pages take a little more: trees, page headers, the end of a page.
constexpr std::uint64_t kPageOverheadNumerator = 9;
constexpr std::uint64_t kPageOverheadDenominator = 8;
constexpr std::uint64_t kCommitTreeBytes = 64 * kKiB;
// With less than this, publishes are refused altogether.
constexpr std::uint64_t kRoomMin = 64 * kKiB;
// Far from the limit free pages are counted after this many commits, to show what is in use.
constexpr std::uint64_t kCommitsBetweenCounts = 1024;
// Counting so many is the most that a commit is charged with; 64 that are not free count as one.
constexpr std::uint64_t kPagesCountedPerCommit = 16 * 1024;

std::uint64_t minus(std::uint64_t from, std::uint64_t what) {
  return from > what ? from - what : 0;
}

}  // namespace

Space::Space(Environment* environment, const SpaceOptions& options)
    : environment_(environment),
      options_(options),
      limit_{.bytes = options.map_bytes, .name = "its map"} {
  if (options.size_bytes_max > 0 && options.size_bytes_max < limit_.bytes) {
    limit_ = {.bytes = options.size_bytes_max, .name = "disk_bytes_max"};
  }
  if (const std::uint64_t bytes = file_bytes_max(); bytes < limit_.bytes) {
    limit_ = {.bytes = bytes, .name = "the limit on the size of a file (ulimit -f)"};
  }
  const std::uint64_t scale = std::min(limit_.bytes, look_at_disk().total_bytes);
  reserve_bytes_ = std::clamp(scale / 8, kReserveMin, kReserveMax);
  margin_bytes_ = std::clamp(scale / 32, kMarginMin, kMarginMax);
  step_bytes_ = std::max(kStepMin, std::min(options.preallocate_bytes, scale / 16));
  claimed_bytes_ = allocated_bytes();
}

// The data file's, which may be another one than the data directory's: `store` may be a mount or a
// link.
Space::Disk Space::look_at_disk() const {
  struct statvfs info {};
  if (::statvfs(environment_->data_file().c_str(), &info) != 0) return {};
  return {.free_bytes = std::uint64_t{info.f_bavail} * info.f_frsize,
          .total_bytes = std::uint64_t{info.f_blocks} * info.f_frsize};
}

std::uint64_t Space::allocated_bytes() const {
  struct stat info {};
  if (::fstat(environment_->file_descriptor(), &info) != 0) return 0;
  constexpr std::uint64_t kStatBlockBytes = 512;
  return static_cast<std::uint64_t>(info.st_blocks) * kStatBlockBytes;
}

// A disk that cannot even be asked is not full but gone.
bool Space::disk_nearly_full() const {
  const Disk disk = look_at_disk();
  return disk.total_bytes > 0 && disk.free_bytes < margin_bytes_ + kCommitTreeBytes;
}

// Claims the file's blocks up to the reserve and margin behind its end; as much as there is, if
// that is not to be had.
void Space::claim_ahead(std::uint64_t end_bytes) {
  const std::uint64_t needed = std::min(end_bytes + reserve_bytes_ + margin_bytes_, limit_.bytes);
  if (!can_claim_ || (claimed_bytes_ >= needed && !claim_failed_)) return;
  const std::uint64_t whole_steps = (needed + step_bytes_ - 1) / step_bytes_ * step_bytes_;
  std::uint64_t wanted = std::max(needed, std::min(whole_steps, limit_.bytes));
  // Trying for more than there is takes time and gains nothing.
  const std::uint64_t obtainable = claimed_bytes_ + look_at_disk().free_bytes;
  claim_failed_ = wanted > obtainable;
  wanted = std::min(wanted, obtainable);
  while (wanted >= claimed_bytes_ + kClaimMin) {
    // The first claim covers the holes that an older claim may have left.
    const std::uint64_t from = whole_file_claimed_ ? claimed_bytes_ : 0;
    if (::fallocate(environment_->file_descriptor(), FALLOC_FL_KEEP_SIZE, static_cast<off_t>(from),
                    static_cast<off_t>(wanted - from)) == 0) {
      claimed_bytes_ = wanted;
      whole_file_claimed_ = true;
      return;
    }
    if (errno == EINTR) continue;
    if (errno != ENOSPC && errno != EDQUOT && errno != EFBIG) {
      can_claim_ = false;
      return;
    }
    claim_failed_ = true;
    wanted = claimed_bytes_ + (wanted - claimed_bytes_) / 2;
  }
}

std::uint64_t Space::growable_bytes(std::uint64_t end_bytes, const Disk& disk) const {
  std::uint64_t end_max = std::max(claimed_bytes_, allocated_bytes());
  // After a claim that failed, free space that is still shown is not to be had (a user's quota).
  if (!claim_failed_) end_max += disk.free_bytes;
  return minus(std::min(end_max, limit_.bytes), end_bytes);
}

bool Space::is_near_limit(std::uint64_t growable) const {
  return growable < 2 * (reserve_bytes_ + margin_bytes_);
}

Status Space::count_free_pages(bool runs) {
  Result<FreePages> counted = environment_->free_pages(runs);
  if (!counted) return counted.status();
  free_ = *counted;
  used_since_count_ = 0;
  commits_since_count_ = 0;
  return Status();
}

Result<SpaceReport> Space::measure(std::uint64_t committed_bytes, std::uint64_t open_bytes) {
  used_since_count_ +=
      committed_bytes * kPageOverheadNumerator / kPageOverheadDenominator + kCommitTreeBytes;
  ++commits_since_count_;
  const PageUse use = environment_->page_use();
  const std::uint64_t end_bytes = use.end_page * use.page_bytes;
  claim_ahead(end_bytes);
  const Disk disk = look_at_disk();
  const std::uint64_t growable = growable_bytes(end_bytes, disk);

  // Near the limit they are counted when half of what was counted may have been used, or when what
  // was freed since may have made room.
  const bool near_limit = is_near_limit(growable);
  const std::uint64_t run_bytes = free_.longest_run * use.page_bytes;
  const bool wanted = near_limit && (!allowed_ || used_since_count_ >= run_bytes / 2);
  const bool paid_for =
      commits_since_count_ * kPagesCountedPerCommit >= free_.pages + use.end_page / 64;
  if (commits_since_count_ >= kCommitsBetweenCounts || (wanted && paid_for)) {
    if (Status status = count_free_pages(near_limit); !status) return status;
  }
  return report(use, disk, growable, open_bytes);
}

Result<SpaceReport> Space::measure_now(std::uint64_t open_bytes) {
  const PageUse use = environment_->page_use();
  const std::uint64_t end_bytes = use.end_page * use.page_bytes;
  environment_->extend_file();
  claim_ahead(end_bytes);
  const Disk disk = look_at_disk();
  const std::uint64_t growable = growable_bytes(end_bytes, disk);
  const bool near_limit = is_near_limit(growable);
  if (Status status = count_free_pages(near_limit); !status) return status;
  return report(use, disk, growable, open_bytes);
}

std::uint64_t Space::unused_bytes(const PageUse& use, std::uint64_t pages) const {
  return minus(pages * use.page_bytes, used_since_count_);
}

std::uint64_t Space::left_bytes(const PageUse& use, std::uint64_t growable) const {
  return growable + unused_bytes(use, free_.usable);
}

std::uint64_t Space::room_bytes(const PageUse& use, std::uint64_t growable) const {
  const std::uint64_t left = minus(left_bytes(use, growable), reserve_bytes_);
  // The longest stretch and the next: growth is one, and any run may be.
  const std::uint64_t run = unused_bytes(use, free_.longest_run);
  const std::uint64_t longest = std::max(growable, run);
  const std::uint64_t other =
      std::min(longest, std::max(unused_bytes(use, free_.second_run), std::min(growable, run)));
  const std::uint64_t stretch = other >= margin_bytes_ ? longest : minus(longest, margin_bytes_);
  // Single pages may be taken from the stretch meanwhile.
  return std::min(left / kPageOverheadNumerator * kPageOverheadDenominator,
                  minus(stretch, kCommitTreeBytes));
}

// Half of the reserve, and a margin, are kept for what frees nothing at first; but what has begun
// may end, a large message perhaps.
std::uint64_t Space::reserve_room_bytes(const PageUse& use, std::uint64_t growable) const {
  const std::uint64_t left = left_bytes(use, growable);
  const std::uint64_t longest = std::max(growable, unused_bytes(use, free_.longest_run));
  if (left < reserve_bytes_ / 2 || longest < margin_bytes_ + kCommitTreeBytes) return 0;
  return std::min(left - reserve_bytes_ / 4, longest - kCommitTreeBytes) / kPageOverheadNumerator *
         kPageOverheadDenominator;
}

bool Space::can_retry(const PageUse& use, std::uint64_t growable) const {
  return left_bytes(use, growable) >= reserve_bytes_ / 4;
}

SpaceReport Space::report(const PageUse& use, const Disk& disk, std::uint64_t growable,
                          std::uint64_t open_bytes) {
  const bool near_limit = is_near_limit(growable);
  growable = minus(growable, open_bytes);
  const std::uint64_t room = room_bytes(use, growable);
  const std::uint64_t end_bytes = use.end_page * use.page_bytes + open_bytes;
  allowed_ = room >= (allowed_ ? kRoomMin : reserve_bytes_ / 4);
  ample_ = allowed_ && !near_limit;
  short_ = !allowed_ || room < kFrameBytesMax;

  SpaceReport report;
  report.publishes_allowed = allowed_;
  report.retries_allowed = can_retry(use, growable);
  report.used_bytes = minus(use.end_page, free_.pages) * use.page_bytes;
  report.file_bytes = allocated_bytes();
  report.disk_free_bytes = disk.free_bytes;
  report.room_bytes = allowed_ ? room : 0;
  report.reserve_room_bytes = reserve_room_bytes(use, growable);
  if (!allowed_) {
    const std::uint64_t left = minus(left_bytes(use, growable), reserve_bytes_);
    const std::string pieces =
        left < kRoomMin
            ? ""
            : fmt::format(" {} more are free, in pieces that are too small.", format_bytes(left));
    const std::uint64_t freed = minus(free_.pages, free_.usable) * use.page_bytes;
    const std::string soon =
        freed < kRoomMin
            ? ""
            : fmt::format(" {} that were freed can be used in a moment, after the next commit.",
                          format_bytes(freed));
    // Less may be allowed than what is there already.
    const bool by_limit = end_bytes + growable >= limit_.bytes;
    report.reason = fmt::format(
        "The store in {} is full: {} of the {} that {} are in use, and {} are kept for settling "
        "what is stored.{}{} Consume or delete messages, or give it more space.",
        options_.directory, format_bytes(report.used_bytes),
        format_bytes(by_limit ? limit_.bytes : end_bytes + growable),
        by_limit ? fmt::format("{} allows", limit_.name) : "its disk has for it",
        format_bytes(reserve_bytes_), pieces, soon);
  }
  return report;
}

}  // namespace holdfast::broker
