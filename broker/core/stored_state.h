// What the store hands the core at start.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/ids.h"
#include "core/batch.h"
#include "core/records.h"

namespace holdfast::broker {

// What the blocks of a queue hold: every message that is not settled, and some that are.
struct HeldSequences {
  QueueId queue;
  std::vector<SequenceRange> ranges;  // ascending
};

// Everything but messages and the dedup window, as read at start.
struct StoredState {
  std::string node_id;
  std::uint64_t batch_number = 0;
  // The one after it, where the store found it begun and not whole, and left it out; else 0.
  std::uint64_t batch_cut_short = 0;
  std::uint32_t next_id = 1;
  std::vector<QueueRecord> queues;
  std::vector<SubscriptionRecord> subscriptions;
  std::vector<AckRecord> acks;        // in key order
  std::vector<RetryRecord> retries;   // in key order
  std::uint64_t records_corrupt = 0;  // acks and retries that failed their checksum, left out
  // Their keys, as far as they are legible, whether or not there is such a subscription: to be
  // removed.
  std::vector<AckKey> acks_corrupt;
  std::vector<RetryKey> retries_corrupt;
  // Of the queues that lack acks for that reason: what no block holds was settled. Of all queues,
  // if it is not legible whose acks they were.
  std::vector<HeldSequences> held;
  SpaceReport space;
};

}  // namespace holdfast::broker
