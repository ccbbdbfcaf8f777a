#include "disk/log.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include <algorithm>
#include <atomic>
#include <cstring>

#include "base/check.h"

namespace holdfast::disk {

namespace {
constexpr std::size_t kLogBytes = 256u << 20;
constexpr std::size_t kAlign = alignof(Entry);
}  // namespace

struct Log::Header {
  std::atomic<std::size_t> end;  // of the entries, from here
};

std::string describe(const Entry& entry) {
  // In the order of EntryKind.
  static constexpr std::string_view kNames[] = {
      "write",           "truncate",      "sync",         "failed sync",   "create",
      "make directory",  "rename",        "remove",       "nothing",       "life begins",
      "queue asked",     "queue created", "delete asked", "delete done",   "purge asked",
      "purge done",      "redrive asked", "redrive done", "publish asked", "publish refused",
      "confirmed",       "delivered",     "ack asked",    "ack done",      "ack refused",
      "reject asked",    "reject done",   "fault",        "committed",     "failed",
      "refused to start"};
  static_assert(std::size(kNames) == static_cast<std::size_t>(EntryKind::kRefusedToStart) + 1);
  const std::string_view name = kNames[static_cast<std::size_t>(entry.kind)];
  if (entry.kind == EntryKind::kWrite) {
    return fmt::format("{} {} at {}: {} bytes{}", name, entry.path.data(), entry.offset, entry.size,
                       entry.through ? ", through" : "");
  }
  if (entry.of_directory()) {
    return fmt::format("{} {} {}", name, entry.path.data(), entry.to.data());
  }
  if (entry.size > 0) return fmt::format("{}: {}", name, entry.text());
  return fmt::format("{}: message {} of queue {}, sequence {}{}", name, entry.message, entry.queue,
                     entry.sequence, entry.duplicate ? ", duplicate" : "");
}

Log::Log() {
  void* const memory = ::mmap(nullptr, kLogBytes, PROT_READ | PROT_WRITE,
                              MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  CHECK(memory != MAP_FAILED, "no memory for a log of {} bytes", kLogBytes);
  header_ = new (memory) Header;
  clear();
}

Log::~Log() { ::munmap(header_, kLogBytes); }

void Log::clear() { header_->end = sizeof(Entry); }

void Log::append(Entry entry, std::span<const iovec> pieces, std::size_t size) {
  const NotWatched guard;
  const std::lock_guard lock(mutex_);
  const std::size_t begin = header_->end;
  const std::size_t end = (begin + sizeof(Entry) + size + kAlign - 1) / kAlign * kAlign;
  CHECK(end <= kLogBytes, "the log is full");
  entry.size = static_cast<std::uint32_t>(size);
  std::uint8_t* to = reinterpret_cast<std::uint8_t*>(header_) + begin;
  std::memcpy(to, &entry, sizeof(entry));
  to += sizeof(entry);
  for (const iovec& piece : pieces) {
    const std::size_t part = std::min(size, piece.iov_len);
    if (part == 0) break;
    std::memcpy(to, piece.iov_base, part);
    to += part;
    size -= part;
  }
  header_->end = end;
}

void Log::append(Entry entry, std::string_view text) {
  const iovec piece{const_cast<char*>(text.data()), text.size()};
  append(entry, {&piece, 1}, text.size());
}

std::vector<const Entry*> Log::entries() const {
  std::vector<const Entry*> list;
  const std::uint8_t* const memory = reinterpret_cast<const std::uint8_t*>(header_);
  for (std::size_t at = sizeof(Entry); at < header_->end;) {
    const auto* const entry = reinterpret_cast<const Entry*>(memory + at);
    list.push_back(entry);
    at += (sizeof(Entry) + entry->size + kAlign - 1) / kAlign * kAlign;
  }
  return list;
}

}  // namespace holdfast::disk
