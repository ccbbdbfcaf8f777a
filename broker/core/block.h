// A block: the messages that one batch appended to one queue, as one record of the store.
//
//   BlockHeader | entry | entry | … | table
//   entry = EntryHeader | message | pad to 8 | [u64 checksum of provenance | provenance | pad to 8]
//   table = u32 offset of each entry [, u32 sequence − first_sequence of each entry]
//
// Numbers are little-endian. Sequences ascend and may have gaps: a block that was rewritten holds
// only what was still unsettled; then, and only then, the table has its second half. Every part has
// its own checksum, so that one bad byte costs one message: the block header's covers itself, the
// table has one in the header (and is rebuilt from the entries when it does not match), each entry
// header's is salted with queue and first sequence (a block that turns up under another key does
// not pass), each message's is the one that its publisher computed. docs/STORAGE.md has a worked
// example.
//
// A Block is immutable and may be shared between threads; a BlockBuilder belongs to one thread.

#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "schema/frame.h"

namespace holdfast::broker {

struct BlockHeader {
  std::uint32_t magic;  // kBlockMagic
  std::uint32_t queue;
  std::uint64_t first_sequence;   // of the first entry; also in the key
  std::uint64_t last_sequence;    // of the last entry
  std::uint32_t entry_count;      // at least 1
  std::uint32_t block_bytes;      // of the whole block
  std::uint64_t table_checksum;   // XXH3-64 of the table
  std::uint64_t header_checksum;  // XXH3-64 of the bytes before
};
static_assert(sizeof(BlockHeader) == 48);

struct EntryHeader {
  std::uint32_t entry_checksum;    // low half of XXH3-64 of the rest, seeded with queue and first
  std::uint32_t sequence_delta;    // sequence − first_sequence
  std::uint64_t message_checksum;  // XXH3-64 of the message, from its publisher
  std::uint64_t published_at_ms;   // Unix ms
  std::uint32_t message_bytes;
  std::uint32_t provenance_bytes;  // 0: none
};
static_assert(sizeof(EntryHeader) == 32);

inline constexpr std::uint32_t kBlockMagic = 0x31424648;  // "HFB1"

// The bytes that a message occupies in a block: what queue limits and counters count.
std::size_t stored_bytes_of(std::size_t message_bytes, std::size_t provenance_bytes);

// One message in a block; valid as long as its block.
struct BlockEntry {
  Sequence sequence = 0;
  std::uint64_t message_checksum = 0;
  WallTime published_at;
  ByteSpan message;
  ByteSpan provenance;  // empty: none
  std::uint64_t provenance_checksum = 0;
  std::size_t stored_bytes() const { return stored_bytes_of(message.size(), provenance.size()); }
};

// The header of a block record if it can be trusted and belongs to this key; needs only the first
// sizeof(BlockHeader) bytes of the record.
std::optional<BlockHeader> read_block_header(QueueId queue, Sequence first, ByteSpan record);

// Memory of a block: from malloc, so that it can grow and shrink in place.
struct FreeBytes {
  void operator()(std::uint8_t* bytes) const { std::free(bytes); }
};
using BlockBytes = std::unique_ptr<std::uint8_t[], FreeBytes>;

class Block {
 public:
  // Copies a record as read from the store and checks everything: header (against its key), table,
  // every entry, every message. Entries that fail are listed in corrupt(). kMessageCorrupt only if
  // the header itself is not to be trusted: then nothing in the record can be named.
  //
  // Where table and an entry's header are both damaged and the block has gaps, it is not known
  // which sequences stood there: then every sequence between the legible neighbours is listed as
  // corrupt. Those of them that the block never held are settled already.
  static Result<std::shared_ptr<const Block>> from_record(QueueId queue, Sequence first,
                                                          ByteSpan record);
  // Likewise, taking the bytes; on an error they stay where they are.
  static Result<std::shared_ptr<const Block>> from_bytes(QueueId queue, Sequence first,
                                                         BlockBytes* bytes, std::size_t size);

  QueueId queue() const { return queue_; }
  Sequence first_sequence() const { return first_; }
  Sequence last_sequence() const { return last_; }
  std::size_t entry_count() const { return entry_count_; }
  ByteSpan bytes() const { return {bytes_.get(), size_}; }

  // The entry at this index; of a corrupt one the sequence and nothing else.
  BlockEntry entry(std::size_t index) const;
  // Index of the entry with this sequence.
  std::optional<std::size_t> find(Sequence sequence) const;
  // Index of the first entry at or after this sequence; entry_count() if there is none.
  std::size_t lower_bound(Sequence sequence) const;

  // Indexes of entries whose bytes do not match their checksums, ascending.
  std::span<const std::uint32_t> corrupt() const { return corrupt_; }
  bool is_corrupt(std::size_t index) const;
  // The raw bytes of an entry from its header to the next legible entry, whatever they hold.
  ByteSpan raw_entry(std::size_t index) const;
  // What an entry occupies, as BlockEntry::stored_bytes(), without trusting it.
  std::size_t stored_bytes(std::size_t index) const {
    return raw_entry(index).size() + sizeof(std::uint32_t);
  }
  // Whether the stored table was damaged, so that the entries had to be found one by one.
  bool table_rebuilt() const { return rebuilt_ != nullptr; }

 private:
  friend class BlockBuilder;
  // Where an entry is, in a block whose table was rebuilt.
  struct Located {
    std::uint32_t begin = 0;
    std::uint32_t end = 0;
    std::uint32_t delta = 0;
    bool legible = false;  // its header is
  };

  Block() = default;
  void use_table(const BlockHeader& header);
  bool table_matches(const BlockHeader& header) const;
  Status rebuild_table(const BlockHeader& header);
  void verify_entries();
  bool entry_matches(std::size_t index) const;
  std::uint32_t begin_of(std::size_t index) const;
  std::uint32_t end_of(std::size_t index) const;
  std::uint32_t delta_of(std::size_t index) const;

  BlockBytes bytes_;
  std::size_t size_ = 0;
  QueueId queue_;
  Sequence first_ = 0;
  Sequence last_ = 0;
  std::size_t entry_count_ = 0;
  std::uint32_t entries_end_ = 0;           // where the table begins
  const std::uint32_t* offsets_ = nullptr;  // the table, inside bytes_
  const std::uint32_t* deltas_ = nullptr;   // its second half; null without gaps
  std::unique_ptr<std::vector<Located>> rebuilt_;
  std::vector<std::uint32_t> corrupt_;
};

class BlockBuilder {
 public:
  explicit BlockBuilder(QueueId queue) : queue_(queue) {}

  // Sequences must ascend, all within 2^32 of the first; `message` must not be empty, `provenance`
  // may be. The bytes are copied.
  void append(Sequence sequence, WallTime published_at, std::uint64_t message_checksum,
              ByteSpan message, ByteSpan provenance);

  bool empty() const { return offsets_.empty(); }
  std::size_t entry_count() const { return offsets_.size(); }
  Sequence last_sequence() const { return last_; }
  // What finish() would give, in bytes; must stay below 4 GiB.
  std::size_t size() const { return size_ + table_bytes(); }
  // The finished block; the builder is empty afterwards. Must not be empty().
  std::shared_ptr<const Block> finish();

 private:
  bool has_gaps() const { return !empty() && last_ - first_ + 1 != offsets_.size(); }
  std::size_t table_bytes() const {
    return offsets_.size() * sizeof(std::uint32_t) * (has_gaps() ? 2 : 1);
  }
  void reserve(std::size_t bytes);

  QueueId queue_;
  Sequence first_ = 0;
  Sequence last_ = 0;
  BlockBytes bytes_;
  std::size_t capacity_ = 0;
  std::size_t size_ = 0;
  std::vector<std::uint32_t> offsets_;
};

}  // namespace holdfast::broker
