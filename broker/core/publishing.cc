// Publishing: from a request to a place in the gathering batch.
//
// Whether an id is in the dedup window is known at once, unless it may be one of the older ids, of
// which only fingerprints are in memory: then its publish waits until their records have been read,
// and the later ones to its queue wait behind it.

#include <fmt/format.h>

#include <algorithm>

#include "base/check.h"
#include "core/state.h"
#include "holdfast/text.h"

namespace holdfast::broker {

namespace {
// Chunks of ids that were read and are kept for a while: publishes that are sent again often come
// in the order of the first time.
constexpr std::size_t kIdChunksMax = 16;
}  // namespace

void Core::State::publish(const PublishRequest& request, Now now) {
  Queue* const queue = find_queue(request.queue);
  if (queue == nullptr || queue->record.deleted) {
    Status error(ErrorCode::kQueueNotFound,
                 fmt::format("There is no queue with the number {}: it was deleted. Open it again "
                             "by name.",
                             request.queue.value));
    say_after_commit(ErrorReply{request.asker, std::move(error), request.message.size()});
    return;
  }
  if (!queue->publishes_waiting.empty() || !decide_publish(*queue, request, nullptr, now)) {
    put_off(*queue, request, now);
  }
}

void Core::State::put_off(Queue& queue, const PublishRequest& request, Now now) {
  WaitingPublish waiting;
  waiting.asker = request.asker;
  waiting.id = request.id;
  waiting.body_bytes = request.body_bytes;
  waiting.message_checksum = request.message_checksum;
  waiting.message_bytes = request.message.size();
  if (!too_much_pends()) waiting.message.assign(request.message.begin(), request.message.end());
  waiting.arrived_ms = log_time_ms(now);
  waiting_bytes += waiting.message.size();
  queue.publishes_waiting.push_back(std::move(waiting));
  ++publishes_waiting;
}

bool Core::State::too_much_pends() const {
  return pipeline.pending_bytes() + waiting_bytes >= options.pending_bytes_max;
}

bool Core::State::decide_publish(Queue& queue, const PublishRequest& request,
                                 const WaitingPublish* waited, Now now) {
  const std::uint64_t bytes = waited == nullptr ? request.message.size() : waited->message_bytes;
  // A message that is stored already is confirmed whatever stands in the way of a new one.
  const bool dedup = queue.setting(QueueSetting::kDedupWindow) > 0;
  MessageIdHash hash;
  if (dedup) {
    hash = hash_message_id(queue.record.id, request.id);
    queue.dedup.prefetch_older(hash);
    std::optional<Sequence> first = queue.dedup.find_recent(hash);
    const std::uint64_t as_of_ms = waited == nullptr ? log_time_ms(now) : waited->arrived_ms;
    if (!first && find_older(queue, hash, as_of_ms, &first) == Lookup::kLater) return false;
    if (first) {
      ++queue.counters.duplicates;
      ConfirmReply reply{request.asker, 1, *first, true, bytes};
#ifdef HOLDFAST_BREAK_CONFIRM_DUPLICATE_EARLY
      const bool is_durable = true;
#else
      const bool is_durable = *first <= queue.committed_to;
#endif
      if (is_durable) {
        say(reply);
      } else {
        say_after_commit(reply);
      }
      return true;
    }
  }
  if (Status refusal = check_publish(queue, request, waited); !refusal.ok()) {
    ++queue.counters.refused;
    if (refusal.code() == ErrorCode::kStorageFull && pipeline.space().publishes_allowed) {
      ++room_refusals;
    }
    say(ErrorReply{request.asker, std::move(refusal), bytes});
    return true;
  }
  const Sequence sequence = append(queue, now.wall, request.message_checksum, request.message, {});
  if (dedup) remember_id(queue, hash, sequence, now);
  ++queue.counters.published;
  confirm(request.asker, sequence, bytes);
  seal_if_full();
  return true;
}

Status Core::State::check_publish(const Queue& queue, const PublishRequest& request,
                                  const WaitingPublish* waited) const {
  if (draining) {
    return {
        ErrorCode::kDraining,
        "The broker is shutting down and takes no new messages. Publish again when it is back."};
  }
  if (queue.is_dead_queue()) {
    return {
        ErrorCode::kOperationRefused,
        fmt::format("\"{}\" is a dead-letter queue: only the broker puts messages there. Publish "
                    "to its source queue.",
                    queue.record.name)};
  }
  if (request.body_bytes > queue.setting(QueueSetting::kMaxMessageBytes)) {
    return {ErrorCode::kMessageTooLarge,
            fmt::format("The body of message {} has {} bytes; queue \"{}\" takes at most {} "
                        "(max-message-bytes).",
                        quoted(request.id), request.body_bytes, queue.record.name,
                        queue.setting(QueueSetting::kMaxMessageBytes))};
  }
  if (waited == nullptr ? too_much_pends() : waited->message.empty()) {
    return {ErrorCode::kLimitReached,
            fmt::format("{} bytes of messages wait to be stored, and no more than {} may (twice "
                        "unconfirmed_bytes_total_max). Publish again when the disk has caught up.",
                        pipeline.pending_bytes() + waiting_bytes, options.pending_bytes_max)};
  }
  return check_room(queue, request.message.size());
}

Status Core::State::check_room(const Queue& queue, std::size_t message_bytes,
                               const Planned& planned) const {
  if (!pipeline.has_room_for(planned.bytes + message_bytes)) {
    return {ErrorCode::kStorageFull,
            pipeline.space().reason.empty()
                ? fmt::format("The message has {} bytes, and the store has room for {} more, of "
                              "which {} wait to be stored. Publishing resumes by itself when "
                              "messages are settled or the store is given more room (its disk, or "
                              "disk_bytes_max).",
                              message_bytes, pipeline.space().room_bytes,
                              pipeline.pending_room_bytes() + planned.bytes)
                : pipeline.space().reason};
  }
  const std::uint64_t messages_max = queue.setting(QueueSetting::kMaxMessages);
  const std::uint64_t messages = queue.messages() + planned.messages;
  if (messages_max > 0 && messages >= messages_max) {
    return {
        ErrorCode::kQueueFull,
        fmt::format("Queue \"{}\" holds {} messages, its limit (max-messages). It takes new ones "
                    "when some are settled.",
                    queue.record.name, messages)};
  }
  const std::uint64_t bytes_max = queue.setting(QueueSetting::kMaxBytes);
  const std::uint64_t stored_bytes = stored_bytes_of(message_bytes, 0);
  if (bytes_max > 0 && stored_bytes > bytes_max) {
    return {ErrorCode::kMessageTooLarge,
            fmt::format("The message takes {} bytes as it is stored; queue \"{}\" holds at most {} "
                        "(max-bytes).",
                        stored_bytes, queue.record.name, bytes_max)};
  }
  const std::uint64_t bytes = queue.record.bytes + planned.stored_bytes;
  if (bytes_max > 0 && bytes + stored_bytes > bytes_max) {
    return {ErrorCode::kQueueFull,
            fmt::format("Queue \"{}\" holds {} bytes of its limit of {} (max-bytes); the message "
                        "takes {}. It takes new ones when some are settled.",
                        queue.record.name, bytes, bytes_max, stored_bytes)};
  }
  return {};
}

Sequence Core::State::append(Queue& queue, WallTime published_at, std::uint64_t message_checksum,
                             ByteSpan message, ByteSpan provenance) {
  const Sequence sequence = queue.record.next_sequence++;
  if (queue.builder.empty()) ++pipeline.gathering().appended;
  const std::size_t before = queue.builder.size();
  queue.builder.append(sequence, published_at, message_checksum, message, provenance);
  BlockEntry entry;
  entry.message = message;
  entry.provenance = provenance;
  queue.record.bytes += entry.stored_bytes();
  pipeline.gathering().bytes += queue.builder.size() - before;
  queue.record_touched = true;
  touch(queue);
  return sequence;
}

void Core::State::remember_id(Queue& queue, const MessageIdHash& hash, Sequence sequence, Now now) {
  const std::uint64_t time_ms = log_time_ms(now);
  const bool run_began = queue.dedup.insert(hash, sequence, time_ms);
  std::vector<DedupRecord>& records = queue.dedup_gathered;
  if (run_began || records.empty() ||
      records.back().first + records.back().hashes.size() != sequence) {
    records.push_back({queue.record.id, time_ms, sequence, {}});
  }
  records.back().hashes.push_back(hash);
  if (dedup_totals.ids > options.dedup.ids_max) cut_window_short(queue);
}

// Of the queue with the most ids, so that a busy one does not cost the others their windows. What
// waits there is decided by what was known when it came, so then it is the one that is published
// to.
void Core::State::cut_window_short(Queue& publishing) {
  Queue* const largest = find_queue(most_ids);
  const bool is_larger = largest != nullptr && !largest->record.deleted &&
                         largest->publishes_waiting.empty() &&
                         largest->dedup.size() > publishing.dedup.size();
  Queue& queue = is_larger ? *largest : publishing;
  const std::size_t dropped = queue.dedup.drop_oldest();
  if (dropped == 0) return;
  queue.dedup_cut_short += dropped;
  ids_cut_short += dropped;
  ids_cut_short_last = queue.record.name;
  queue.trim_dedup = true;
  touch(queue);
}

void Core::State::confirm(Asker asker, Sequence sequence, std::uint64_t bytes) {
  std::vector<Effect>& said = pipeline.gathering().promises.said;
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

std::uint64_t Core::State::dedup_cutoff_ms(const Queue& queue, std::uint64_t now_ms) const {
  // An id that was read back has the time of the oldest in its record, so all are kept a little
  // longer than the window.
  const std::uint64_t kept_ms = queue.setting(QueueSetting::kDedupWindow) + RecentIds::kRunTimeMs;
  return now_ms > kept_ms ? now_ms - kept_ms : 0;
}

void Core::State::expire_dedup(Queue& queue, Now now) {
  if (queue.dedup.size() == 0) return;
  // What waits is decided by what was known when it came.
  const std::uint64_t as_of_ms = queue.publishes_waiting.empty()
                                     ? log_time_ms(now)
                                     : queue.publishes_waiting.front().arrived_ms;
  if (!queue.dedup.expire(dedup_cutoff_ms(queue, as_of_ms))) return;
  queue.trim_dedup = true;
  touch(queue);
}

// ---- ids that are known by their fingerprints ----

Core::State::Lookup Core::State::find_older(Queue& queue, const MessageIdHash& hash,
                                            std::uint64_t as_of_ms,
                                            std::optional<Sequence>* first) {
  std::vector<std::uint64_t>& chunks = chunks_found;
  chunks.clear();
  queue.dedup.find_chunks(hash, &chunks);
  for (const std::uint64_t chunk : chunks) {
    const OlderIds::ChunkKeys keys = queue.dedup.chunk_keys(chunk);
    const auto ruled_out = queue.chunks_ruled_out.find(chunk);
    if (ruled_out != queue.chunks_ruled_out.end() && ruled_out->second == keys.ids) continue;
    // The last chunk may have grown since it was read.
    const auto read = std::find_if(id_chunks.begin(), id_chunks.end(), [&](const IdChunk& one) {
      return one.queue == queue.record.id && one.chunk == chunk && one.ids == keys.ids;
    });
    if (read == id_chunks.end()) {
      read_ids(queue, chunk, keys);
      return Lookup::kLater;
    }
    *first = read->find(hash, dedup_cutoff_ms(queue, as_of_ms));
    if (*first) return Lookup::kDone;
    if (!queue.publishes_waiting.empty()) queue.chunks_ruled_out[chunk] = keys.ids;
  }
  return Lookup::kDone;
}

void Core::State::read_ids(Queue& queue, std::uint64_t chunk, const OlderIds::ChunkKeys& keys) {
  const FetchId id(++last_fetch);
  ids_under_way.emplace(id, IdChunk{queue.record.id, chunk, keys.ids, {}});
  effects.ids_requests.push_back({id, queue.record.id, keys.begin, keys.end});
}

void Core::State::ids_fetched(const IdsResult& result, Now now) {
  const auto found = ids_under_way.find(result.id);
  CHECK(found != ids_under_way.end(), "ids {} were not asked for", result.id.value);
  IdChunk chunk = std::move(found->second);
  ids_under_way.erase(found);
  Queue* const queue = find_queue(chunk.queue);
  if (queue == nullptr || queue->record.deleted) return;
  chunk.records = result.records;
  id_chunks.push_back(std::move(chunk));
  if (id_chunks.size() > kIdChunksMax) id_chunks.pop_front();
  continue_publishes(*queue, now);
}

void Core::State::continue_publishes(Queue& queue, Now now) {
  while (!queue.publishes_waiting.empty()) {
    const WaitingPublish& waiting = queue.publishes_waiting.front();
    PublishRequest request;
    request.asker = waiting.asker;
    request.queue = queue.record.id;
    request.id = waiting.id;
    request.body_bytes = waiting.body_bytes;
    request.message_checksum = waiting.message_checksum;
    request.message = waiting.message;
    if (!decide_publish(queue, request, &waiting, now)) return;
    waiting_bytes -= waiting.message.size();
    queue.publishes_waiting.pop_front();
    --publishes_waiting;
    queue.chunks_ruled_out.clear();
  }
}

void Core::State::refuse_waiting_publishes(Queue& queue) {
  for (const WaitingPublish& waiting : queue.publishes_waiting) {
    say_after_commit(ErrorReply{waiting.asker,
                                Status(ErrorCode::kQueueNotFound,
                                       fmt::format("Queue \"{}\" was deleted.", queue.record.name)),
                                waiting.message_bytes});
    waiting_bytes -= waiting.message.size();
  }
  publishes_waiting -= queue.publishes_waiting.size();
  queue.publishes_waiting.clear();
  queue.chunks_ruled_out.clear();
}

std::optional<Sequence> IdChunk::find(const MessageIdHash& hash, std::uint64_t cutoff_ms) const {
  for (const DedupRecord& record : records) {
    if (record.time_ms + RecentIds::kRunTimeMs <= cutoff_ms) continue;
    const auto at = std::find(record.hashes.begin(), record.hashes.end(), hash);
    if (at == record.hashes.end()) continue;
    return record.first + static_cast<Sequence>(at - record.hashes.begin());
  }
  return std::nullopt;
}

}  // namespace holdfast::broker
