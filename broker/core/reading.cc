// Reading blocks back, and what is known of those that were read.

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "core/state.h"
#include "schema/field_limits.h"

namespace holdfast::broker {

namespace {
constexpr std::size_t kPeekReadBytes = 256 * 1024;
// A peek's answer is cut at about this much; the asker goes on from where it ended.
constexpr std::size_t kPeekBytesMax = 1 << 20;
// Fetches for single messages that may be under way at once, per subscription.
constexpr std::size_t kFetchesMax = 8;

wire::MessageState state_as_told(const Outstanding& entry) {
  if (entry.holder != nullptr) return wire::MessageState_InFlight;
  switch (entry.state) {
    case OutstandingState::kWaiting:
      return wire::MessageState_Waiting;
    case OutstandingState::kMoving:
      return wire::MessageState_Moving;
    default:
      return wire::MessageState_Ready;
  }
}
}  // namespace

// ---- fetches ----

void Core::State::fetch(Queue& queue, Sequence from, Sequence to, std::size_t bytes_max,
                        FetchDone done, std::function<void()> gone) {
  const FetchId id(++last_fetch);
  fetches.emplace(id, PendingFetch{queue.record.id, std::move(done), std::move(gone)});
  effects.fetches.push_back({id, queue.record.id, from, to, bytes_max});
}

void Core::State::fetched(const FetchResult& result, Now now) {
  const auto found = fetches.find(result.id);
  CHECK(found != fetches.end(), "fetch {} was not asked for", result.id.value);
  const PendingFetch pending = std::move(found->second);
  fetches.erase(found);
  Queue* const queue = find_queue(pending.queue);
  if (queue == nullptr || queue->record.deleted) {
    if (pending.gone) pending.gone();
    return;
  }
  pending.done(*queue, result, now);
}

void Core::State::fetch_for(Queue& queue, Sequence sequence) {
  std::set<Sequence>& fetching = queue.subscription.fetching;
  const OpenBlock* const block = open_block_of(queue, sequence);
  const Sequence known_by = block != nullptr ? block->first : sequence;
  if (fetching.size() >= kFetchesMax || !fetching.insert(known_by).second) return;
  fetch_block_of(queue, sequence, sequence, known_by);
}

void Core::State::fetch_block_of(Queue& queue, Sequence sequence, Sequence to, Sequence known_by) {
  fetch(queue, sequence, to, 1,
        [this, sequence, to, known_by](Queue& read_queue, const FetchResult& result, Now now) {
          // Where a block that is not legible ends is told by the next one, which may be far.
          if (!result.unreadable.empty() && to == sequence && to < read_queue.committed_to) {
            fetch_block_of(read_queue, sequence, read_queue.committed_to, known_by);
            return;
          }
          Subscription& subscription = read_queue.subscription;
          subscription.fetching.erase(known_by);
          blocks_read(read_queue, result, now);
          const bool found = std::any_of(
              result.blocks.begin(), result.blocks.end(),
              [sequence](const auto& block) { return block->find(sequence).has_value(); });
          if (!found) report_lost(read_queue, sequence, sequence, now);
          go_on_moving(read_queue, now);
          pump(read_queue, now);
        });
}

void Core::State::blocks_read(Queue& queue, const FetchResult& result, Now now) {
  for (const UnreadableBlock& block : result.unreadable) set_aside_unreadable(queue, block, now);
  for (const std::shared_ptr<const Block>& block : result.blocks) {
    // A block that was emptied while it was being read is not wanted any more.
    if (open(queue, *block) == nullptr) continue;
    cache.insert(block);
    for (const std::uint32_t index : block->corrupt()) set_aside(queue, *block, index, now);
    finish_moves(queue, *block, now);
  }
}

void Core::State::report_lost(Queue& queue, Sequence first, Sequence last, Now now) {
  if (!queue.subscription.settled.any_unsettled(first, last)) return;
  set_aside_unreadable(queue, UnreadableBlock{first, last, {}}, now);
}

// ---- open blocks ----

OpenBlock* Core::State::open_block_of(Queue& queue, Sequence sequence) {
  auto found = queue.open_blocks.upper_bound(sequence);
  if (found == queue.open_blocks.begin()) return nullptr;
  OpenBlock* const block = std::prev(found)->second.get();
  return block->last >= sequence ? block : nullptr;
}

// What was only looked at, ahead of deliveries and in a queue of a million blocks perhaps, is not
// kept in memory.
void Core::State::close_unread(Queue& queue, const Block& block) {
  const auto found = queue.open_blocks.find(block.first_sequence());
  if (found == queue.open_blocks.end() || found->first < queue.subscription.read_next) return;
  const OpenBlock& open_block = *found->second;
  const bool is_wanted =
      open_block.rewriting || open_block.put_off || queue.subscription.current_open == &open_block;
  if (!is_wanted) queue.open_blocks.erase(found);
}

OpenBlock* Core::State::open(Queue& queue, const Block& block) {
  Subscription& subscription = queue.subscription;
  // A block that was rewritten since these bytes were read spans less than they do.
  if (const auto after = queue.open_blocks.upper_bound(block.last_sequence());
      after != queue.open_blocks.begin()) {
    OpenBlock* const before = std::prev(after)->second.get();
    if (before->last >= block.first_sequence()) return before;
  }
  auto opened = std::make_unique<OpenBlock>();
  OpenBlock& open_block = *opened;
  open_block.first = block.first_sequence();
  open_block.last = block.last_sequence();
  open_block.bytes = static_cast<std::uint32_t>(block.bytes().size());
  const bool untouched = block.first_sequence() >= subscription.read_next &&
                         subscription.settled.highest() < block.first_sequence();
  if (untouched) {
    open_block.live = static_cast<std::uint32_t>(block.entry_count());
    open_block.live_bytes = open_block.bytes;
  } else {
    for (std::size_t i = 0; i < block.entry_count(); ++i) {
      const BlockEntry entry = block.entry(i);
      if (subscription.settled.contains(entry.sequence)) continue;
      ++open_block.live;
      const auto stored_bytes = static_cast<std::uint32_t>(entry.stored_bytes());
      open_block.live_bytes += stored_bytes;
      Outstanding* const outstanding = subscription.outstanding.find(entry.sequence);
      if (outstanding == nullptr) continue;
      outstanding->block = &open_block;
      outstanding->bytes = stored_bytes;
      if (outstanding->holder != nullptr) ++open_block.held;
    }
  }
  if (open_block.live == 0) return nullptr;
  queue.open_blocks.emplace(open_block.first, std::move(opened));
  return &open_block;
}

void Core::State::remove_block(Queue& queue, OpenBlock& block) {
  Subscription& subscription = queue.subscription;
  const Sequence first = block.first;
  drop_rewritten(queue.record.id, first);
  pipeline.gathering().blocks_removed.push_back({queue.record.id, first});
  touch(queue);
  cache.erase(queue.record.id, first);
  if (subscription.current_open == &block) let_go_of_block(queue);
  queue.open_blocks.erase(first);
}

// ---- long reads ----

void Core::State::read_in_turn(LongRead read) {
  long_reads.wait(std::make_shared<const LongRead>(std::move(read)));
  start_long_reads();
}

void Core::State::start_long_reads() {
  while (const std::shared_ptr<const LongRead> read = long_reads.begin_turn(pipeline.lags())) {
    Queue* const queue = find_queue(read->queue);
    if (queue == nullptr || queue->record.deleted) {
      long_read_gone(*read);
      continue;
    }
    const std::optional<LongRead::Range> range = read->next(*queue);
    if (!range) {
      long_reads.end_turn();
      continue;
    }
    // Up to the queue's end, which tells where a block that is not legible ends.
    fetch(
        *queue, range->from, queue->committed_to, range->bytes_max,
        [this, read](Queue& read_queue, const FetchResult& result, Now now) {
          long_reads.end_turn();
          if (is_open(read->asker.session)) {
            read->done(read_queue, result, now);
            if (read->next(read_queue)) long_reads.wait_again(read);
          }
          start_long_reads();
        },
        [this, read] {
          long_read_gone(*read);
          start_long_reads();
        });
  }
}

void Core::State::long_read_gone(const LongRead& read) {
  long_reads.end_turn();
  refuse_when_durable(read.asker, ErrorCode::kQueueNotFound,
                      "The queue was deleted while it was read.");
}

// ---- peek ----

void Core::State::peek(const PeekRequest& request) {
  Queue* const queue = queue_or_refuse(request.asker, request.queue);
  if (queue == nullptr) return;
  if (request.limit == 0 || request.limit > kPeekMessagesMax) {
    refuse(request.asker, ErrorCode::kInvalidArgument,
           fmt::format("Peeking at {} messages is refused: the limit is 1 to {}.", request.limit,
                       kPeekMessagesMax));
    return;
  }
  const auto task = std::make_shared<PeekTask>();
  task->asker = request.asker;
  task->next = std::max(request.from, queue->subscription.settled.floor() + 1);
  task->left = request.limit;
  task->bytes_left = kPeekBytesMax;
  read_in_turn(
      {request.asker, queue->record.id, false,
       [this, task](Queue& of) { return next_to_peek(of, *task); },
       [this, task](Queue& of, const FetchResult& result, Now) { peek_read(of, *task, result); }});
}

std::optional<LongRead::Range> Core::State::next_to_peek(Queue& queue, const PeekTask& task) {
  const bool at_end = task.next > queue.committed_to;
  if (!at_end && task.left > 0 && task.bytes_left > 0) {
    return LongRead::Range{task.next, kPeekReadBytes};
  }
  say(ListEndReply{task.asker, task.count, at_end ? 0 : task.next});
  return std::nullopt;
}

void Core::State::peek_read(Queue& queue, PeekTask& task, const FetchResult& result) {
  const Subscription& subscription = queue.subscription;
  for (const std::shared_ptr<const Block>& block : result.blocks) {
    for (std::size_t i = block->lower_bound(task.next); i < block->entry_count(); ++i) {
      const BlockEntry entry = block->entry(i);
      task.next = entry.sequence + 1;
      if (subscription.settled.contains(entry.sequence) || block->is_corrupt(i)) continue;
      PeekReply reply{task.asker, queue.record.id, 0, wire::MessageState_Ready, entry};
      if (const Outstanding* const outstanding = subscription.outstanding.find(entry.sequence)) {
        reply.attempts = outstanding->attempts;
        reply.state = state_as_told(*outstanding);
      }
      pin(block);
      say(reply);
      ++task.count;
      task.bytes_left -= std::min(task.bytes_left, entry.stored_bytes());
      if (--task.left == 0 || task.bytes_left == 0) return;
    }
  }
  for (const UnreadableBlock& unreadable : result.unreadable) {
    task.next = std::max(task.next, unreadable.last + 1);
  }
  if (result.blocks.empty() && result.unreadable.empty()) task.next = queue.committed_to + 1;
}

void Core::State::tell_attempts(const AttemptsRequest& request, Now now) {
  Queue* const queue = queue_or_refuse(request.asker, request.queue);
  if (queue == nullptr) return;
  const Subscription& subscription = queue->subscription;
  if (request.sequence > queue->committed_to || subscription.settled.contains(request.sequence)) {
    return say_after_commit(ErrorReply{
        request.asker, Status(ErrorCode::kMessageNotFound,
                              fmt::format("Queue \"{}\" holds no message {}: it is settled, "
                                          "dead-lettered, or never was.",
                                          request.queue, request.sequence))});
  }
  const auto report = std::make_shared<AttemptsReport>();
  report->sequence = request.sequence;
  if (const Outstanding* const entry = subscription.outstanding.find(request.sequence)) {
    report->state = state_as_told(*entry);
    report->attempts = entry->attempts;
    if (entry->holder != nullptr) report->consumer = entry->holder->name;
    const bool has_lease = entry->state == OutstandingState::kInFlight && !entry->holder->ending;
    if (has_lease || entry->state == OutstandingState::kWaiting) {
      report->due_at = now.wall + (entry->deadline - now.monotonic);
    }
    const std::span<const AttemptRecord> ended = entry->ended_attempts();
    report->history.assign(ended.begin(), ended.end());
#ifdef HOLDFAST_BREAK_FORGET_OPEN_ATTEMPT
    report->attempts = static_cast<std::uint32_t>(ended.size());
#endif
  }
  say_after_commit(AttemptsReply{request.asker, report});
}

}  // namespace holdfast::broker
