// What may become durable: every message once, in one place, with its story.

#include <fmt/format.h>

#include <algorithm>

#include "sim/model.h"

namespace holdfast::broker::sim {

std::optional<std::uint64_t> Model::publish_of(const BlockEntry& entry) const {
  const std::uint64_t sum = checksum(entry.message);
  const auto found = publish_by_checksum_.find(sum);
  if (found == publish_by_checksum_.end() || entry.message_checksum != sum ||
      publishes_[found->second].bytes != entry.message.size()) {
    return std::nullopt;
  }
  return found->second;
}

void Model::applied(const Batch& batch) {
  for (const QueueRecord& record : batch.queues) apply_queue(record);
  for (const std::shared_ptr<const Block>& block : batch.blocks) {
    for (std::size_t i = 0; i < block->entry_count(); ++i) {
      apply_entry(block->queue(), block->entry(i));
    }
  }
}

void Model::apply_queue(const QueueRecord& record) {
  const auto [at, inserted] = queues_.try_emplace(record.id);
  if (!inserted) {
    if (record.deleted && !at->second.delete_asked) {
      find("lost", fmt::format("queue {} is deleted and nobody asked", record.name));
    }
    at->second.delete_stored = at->second.delete_stored || record.deleted;
    return;
  }
  at->second.name = record.name;
  at->second.source = record.source_queue;
  for (const QueueSettingInfo& info : queue_setting_table()) {
    at->second.set(info.setting, record.settings.get(info.setting));
  }
}

void Model::apply_entry(QueueId id, const BlockEntry& entry) {
  QueueModel* const of = queue(id);
  if (of == nullptr) return find("early", "a block of a queue that is not stored");
  const std::optional<std::uint64_t> number = publish_of(entry);
  if (!number) {
    return find("bytes", fmt::format("message {} of queue {} was never published", entry.sequence,
                                     of->name));
  }
  if (const Message* const known = message(id, entry.sequence)) {
    // A block that was rewritten.
    if (known->publish != *number) {
      find("bytes", fmt::format("message {} of queue {} became another", entry.sequence, of->name));
    }
    if (known->end != End::kNone) {
      find("final", fmt::format("message {} of queue {} is stored again after its end",
                                entry.sequence, of->name));
    }
    return;
  }
  Publish& publish = publishes_[*number];
  if (of->source) {
    check_dead_letter(*of, entry, *number);
    ++counts_.dead_lettered;
  } else if (publish.stored == 0) {
    check_stored_once(*of, publish, entry.sequence);
  } else {
    Message* const letter = message(publish.live.first, publish.live.second);
    if (letter == nullptr || letter->end != End::kNone || !letter->move_asked) {
      find("dedup", fmt::format("message {} of queue {} ('{}') is stored a second time",
                                entry.sequence, of->name, publish.id));
      return;
    }
    end(*queue(publish.live.first), publish.live.second, End::kRedriven);
    ++counts_.redriven;
  }
  publish.live = {id, entry.sequence};
  Message stored;
  stored.publish = *number;
  stored.stored_bytes = entry.stored_bytes();
  stored.story = entry.provenance.empty() ? 0 : checksum(entry.provenance);
  of->messages.emplace(entry.sequence, std::move(stored));
  of->live.insert(entry.sequence);
}

void Model::check_stored_once(QueueModel& of, Publish& publish, Sequence sequence) {
  publish.stored = sequence;
  if (publish.refused) {
    find("answers", fmt::format("'{}' was refused and is stored all the same", publish.id));
  }
  const auto [newest, first_time] = of.newest_of_id.try_emplace(publish.id, sequence);
  if (first_time) return;
  const Publish& before = publishes_[of.messages.at(newest->second).publish];
  const std::int64_t age_ms =
      (publish.at - before.at).count() + (publish.jumps_ms - before.jumps_ms);
  if (age_ms < static_cast<std::int64_t>(of.dedup_window_least) && !leeway_.ids_are_dropped) {
    find("dedup", fmt::format("'{}' is stored as {} and, {} ms later, as {} of queue {}",
                              publish.id, newest->second, age_ms, sequence, of.name));
  }
  newest->second = sequence;
}

void Model::check_dead_letter(QueueModel& dead, const BlockEntry& entry, std::uint64_t publish) {
  const wire::Provenance* const story = read_provenance(entry.provenance);
  if (story == nullptr) {
    return find("bytes",
                fmt::format("dead letter {} of {} has no provenance", entry.sequence, dead.name));
  }
  const std::uint64_t story_checksum = checksum(entry.provenance);
  if (Message* const letter =
          message(publishes_[publish].live.first, publishes_[publish].live.second);
      letter != nullptr && &queues_.at(publishes_[publish].live.first) == &dead) {
    // A dead letter that was rejected: to the end of its queue, story and all.
    if (letter->end != End::kNone || !letter->reject_asked || letter->story != story_checksum) {
      find("final", fmt::format("dead letter {} of {} is stored again as {}",
                                publishes_[publish].live.second, dead.name, entry.sequence));
    }
    return end(dead, publishes_[publish].live.second, End::kMoved);
  }
  const Sequence sequence = story->source_sequence();
  Message* const source = message(dead.source, sequence);
  const std::string where = fmt::format("message {} of {}", sequence, story->source()->str());
  if (source == nullptr || source->publish != publish) {
    return find("bytes", where + " is dead-lettered but is another message");
  }
  if (source->end != End::kNone) {
    return find("final", where + " is dead-lettered after its end");
  }
  const QueueModel& of = queues_.at(dead.source);
  if (story->reason() == wire::Cause_Rejected) {
    if (!source->reject_asked) find("lost", where + " is dead-lettered as rejected; nobody did");
  } else if (story->reason() != wire::Cause_RetryLimit) {
    find("lost", where + " is dead-lettered for " +
                     wire::EnumNameCause(static_cast<wire::Cause>(story->reason())));
  } else if (story->attempt_count() < of.max_attempts_least) {
    find("attempts", fmt::format("{} is dead-lettered after {} of {} attempts", where,
                                 story->attempt_count(), of.max_attempts_least));
  }
  const std::uint32_t attempts = story->attempt_count();
  const std::uint32_t least = source->attempts_least();
  const std::uint32_t most = source->attempts_most();
  if (attempts < least || attempts > most) {
    find("attempts", fmt::format("{} is dead-lettered with {} attempts; {} to {} were made", where,
                                 attempts, least, most));
  }
  if (story->attempts()->size() != std::min<std::size_t>(attempts, kHistoryMax)) {
    find("attempts", fmt::format("{} is dead-lettered after {} attempts, {} of them recorded",
                                 where, attempts, story->attempts()->size()));
  }
  end(queues_.at(dead.source), sequence, End::kMoved);
}

}  // namespace holdfast::broker::sim
