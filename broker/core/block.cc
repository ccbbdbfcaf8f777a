#include "core/block.h"

#include <fmt/format.h>
#define XXH_INLINE_ALL
#include <xxhash.h>

#include <algorithm>
#include <bit>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace holdfast::broker {

namespace {

static_assert(std::endian::native == std::endian::little,
              "blocks are stored as they are in memory");

constexpr std::size_t kPartAlignment = 8;
constexpr std::size_t kProvenanceChecksumBytes = sizeof(std::uint64_t);
constexpr std::size_t kBlockBytesMin = 4096;
// A rebuilt table names at most this many lost sequences; beyond it the block counts as unreadable.
constexpr std::size_t kLostSequencesMax = 1 << 20;

std::uint64_t entry_seed(QueueId queue, Sequence first) {
  // An odd multiplier keeps neighbouring queues and sequences from sharing a seed.
  return queue.value * 0x9E3779B97F4A7C15ull + first;
}

std::uint32_t entry_checksum(const std::uint8_t* entry, std::uint64_t seed) {
  constexpr std::size_t skipped = sizeof(EntryHeader::entry_checksum);
  return static_cast<std::uint32_t>(
      XXH3_64bits_withSeed(entry + skipped, sizeof(EntryHeader) - skipped, seed));
}

std::uint64_t header_checksum(const BlockHeader& header) {
  return XXH3_64bits(&header, offsetof(BlockHeader, header_checksum));
}

EntryHeader read_entry_header(const std::uint8_t* at) {
  EntryHeader header;
  std::memcpy(&header, at, sizeof(header));
  return header;
}

std::size_t entry_bytes(std::size_t message_bytes, std::size_t provenance_bytes) {
  std::size_t bytes = sizeof(EntryHeader) + padded(message_bytes, kPartAlignment);
  if (provenance_bytes > 0) {
    bytes += kProvenanceChecksumBytes + padded(provenance_bytes, kPartAlignment);
  }
  return bytes;
}

std::size_t entry_bytes(const EntryHeader& header) {
  return entry_bytes(header.message_bytes, header.provenance_bytes);
}

// The parts of an entry whose header has been verified.
ByteSpan message_of(const std::uint8_t* entry, const EntryHeader& header) {
  return {entry + sizeof(EntryHeader), header.message_bytes};
}
const std::uint8_t* provenance_checksum_of(const std::uint8_t* entry, const EntryHeader& header) {
  return entry + sizeof(EntryHeader) + padded(header.message_bytes, kPartAlignment);
}
ByteSpan provenance_of(const std::uint8_t* entry, const EntryHeader& header) {
  if (header.provenance_bytes == 0) return {};
  return {provenance_checksum_of(entry, header) + kProvenanceChecksumBytes,
          header.provenance_bytes};
}
std::uint64_t read_u64(const std::uint8_t* at) {
  std::uint64_t value = 0;
  std::memcpy(&value, at, sizeof(value));
  return value;
}

bool has_gaps(const BlockHeader& header) {
  return header.last_sequence - header.first_sequence + 1 != header.entry_count;
}

std::size_t table_bytes(const BlockHeader& header) {
  return std::size_t{header.entry_count} * sizeof(std::uint32_t) * (has_gaps(header) ? 2 : 1);
}

BlockBytes allocate(std::size_t bytes) {
  BlockBytes memory(static_cast<std::uint8_t*>(std::malloc(bytes)));
  CHECK(memory != nullptr, "out of memory for a block of {} bytes", bytes);
  return memory;
}

// Copies `bytes` and zeroes the padding behind them; returns where the next part goes.
std::uint8_t* copy_padded(std::uint8_t* to, ByteSpan bytes) {
  std::memcpy(to, bytes.data(), bytes.size());
  const std::size_t whole = padded(bytes.size(), kPartAlignment);
  std::memset(to + bytes.size(), 0, whole - bytes.size());
  return to + whole;
}

}  // namespace

std::size_t stored_bytes_of(std::size_t message_bytes, std::size_t provenance_bytes) {
  return entry_bytes(message_bytes, provenance_bytes) + sizeof(std::uint32_t);
}

std::optional<BlockHeader> read_block_header(QueueId queue, Sequence first, ByteSpan record) {
  BlockHeader header;
  if (record.size() < sizeof(header)) return std::nullopt;
  std::memcpy(&header, record.data(), sizeof(header));
  if (header.magic != kBlockMagic || header.header_checksum != header_checksum(header) ||
      header.queue != queue.value || header.first_sequence != first) {
    return std::nullopt;
  }
  // What a builder cannot have written is not trusted either, whatever its checksum says.
  const std::uint64_t last_delta = header.last_sequence - header.first_sequence;
  if (header.entry_count == 0 || header.last_sequence < header.first_sequence ||
      last_delta > UINT32_MAX || last_delta + 1 < header.entry_count ||
      header.block_bytes <
          sizeof(header) + header.entry_count * sizeof(EntryHeader) + table_bytes(header)) {
    return std::nullopt;
  }
  return header;
}

Result<std::shared_ptr<const Block>> Block::from_record(QueueId queue, Sequence first,
                                                        ByteSpan record) {
  BlockBytes bytes = allocate(std::max<std::size_t>(record.size(), 1));
  if (!record.empty()) std::memcpy(bytes.get(), record.data(), record.size());
  return from_bytes(queue, first, &bytes, record.size());
}

Result<std::shared_ptr<const Block>> Block::from_bytes(QueueId queue, Sequence first,
                                                       BlockBytes* bytes, std::size_t size) {
  const std::optional<BlockHeader> header = read_block_header(queue, first, {bytes->get(), size});
  if (!header) {
    return Status(ErrorCode::kMessageCorrupt,
                  fmt::format("The header of the block of {} bytes with first sequence {} of queue "
                              "{} does not match its checksum and key; its messages are lost.",
                              size, first, queue.value));
  }
  std::shared_ptr<Block> block(new Block());
  block->size_ = std::min<std::size_t>(size, header->block_bytes);
  block->bytes_ = std::move(*bytes);
  block->queue_ = queue;
  block->first_ = first;
  block->last_ = header->last_sequence;
  block->use_table(*header);
  if (!block->table_matches(*header)) {
    if (Status status = block->rebuild_table(*header); !status) {
      *bytes = std::move(block->bytes_);
      return status;
    }
  }
  block->verify_entries();
  return std::shared_ptr<const Block>(std::move(block));
}

void Block::use_table(const BlockHeader& header) {
  entry_count_ = header.entry_count;
  entries_end_ = static_cast<std::uint32_t>(header.block_bytes - table_bytes(header));
  offsets_ = reinterpret_cast<const std::uint32_t*>(bytes_.get() + entries_end_);
  deltas_ = has_gaps(header) ? offsets_ + entry_count_ : nullptr;
}

// Whether the table is whole, matches its checksum, and is one that a builder can have written.
bool Block::table_matches(const BlockHeader& header) const {
  if (size_ != header.block_bytes || entries_end_ % kPartAlignment != 0) return false;
  if (checksum({bytes_.get() + entries_end_, table_bytes(header)}) != header.table_checksum) {
    return false;
  }
  if (offsets_[0] != sizeof(BlockHeader)) return false;
  for (std::size_t i = 0; i < entry_count_; ++i) {
    const std::uint32_t end = i + 1 < entry_count_ ? offsets_[i + 1] : entries_end_;
    if (offsets_[i] % kPartAlignment != 0 || end > entries_end_ || end < offsets_[i] ||
        end - offsets_[i] < sizeof(EntryHeader)) {
      return false;
    }
    if (deltas_ != nullptr && i > 0 && deltas_[i] <= deltas_[i - 1]) return false;
  }
  return deltas_ == nullptr || (deltas_[0] == 0 && deltas_[entry_count_ - 1] == last_ - first_);
}

// Finds the entries without the table: from the front each header says where the next one is; after
// a damaged one, at the next aligned place where a header matches its checksum.
Status Block::rebuild_table(const BlockHeader& header) {
  const std::uint64_t seed = entry_seed(queue_, first_);
  const std::size_t end = std::min<std::size_t>(entries_end_, size_);
  rebuilt_ = std::make_unique<std::vector<Located>>();
  std::uint64_t next_delta = 0;  // the smallest that has not been seen
  std::size_t hole = sizeof(BlockHeader);
  const auto lose_until = [&](std::uint64_t delta, std::size_t hole_end) {
    for (; next_delta < delta; ++next_delta) {
      rebuilt_->push_back({.begin = static_cast<std::uint32_t>(hole),
                           .end = static_cast<std::uint32_t>(hole_end),
                           .delta = static_cast<std::uint32_t>(next_delta),
                           .legible = false});
    }
  };
  const std::uint64_t last_delta = last_ - first_;
  const bool gaps = has_gaps(header);
  std::size_t lost = 0;
  for (std::size_t at = hole; at + sizeof(EntryHeader) <= end;) {
    const std::uint8_t* const entry = bytes_.get() + at;
    const EntryHeader found = read_entry_header(entry);
    if (found.entry_checksum != entry_checksum(entry, seed) || found.sequence_delta < next_delta ||
        found.sequence_delta > last_delta || entry_bytes(found) > end - at) {
      at += kPartAlignment;
      continue;
    }
    // Without a hole in the bytes, sequences that are not there are a gap and not a loss.
    if (at > hole || !gaps) {
      lost += found.sequence_delta - next_delta;
      if (lost > kLostSequencesMax) break;
      lose_until(found.sequence_delta, at);
    }
    const std::size_t entry_end = at + entry_bytes(found);
    rebuilt_->push_back({.begin = static_cast<std::uint32_t>(at),
                         .end = static_cast<std::uint32_t>(entry_end),
                         .delta = found.sequence_delta,
                         .legible = true});
    next_delta = std::uint64_t{found.sequence_delta} + 1;
    at = hole = entry_end;
  }
  lost += last_delta + 1 - next_delta;
  if (lost > kLostSequencesMax) {
    return Status(ErrorCode::kMessageCorrupt,
                  fmt::format("The block with first sequence {} of queue {} is damaged beyond what "
                              "can be told apart: up to {} messages are lost.",
                              first_, queue_.value, lost));
  }
  lose_until(last_delta + 1, end);
  entry_count_ = rebuilt_->size();
  offsets_ = nullptr;
  deltas_ = nullptr;
  return Status();
}

void Block::verify_entries() {
  for (std::size_t i = 0; i < entry_count_; ++i) {
    if (!entry_matches(i)) corrupt_.push_back(static_cast<std::uint32_t>(i));
  }
}

bool Block::entry_matches(std::size_t index) const {
  if (rebuilt_ != nullptr && !(*rebuilt_)[index].legible) return false;
  const std::uint8_t* const at = bytes_.get() + begin_of(index);
  const EntryHeader header = read_entry_header(at);
  if (header.entry_checksum != entry_checksum(at, entry_seed(queue_, first_)) ||
      header.sequence_delta != delta_of(index) ||
      entry_bytes(header) != end_of(index) - begin_of(index)) {
    return false;
  }
#ifndef HOLDFAST_BREAK_SKIP_CHECKSUM
  if (header.message_checksum != checksum(message_of(at, header))) return false;
#endif
  return header.provenance_bytes == 0 ||
         read_u64(provenance_checksum_of(at, header)) == checksum(provenance_of(at, header));
}

std::uint32_t Block::begin_of(std::size_t index) const {
  return rebuilt_ != nullptr ? (*rebuilt_)[index].begin : offsets_[index];
}

std::uint32_t Block::end_of(std::size_t index) const {
  if (rebuilt_ != nullptr) return (*rebuilt_)[index].end;
  return index + 1 < entry_count_ ? offsets_[index + 1] : entries_end_;
}

std::uint32_t Block::delta_of(std::size_t index) const {
  if (rebuilt_ != nullptr) return (*rebuilt_)[index].delta;
  return deltas_ != nullptr ? deltas_[index] : static_cast<std::uint32_t>(index);
}

BlockEntry Block::entry(std::size_t index) const {
  CHECK(index < entry_count_, "index {} of {} entries", index, entry_count_);
  BlockEntry entry;
  entry.sequence = first_ + delta_of(index);
  if (is_corrupt(index)) return entry;
  const std::uint8_t* const at = bytes_.get() + begin_of(index);
  const EntryHeader header = read_entry_header(at);
  entry.message_checksum = header.message_checksum;
  entry.published_at = from_unix_ms(header.published_at_ms);
  entry.message = message_of(at, header);
  if (header.provenance_bytes > 0) {
    entry.provenance = provenance_of(at, header);
    entry.provenance_checksum = read_u64(provenance_checksum_of(at, header));
  }
  return entry;
}

std::size_t Block::lower_bound(Sequence sequence) const {
  if (sequence <= first_) return 0;
  if (sequence > last_) return entry_count_;
  const auto delta = static_cast<std::uint32_t>(sequence - first_);
  if (rebuilt_ != nullptr) {
    const auto at = std::lower_bound(
        rebuilt_->begin(), rebuilt_->end(), delta,
        [](const Located& located, std::uint32_t wanted) { return located.delta < wanted; });
    return static_cast<std::size_t>(at - rebuilt_->begin());
  }
  if (deltas_ == nullptr) return delta;
  return static_cast<std::size_t>(std::lower_bound(deltas_, deltas_ + entry_count_, delta) -
                                  deltas_);
}

std::optional<std::size_t> Block::find(Sequence sequence) const {
  const std::size_t index = lower_bound(sequence);
  if (index == entry_count_ || first_ + delta_of(index) != sequence) return std::nullopt;
  return index;
}

bool Block::is_corrupt(std::size_t index) const {
  return !corrupt_.empty() && std::binary_search(corrupt_.begin(), corrupt_.end(), index);
}

ByteSpan Block::raw_entry(std::size_t index) const {
  CHECK(index < entry_count_, "index {} of {} entries", index, entry_count_);
  return {bytes_.get() + begin_of(index), end_of(index) - begin_of(index)};
}

void BlockBuilder::append(Sequence sequence, WallTime published_at, std::uint64_t message_checksum,
                          ByteSpan message, ByteSpan provenance) {
  if (empty()) {
    first_ = sequence;
    size_ = sizeof(BlockHeader);
  } else {
    CHECK(sequence > last_, "sequence {} after {}", sequence, last_);
  }
  CHECK(sequence - first_ <= UINT32_MAX && !message.empty(), "sequence {} after {}, {} bytes",
        sequence, first_, message.size());
  const std::size_t bytes = entry_bytes(message.size(), provenance.size());
  CHECK(size_ + bytes <= UINT32_MAX, "a block of {} bytes", size_ + bytes);
  reserve(size_ + bytes);

  std::uint8_t* const at = bytes_.get() + size_;
  EntryHeader header{.entry_checksum = 0,
                     .sequence_delta = static_cast<std::uint32_t>(sequence - first_),
                     .message_checksum = message_checksum,
                     .published_at_ms = to_unix_ms(published_at),
                     .message_bytes = static_cast<std::uint32_t>(message.size()),
                     .provenance_bytes = static_cast<std::uint32_t>(provenance.size())};
  std::memcpy(at, &header, sizeof(header));
  const std::uint32_t header_sum = entry_checksum(at, entry_seed(queue_, first_));
  std::memcpy(at, &header_sum, sizeof(header_sum));
  std::uint8_t* next = copy_padded(at + sizeof(header), message);
  if (!provenance.empty()) {
    const std::uint64_t provenance_sum = checksum(provenance);
    std::memcpy(next, &provenance_sum, sizeof(provenance_sum));
    copy_padded(next + sizeof(provenance_sum), provenance);
  }
  offsets_.push_back(static_cast<std::uint32_t>(size_));
  size_ += bytes;
  last_ = sequence;
}

void BlockBuilder::reserve(std::size_t bytes) {
  if (bytes <= capacity_) return;
  const std::size_t wanted = std::max({bytes, capacity_ * 2, kBlockBytesMin});
  void* const larger = std::realloc(bytes_.get(), wanted);
  CHECK(larger != nullptr, "out of memory for a block of {} bytes", wanted);
  // realloc has freed or kept the old memory itself.
  static_cast<void>(bytes_.release());
  bytes_.reset(static_cast<std::uint8_t*>(larger));
  capacity_ = wanted;
}

std::shared_ptr<const Block> BlockBuilder::finish() {
  CHECK(!empty(), "queue {}", queue_.value);
  const std::size_t block_bytes = size();
  CHECK(block_bytes <= UINT32_MAX, "a block of {} bytes", block_bytes);
  BlockHeader header{.magic = kBlockMagic,
                     .queue = queue_.value,
                     .first_sequence = first_,
                     .last_sequence = last_,
                     .entry_count = static_cast<std::uint32_t>(offsets_.size()),
                     .block_bytes = static_cast<std::uint32_t>(block_bytes),
                     .table_checksum = 0,
                     .header_checksum = 0};
  reserve(block_bytes);
  std::uint8_t* const table = bytes_.get() + size_;
  const std::size_t half = offsets_.size() * sizeof(std::uint32_t);
  std::memcpy(table, offsets_.data(), half);
  if (has_gaps()) {
    for (std::size_t i = 0; i < offsets_.size(); ++i) {
      std::memcpy(table + half + i * sizeof(std::uint32_t),
                  bytes_.get() + offsets_[i] + offsetof(EntryHeader, sequence_delta),
                  sizeof(std::uint32_t));
    }
  }
  header.table_checksum = checksum({table, table_bytes()});
  header.header_checksum = header_checksum(header);
  std::memcpy(bytes_.get(), &header, sizeof(header));
  if (void* const exact = std::realloc(bytes_.get(), block_bytes); exact != nullptr) {
    static_cast<void>(bytes_.release());
    bytes_.reset(static_cast<std::uint8_t*>(exact));
  }

  std::shared_ptr<Block> block(new Block());
  block->bytes_ = std::move(bytes_);
  block->size_ = block_bytes;
  block->queue_ = queue_;
  block->first_ = first_;
  block->last_ = last_;
  block->use_table(header);
  capacity_ = size_ = 0;
  offsets_.clear();
  return block;
}

}  // namespace holdfast::broker
