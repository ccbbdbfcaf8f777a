// One consumer: a session's attachment to a subscription, with its credit and what it holds.

#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "core/outstanding.h"

namespace holdfast::broker {

class Queue;

struct Consumer {
  ConsumerId id;
  SessionId session;
  Queue* queue = nullptr;
  std::string name;
  std::uint32_t credit_messages = 0;
  std::uint64_t credit_bytes = 0;  // 0: no bound
  Milliseconds lease{0};
  bool lease_is_the_queues = false;  // follows the queue's setting when that is edited
  bool writable = true;              // its session takes output
  bool available = false;            // stands in its subscription's line of those with credit

  std::uint32_t held = 0;  // starting and in flight
  std::uint64_t held_bytes = 0;
  std::uint64_t delivered = 0;
  std::uint64_t acked = 0;

  // Retries that wait for the commit that counts them, and the number of its batch.
  std::map<Sequence, std::uint64_t> starting;
  // In flight, in the order of lease deadlines.
  Outstanding* earliest = nullptr;
  Outstanding* latest = nullptr;

  // How many more messages it may be given. A consumer that holds nothing takes one message of any
  // size, so that a small bound by bytes never stops it for good.
  std::uint32_t free_credit() const {
    if (!writable || held >= credit_messages) return 0;
    if (credit_bytes > 0 && held_bytes >= credit_bytes && held > 0) return 0;
    return credit_messages - held;
  }

  void link(Outstanding& entry) {
    Outstanding* after = latest;
    while (after != nullptr && after->deadline > entry.deadline) after = after->earlier;
    entry.earlier = after;
    entry.later = after == nullptr ? earliest : after->later;
    (entry.earlier == nullptr ? earliest : entry.earlier->later) = &entry;
    (entry.later == nullptr ? latest : entry.later->earlier) = &entry;
  }
  void unlink(Outstanding& entry) {
    (entry.earlier == nullptr ? earliest : entry.earlier->later) = entry.later;
    (entry.later == nullptr ? latest : entry.later->earlier) = entry.earlier;
    entry.earlier = entry.later = nullptr;
  }
};

}  // namespace holdfast::broker
