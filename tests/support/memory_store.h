// A store in memory for tests of the core: applies batches, answers fetches, and hands back what
// was committed, as a restart would find it. It does what store.h promises and nothing else.

#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

#include "core/batch.h"
#include "core/core.h"
#include "core/reads.h"
#include "core/records.h"
#include "core/stored_state.h"

namespace holdfast::broker {

class MemoryStore {
 public:
  // Applies in the order that batch.h gives. The number must be the next one.
  CommitResult apply(const Batch& batch);
  // Likewise, one after the other.
  CommitResult apply(const Batches& batches);
  FetchResult fetch(const FetchRequest& request) const;
  IdsResult fetch_ids(const IdsRequest& request) const;
  StoredState load() const;
  void load_dedup(Core& core, Now now) const;

  std::size_t block_count() const { return blocks_.size(); }
  std::size_t block_bytes() const;
  std::size_t ack_record_count() const { return acks_.size(); }
  std::size_t retry_count() const { return retries_.size(); }
  std::size_t dedup_record_count() const { return dedup_.size(); }
  std::size_t queue_count() const { return queues_.size(); }
  std::uint64_t batch_number() const { return batch_number_; }
  // About what the largest batch so far added.
  std::size_t largest_batch_bytes() const { return largest_batch_bytes_; }
  // Of how many queues, or of how many subscriptions, one batch put or removed the records.
  std::size_t most_touched() const { return most_touched_; }
  // So far is from now on.
  void forget_largest() { largest_batch_bytes_ = most_touched_ = 0; }

  // Damages the stored bytes of a message by flipping one of its body's bits.
  void flip_bit_in_message(QueueId queue, Sequence sequence);
  // Damages the header of the block that holds it.
  void flip_bit_in_block_header(QueueId queue, Sequence sequence);
  // Damages a record of the queue's acks; where there is none, it comes with a key that is damaged.
  void flip_bit_in_acks(QueueId queue, std::uint64_t chunk);
  // Likewise the record of a message's attempts.
  void flip_bit_in_retry(QueueId queue, Sequence sequence);
  // Loses the block that holds it.
  void lose_block(QueueId queue, Sequence sequence);

  // More than any test stores.
  static constexpr std::uint64_t kRoomBytes = std::uint64_t{1} << 40;
  SpaceReport space = roomy();
  std::uint32_t batch_us = 1;  // that each batch of a commit takes

 private:
  static SpaceReport roomy();
  using Key = std::pair<std::uint64_t, std::uint64_t>;
  using Blocks = std::map<Key, std::vector<std::uint8_t>>;
  Blocks::iterator block_of(QueueId queue, Sequence sequence);
  HeldSequences held(QueueId queue) const;
  SubscriptionId subscription_of(QueueId queue) const;

  std::uint64_t batch_number_ = 0;
  std::size_t largest_batch_bytes_ = 0;
  std::size_t most_touched_ = 0;
  std::uint32_t next_id_ = 1;
  std::map<QueueId, QueueRecord> queues_;
  std::map<SubscriptionId, SubscriptionRecord> subscriptions_;
  Blocks blocks_;
  std::map<Key, AckRecord> acks_;
  std::set<Key> acks_damaged_;
  std::map<Key, RetryRecord> retries_;
  std::set<Key> retries_damaged_;
  std::map<std::tuple<QueueId, std::uint64_t, Sequence>, DedupRecord> dedup_;
};

}  // namespace holdfast::broker
