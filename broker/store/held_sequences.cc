#include "store/held_sequences.h"

#include <algorithm>
#include <memory>
#include <optional>

#include "core/block.h"
#include "store/record.h"

namespace holdfast::broker {

namespace {

void append(Sequence first, Sequence last, std::vector<SequenceRange>* held) {
  if (!held->empty() && first <= held->back().last + 1) {
    held->back().last = std::max(held->back().last, last);
  } else {
    held->push_back({first, last});
  }
}

}  // namespace

Result<std::vector<SequenceRange>> held_sequences(Transaction* transaction, QueueId queue,
                                                  Sequence next_sequence) {
  Result<Cursor> cursor = transaction->cursor(Table::kBlocks);
  if (!cursor) return cursor.status();
  std::vector<SequenceRange> held;
  bool open_ended = false;  // where the last block ends is told by the next one
  bool found = cursor->seek(block_key(queue, 0));
  for (;; found = cursor->next()) {
    const std::optional<BlockKey> key = found ? read_block_key(cursor->key()) : std::nullopt;
    if (found && !key) {
      // Whatever it was, nothing behind the last one is certainly settled.
      const Sequence next = held.empty() ? 1 : held.back().last + 1;
      append(next, next, &held);
      open_ended = true;
      continue;
    }
    const bool is_end = !key || key->queue != queue;
    if (open_ended) {
      held.back().last = std::max(held.back().last, (is_end ? next_sequence : key->first) - 1);
    }
    if (is_end) break;
    open_ended = false;
    const std::optional<BlockHeader> header = read_block_header(queue, key->first, cursor->value());
    if (header && header->last_sequence - header->first_sequence + 1 == header->entry_count) {
      append(header->first_sequence, header->last_sequence, &held);
      continue;
    }
    const Result<std::shared_ptr<const Block>> block =
        Block::from_record(queue, key->first, cursor->value());
    if (!block) {
      append(key->first, key->first, &held);
      open_ended = true;
      continue;
    }
    for (std::size_t i = 0; i < (*block)->entry_count(); ++i) {
      const Sequence sequence = (*block)->entry(i).sequence;
      append(sequence, sequence, &held);
    }
  }
  if (!cursor->outcome().ok()) return cursor->outcome().to_status("Reading the headers of blocks");
  return held;
}

}  // namespace holdfast::broker
