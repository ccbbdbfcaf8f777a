#include "ioerror/faults.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "base/check.h"
#include "store/pages.h"

namespace holdfast::ioerror {

namespace {

using disk::Call;
using disk::CallKind;
using disk::Fate;

constexpr std::array<std::string_view, kFaultKinds> kNames = {
    "write error", "short write", "write full",  "disk full",     "sync error",
    "sync full",   "claim full",  "claim error", "out of memory", "map error",
    "name error",  "read error",  "short read",  "page error"};

// Writes of a full disk that fail before there is space again.
constexpr std::uint64_t kFullWrites = 2;

constexpr std::size_t kPageBytes = 4096;

bool concerns(FaultKind fault, const Call& made) {
  const CallKind call = made.kind;
  switch (fault) {
    case FaultKind::kWriteError:
    case FaultKind::kWriteShort:
    case FaultKind::kWriteFull:
    case FaultKind::kDiskFull:
      return call == CallKind::kWrite;
    case FaultKind::kSyncError:
    case FaultKind::kSyncFull:
      return call == CallKind::kSync;
    case FaultKind::kClaimFull:
    case FaultKind::kClaimError:
      return call == CallKind::kClaim;
    case FaultKind::kMemory:
      return call == CallKind::kMemory;
    case FaultKind::kMap:
      return call == CallKind::kMap;
    case FaultKind::kName:
      return call == CallKind::kOpen || call == CallKind::kCreate ||
             call == CallKind::kMakeDirectory || call == CallKind::kRename ||
             call == CallKind::kRemove;
    case FaultKind::kReadError:
      return call == CallKind::kRead;
    case FaultKind::kReadShort:
      return call == CallKind::kRead && made.size >= 2 * kPageBytes;
    case FaultKind::kPageError:
      return false;  // see after_map()
  }
  return false;
}

int error_of(FaultKind fault) {
  switch (fault) {
    case FaultKind::kWriteFull:
    case FaultKind::kDiskFull:
    case FaultKind::kSyncFull:
    case FaultKind::kClaimFull:
      return ENOSPC;
    case FaultKind::kMemory:
    case FaultKind::kMap:
      return ENOMEM;
    default:
      return EIO;
  }
}

// Room that is written ahead of need: no promise rests on it.
bool is_only_zeroes(const Call& call) {
  return std::all_of(call.bytes.begin(), call.bytes.end(), [](const iovec& piece) {
    const auto* const bytes = static_cast<const char*>(piece.iov_base);
    return std::all_of(bytes, bytes + piece.iov_len, [](char byte) { return byte == 0; });
  });
}

void add_pages_in_use(const std::string& data_file, std::bitset<kPagesMax>* pages) {
  const Result<broker::PageReport> report =
      broker::check_pages(data_file, broker::PageScope::kAll, [&](const broker::PageSeen& seen) {
        if (seen.kind == broker::PageKind::kFree) return;
        for (std::uint64_t i = 0; i < seen.count; ++i) pages->set(seen.first + i);
      });
  CHECK(report.ok(), "{}", report.status().message());
}

}  // namespace

std::string_view fault_name(FaultKind kind) { return kNames[static_cast<std::size_t>(kind)]; }

bool is_of_reads(FaultKind kind) {
  return kind == FaultKind::kReadError || kind == FaultKind::kReadShort ||
         kind == FaultKind::kPageError;
}

Fate FaultInjector::before(const Call& call) {
  for (std::size_t kind = 0; kind < kFaultKinds; ++kind) {
    if (concerns(static_cast<FaultKind>(kind), call)) ++counted_.calls[kind];
  }
  const Fate fate = fate_of(call);
  if (call.kind == CallKind::kSync && fate.error != 0) {
    disk::Entry failed{.kind = disk::EntryKind::kSyncFailed};
    std::strcpy(failed.path.data(), call.path);
    log_.append(failed);
  }
  if (fate.error != 0 || fate.bytes_max != SIZE_MAX) {
    disk::Entry entry{.kind = disk::EntryKind::kFault,
                      .through = call.through,
                      .offset = static_cast<std::uint64_t>(fate.error)};
    std::strcpy(entry.path.data(), call.path);
    entry.only_zeroes = call.kind == CallKind::kWrite && is_only_zeroes(call);
    log_.append(entry);
  }
  return fate;
}

Fate FaultInjector::fate_of(const Call& call) {
  const std::uint64_t count = counted_.calls[static_cast<std::size_t>(fault_.kind)];
  if (fault_.at == 0) return {};
  if (fault_.kind == FaultKind::kDiskFull) {
    full_ = count >= fault_.at && count < fault_.at + kFullWrites;
    if (!full_) return {};
    if (call.kind == CallKind::kClaim) return {.error = ENOSPC};
    if (call.kind != CallKind::kWrite) return {};
    return count == fault_.at ? Fate{.bytes_max = call.size / 2} : Fate{.error = ENOSPC};
  }
  if (!concerns(fault_.kind, call) || count != fault_.at) return {};
  if (fault_.kind == FaultKind::kReadShort) {
    return {.bytes_max = call.size / 2 / kPageBytes * kPageBytes};
  }
  if (fault_.kind == FaultKind::kWriteShort) return {.bytes_max = call.size / 2};
  return {.error = error_of(fault_.kind)};
}

void FaultInjector::after(const Call& call, std::int64_t result) {
  Recorder::after(call, result);
  if (call.kind == CallKind::kMap && result > 0 &&
      std::string_view(call.path).ends_with("data.mdb")) {
    const disk::NotWatched guard;
    after_map(directory_ + "/" + call.path, reinterpret_cast<std::uint8_t*>(result));
  }
}

// In the place of the page that is to fail it maps one behind the end of a file.
void FaultInjector::after_map(const std::string& data_file, std::uint8_t* map) {
  constexpr std::size_t kLastPageAt = 136;  // in a meta page
  std::uint64_t last_page = 0;
  for (const std::size_t meta_page : {0, 1}) {
    std::uint64_t last = 0;
    std::memcpy(&last, map + meta_page * kPageBytes + kLastPageAt, sizeof(last));
    last_page = std::max(last_page, last);
  }
  std::uint64_t& counted = counted_.calls[static_cast<std::size_t>(FaultKind::kPageError)];
  counted = std::max(counted, last_page + 1);
  if (fault_.at == 0) add_pages_in_use(data_file, &counted_.pages_in_use);
  if (fault_.kind != FaultKind::kPageError || fault_.at == 0 || fault_.at > last_page + 1) return;
  const int empty = ::memfd_create("unreadable", MFD_CLOEXEC);
  std::uint8_t* const page = map + (fault_.at - 1) * kPageBytes;
  CHECK(empty >= 0 && ::mmap(page, kPageBytes, PROT_READ, MAP_SHARED | MAP_FIXED, empty, 0) == page,
        "page {} cannot be made unreadable", fault_.at - 1);
  ::close(empty);
}

}  // namespace holdfast::ioerror
