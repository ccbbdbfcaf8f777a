// One consumer: a session's attachment to a subscription, with its credit and what it holds.

#pragma once

#include <cstdint>
#include <list>
#include <map>
#include <optional>
#include <string>
#include <utility>

#include "core/outstanding.h"
#include "core/session_state.h"

namespace holdfast::broker {

class Queue;

struct Consumer {
  ConsumerId id;
  SessionState* session = nullptr;
  Queue* queue = nullptr;
  std::string name;
  std::uint32_t credit_messages = 0;
  std::uint64_t credit_bytes = 0;  // 0: no bound
  Milliseconds lease{0};
  bool lease_is_the_queues = false;        // follows the queue's setting when that is edited
  bool ending = false;                     // takes nothing more, of what it gives back neither
  std::optional<Asker> unsubscriber;       // is answered when it has ended
  bool available = false;                  // stands in its subscription's line of those with credit
  std::list<Consumer*>::iterator in_line;  // there, while it does
  std::uint64_t turn = 0;  // was turned away for want of room as the so manieth; 0: not

  std::uint32_t held = 0;  // starting and in flight
  std::uint64_t held_bytes = 0;
  std::uint64_t delivered = 0;
  std::uint64_t acked = 0;

  // Retries that wait for the commit that counts them, and the number of its batch.
  std::map<Sequence, std::uint64_t> starting;
  std::size_t place = 0;  // in its subscription's consumers

  // How many more messages it may be given, once there is room. A consumer that holds nothing takes
  // one message of any size, so that a small bound by bytes never stops it for good.
  std::uint32_t free_credit() const {
    if (ending || held >= credit_messages) return 0;
    if (credit_bytes > 0 && held_bytes >= credit_bytes && held > 0) return 0;
    return credit_messages - held;
  }

  // ---- what is in flight, by lease deadlines ----

  // Null: nothing is.
  Outstanding* earliest() const {
    if (apart.empty()) return first;
    Outstanding* const other = apart.begin()->second;
    return first == nullptr || other->deadline < first->deadline ? other : first;
  }
  template <typename Visit>
  void for_each_in_flight(Visit visit) const {
    for (const Outstanding* entry = first; entry != nullptr; entry = entry->later) visit(*entry);
    for (const auto& [key, entry] : apart) visit(*entry);
  }
  void link(Outstanding& entry) {
    constexpr int kStepsMax = 32;
    Outstanding* before = last;
    for (int steps = 0; before != nullptr && before->deadline > entry.deadline; ++steps) {
      if (steps == kStepsMax) {
        entry.apart = true;
        apart.emplace(std::pair(entry.deadline, entry.sequence), &entry);
        return;
      }
      before = before->earlier;
    }
    entry.earlier = before;
    entry.later = before == nullptr ? first : before->later;
    (entry.earlier == nullptr ? first : entry.earlier->later) = &entry;
    (entry.later == nullptr ? last : entry.later->earlier) = &entry;
  }
  // Before its deadline changes.
  void unlink(Outstanding& entry) {
    if (std::exchange(entry.apart, false)) {
      apart.erase({entry.deadline, entry.sequence});
      return;
    }
    (entry.earlier == nullptr ? first : entry.earlier->later) = entry.later;
    (entry.later == nullptr ? last : entry.later->earlier) = entry.earlier;
    entry.earlier = entry.later = nullptr;
  }

  // No lease of it ends before then: it stands so among its subscription's holders. max(): it does
  // not stand there, because nothing is in flight, it is ending, or it stands in its session's
  // leases_over.
  MonotonicTime look_at = MonotonicTime::max();

  // Leases mostly end in the order in which they began: a list, added to near its end. One that
  // would come far from there stands apart.
  Outstanding* first = nullptr;
  Outstanding* last = nullptr;
  std::map<std::pair<MonotonicTime, Sequence>, Outstanding*> apart;
};

}  // namespace holdfast::broker
