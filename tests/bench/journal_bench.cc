// An entry of the journal, filled with a block, without its checksum.

#include "store/journal.h"

#include <memory>
#include <vector>

#include "base/check.h"
#include "bench/messages.h"
#include "core/block.h"

namespace holdfast::broker {
namespace {

constexpr QueueId kQueue{7};
constexpr std::size_t kMessages = 1024;

void journal_entry(benchmark::State& state) {
  const std::vector<std::uint8_t> message = message_with_body(state.range(0));
  BlockBuilder builder(kQueue);
  for (Sequence sequence = 1; sequence <= kMessages; ++sequence) {
    builder.append(sequence, from_unix_ms(1'700'000'000'000), checksum(message), message, {});
  }
  const std::shared_ptr<const Block> block = builder.finish();
  const RecordKey key = block_key(kQueue, block->first_sequence());
  JournalEntry entry;
  std::uint64_t batch = 0;
  for (auto _ : state) {
    entry.begin(++batch);
    CHECK(entry.put(Table::kBlocks, key, block->bytes()).ok());
    CHECK(entry.bytes() > block->bytes().size());
    benchmark::ClobberMemory();
  }
  count_messages(state, kMessages, kMessages * message.size());
}
BENCHMARK(journal_entry)->ArgName("body")->Arg(100)->Arg(1024);

}  // namespace
}  // namespace holdfast::broker
