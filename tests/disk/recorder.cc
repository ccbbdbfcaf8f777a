#include "disk/recorder.h"

#include <unistd.h>

#include <cstring>
#include <optional>

#include "base/check.h"

namespace holdfast::disk {

namespace {

std::optional<EntryKind> entry_kind_of(CallKind kind) {
  switch (kind) {
    case CallKind::kWrite:
      return EntryKind::kWrite;
    case CallKind::kSync:
      return EntryKind::kSync;
    case CallKind::kTruncate:
      return EntryKind::kTruncate;
    case CallKind::kCreate:
      return EntryKind::kCreate;
    case CallKind::kMakeDirectory:
      return EntryKind::kMakeDirectory;
    case CallKind::kRename:
      return EntryKind::kRename;
    case CallKind::kRemove:
      return EntryKind::kRemove;
    case CallKind::kRead:
    case CallKind::kClaim:  // blocks that read as zeroes, and the size stays
    case CallKind::kMap:
    case CallKind::kMemory:
    case CallKind::kOpen:
      return std::nullopt;
  }
  return std::nullopt;
}

constexpr std::size_t kPageBytes = 4096;

}  // namespace

Fate Recorder::before(const Call& call) {
  if (!entry_kind_of(call.kind)) return {};
  if (kill_.at_commit && !call.through) return {};
  if (++counted_ != kill_.at) return {};
  killed_ = true;
  if (kill_.at_commit) return {};
  // Killed before it began, or in the middle.
  if (call.kind != CallKind::kWrite || random_.once_in(4)) ::_exit(kKilled);
  const std::uint64_t pages = call.size / kPageBytes;
  if (pages < 2 || random_.once_in(2)) return {};
  return {.bytes_max = (1 + random_.below(pages - 1)) * kPageBytes};
}

void Recorder::after(const Call& call, std::int64_t result) {
  const std::optional<EntryKind> kind = entry_kind_of(call.kind);
  if (!kind || result < 0) return;
  Entry entry{.kind = *kind, .through = call.through && !killed_};
  entry.offset = call.kind == CallKind::kTruncate ? call.size : call.offset;
  CHECK(std::strlen(call.path) < entry.path.size() && std::strlen(call.to) < entry.to.size());
  std::strcpy(entry.path.data(), call.path);
  std::strcpy(entry.to.data(), call.to);
  const bool writes = call.kind == CallKind::kWrite;
  log_.append(entry, call.bytes, writes ? static_cast<std::size_t>(result) : 0);
  if (killed_) ::_exit(kKilled);
}

}  // namespace holdfast::disk
