// The messages of one subscription that were delivered at least once, or are about to be, and are
// not settled: in flight, waiting for a retry, ready for one, or on their way to the dead-letter
// queue.
//
// Entries are found by sequence in an open-addressing table and stay at their address until they
// are removed. An entry in flight is linked into its consumer's list in the order of lease
// deadlines.

#pragma once

#include <cstdint>
#include <deque>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "core/hash_key.h"
#include "core/records.h"

namespace holdfast::broker {

struct Consumer;
struct OpenBlock;

enum class OutstandingState : std::uint8_t {
  kReady,     // a retry is due
  kWaiting,   // a retry is not yet due
  kStarting,  // chosen for a consumer; sent when the commit that counts the attempt is done
  kInFlight,  // a consumer holds it
  kMoving,    // goes to the dead-letter queue once its bytes are read
};

// Kept only for messages with an attempt behind them.
struct History {
  std::vector<AttemptRecord> attempts;   // ended, oldest first, at most kHistoryMax
  std::vector<ConsumerId> past_holders;  // of this broker run: whose late acks are accepted
};

struct Outstanding {
  Sequence sequence = 0;
  OpenBlock* block = nullptr;  // null: its block has not been read since the start
  Consumer* holder = nullptr;  // kStarting, kInFlight
  MonotonicTime deadline;      // kInFlight: end of the lease; kReady, kWaiting: when due
  WallTime delivered_at;       // kInFlight
  std::uint32_t bytes = 0;     // stored bytes, once the block is known
  std::uint32_t attempts = 0;  // that count, one under way included
  // kWaiting: from the end of the last attempt until it is due; kInFlight: from the delivery until
  // the lease ends, 49 days at most.
  std::uint32_t span_ms = 0;
  OutstandingState state = OutstandingState::kReady;
  bool has_record = false;         // its state is, or will be, a record in the store
  bool apart = false;              // kInFlight: not in the holder's list
  Outstanding* earlier = nullptr;  // neighbours in the holder's list
  Outstanding* later = nullptr;
  std::unique_ptr<History> history;

  // kInFlight: since its delivery.
  Milliseconds age(MonotonicTime now) const { return Milliseconds(span_ms) - (deadline - now); }
  // Of the record of its attempts, about.
  std::size_t record_bytes() const { return retry_record_bytes(ended_attempts()); }
  std::span<const AttemptRecord> ended_attempts() const {
    if (!history) return {};
    return history->attempts;
  }
  // Of the attempt that ended last.
  std::string last_error() const {
    return ended_attempts().empty() ? std::string() : ended_attempts().back().error;
  }
  History& ensure_history() {
    if (!history) history = std::make_unique<History>();
    return *history;
  }
};

class OutstandingTable {
 public:
  explicit OutstandingTable(const HashKey& key) : key_(key) {}

  Outstanding* find(Sequence sequence) const;
  // The sequence must not be there.
  Outstanding& insert(Sequence sequence);
  void erase(Outstanding& entry);
  std::size_t size() const { return size_; }
  // Visits every entry, in no particular order that matters: it depends on the sequences and the
  // key only.
  template <typename Visit>
  void for_each(Visit visit) {
    for (const Slot& slot : slots_) {
      if (slot.entry != nullptr) visit(*slot.entry);
    }
  }
  void clear();

 private:
  struct Slot {
    Sequence sequence = 0;
    Outstanding* entry = nullptr;
  };
  std::size_t home(Sequence sequence) const;
  void grow();

  HashKey key_;
  std::vector<Slot> slots_;  // power of two, at most half full
  std::size_t size_ = 0;
  std::optional<std::deque<Outstanding>> pool_;  // an empty deque takes memory, too
  std::vector<Outstanding*> free_;
};

}  // namespace holdfast::broker
