// Blocks of which little is left unsettled are written anew with that, so that a few messages that
// wait long do not hold up the space of many.
//
// A block is looked at when one of its messages is settled or begins to wait. While publishes are
// refused this takes from the reserve before it gives back, so only a little of it is done for each
// batch; and while commits lag none. The blocks whose turn did not come are put off, and looked at
// again after each commit.

#include <algorithm>

#include "base/check.h"
#include "core/state.h"

namespace holdfast::broker {

namespace {
// A block of a page or two gains nothing by being rewritten.
constexpr std::uint32_t kRewriteBytesMin = 8192;
// So many of the blocks that were put off are looked at after a commit.
constexpr std::size_t kPutOffLookedAtMax = 64;
}  // namespace

// More than half of its bytes are settled. Not while a consumer holds some of it: those are about
// to be settled, and in the ordinary course every block passes through that state.
bool Core::State::is_sparse(const Queue& queue, const OpenBlock& block) const {
  return block.live_bytes * std::uint64_t{2} < block.bytes && block.bytes >= kRewriteBytesMin &&
         block.held == 0 && block.last < queue.subscription.read_next;
}

bool Core::State::may_rewrite(const OpenBlock& block) const {
  const std::size_t bytes = rewrites_read_bytes + block.live_bytes;
  if (pipeline.has_room_for(bytes)) {
    return !pipeline.lags() && rewrites_read_bytes < options.batch_bytes_max;
  }
  return pipeline.has_reserve_for(bytes) &&
         pipeline.gathering().reread_bytes() + bytes <= kReserveStepBytes;
}

void Core::State::rewrite_if_sparse(Queue& queue, OpenBlock& block) {
  if (!is_sparse(queue, block) || block.rewriting || block.put_off) return;
  if (!may_rewrite(block)) {
    block.put_off = true;
    rewrites_put_off.push_back({queue.record.id, block.first});
    return;
  }
  if (const std::shared_ptr<const Block> cached = cache.find(queue.record.id, block.last);
      cached && cached->first_sequence() == block.first) {
    rewrite(queue, block, *cached);
    return;
  }
  block.rewriting = true;
  const std::size_t bytes = block.live_bytes;
  rewrites_read_bytes += bytes;
  fetch(
      queue, block.first, block.last, 1,
      [this, first = block.first, bytes](Queue& read_queue, const FetchResult& result, Now now) {
        rewrites_read_bytes -= bytes;
        blocks_read(read_queue, result, now);
        const auto found = read_queue.open_blocks.find(first);
        if (found == read_queue.open_blocks.end()) return;
        found->second->rewriting = false;
        if (result.blocks.empty() || result.blocks.front()->first_sequence() != first) return;
        rewrite_if_sparse(read_queue, *found->second);
      },
      [this, bytes] { rewrites_read_bytes -= bytes; });
}

void Core::State::rewrite_put_off() {
  if (draining || !pipeline.has_reserve_for(0)) return;
  const std::size_t bytes_max =
      pipeline.has_room_for(0) ? options.batch_bytes_max : kReserveStepBytes;
  std::size_t left = std::min(rewrites_put_off.size(), kPutOffLookedAtMax);
  for (; left > 0 && rewritten_bytes() < bytes_max; --left) {
    const BlockKey key = rewrites_put_off.front();
    rewrites_put_off.pop_front();
    Queue* const queue = find_queue(key.queue);
    if (queue == nullptr || queue->record.deleted) continue;
    // Settled or rewritten meanwhile, if it is not found.
    const auto found = queue->open_blocks.find(key.first);
    if (found == queue->open_blocks.end()) continue;
    found->second->put_off = false;
    rewrite_if_sparse(*queue, *found->second);
  }
}

void Core::State::rewrite(Queue& queue, OpenBlock& open_block, const Block& block) {
  if (!block.corrupt().empty()) return;  // its raw bytes are evidence
  BlockBuilder builder(queue.record.id);
  std::uint32_t live_bytes = 0;
  for (std::size_t i = 0; i < block.entry_count(); ++i) {
    const BlockEntry entry = block.entry(i);
    if (queue.subscription.settled.contains(entry.sequence)) continue;
    builder.append(entry.sequence, entry.published_at, entry.message_checksum, entry.message,
                   entry.provenance);
    live_bytes += static_cast<std::uint32_t>(entry.stored_bytes());
  }
  CHECK(builder.entry_count() == open_block.live,
        "block {} of queue {} has {} live messages, not {}", open_block.first, queue.record.name,
        builder.entry_count(), open_block.live);
  const std::shared_ptr<const Block> rewritten = builder.finish();
  const Sequence old_first = open_block.first;
  drop_rewritten(queue.record.id, old_first);
  Gathering& gathering = pipeline.gathering();
  gathering.blocks_removed.push_back({queue.record.id, old_first});
  gathering.blocks_rewritten.push_back(rewritten);
  gathering.bytes += rewritten->bytes().size();
  gathering.rewritten_bytes += live_bytes;
  touch(queue);
  cache.erase(queue.record.id, old_first);
  // What is left of it waits for a retry, which would otherwise read it back.
  cache.insert(rewritten);
  auto node = queue.open_blocks.extract(old_first);
  open_block.first = rewritten->first_sequence();
  open_block.last = rewritten->last_sequence();
  open_block.bytes = static_cast<std::uint32_t>(rewritten->bytes().size());
  open_block.live_bytes = live_bytes;
  node.key() = open_block.first;
  queue.open_blocks.insert(std::move(node));
}

void Core::State::drop_rewritten(QueueId queue, Sequence first) {
  std::erase_if(pipeline.gathering().blocks_rewritten,
                [&](const std::shared_ptr<const Block>& block) {
                  return block->queue() == queue && block->first_sequence() == first;
                });
}

}  // namespace holdfast::broker
