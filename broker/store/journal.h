// The journal: a file of fixed size in which small batches become durable by one write and one
// flush, before the tables take them in. docs/STORAGE.md shows it byte by byte.
//
// Happy path: an entry is filled with the changes of a batch and appended behind the one before;
// append() returns when it is flushed. When the tables hold all of that, clear() lets the next
// entry begin at the file's start again. After a crash replay() hands out what the tables lack.
//
// The file is written whole when it is created and never grows: a flush of blocks that are there is
// a flush of data alone, and cannot run out of space. Entries begin at multiples of a page, so that
// no write touches a page with an entry that was confirmed.
//
// Where the file system can, entries are written directly, past the page cache: that is a quarter
// faster than through it, and the slowest percent of the flushes takes a third of the time
// (docs/PERFORMANCE.md).
//
// What stood at an entry's place before is told from it by the batch's number, and by a checksum
// that is salted with a number which no client can know: bytes of a message never pass for an
// entry.
//
// Belongs to the committer thread (before that to whoever opens the store).

#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <utility>

#include "store/change_sink.h"
#include "store/environment.h"
#include "store/file.h"
#include "store/page_bytes.h"
#include "store/record.h"

namespace holdfast::broker {

inline constexpr std::string_view kJournalFileName = "journal";

// The changes of one batch as they stand in the journal.
class JournalEntry : public ChangeSink {
 public:
  // Empty, for this batch. The memory of the entry before is used again.
  void begin(std::uint64_t batch_number);

  Outcome put(Table table, ByteSpan key, ByteSpan value) override;
  Outcome remove(Table table, ByteSpan key) override;
  Outcome trim_blocks(const BlockTrim& trim) override;
  Outcome trim_dedup(const DedupTrim& trim) override;

  // With its padding.
  std::size_t bytes() const;

 private:
  friend class Journal;
  enum class Kind : std::uint8_t { kPut = 1, kRemove = 2, kTrimBlocks = 3, kTrimDedup = 4 };
  void add(Kind kind, Table table, ByteSpan key, ByteSpan value);

  std::uint64_t batch_number_ = 0;
  PageBytes bytes_;  // room for the header, then the changes
};

class Journal {
 public:
  // Makes the file `path` with `record.bytes` of zeroes, flushed.
  static Status create(const std::string& path, const JournalRecord& record);
  // kStorageFailed: it is missing, or has another size. kDirectoryReadOnly: it may not be opened.
  static Result<std::unique_ptr<Journal>> open(const std::string& path, const JournalRecord& record,
                                               bool read_only);

  int file_descriptor() const { return file_.descriptor(); }
  std::uint64_t bytes_max() const { return record_.bytes; }
  // Nothing was appended since the last clear().
  bool empty() const { return end_ == 0; }
  bool fits(const JournalEntry& entry) const { return end_ + entry.bytes() <= record_.bytes; }
  // Writes and flushes it. After an error it is not known whether the entry is there.
  Outcome append(JournalEntry* entry);
  // Everything in it is in the tables, durably.
  void clear() { end_ = 0; }

  // What is behind a batch, in the order of the batches' numbers.
  struct Replayed {
    std::uint64_t batches = 0;
    std::uint64_t last_batch = 0;  // 0: none
    // An entry is not legible though a later one is: what was confirmed is lost.
    bool damaged = false;
    // The batch whose entry was begun behind the last and is not whole: a crash cut it short, or it
    // was damaged since. 0: none.
    std::uint64_t cut_short = 0;
    Outcome outcome;  // the sink's error, or that of reading the file
  };
  // Makes the changes of the batches after `after` and up to `to`; with no sink they are only
  // looked at.
  Replayed replay(std::uint64_t after, std::uint64_t to, ChangeSink* sink);
  Replayed replay(std::uint64_t after, ChangeSink* sink) {
    return replay(after, std::numeric_limits<std::uint64_t>::max(), sink);
  }

 private:
  Journal(File file, const JournalRecord& record) : file_(std::move(file)), record_(record) {}
  // The bytes of the entry's changes at this place of `file`, if a whole entry stands there.
  struct Found {
    std::uint64_t batch_number = 0;
    ByteSpan changes;
  };
  bool find(ByteSpan file, std::size_t at, Found* found) const;
  // The batch of the entry that was begun here, whole or not; 0 if none was.
  std::uint64_t batch_at(ByteSpan file, std::size_t at) const;
  static Outcome make_changes(ByteSpan changes, ChangeSink* sink);

  File file_;
  JournalRecord record_;
  std::uint64_t end_ = 0;  // where the next entry is to stand
};

}  // namespace holdfast::broker
