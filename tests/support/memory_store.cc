#include "support/memory_store.h"

#include <algorithm>

#include "base/check.h"

namespace holdfast::broker {

SpaceReport MemoryStore::roomy() {
  SpaceReport space;
  space.room_bytes = space.reserve_room_bytes = kRoomBytes;
  return space;
}

CommitResult MemoryStore::apply(const Batch& batch) {
  largest_batch_bytes_ = std::max(largest_batch_bytes_, batch.bytes());
  most_touched_ = std::max({most_touched_, batch.queues.size() + batch.queues_removed.size(),
                            batch.subscriptions.size() + batch.subscriptions_removed.size()});
  CHECK(batch.number == batch_number_ + 1, "batch {} after {}", batch.number, batch_number_);
  batch_number_ = batch.number;
  CommitResult result;
  result.number = batch.number;
  result.duration_us = batch_us;
  if (batch.next_id > 0) next_id_ = batch.next_id;
  for (const QueueRecord& record : batch.queues) queues_[record.id] = record;
  for (const SubscriptionRecord& record : batch.subscriptions) subscriptions_[record.id] = record;
  for (const BlockKey& key : batch.blocks_removed) blocks_.erase({key.queue.value, key.first});
  for (const auto& block : batch.blocks) {
    const ByteSpan bytes = block->bytes();
    blocks_[{block->queue().value, block->first_sequence()}].assign(bytes.begin(), bytes.end());
  }
  for (const BlockTrim& trim : batch.block_trims) {
    std::uint32_t removed = 0;
    auto at = blocks_.lower_bound({trim.queue.value, 0});
    while (at != blocks_.end() && at->first.first == trim.queue.value) {
      const auto header =
          read_block_header(trim.queue, at->first.second, {at->second.data(), at->second.size()});
      CHECK(header.has_value());
      if (header->last_sequence >= trim.below) break;
      if (removed == trim.limit) {
        result.blocks_left.push_back(trim.queue);
        break;
      }
      at = blocks_.erase(at);
      ++removed;
    }
  }
  for (const AckKey& key : batch.acks_removed) {
    acks_.erase({key.subscription.value, key.chunk});
    acks_damaged_.erase({key.subscription.value, key.chunk});
  }
  for (const AckRecord& record : batch.acks) {
    acks_[{record.subscription.value, record.chunk}] = record;
    acks_damaged_.erase({record.subscription.value, record.chunk});
  }
  for (const RetryKey& key : batch.retries_removed) {
    retries_.erase({key.subscription.value, key.sequence});
    retries_damaged_.erase({key.subscription.value, key.sequence});
  }
  for (const RetryRecord& record : batch.retries) {
    retries_[{record.subscription.value, record.sequence}] = record;
    retries_damaged_.erase({record.subscription.value, record.sequence});
  }
  for (const DedupTrim& trim : batch.dedup_trims) {
    std::uint32_t removed = 0;
    auto at = dedup_.lower_bound({trim.queue, 0, 0});
    while (at != dedup_.end() && at->first < std::tuple(trim.queue, trim.time_ms, trim.first)) {
      if (removed == trim.limit) {
        result.dedup_left.push_back(trim.queue);
        break;
      }
      at = dedup_.erase(at);
      ++removed;
    }
  }
  for (const DedupRecord& record : batch.dedup) {
    dedup_[{record.queue, record.time_ms, record.first}] = record;
  }
  for (const SubscriptionId id : batch.subscriptions_removed) subscriptions_.erase(id);
  for (const QueueId id : batch.queues_removed) queues_.erase(id);
  result.space = space;
  return result;
}

CommitResult MemoryStore::apply(const Batches& batches) {
  CommitResult result;
  for (const std::unique_ptr<Batch>& batch : batches) {
    CommitResult one = apply(*batch);
    result.number = one.number;
    result.duration_us += one.duration_us;
    result.blocks_left.insert(result.blocks_left.end(), one.blocks_left.begin(),
                              one.blocks_left.end());
    result.dedup_left.insert(result.dedup_left.end(), one.dedup_left.begin(), one.dedup_left.end());
    result.space = std::move(one.space);
  }
  return result;
}

FetchResult MemoryStore::fetch(const FetchRequest& request) const {
  FetchResult result;
  result.id = request.id;
  result.from = request.from;
  std::size_t bytes = 0;
  auto at = blocks_.upper_bound({request.queue.value, request.from});
  if (at != blocks_.begin() && std::prev(at)->first.first == request.queue.value) --at;
  for (; at != blocks_.end() && at->first.first == request.queue.value &&
         at->first.second <= request.to && bytes < request.bytes_max;
       ++at) {
    const Sequence first = at->first.second;
    auto block = Block::from_record(request.queue, first, {at->second.data(), at->second.size()});
    if (!block.ok()) {
      const auto following = std::next(at);
      const bool has_following =
          following != blocks_.end() && following->first.first == request.queue.value;
      const Sequence last = has_following ? following->first.second - 1 : request.to;
      if (last >= request.from) {
        result.unreadable.push_back({first, last, at->second});
        bytes += at->second.size();
      }
      continue;
    }
    if ((*block)->last_sequence() < request.from) continue;
    bytes += at->second.size();
    result.blocks.push_back(*block);
  }
  return result;
}

IdsResult MemoryStore::fetch_ids(const IdsRequest& request) const {
  IdsResult result{.id = request.id, .queue = request.queue, .records = {}};
  const auto end = dedup_.lower_bound({request.queue, request.end.first, request.end.second});
  for (auto at = dedup_.lower_bound({request.queue, request.begin.first, request.begin.second});
       at != end; ++at) {
    result.records.push_back(at->second);
  }
  return result;
}

StoredState MemoryStore::load() const {
  StoredState state;
  state.node_id = "memory";
  state.batch_number = batch_number_;
  state.next_id = next_id_;
  for (const auto& [id, record] : queues_) state.queues.push_back(record);
  for (const auto& [id, record] : subscriptions_) state.subscriptions.push_back(record);
  std::set<QueueId> lack_acks;
  for (const auto& [key, record] : acks_) {
    if (!acks_damaged_.contains(key)) {
      state.acks.push_back(record);
      continue;
    }
    ++state.records_corrupt;
    state.acks_corrupt.push_back({record.subscription, record.chunk});
    lack_acks.insert(subscriptions_.at(record.subscription).queue);
  }
  for (const QueueId queue : lack_acks) state.held.push_back(held(queue));
  for (const auto& [key, record] : retries_) {
    if (!retries_damaged_.contains(key)) {
      state.retries.push_back(record);
      continue;
    }
    ++state.records_corrupt;
    state.retries_corrupt.push_back({record.subscription, record.sequence});
  }
  state.space = space;
  return state;
}

HeldSequences MemoryStore::held(QueueId queue) const {
  HeldSequences held{.queue = queue, .ranges = {}};
  auto at = blocks_.lower_bound({queue.value, 0});
  for (; at != blocks_.end() && at->first.first == queue.value; ++at) {
    const auto block =
        Block::from_record(queue, at->first.second, {at->second.data(), at->second.size()});
    CHECK(block.ok());
    for (std::size_t i = 0; i < (*block)->entry_count(); ++i) {
      add_to_ranges(held.ranges, (*block)->entry(i).sequence);
    }
  }
  return held;
}

void MemoryStore::load_dedup(Core& core, Now now) const {
  for (const auto& [key, record] : dedup_) {
    core.load_dedup(record.queue, record.time_ms, record.first, record.hashes, now);
  }
}

std::size_t MemoryStore::block_bytes() const {
  std::size_t bytes = 0;
  for (const auto& [key, block] : blocks_) bytes += block.size();
  return bytes;
}

MemoryStore::Blocks::iterator MemoryStore::block_of(QueueId queue, Sequence sequence) {
  auto at = blocks_.upper_bound({queue.value, sequence});
  CHECK(at != blocks_.begin());
  return std::prev(at);
}

void MemoryStore::flip_bit_in_message(QueueId queue, Sequence sequence) {
  auto at = block_of(queue, sequence);
  std::vector<std::uint8_t>& bytes = at->second;
  auto block = Block::from_record(queue, at->first.second, {bytes.data(), bytes.size()});
  CHECK(block.ok());
  const auto index = (*block)->find(sequence);
  CHECK(index.has_value());
  const ByteSpan message = (*block)->entry(*index).message;
  const std::ptrdiff_t offset = message.data() - (*block)->bytes().data();
  bytes[static_cast<std::size_t>(offset) + message.size() - 1] ^= 0x10;
}

void MemoryStore::flip_bit_in_block_header(QueueId queue, Sequence sequence) {
  block_of(queue, sequence)->second[5] ^= 0x10;
}

void MemoryStore::flip_bit_in_acks(QueueId queue, std::uint64_t chunk) {
  const AckRecord record{.subscription = subscription_of(queue), .chunk = chunk};
  const Key key(record.subscription.value, chunk);
  acks_.emplace(key, record);
  acks_damaged_.insert(key);
}

void MemoryStore::flip_bit_in_retry(QueueId queue, Sequence sequence) {
  RetryRecord record;
  record.subscription = subscription_of(queue);
  record.sequence = sequence;
  const Key key(record.subscription.value, sequence);
  retries_.emplace(key, record);
  retries_damaged_.insert(key);
}

SubscriptionId MemoryStore::subscription_of(QueueId queue) const {
  const auto found =
      std::find_if(subscriptions_.begin(), subscriptions_.end(),
                   [queue](const auto& entry) { return entry.second.queue == queue; });
  CHECK(found != subscriptions_.end(), "no queue {}", queue.value);
  return found->first;
}

void MemoryStore::lose_block(QueueId queue, Sequence sequence) {
  blocks_.erase(block_of(queue, sequence));
}

}  // namespace holdfast::broker
