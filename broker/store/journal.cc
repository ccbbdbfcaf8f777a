#include "store/journal.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>

#include "holdfast/text.h"
#define XXH_INLINE_ALL
#include <xxhash.h>

namespace holdfast::broker {

namespace {

constexpr std::uint32_t kMagic = 0x314a4648;  // "HFJ1"
constexpr int kTriesMax = 8;                  // writes that do not come a page further

// Of an entry.
struct Header {
  std::uint32_t magic = kMagic;
  std::uint32_t bytes = 0;  // of the changes behind it
  std::uint64_t batch_number = 0;
  std::uint64_t changes_checksum = 0;
  std::uint64_t checksum = 0;  // of the header up to here
};
static_assert(sizeof(Header) == 32);

// Of a change: its key and its value follow.
struct ChangeHeader {
  std::uint8_t kind = 0;
  std::uint8_t table = 0;
  std::uint16_t key_bytes = 0;
  std::uint32_t value_bytes = 0;
};
static_assert(sizeof(ChangeHeader) == 8);

// What a trim asks for, as the value of its change.
struct TrimValue {
  std::uint64_t time_ms = 0;   // of a trim of ids
  std::uint64_t sequence = 0;  // `below` of blocks, `first` of ids
  std::uint32_t queue = 0;
  std::uint32_t limit = 0;
};
static_assert(sizeof(TrimValue) == 24);

std::uint64_t checksum_of(std::uint64_t salt, const void* bytes, std::size_t count) {
  return XXH3_64bits_withSeed(bytes, count, salt);
}

template <typename Value>
ByteSpan bytes_of(const Value& value) {
  return {reinterpret_cast<const std::uint8_t*>(&value), sizeof(value)};
}

// All of it, however often the system takes only a part. A page that it took a part of is written
// once more, so that every write begins at one.
Outcome write_all(int descriptor, const std::uint8_t* bytes, std::size_t count, std::uint64_t at) {
  int tries = kTriesMax;
  while (count > 0) {
    const ssize_t written = ::pwrite(descriptor, bytes, count, static_cast<off_t>(at));
    if (written < 0 && errno == EINTR) continue;
    if (written <= 0) return Outcome(written < 0 ? errno : EIO);
    std::size_t done = static_cast<std::size_t>(written);
    if (done < count) done = done / kPageBytes * kPageBytes;
    if (done == 0 && --tries == 0) return Outcome(EIO);
    bytes += done;
    at += done;
    count -= done;
  }
  return Outcome();
}

// Opens a file to be read and written past the page cache. Not every file system can: one does not
// open it (tmpfs), another opens it and then refuses; there it goes through the cache.
File open_directly(const std::string& path) {
  File file(path, O_RDWR | O_DIRECT);
  if (!file.ok() && file.error() != EINVAL) return file;
  PageBytes page(kPageBytes);
  if (file.ok() && ::pread(file.descriptor(), page.data(), page.size(), 0) >= 0) return file;
  return File(path, O_RDWR);
}

Outcome read_all(int descriptor, PageBytes* bytes) {
  std::size_t count = 0;
  while (count < bytes->size()) {
    const ssize_t read = ::pread(descriptor, bytes->data() + count, bytes->size() - count,
                                 static_cast<off_t>(count));
    if (read < 0 && errno == EINTR) continue;
    if (read <= 0) return Outcome(read < 0 ? errno : EIO);
    count += static_cast<std::size_t>(read);
  }
  return Outcome();
}

}  // namespace

// ---- JournalEntry ----

void JournalEntry::begin(std::uint64_t batch_number) {
  batch_number_ = batch_number;
  bytes_.resize(sizeof(Header));
}

std::size_t JournalEntry::bytes() const { return padded(bytes_.size(), kPageBytes); }

void JournalEntry::add(Kind kind, Table table, ByteSpan key, ByteSpan value) {
  const ChangeHeader header{.kind = static_cast<std::uint8_t>(kind),
                            .table = static_cast<std::uint8_t>(table),
                            .key_bytes = static_cast<std::uint16_t>(key.size()),
                            .value_bytes = static_cast<std::uint32_t>(value.size())};
  bytes_.append(bytes_of(header));
  bytes_.append(key);
  bytes_.append(value);
}

Outcome JournalEntry::put(Table table, ByteSpan key, ByteSpan value) {
  add(Kind::kPut, table, key, value);
  return Outcome();
}

Outcome JournalEntry::remove(Table table, ByteSpan key) {
  add(Kind::kRemove, table, key, {});
  return Outcome();
}

Outcome JournalEntry::trim_blocks(const BlockTrim& trim) {
  const TrimValue value{
      .time_ms = 0, .sequence = trim.below, .queue = trim.queue.value, .limit = trim.limit};
  add(Kind::kTrimBlocks, Table::kBlocks, {}, bytes_of(value));
  return Outcome();
}

Outcome JournalEntry::trim_dedup(const DedupTrim& trim) {
  const TrimValue value{.time_ms = trim.time_ms,
                        .sequence = trim.first,
                        .queue = trim.queue.value,
                        .limit = trim.limit};
  add(Kind::kTrimDedup, Table::kDedup, {}, bytes_of(value));
  return Outcome();
}

// ---- Journal ----

Status Journal::create(const std::string& path, const JournalRecord& record) {
  constexpr std::size_t kStepBytes = 1 << 20;
  const File file(path, O_WRONLY | O_CREAT | O_EXCL, kFileMode);
  if (!file.ok()) return Outcome(file.error()).to_status("Creating " + path);
  const std::vector<std::uint8_t> zeroes(kStepBytes);
  Outcome outcome;
  for (std::uint64_t at = 0; outcome.ok() && at < record.bytes; at += kStepBytes) {
    outcome = write_all(
        file.descriptor(), zeroes.data(),
        static_cast<std::size_t>(std::min<std::uint64_t>(kStepBytes, record.bytes - at)), at);
  }
  if (outcome.ok() && ::fsync(file.descriptor()) != 0) outcome = Outcome(errno);
  return outcome.ok() ? Status() : outcome.to_status("Creating " + path);
}

Result<std::unique_ptr<Journal>> Journal::open(const std::string& path, const JournalRecord& record,
                                               bool read_only) {
  File file = read_only ? File(path, O_RDONLY) : open_directly(path);
  if (!file.ok()) {
    if (means_no_access(file.error())) return no_access(path, file.error(), read_only);
    if (file.error() != ENOENT) return Outcome(file.error()).to_status("Opening " + path);
    return Status(ErrorCode::kStorageFailed,
                  fmt::format("{} is missing: what was confirmed last may stand nowhere else. "
                              "Restore the whole data directory from a backup.",
                              path));
  }
  struct stat info {};
  if (::fstat(file.descriptor(), &info) != 0) return Outcome(errno).to_status("Looking at " + path);
  if (static_cast<std::uint64_t>(info.st_size) != record.bytes) {
    return Status(ErrorCode::kStorageFailed,
                  fmt::format("{} has {} bytes instead of {}: it was cut short, or belongs to "
                              "another store. Restore the whole data directory from a backup.",
                              path, info.st_size, record.bytes));
  }
  return std::unique_ptr<Journal>(new Journal(std::move(file), record));
}

Outcome Journal::append(JournalEntry* entry) {
  PageBytes& bytes = entry->bytes_;
  const std::size_t end = bytes.size();
  const std::size_t changes = end - sizeof(Header);
  // The memory holds what was there before: the padding is set.
  bytes.resize(entry->bytes());
  std::memset(bytes.data() + end, 0, bytes.size() - end);
  Header header;
  header.bytes = static_cast<std::uint32_t>(changes);
  header.batch_number = entry->batch_number_;
  header.changes_checksum = checksum_of(record_.salt, bytes.data() + sizeof(Header), changes);
  header.checksum = checksum_of(record_.salt, &header, offsetof(Header, checksum));
  std::memcpy(bytes.data(), &header, sizeof(header));
  const Outcome outcome = write_all(file_.descriptor(), bytes.data(), bytes.size(), end_);
  if (!outcome.ok()) return outcome;
  if (::fdatasync(file_.descriptor()) != 0) return Outcome(errno);
  end_ += bytes.size();
  return Outcome();
}

bool Journal::find(ByteSpan file, std::size_t at, Found* found) const {
  if (file.size() - at < sizeof(Header)) return false;
  Header header;
  std::memcpy(&header, file.data() + at, sizeof(header));
  if (batch_at(file, at) == 0 || header.bytes > file.size() - at - sizeof(Header)) return false;
  found->batch_number = header.batch_number;
  found->changes = file.subspan(at + sizeof(Header), header.bytes);
#ifdef HOLDFAST_BREAK_SKIP_JOURNAL_CHECKSUM
  return true;
#else
  return header.changes_checksum ==
         checksum_of(record_.salt, found->changes.data(), found->changes.size());
#endif
}

std::uint64_t Journal::batch_at(ByteSpan file, std::size_t at) const {
  Header header;
  std::memcpy(&header, file.data() + at, sizeof(header));
  const bool legible =
      header.magic == kMagic &&
      header.checksum == checksum_of(record_.salt, &header, offsetof(Header, checksum));
  return legible ? header.batch_number : 0;
}

Journal::Replayed Journal::replay(std::uint64_t after, std::uint64_t to, ChangeSink* sink) {
  Replayed replayed;
  PageBytes bytes(static_cast<std::size_t>(record_.bytes));
  replayed.outcome = read_all(file_.descriptor(), &bytes);
#ifdef HOLDFAST_BREAK_IGNORE_READ_ERROR
  replayed.outcome = Outcome();
#endif
  if (!replayed.outcome.ok()) return replayed;

  const ByteSpan file = bytes.span();
  std::size_t at = 0;
  Found found;
  while (at < file.size() && after + replayed.batches < to && find(file, at, &found) &&
         found.batch_number == after + replayed.batches + 1) {
    if (sink != nullptr) replayed.outcome = make_changes(found.changes, sink);
    if (!replayed.outcome.ok()) return replayed;
    ++replayed.batches;
    replayed.last_batch = found.batch_number;
    at += padded(sizeof(Header) + found.changes.size(), kPageBytes);
  }
  // Behind the last entry stand older ones, and at most one that was cut short: it is the next. A
  // later one was written when that had been flushed.
  const std::uint64_t next = after + replayed.batches + 1;
  if (at < file.size() && next <= to && batch_at(file, at) == next) replayed.cut_short = next;
  for (; at < file.size() && next <= to; at += kPageBytes) {
    if (batch_at(file, at) > next) replayed.damaged = true;
  }
  return replayed;
}

Outcome Journal::make_changes(ByteSpan changes, ChangeSink* sink) {
  using Kind = JournalEntry::Kind;
  for (std::size_t at = 0; at < changes.size();) {
    ChangeHeader header;
    // The checksum held, so it is what a broker wrote; but a later one may write what this one does
    // not know.
    if (changes.size() - at < sizeof(header)) return Outcome(EBADMSG);
    std::memcpy(&header, changes.data() + at, sizeof(header));
    at += sizeof(header);
    if (header.table >= kTableCount ||
        changes.size() - at < std::size_t{header.key_bytes} + header.value_bytes) {
      return Outcome(EBADMSG);
    }
    const Table table = static_cast<Table>(header.table);
    const ByteSpan key = changes.subspan(at, header.key_bytes);
    const ByteSpan value = changes.subspan(at + header.key_bytes, header.value_bytes);
    at += key.size() + value.size();

    const Kind kind = static_cast<Kind>(header.kind);
    TrimValue trim;
    if (kind == Kind::kTrimBlocks || kind == Kind::kTrimDedup) {
      if (value.size() != sizeof(trim)) return Outcome(EBADMSG);
      std::memcpy(&trim, value.data(), sizeof(trim));
    }
    Outcome outcome;
    switch (kind) {
      case Kind::kPut:
        outcome = sink->put(table, key, value);
        break;
      case Kind::kRemove:
        outcome = sink->remove(table, key);
        break;
      case Kind::kTrimBlocks:
        outcome = sink->trim_blocks(
            {.queue = QueueId{trim.queue}, .below = trim.sequence, .limit = trim.limit});
        break;
      case Kind::kTrimDedup:
        outcome = sink->trim_dedup({.queue = QueueId{trim.queue},
                                    .time_ms = trim.time_ms,
                                    .first = trim.sequence,
                                    .limit = trim.limit});
        break;
      default:
        return Outcome(EBADMSG);
    }
    if (!outcome.ok()) return outcome;
  }
  return Outcome();
}

}  // namespace holdfast::broker
