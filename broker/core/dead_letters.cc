// Messages that leave their queue otherwise than by an ack: to the dead-letter queue when their
// attempts are used up, when they are rejected, or when their bytes are damaged. Each move is in
// one batch: appended there, settled here. What a person then does with them is in letters.cc.

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "core/state.h"
#include "schema/field_limits.h"

namespace holdfast::broker {

Queue& Core::State::dead_queue_of(Queue& queue) {
  if (queue.is_dead_queue()) return queue;
  Queue* const dead = find_queue(queue.record.dead_queue);
  CHECK(dead != nullptr, "queue {} has no dead-letter queue", queue.record.name);
  return *dead;
}

// ---- to the dead-letter queue ----

void Core::State::start_move(Queue& queue, Outstanding& entry, wire::Cause reason,
                             std::string_view error,
                             const std::shared_ptr<SettleOperation>& operation, Now now) {
  const Sequence sequence = entry.sequence;
  entry.state = OutstandingState::kMoving;
  // Like the attempts' on a full disk, it would use up the reserve.
  const std::string_view kept = pipeline.space().publishes_allowed ? error : std::string_view();
  queue.subscription.moves.emplace(sequence, PendingMove{reason, std::string(kept), operation});
  if (operation) ++operation->moves_left;
  touch(queue);
  switch (move_from_cache(queue, entry, now)) {
    case MoveStep::kDone:
      break;
    case MoveStep::kPutOff:
      if (!pipeline.lags()) ++moves_held_up;
      break;
    case MoveStep::kNotRead:
      fetch_for(queue, sequence);
      break;
  }
}

void Core::State::go_on_moving(Queue& queue, Now now) {
  const std::map<Sequence, PendingMove>& moves = queue.subscription.moves;
  while (!moves.empty()) {
    const Sequence first = moves.begin()->first;
    switch (move_from_cache(queue, *queue.subscription.outstanding.find(first), now)) {
      case MoveStep::kDone:
        break;
      case MoveStep::kPutOff:
        return;
      case MoveStep::kNotRead:
        return fetch_for(queue, first);
    }
  }
}

Core::State::MoveStep Core::State::move_from_cache(Queue& queue, const Outstanding& entry,
                                                   Now now) {
  // Before it is read; of one that was never read since the start the size is not known yet.
  if (!pipeline.may_move(entry.bytes)) {
    moves_put_off.insert(queue.record.id);
    return MoveStep::kPutOff;
  }
  const Sequence sequence = entry.sequence;  // the entry goes with its move
  const std::shared_ptr<const Block> block = cache.find(queue.record.id, sequence);
  if (!block || !block->find(sequence)) return MoveStep::kNotRead;
  open(queue, *block);
  finish_moves(queue, *block, now);
  return queue.subscription.moves.contains(sequence) ? MoveStep::kPutOff : MoveStep::kDone;
}

void Core::State::finish_moves(Queue& queue, const Block& block, Now now) {
  std::map<Sequence, PendingMove>& moves = queue.subscription.moves;
  std::vector<Sequence> here;
  for (auto move = moves.lower_bound(block.first_sequence());
       move != moves.end() && move->first <= block.last_sequence(); ++move) {
    here.push_back(move->first);
  }
  for (const Sequence sequence : here) {
    const std::optional<std::size_t> index = block.find(sequence);
    if (!index) continue;
    if (!pipeline.may_move(block.entry(*index).stored_bytes())) {
      moves_put_off.insert(queue.record.id);
      return;
    }
    if (block.is_corrupt(*index)) {
      set_aside(queue, block, *index, now);
    } else {
      move_to_dead(queue, *queue.subscription.outstanding.find(sequence), block.entry(*index), now);
    }
  }
}

void Core::State::move_to_dead(Queue& queue, Outstanding& entry, const BlockEntry& message,
                               Now now) {
  const PendingMove& move = queue.subscription.moves.at(entry.sequence);
  DeadLetter letter;
  letter.source = queue.record.name;
  letter.source_sequence = entry.sequence;
  letter.subscription = queue.subscription.record.name;
  letter.reason = move.reason;
  letter.error = move.error;
  letter.dead_at = now.wall;
  letter.published_at = message.published_at;
  letter.attempts = entry.attempts;
  letter.history = entry.ended_attempts();
  // A dead letter that is rejected goes to the end of its queue, with the story it came with.
  const std::vector<std::uint8_t> story =
      queue.is_dead_queue() && !message.provenance.empty()
          ? std::vector<std::uint8_t>(message.provenance.begin(), message.provenance.end())
          : encode_provenance(letter);
  append_moved(dead_queue_of(queue), now.wall, message.message_checksum, message.message, story);
  ++queue.counters.dead_lettered;
  finish(queue, entry);
  seal_if_full();
}

void Core::State::append_moved(Queue& queue, WallTime published_at, std::uint64_t message_checksum,
                               ByteSpan message, ByteSpan provenance) {
  append(queue, published_at, message_checksum, message, provenance);
  pipeline.gathering().moved_bytes += message.size() + provenance.size();
}

void Core::State::moves_done(const std::shared_ptr<SettleOperation>& operation) {
  if (!operation || --operation->moves_left > 0 || !operation->looked_through) return;
  say_after_commit(std::move(operation->reply));
}

// ---- what can no longer be read ----

void Core::State::set_aside(Queue& queue, const Block& block, std::size_t index, Now now) {
  const Sequence sequence = block.entry(index).sequence;
  Subscription& subscription = queue.subscription;
  if (subscription.settled.contains(sequence)) return;
  Outstanding* const entry = subscription.outstanding.find(sequence);
  if (entry != nullptr && entry->holder != nullptr) return;  // its consumer has good bytes
  append_corrupt(queue, sequence, block.raw_entry(index),
                 "The stored bytes of this message no longer match their checksum.", now);
  drop_unreadable(queue, sequence, block.stored_bytes(index));
  if (block.table_rebuilt()) estimate_bytes(queue);
  seal_if_full();
}

void Core::State::set_aside_unreadable(Queue& queue, const UnreadableBlock& block, Now now) {
  const Sequence last = std::min(block.last, queue.committed_to);
  std::vector<Sequence> lost;
  queue.subscription.settled.for_each_unsettled(
      block.first, last, [&](Sequence sequence) { lost.push_back(sequence); });
  if (lost.empty()) return;
  append_corrupt(
      queue, block.first, block.raw,
      fmt::format("A stored block can no longer be read: messages {} to {}, {} of them unsettled.",
                  block.first, block.last, lost.size()),
      now);
  // Their shares, which are right in sum if all that may have been in it was unsettled. Nothing is
  // known of a block that is missing.
  std::size_t bytes = block.raw.size() - std::min(block.raw.size(), sizeof(BlockHeader));
  std::size_t left = lost.size();
  const bool exact = bytes > 0 && lost.size() == last - block.first + 1 &&
                     open_block_of(queue, block.first) == nullptr;
  for (const Sequence sequence : lost) {
    const std::size_t share = bytes / left--;
    bytes -= share;
    Outstanding* const entry = queue.subscription.outstanding.find(sequence);
    if (entry != nullptr && entry->holder != nullptr) continue;
    drop_unreadable(queue, sequence, share);
  }
  if (!exact) estimate_bytes(queue);
  if (!block.raw.empty() && open_block_of(queue, block.first) == nullptr) {
    pipeline.gathering().blocks_removed.push_back({queue.record.id, block.first});
  }
  seal_if_full();
}

void Core::State::drop_unreadable(Queue& queue, Sequence sequence, std::size_t stored_bytes) {
  ++queue.counters.corrupt;
  ++corrupt_found;
  corrupt_last = fmt::format("message {} of queue {}", sequence, queue.record.name);
  Outstanding* const entry = queue.subscription.outstanding.find(sequence);
  if (entry == nullptr) {
    settle_sequence(queue, sequence, stored_bytes);
    return;
  }
  if (entry->block == nullptr) entry->bytes = static_cast<std::uint32_t>(stored_bytes);
  finish(queue, *entry);
}

void Core::State::append_corrupt(Queue& queue, Sequence sequence, ByteSpan raw,
                                 std::string_view error, Now now) {
  // A block may be longer than a body can be.
  const std::vector<std::uint8_t> wrapper = encode_corrupt_wrapper(
      queue.record.name, sequence, raw.first(std::min(raw.size(), kMessageBodyBytesMax)));
  DeadLetter letter;
  letter.source = queue.record.name;
  letter.source_sequence = sequence;
  letter.subscription = queue.subscription.record.name;
  letter.reason = wire::Cause_Corrupt;
  letter.error = error;
  letter.dead_at = now.wall;
  if (const Outstanding* const entry = queue.subscription.outstanding.find(sequence)) {
    letter.attempts = entry->attempts;
    letter.history = entry->ended_attempts();
  }
  append_moved(dead_queue_of(queue), now.wall, checksum(wrapper), wrapper,
               encode_provenance(letter));
  ++queue.counters.dead_lettered;
}

}  // namespace holdfast::broker
