// A session as the core knows it: whose consumers are whose, and how much they may be delivered.

#pragma once

#include <algorithm>
#include <cstdint>
#include <limits>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>

#include "core/requests.h"

namespace holdfast::broker {

struct Consumer;

struct SessionState {
  SessionState(SessionId session, std::string_view name) : id(session), client_name(name) {}

  SessionId id;
  std::string client_name;
  std::set<ConsumerId> consumers;
  bool is_closed = false;  // remains until the last of them has ended

  // What it sends is left unread since then; none: it is read.
  std::optional<MonotonicTime> unread_since;
  // Leases of its consumers that were to end since the one time do not end before the other.
  MonotonicTime spared_since = MonotonicTime::max();
  MonotonicTime spared_until = MonotonicTime::min();
  // Consumers of which one is over, to be looked at when it is read again.
  std::set<ConsumerId> leases_over;

  // When a lease that was to end then may end; max(): not before it is read again.
  MonotonicTime end_of_lease(MonotonicTime deadline) const {
    if (unread_since && deadline >= *unread_since) return MonotonicTime::max();
    return deadline >= spared_since ? std::max(deadline, spared_until) : deadline;
  }

  // Bytes that may still be delivered, as room_of() counts them, since its owner told last.
  std::uint64_t room_bytes = std::numeric_limits<std::uint64_t>::max();
  std::uint64_t room_told = room_bytes;
  // Of retries that wait for their commits; they are delivered then, whatever room there is.
  std::uint64_t starting_bytes = 0;
  // Its consumers with credit that had no room, in the order in which they were turned away.
  std::map<std::uint64_t, Consumer*> turned_away;
  std::uint64_t last_turn = 0;
  bool is_to_be_served = false;  // has room again since the last advance()

  // The last message may be larger than what is left, so that each can be delivered.
  bool has_room() const { return room_bytes > starting_bytes; }
  void take_room(std::uint64_t bytes) { room_bytes -= std::min(room_bytes, bytes); }
};

}  // namespace holdfast::broker
