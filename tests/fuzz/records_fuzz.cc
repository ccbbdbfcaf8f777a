// Records: what the store makes of any bytes that it reads, as key and value of every table.
//
// Of half of the inputs the checksums are put right first, as far as they can be: what was written
// by a broker with a fault in it must not end the one that reads it.

#define XXH_INLINE_ALL
#include <xxhash.h>

#include <vector>

#include "core/block.h"
#include "fuzz/fuzz.h"
#include "store/record.h"

namespace holdfast::fuzz {
namespace {

using namespace holdfast::broker;  // NOLINT(google-build-using-namespace)

constexpr std::size_t kSortOfBlocks = 7;
constexpr Sequence kSpanMax = 4096;

void seal(ByteSpan key, std::vector<std::uint8_t>& value) {
  const std::uint64_t sum =
      XXH3_64bits_withSeed(value.data(), value.size(), XXH3_64bits(key.data(), key.size()));
  const auto* const bytes = reinterpret_cast<const std::uint8_t*>(&sum);
  value.insert(value.end(), bytes, bytes + sizeof(sum));
}

void put_checksum(std::vector<std::uint8_t>& block, std::size_t at, std::uint64_t sum,
                  std::size_t bytes) {
  std::memcpy(block.data() + at, &sum, bytes);
}

// Header and table of a block, and the headers of the entries that the table names. A block spans
// few sequences unless it is to be wide: up to a million that are lost have to be named one by one.
void seal_block(QueueId queue, Sequence first, bool wide, std::vector<std::uint8_t>& block) {
  if (block.size() < sizeof(BlockHeader)) return;
  BlockHeader header;
  std::memcpy(&header, block.data(), sizeof(header));
  header.magic = kBlockMagic;
  header.queue = queue.value;
  header.first_sequence = first;
  if (!wide) header.last_sequence = first + (header.last_sequence - first) % kSpanMax;
  const bool gaps = header.last_sequence - first + 1 != header.entry_count;
  const std::uint64_t table = std::uint64_t{header.entry_count} * (gaps ? 8 : 4);
  if (table <= block.size() - sizeof(header)) {
    header.block_bytes = static_cast<std::uint32_t>(block.size());
    const std::size_t begin = block.size() - table;
    header.table_checksum = checksum(ByteSpan(block).subspan(begin));
    for (std::size_t at = begin; at < begin + std::size_t{header.entry_count} * 4; at += 4) {
      std::uint32_t entry = 0;
      std::memcpy(&entry, block.data() + at, sizeof(entry));
      if (entry > block.size() || block.size() - entry < sizeof(EntryHeader)) continue;
      put_checksum(block, entry,
                   XXH3_64bits_withSeed(block.data() + entry + 4, sizeof(EntryHeader) - 4,
                                        queue.value * 0x9E3779B97F4A7C15ull + first),
                   4);
    }
  }
  std::memcpy(block.data(), &header, sizeof(header));
  put_checksum(block, 40, XXH3_64bits(block.data(), 40), 8);
}

bool lies_in(ByteSpan part, ByteSpan whole) {
  return part.empty() ||
         (part.data() >= whole.data() && part.data() + part.size() <= whole.data() + whole.size());
}

void check_block(QueueId queue, Sequence first, ByteSpan record) {
  const Result<std::shared_ptr<const Block>> read = Block::from_record(queue, first, record);
  if (!read.ok()) {
    if (read.status().message().empty()) violation("records: a block is refused without a word");
    return;
  }
  const Block& block = **read;
  if (!read_block_header(queue, first, record)) violation("records: a block without a header");
  Sequence previous = first - 1;
  const std::size_t step = 1 + block.entry_count() / (16 * kSpanMax);
  for (std::size_t i = 0; i < block.entry_count(); i += step) {
    const BlockEntry entry = block.entry(i);
    if (entry.sequence <= previous && i > 0) violation("records: sequences do not ascend");
    previous = entry.sequence;
    if (entry.sequence > block.last_sequence()) violation("records: a sequence beyond the last");
    if (block.find(entry.sequence) != i) violation("records: an entry is not found");
    if (!lies_in(block.raw_entry(i), block.bytes())) violation("records: an entry lies outside");
    if (block.is_corrupt(i)) {
      if (!entry.message.empty()) violation("records: a corrupt message has bytes");
      continue;
    }
    if (!lies_in(entry.message, block.bytes()) || !lies_in(entry.provenance, block.bytes())) {
      violation("records: a message lies outside of its block");
    }
    if (checksum(entry.message) != entry.message_checksum) {
      violation("records: a message that does not match its checksum is not called corrupt");
    }
    if (!entry.provenance.empty() && checksum(entry.provenance) != entry.provenance_checksum) {
      violation("records: a provenance that does not match its checksum is not called corrupt");
    }
    static_cast<void>(read_message(AlignedCopy(entry.message).span()));
    static_cast<void>(read_provenance(AlignedCopy(entry.provenance).span()));
  }
}

// A record that was read is written and read again the same.
template <typename Record, typename Decode>
void check_again(ByteSpan key, const std::optional<Record>& record, const Decode& decode) {
  if (!record) return;
  RecordEncoder encoder;
  const ByteSpan written = encoder.encode(key, *record);
  const std::vector<std::uint8_t> copy(written.begin(), written.end());
  const auto again = decode(key, copy);
  if (!again) violation("records: what was written is not read");
  RecordEncoder other;
  const ByteSpan twice = other.encode(key, *again);
  if (!std::equal(twice.begin(), twice.end(), copy.begin(), copy.end())) {
    violation("records: what was written is read as something else");
  }
}

void check_record(std::size_t sort, ByteSpan key, ByteSpan value) {
  switch (sort) {
    case 0:
      return check_again(key, decode_node(key, value), decode_node);
    case 1:
      return check_again(key, decode_progress(key, value), decode_progress);
    case 2:
      return check_again(key, decode_queue(key, value), decode_queue);
    case 3:
      return check_again(key, decode_subscription(key, value), decode_subscription);
    case 4:
      return check_again(key, decode_ack(key, value), decode_ack);
    case 5:
      return check_again(key, decode_retry(key, value), decode_retry);
    default: {
      std::vector<MessageIdHash> aligned;
      const std::optional<DedupRun> run = decode_dedup(key, value, &aligned);
      if (run && run->hashes.size() * sizeof(MessageIdHash) + 8 != value.size()) {
        violation("records: ids got lost");
      }
    }
  }
}

}  // namespace
}  // namespace holdfast::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace holdfast::fuzz;  // NOLINT(google-build-using-namespace)
  // A block with gaps and without its table names up to a million sequences as lost.
  const TimeBound bound(size + 1'000'000);
  Input input(data, size);
  const std::size_t sort = input.below(kSortOfBlocks + 1);
  const bool sealed = input.once_in(2);
  if (sort == kSortOfBlocks) {
    const holdfast::QueueId queue(1 + input.number());
    const holdfast::Sequence first = 1 + input.number();
    const bool wide = input.once_in(64);
    std::vector<std::uint8_t> block(input.rest().begin(), input.rest().end());
    if (sealed) seal_block(queue, first, wide, block);
    check_block(queue, first, AlignedCopy(block).span());
    return 0;
  }
  const AlignedCopy key(input.take(input.below(24)));
  std::vector<std::uint8_t> value(input.rest().begin(), input.rest().end());
  if (sealed) seal(key.span(), value);
  check_record(sort, key.span(), AlignedCopy(value).span());
  return 0;
}
