// Blocks: built as a batch gathers, and read from a record, which checks every byte of it.

#include "core/block.h"

#include <memory>
#include <vector>

#include "base/check.h"
#include "bench/messages.h"

namespace holdfast::broker {
namespace {

using Bytes = std::vector<std::uint8_t>;

constexpr QueueId kQueue{7};
constexpr std::size_t kMessages = 256;

// Appends each of them with the sequence after the last, and finishes the block.
std::shared_ptr<const Block> build(BlockBuilder& builder, const std::vector<Bytes>& messages,
                                   std::uint64_t message_checksum, Sequence& last) {
  for (const Bytes& message : messages) {
    builder.append(++last, from_unix_ms(1'700'000'000'000), message_checksum, message, {});
  }
  return builder.finish();
}

void block_build(benchmark::State& state) {
  const Bytes message = message_with_body(state.range(0));
  // Copies of their own, because messages come from all over a receive buffer.
  const std::vector<Bytes> messages(kMessages, message);
  const std::uint64_t message_checksum = checksum(message);
  BlockBuilder builder(kQueue);
  Sequence last = 0;
  for (auto _ : state) {
    std::shared_ptr<const Block> block = build(builder, messages, message_checksum, last);
    benchmark::DoNotOptimize(block);
    benchmark::ClobberMemory();
  }
  count_messages(state, kMessages, kMessages * message.size());
}
BENCHMARK(block_build)->ArgName("body")->Arg(100)->Arg(1024);

void block_from_record(benchmark::State& state) {
  const Bytes message = message_with_body(state.range(0));
  BlockBuilder builder(kQueue);
  Sequence last = 0;
  const std::shared_ptr<const Block> built =
      build(builder, std::vector<Bytes>(kMessages, message), checksum(message), last);
  for (auto _ : state) {
    const Result<std::shared_ptr<const Block>> block =
        Block::from_record(kQueue, built->first_sequence(), built->bytes());
    CHECK(block.ok() && (*block)->corrupt().empty());
  }
  count_messages(state, kMessages, kMessages * message.size());
}
BENCHMARK(block_from_record)->ArgName("body")->Arg(100)->Arg(1024);

}  // namespace
}  // namespace holdfast::broker
