// Redrive and discard: dead letters that go back to their source queue, or away for good, by a
// person's hand. Each is in one batch: appended there, settled here.

#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "base/check.h"
#include "core/state.h"
#include "schema/field_limits.h"

namespace holdfast::broker {

namespace {
constexpr std::size_t kLettersReadBytes = 1 << 20;

Status check_letters(const LettersRequest& request) {
  const std::size_t named = request.sequences.size();
  if (request.all) {
    if (named == 0 && request.limit >= 1 && request.limit <= kLettersMax) return {};
    return {ErrorCode::kInvalidArgument,
            fmt::format("With `all` the frame names no sequences and has a limit of 1 to {}; it "
                        "names {} and its limit is {}.",
                        kLettersMax, named, request.limit)};
  }
  if (named < 1 || named > kLettersMax) {
    return {ErrorCode::kInvalidArgument,
            fmt::format("The frame names {} sequences; without `all` it names 1 to {}.", named,
                        kLettersMax)};
  }
  if (std::ranges::find(request.sequences, Sequence{0}) == request.sequences.end()) return {};
  return {ErrorCode::kInvalidArgument, "The frame names the sequence 0; sequences begin at 1."};
}
}  // namespace

void Core::State::take_letters(const LettersRequest& request, bool redrive) {
  Queue* const named = queue_or_refuse(request.asker, request.queue);
  if (named == nullptr) return;
  if (Status status = check_letters(request); !status.ok()) {
    return refuse(request.asker, std::move(status));
  }
  Queue& dead = dead_queue_of(*named);
  const auto task = std::make_shared<LettersTask>();
  task->reply.to = request.asker;
  task->redrive = redrive;
  task->dry_run = request.dry_run;
  task->all = request.all;
  task->sequences.assign(request.sequences.begin(), request.sequences.end());
  std::sort(task->sequences.begin(), task->sequences.end(), std::greater<>());
  task->sequences.erase(std::unique(task->sequences.begin(), task->sequences.end()),
                        task->sequences.end());
  task->next = std::max(request.from, dead.subscription.settled.floor() + 1);
  task->stop = request.to == 0 ? dead.committed_to : std::min(request.to, dead.committed_to);
  task->left = request.limit;
  read_in_turn({request.asker, dead.record.id, true,
                [this, task](Queue& of) { return next_letters(of, *task); },
                [this, task](Queue& of, const FetchResult& result, Now now) {
                  letters_read(of, *task, result, now);
                }});
}

std::optional<LongRead::Range> Core::State::next_letters(Queue& dead, LettersTask& task) {
  if (task.all) {
    if (task.left > 0 && task.next <= task.stop)
      return LongRead::Range{task.next, kLettersReadBytes};
    task.reply.next = task.next <= task.stop ? task.next : 0;
  } else {
    while (!task.sequences.empty() && (task.sequences.back() > task.stop ||
                                       dead.subscription.settled.contains(task.sequences.back()))) {
      task.miss();
    }
    if (!task.sequences.empty()) return LongRead::Range{task.sequences.back(), 1};
  }
  say_after_commit(std::move(task.reply));
  return std::nullopt;
}

void Core::State::letters_read(Queue& dead, LettersTask& task, const FetchResult& result, Now now) {
  blocks_read(dead, result, now);
  for (const std::shared_ptr<const Block>& block : result.blocks) {
    if (task.all) {
      std::size_t index = block->lower_bound(task.next);
      for (; index < block->entry_count() && task.left > 0; ++index) {
        const Sequence sequence = block->entry(index).sequence;
        task.next = sequence + 1;
        if (sequence > task.stop) break;
        if (dead.subscription.settled.contains(sequence)) continue;
        --task.left;
        take_letter(task, dead, *block, index, now);
      }
      if (task.left == 0) break;
      continue;
    }
    while (!task.sequences.empty() && task.sequences.back() <= block->last_sequence()) {
      const Sequence sequence = task.sequences.back();
      const std::optional<std::size_t> index = block->find(sequence);
      if (!index || dead.subscription.settled.contains(sequence)) {
        task.miss();
      } else {
        task.sequences.pop_back();
        take_letter(task, dead, *block, *index, now);
      }
    }
  }
  for (const std::shared_ptr<const Block>& block : result.blocks) close_unread(dead, *block);
  if (result.blocks.empty()) {
    // Nothing is there up to where was looked, or up to the end of a block that is not legible.
    if (task.all) {
      task.next = (result.unreadable.empty() ? task.stop : result.unreadable.back().last) + 1;
    } else {
      task.miss();
    }
  }
}

void Core::State::take_letter(LettersTask& task, Queue& dead, const Block& block, std::size_t index,
                              Now now) {
  const BlockEntry letter = block.entry(index);
  Outstanding* const entry = dead.subscription.outstanding.find(letter.sequence);
  if (entry != nullptr && (entry->holder != nullptr || entry->state == OutstandingState::kMoving)) {
    ++task.reply.skipped_in_flight;
    return;
  }
  if (task.redrive) {
    Status status = redrive_one(dead, letter, task, now);
    if (!status.ok()) {
      if (task.reply.refused++ == 0) task.reply.first_refusal = std::move(status);
      return;
    }
  } else if (!task.dry_run) {
    ++dead.counters.discarded;
  }
  ++task.reply.moved;
  if (task.dry_run) return;
  if (entry != nullptr) {
    finish(dead, *entry);
  } else {
    settle_sequence(dead, letter.sequence, letter.stored_bytes());
  }
  seal_if_full();
}

Status Core::State::redrive_one(Queue& dead, const BlockEntry& letter, LettersTask& task, Now now) {
  Queue* const source = find_queue(dead.record.source_queue);
  CHECK(source != nullptr, "dead-letter queue {} has no source", dead.record.name);
  const wire::Provenance* const provenance = read_provenance(letter.provenance);
  if (provenance != nullptr && provenance->reason() == wire::Cause_Corrupt) {
    return {
        ErrorCode::kMessageCorrupt,
        fmt::format("Dead letter {} holds the raw bytes of a damaged message and cannot go back "
                    "to \"{}\". Export it, then discard it.",
                    letter.sequence, source->record.name)};
  }
  Status room = check_room(*source, letter.message.size(), task.planned);
  if (!room.ok()) return room;
  if (task.dry_run) {
    ++task.planned.messages;
    task.planned.bytes += letter.message.size();
    task.planned.stored_bytes += stored_bytes_of(letter.message.size(), 0);
    return {};
  }
  append_moved(*source, now.wall, letter.message_checksum, letter.message, {});
  ++source->counters.redriven;
  return {};
}

}  // namespace holdfast::broker
