// Blocks: what was appended is read back, and damage costs only what it touched.

#include "core/block.h"

#include <doctest/doctest.h>

#include <cstring>
#include <random>
#include <string>
#include <vector>

#include "support/test_seed.h"

namespace holdfast::broker {
namespace {

constexpr QueueId kQueue{7};

struct Message {
  Sequence sequence = 0;
  std::uint64_t published_at_ms = 0;
  std::string bytes;
  std::string provenance;
};

ByteSpan span_of(const std::string& text) {
  return {reinterpret_cast<const std::uint8_t*>(text.data()), text.size()};
}

std::string text_of(ByteSpan bytes) { return {bytes.begin(), bytes.end()}; }

// Messages of different lengths; every third has a provenance.
std::vector<Message> messages_with(const std::vector<Sequence>& sequences) {
  std::vector<Message> messages;
  for (const Sequence sequence : sequences) {
    Message message;
    message.sequence = sequence;
    message.published_at_ms = 1'700'000'000'000 + sequence * 40'000'000'000;
    message.bytes = "message " + std::to_string(sequence) + std::string(sequence % 13, '.');
    if (sequence % 3 == 0) message.provenance = "provenance of " + std::to_string(sequence);
    messages.push_back(std::move(message));
  }
  return messages;
}

std::shared_ptr<const Block> build(const std::vector<Message>& messages) {
  BlockBuilder builder(kQueue);
  for (const Message& message : messages) {
    builder.append(message.sequence, from_unix_ms(message.published_at_ms),
                   checksum(span_of(message.bytes)), span_of(message.bytes),
                   span_of(message.provenance));
  }
  const std::size_t size = builder.size();
  std::shared_ptr<const Block> block = builder.finish();
  CHECK_EQ(block->bytes().size(), size);
  CHECK(builder.empty());
  return block;
}

using Bytes = std::vector<std::uint8_t>;

Bytes record_of(const std::vector<Message>& messages) {
  const std::shared_ptr<const Block> block = build(messages);
  return {block->bytes().begin(), block->bytes().end()};
}

BlockHeader header_of(const Bytes& record) {
  BlockHeader header;
  std::memcpy(&header, record.data(), sizeof(header));
  return header;
}

std::size_t table_begin(const Bytes& record) {
  const BlockHeader header = header_of(record);
  const bool gaps = header.last_sequence - header.first_sequence + 1 != header.entry_count;
  return record.size() - header.entry_count * sizeof(std::uint32_t) * (gaps ? 2 : 1);
}

std::size_t offset_of(const Bytes& record, std::size_t index) {
  std::uint32_t offset = 0;
  std::memcpy(&offset, record.data() + table_begin(record) + index * sizeof(offset),
              sizeof(offset));
  return offset;
}

std::shared_ptr<const Block> read(const Bytes& record, Sequence first) {
  Result<std::shared_ptr<const Block>> block = Block::from_record(kQueue, first, record);
  REQUIRE_MESSAGE(block.ok(), block.status().message());
  return *block;
}

void check_entry(const BlockEntry& entry, const Message& message) {
  CHECK_EQ(entry.sequence, message.sequence);
  CHECK_EQ(to_unix_ms(entry.published_at), message.published_at_ms);
  CHECK_EQ(text_of(entry.message), message.bytes);
  CHECK_EQ(entry.message_checksum, checksum(entry.message));
  CHECK_EQ(text_of(entry.provenance), message.provenance);
  if (!message.provenance.empty()) {
    CHECK_EQ(entry.provenance_checksum, checksum(entry.provenance));
  }
}

// The block holds these messages, except that exactly those with a sequence in `corrupt` are
// reported as such and serve nothing.
void check_block(const Block& block, const std::vector<Message>& messages,
                 const std::vector<Sequence>& corrupt = {}) {
  std::vector<Sequence> reported;
  for (const std::uint32_t index : block.corrupt()) {
    CHECK(block.is_corrupt(index));
    CHECK(block.entry(index).message.empty());
    CHECK(block.entry(index).provenance.empty());
    reported.push_back(block.entry(index).sequence);
  }
  CHECK_EQ(reported, corrupt);
  for (const Message& message : messages) {
    const std::optional<std::size_t> index = block.find(message.sequence);
    REQUIRE_MESSAGE(index.has_value(), "sequence ", message.sequence);
    if (block.is_corrupt(*index)) continue;
    check_entry(block.entry(*index), message);
  }
}

std::vector<Sequence> range(Sequence first, Sequence last) {
  std::vector<Sequence> sequences;
  for (Sequence at = first; at <= last; ++at) sequences.push_back(at);
  return sequences;
}

const std::vector<Sequence> kGapped = {10, 11, 15, 16, 40, 41, 42, 90};

}  // namespace

TEST_CASE("a block without gaps is read back as it was built") {
  const std::vector<Message> messages = messages_with(range(100, 160));
  const std::shared_ptr<const Block> built = build(messages);
  CHECK_EQ(built->entry_count(), messages.size());
  CHECK_EQ(built->first_sequence(), 100);
  CHECK_EQ(built->last_sequence(), 160);
  CHECK_EQ(built->queue(), kQueue);
  check_block(*built, messages);
  const std::shared_ptr<const Block> again = read(record_of(messages), 100);
  check_block(*again, messages);
  CHECK_EQ(again->entry_count(), messages.size());
  CHECK_FALSE(again->table_rebuilt());
  CHECK_FALSE(again->find(99).has_value());
  CHECK_FALSE(again->find(161).has_value());
  CHECK_EQ(again->lower_bound(1), 0);
  CHECK_EQ(again->lower_bound(130), 30);
  CHECK_EQ(again->lower_bound(161), messages.size());
}

TEST_CASE("a block with gaps finds what it holds and nothing else") {
  const std::vector<Message> messages = messages_with(kGapped);
  const std::shared_ptr<const Block> block = read(record_of(messages), 10);
  check_block(*block, messages);
  CHECK_EQ(block->entry_count(), kGapped.size());
  for (Sequence sequence = 1; sequence < 100; ++sequence) {
    const auto expected = std::lower_bound(kGapped.begin(), kGapped.end(), sequence);
    const auto index = static_cast<std::size_t>(expected - kGapped.begin());
    CHECK_EQ(block->lower_bound(sequence), index);
    const bool held = expected != kGapped.end() && *expected == sequence;
    CHECK_EQ(block->find(sequence).has_value(), held);
  }
}

TEST_CASE("the worked example of docs/STORAGE.md holds byte by byte") {
  const Bytes expected = {
      0x48, 0x46, 0x42, 0x31, 0x01, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00,
      0x00, 0x02, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x02, 0x00, 0x00, 0x00, 0xd8, 0x00,
      0x00, 0x00, 0x83, 0x14, 0x03, 0x7d, 0xbf, 0xe4, 0x19, 0x6b, 0xd5, 0xff, 0x13, 0x0f, 0x2b,
      0x48, 0x20, 0x04, 0x16, 0x26, 0x76, 0x80, 0x00, 0x00, 0x00, 0x00, 0xbf, 0x41, 0x81, 0x9c,
      0x71, 0x18, 0x88, 0xd6, 0x00, 0x68, 0xe5, 0xcf, 0x8b, 0x01, 0x00, 0x00, 0x30, 0x00, 0x00,
      0x00, 0x00, 0x00, 0x00, 0x00, 0x0c, 0x00, 0x00, 0x00, 0x08, 0x00, 0x0c, 0x00, 0x08, 0x00,
      0x04, 0x00, 0x08, 0x00, 0x00, 0x00, 0x08, 0x00, 0x00, 0x00, 0x10, 0x00, 0x00, 0x00, 0x05,
      0x00, 0x00, 0x00, 0x68, 0x65, 0x6c, 0x6c, 0x6f, 0x00, 0x00, 0x00, 0x07, 0x00, 0x00, 0x00,
      0x6f, 0x72, 0x64, 0x65, 0x72, 0x2d, 0x31, 0x00, 0x13, 0xd0, 0x4c, 0xb9, 0x01, 0x00, 0x00,
      0x00, 0x3c, 0xd2, 0x68, 0x87, 0x7a, 0xc6, 0x6e, 0x16, 0x00, 0x68, 0xe5, 0xcf, 0x8b, 0x01,
      0x00, 0x00, 0x30, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x00, 0x0c, 0x00, 0x00, 0x00, 0x08,
      0x00, 0x0c, 0x00, 0x08, 0x00, 0x04, 0x00, 0x08, 0x00, 0x00, 0x00, 0x08, 0x00, 0x00, 0x00,
      0x10, 0x00, 0x00, 0x00, 0x05, 0x00, 0x00, 0x00, 0x77, 0x6f, 0x72, 0x6c, 0x64, 0x00, 0x00,
      0x00, 0x07, 0x00, 0x00, 0x00, 0x6f, 0x72, 0x64, 0x65, 0x72, 0x2d, 0x32, 0x00, 0x30, 0x00,
      0x00, 0x00, 0x80, 0x00, 0x00, 0x00};
  BlockBuilder builder(QueueId(1));
  for (const Sequence sequence : {1u, 2u}) {
    flatbuffers::FlatBufferBuilder buffer;
    const auto id = buffer.CreateString(sequence == 1 ? "order-1" : "order-2");
    const std::string text = sequence == 1 ? "hello" : "world";
    const ByteSpan body_bytes = span_of(text);
    const auto body = buffer.CreateVector(body_bytes.data(), body_bytes.size());
    wire::MessageBuilder message(buffer);
    message.add_id(id);
    message.add_body(body);
    buffer.Finish(message.Finish());
    const ByteSpan bytes{buffer.GetBufferPointer(), buffer.GetSize()};
    builder.append(sequence, from_unix_ms(1'700'000'000'000), checksum(bytes), bytes, {});
  }
  const std::shared_ptr<const Block> block = builder.finish();
  CHECK_EQ(Bytes(block->bytes().begin(), block->bytes().end()), expected);
}

TEST_CASE("a builder is empty after it finished and builds the next block") {
  BlockBuilder builder(kQueue);
  const std::string message = "one";
  builder.append(5, from_unix_ms(1), checksum(span_of(message)), span_of(message), {});
  CHECK_EQ(builder.finish()->first_sequence(), 5);
  builder.append(3, from_unix_ms(2), checksum(span_of(message)), span_of(message), {});
  const std::shared_ptr<const Block> second = builder.finish();
  CHECK_EQ(second->first_sequence(), 3);
  CHECK_EQ(second->entry_count(), 1);
}

TEST_CASE("stored bytes of all entries and the header add up to the block") {
  const std::shared_ptr<const Block> block = build(messages_with(range(1, 50)));
  std::size_t bytes = sizeof(BlockHeader);
  for (std::size_t i = 0; i < block->entry_count(); ++i) bytes += block->entry(i).stored_bytes();
  CHECK_EQ(bytes, block->bytes().size());
}

TEST_CASE("a block with a damaged header cannot be read") {
  const Bytes whole = record_of(messages_with(range(1, 20)));
  for (std::size_t at = 0; at < sizeof(BlockHeader); ++at) {
    Bytes record = whole;
    record[at] ^= 0x10;
    const auto block = Block::from_record(kQueue, 1, record);
    REQUIRE_FALSE(block.ok());
    CHECK_EQ(block.status().code(), ErrorCode::kMessageCorrupt);
  }
}

TEST_CASE("a block under another key cannot be read") {
  const Bytes record = record_of(messages_with(range(1, 20)));
  CHECK_FALSE(Block::from_record(kQueue, 2, record).ok());
  CHECK_FALSE(Block::from_record(QueueId{8}, 1, record).ok());
}

TEST_CASE("a record shorter than a header cannot be read") {
  const Bytes record = record_of(messages_with(range(1, 20)));
  for (std::size_t bytes = 0; bytes < sizeof(BlockHeader); ++bytes) {
    CHECK_FALSE(Block::from_record(kQueue, 1, {record.data(), bytes}).ok());
  }
}

TEST_CASE("a damaged table costs no message") {
  for (const std::vector<Sequence>& sequences : {range(10, 40), kGapped}) {
    const std::vector<Message> messages = messages_with(sequences);
    const Bytes whole = record_of(messages);
    for (std::size_t at = table_begin(whole); at < whole.size(); ++at) {
      Bytes record = whole;
      record[at] ^= 0x01;
      const std::shared_ptr<const Block> block = read(record, 10);
      CHECK(block->table_rebuilt());
      CHECK_EQ(block->entry_count(), messages.size());
      check_block(*block, messages);
    }
  }
}

TEST_CASE("a damaged entry costs its message alone") {
  for (const std::vector<Sequence>& sequences : {range(10, 40), kGapped}) {
    const std::vector<Message> messages = messages_with(sequences);
    const Bytes whole = record_of(messages);
    for (std::size_t index = 0; index < messages.size(); ++index) {
      const std::size_t begin = offset_of(whole, index);
      const std::size_t provenance_at =
          begin + sizeof(EntryHeader) + padded(messages[index].bytes.size(), 8);
      std::vector<std::size_t> places = {begin, begin + 5, begin + sizeof(EntryHeader) - 1,
                                         begin + sizeof(EntryHeader)};
      if (!messages[index].provenance.empty()) {
        places.push_back(provenance_at);      // its checksum
        places.push_back(provenance_at + 8);  // its first byte
      }
      for (const std::size_t at : places) {
        Bytes record = whole;
        record[at] ^= 0x04;
        const std::shared_ptr<const Block> block = read(record, 10);
        CHECK_EQ(block->entry_count(), messages.size());
        check_block(*block, messages, {messages[index].sequence});
        const std::size_t end =
            index + 1 < messages.size() ? offset_of(whole, index + 1) : table_begin(whole);
        const ByteSpan raw = block->raw_entry(index);
        CHECK_EQ(Bytes(raw.begin(), raw.end()),
                 Bytes(record.begin() + static_cast<std::ptrdiff_t>(begin),
                       record.begin() + static_cast<std::ptrdiff_t>(end)));
      }
    }
  }
}

TEST_CASE("an entry header and the table damaged together cost that message alone without gaps") {
  const std::vector<Message> messages = messages_with(range(10, 40));
  const Bytes whole = record_of(messages);
  for (std::size_t index = 0; index < messages.size(); ++index) {
    Bytes record = whole;
    record[offset_of(whole, index) + 3] ^= 0x80;
    record.back() ^= 0x80;
    const std::shared_ptr<const Block> block = read(record, 10);
    CHECK_EQ(block->entry_count(), messages.size());
    check_block(*block, messages, {messages[index].sequence});
  }
}

TEST_CASE(
    "an entry header and the table damaged together in a block with gaps name every sequence that "
    "may be lost") {
  const std::vector<Message> messages = messages_with(kGapped);
  const Bytes whole = record_of(messages);
  Bytes record = whole;
  record[offset_of(whole, 3)] ^= 0x80;  // sequence 16, between 15 and 40
  record.back() ^= 0x80;
  const std::shared_ptr<const Block> block = read(record, 10);
  check_block(*block, messages, range(16, 39));
}

TEST_CASE("a truncated record costs what was cut off") {
  const std::vector<Message> messages = messages_with(range(10, 40));
  const Bytes whole = record_of(messages);
  for (std::size_t bytes = sizeof(BlockHeader); bytes < whole.size(); ++bytes) {
    const std::shared_ptr<const Block> block =
        read(Bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(bytes)), 10);
    std::vector<Sequence> lost;
    for (std::size_t index = 0; index < messages.size(); ++index) {
      const std::size_t end =
          index + 1 < messages.size() ? offset_of(whole, index + 1) : table_begin(whole);
      if (end > bytes) lost.push_back(messages[index].sequence);
    }
    CHECK_EQ(block->entry_count(), messages.size());
    check_block(*block, messages, lost);
  }
}

TEST_CASE("entries that changed places are both refused") {
  // Equal lengths, so that the table still fits.
  std::vector<Message> messages = messages_with({1, 2, 3});
  for (Message& message : messages) {
    message.bytes = "same length " + std::to_string(message.sequence);
    message.provenance.clear();
  }
  Bytes record = record_of(messages);
  const std::size_t first = offset_of(record, 0);
  const std::size_t second = offset_of(record, 1);
  std::swap_ranges(record.begin() + static_cast<std::ptrdiff_t>(first),
                   record.begin() + static_cast<std::ptrdiff_t>(second),
                   record.begin() + static_cast<std::ptrdiff_t>(second));
  check_block(*read(record, 1), messages, {1, 2});
}

TEST_CASE("random damage never serves a wrong byte") {
  std::mt19937 random(test::test_seed());
  const auto below = [&](std::size_t bound) {
    return std::uniform_int_distribution<std::size_t>(0, bound - 1)(random);
  };
  for (int round = 0; round < 4000; ++round) {
    std::vector<Sequence> sequences;
    Sequence next = 1 + below(1000);
    const bool gaps = below(2) == 0;
    for (std::size_t count = 1 + below(20); count > 0; --count) {
      sequences.push_back(next);
      next += gaps ? 1 + below(9) : 1;
    }
    const std::vector<Message> messages = messages_with(sequences);
    Bytes record = record_of(messages);
    for (std::size_t flips = 1 + below(6); flips > 0; --flips) {
      record[below(record.size())] ^= static_cast<std::uint8_t>(1u << below(8));
    }
    if (below(8) == 0) record.resize(below(record.size()));
    const auto block = Block::from_record(kQueue, sequences.front(), record);
    if (!block.ok()) continue;
    for (const Message& message : messages) {
      const std::optional<std::size_t> index = (*block)->find(message.sequence);
      REQUIRE_MESSAGE(index.has_value(), "round ", round);
      if (!(*block)->is_corrupt(*index)) check_entry((*block)->entry(*index), message);
    }
    for (std::size_t index = 0; index < (*block)->entry_count(); ++index) {
      CHECK_LE((*block)->raw_entry(index).size(), record.size());
    }
  }
}

}  // namespace holdfast::broker
