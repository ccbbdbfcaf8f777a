// Publishing: from a request to a place in the gathering batch.

#include <fmt/format.h>

#include "core/state.h"

namespace holdfast::broker {

void Core::State::publish(const PublishRequest& request, Now now) {
  Queue* const queue = find_queue(request.queue);
  if (queue == nullptr || queue->record.deleted) {
    refuse(
        request.asker, ErrorCode::kQueueNotFound,
        fmt::format("There is no queue with the number {}: it was deleted. Open it again by name.",
                    request.queue.value));
    return;
  }
  // A message that is stored already is confirmed whatever stands in the way of a new one.
  const bool dedup = queue->setting(QueueSetting::kDedupWindow) > 0;
  MessageIdHash hash;
  if (dedup) {
    hash = hash_message_id(queue->record.id, request.id);
    if (const std::optional<Sequence> first = queue->dedup.find(hash)) {
      ++queue->counters.duplicates;
      ConfirmReply reply{request.asker, 1, *first, true, request.message.size()};
      if (*first <= queue->committed_to) {
        say(reply);
      } else {
        say_after_commit(reply);
      }
      return;
    }
  }
  Status refusal;
  if (draining) {
    refusal = Status(ErrorCode::kDraining,
                     "The broker is shutting down and takes no new messages. Publish again when it "
                     "is back.");
  } else if (queue->is_dead_queue()) {
    refusal =
        Status(ErrorCode::kOperationRefused,
               fmt::format("'{}' is a dead-letter queue: only the broker puts messages there. "
                           "Publish to its source queue.",
                           queue->record.name));
  } else if (request.body_bytes > queue->setting(QueueSetting::kMaxMessageBytes)) {
    refusal =
        Status(ErrorCode::kMessageTooLarge,
               fmt::format("The body of message '{}' has {} bytes; queue '{}' takes at most {} "
                           "(max-message-bytes).",
                           request.id, request.body_bytes, queue->record.name,
                           queue->setting(QueueSetting::kMaxMessageBytes)));
  } else {
    refusal = check_room(*queue, request.message.size());
  }
  if (!refusal.ok()) {
    ++queue->counters.refused;
    say(ErrorReply{request.asker, std::move(refusal)});
    return;
  }
  const Sequence sequence = append(*queue, now.wall, request.message_checksum, request.message, {});
  if (dedup) remember_id(*queue, hash, sequence, now);
  ++queue->counters.published;
  confirm(request.asker, sequence, request.message.size());
  seal_if_full();
}

Status Core::State::check_room(const Queue& queue, std::size_t message_bytes) const {
  if (!space.publishes_allowed || pending_bytes() + message_bytes > space.room_bytes) {
    return {ErrorCode::kStorageFull,
            space.reason.empty()
                ? fmt::format("The disk has room for {} more bytes of messages, and {} wait to be "
                              "stored. Publishing resumes by itself when messages are settled or "
                              "the disk is given more room.",
                              space.room_bytes, pending_bytes())
                : space.reason};
  }
  const std::uint64_t messages_max = queue.setting(QueueSetting::kMaxMessages);
  if (messages_max > 0 && queue.messages() >= messages_max) {
    return {
        ErrorCode::kQueueFull,
        fmt::format("Queue '{}' holds {} messages, its limit (max-messages). Publish again when "
                    "some are settled.",
                    queue.record.name, queue.messages())};
  }
  const std::uint64_t bytes_max = queue.setting(QueueSetting::kMaxBytes);
  if (bytes_max > 0 && queue.record.bytes + message_bytes > bytes_max) {
    return {ErrorCode::kQueueFull,
            fmt::format("Queue '{}' holds {} bytes of its limit of {} (max-bytes); the message has "
                        "{}. Publish again when some messages are settled.",
                        queue.record.name, queue.record.bytes, bytes_max, message_bytes)};
  }
  return {};
}

Sequence Core::State::append(Queue& queue, WallTime published_at, std::uint64_t message_checksum,
                             ByteSpan message, ByteSpan provenance) {
  const Sequence sequence = queue.record.next_sequence++;
  const std::size_t before = queue.builder.size();
  queue.builder.append(sequence, published_at, message_checksum, message, provenance);
  BlockEntry entry;
  entry.message = message;
  entry.provenance = provenance;
  queue.record.bytes += entry.stored_bytes();
  gathering.bytes += queue.builder.size() - before;
  queue.record_touched = true;
  touch(queue);
  return sequence;
}

void Core::State::remember_id(Queue& queue, const MessageIdHash& hash, Sequence sequence, Now now) {
  const std::uint64_t time_ms = log_time_ms(now);
  const bool run_began = queue.dedup.insert(hash, sequence, time_ms);
  ++dedup_ids;
  std::vector<DedupRecord>& records = queue.dedup_gathered;
  if (run_began || records.empty() ||
      records.back().first + records.back().hashes.size() != sequence) {
    records.push_back({queue.record.id, time_ms, sequence, {}});
  }
  records.back().hashes.push_back(hash);
  if (dedup_ids <= options.dedup_ids_max) return;
  const std::size_t dropped = queue.dedup.drop_oldest();
  dedup_ids -= dropped;
  queue.dedup_cut_short += dropped;
  queue.trim_dedup = queue.trim_dedup || dropped > 0;
}

void Core::State::confirm(Asker asker, Sequence sequence, std::uint64_t bytes) {
  std::vector<Effect>& said = gathering.promises.said;
  if (!said.empty()) {
    auto* const last = std::get_if<ConfirmReply>(&said.back());
    if (last != nullptr && !last->duplicate && last->to.session == asker.session &&
        last->to.correlation + last->count == asker.correlation &&
        last->sequence + last->count == sequence) {
      ++last->count;
      last->bytes += bytes;
      return;
    }
  }
  said.emplace_back(ConfirmReply{asker, 1, sequence, false, bytes});
}

void Core::State::expire_dedup(Queue& queue, Now now) {
  if (queue.dedup.size() == 0) return;
  const std::uint64_t window_ms = queue.setting(QueueSetting::kDedupWindow);
  // An id that was read back has the time of the oldest in its record, so all are kept a little
  // longer than the window.
  const std::uint64_t kept_ms = window_ms + DedupWindow::kRunTimeMs;
  const std::uint64_t now_ms = log_time_ms(now);
  const std::size_t expired = queue.dedup.expire(now_ms > kept_ms ? now_ms - kept_ms : 0);
  if (expired == 0) return;
  dedup_ids -= expired;
  queue.trim_dedup = true;
  touch(queue);
}

}  // namespace holdfast::broker
