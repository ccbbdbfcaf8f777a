// The younger part of a dedup window: which message ids were published lately, and under which
// sequence.
//
// Ids are known by 16-byte hashes, kept in the order of publishing in one deque. An index finds
// them: slots of 8 bytes (31 bits of the hash, scattered, and a position in the deque) in an
// open-addressing table at most 80 % full that grows by half. So an id costs 16 bytes and 10 to 15
// for its slot. Runs of up to 4,096 consecutive sequences that were published within a second share
// their bookkeeping and leave the window together, when the youngest of them is too old. A run
// begins where a record of the store begins, so that what leaves the window are whole records.

#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <span>
#include <string_view>
#include <vector>

#include "core/hash_key.h"
#include "core/records.h"

namespace holdfast::broker {

// XXH3-128 of the id, seeded with the queue.
MessageIdHash hash_message_id(QueueId queue, std::string_view id);

class RecentIds {
 public:
  explicit RecentIds(const HashKey& key) : key_(key) {}

  std::optional<Sequence> find(const MessageIdHash& hash);
  // Ids of one run are at most this far apart in time.
  static constexpr std::uint64_t kRunTimeMs = 1000;

  // `time_ms` never goes back; the hash must not be in the window. Returns whether a run began:
  // then a record of the store must begin with this id, too.
  bool insert(const MessageIdHash& hash, Sequence sequence, std::uint64_t time_ms);
  // Takes over a record of the store, without a look whether its ids are there.
  // The index is made at the first use afterwards, in one go: 0.1 s for each million.
  void load(std::span<const MessageIdHash> hashes, Sequence first, std::uint64_t time_ms);

  // Drops the runs whose youngest id is from `before_ms` or earlier. Returns how many ids left.
  std::size_t expire(std::uint64_t before_ms);
  // Takes the oldest run out; there must be one.
  struct Run {
    Sequence first = 0;  // of consecutive sequences
    std::uint64_t first_time_ms = 0;
    std::uint64_t last_time_ms = 0;
    std::vector<MessageIdHash> hashes;
  };
  Run take_oldest();
  // The last sequence in the oldest run; 0: there is none.
  Sequence oldest_run_last() const;
  std::size_t run_count() const { return runs_.size(); }
  void clear();

  std::size_t size() const { return hashes_.size(); }
  // Where the window begins, as the store's records are keyed: everything before it may go. When
  // the window is empty, past everything that was in it.
  std::pair<std::uint64_t, Sequence> begin_key() const;

 private:
  struct RunBounds {
    std::uint64_t position = 0;  // of its first id, counted from the first id ever
    Sequence first = 0;
    std::uint64_t first_time_ms = 0;
    std::uint64_t last_time_ms = 0;
  };
  struct Slot {
    std::uint32_t tag = 0;       // 0: empty, else odd
    std::uint32_t position = 0;  // low half
  };

  std::uint32_t tag_of(const MessageIdHash& hash) const {
    return static_cast<std::uint32_t>(scatter(key_, hash.high, hash.low) >> 32) | 1;
  }
  std::size_t home(std::uint32_t tag) const {
    return static_cast<std::size_t>((std::uint64_t{tag} * slots_.size()) >> 32);
  }
  std::size_t following(std::size_t at) const { return at + 1 == slots_.size() ? 0 : at + 1; }
  std::uint64_t position_of(const Slot& slot) const {
    return first_position_ + (slot.position - static_cast<std::uint32_t>(first_position_));
  }
  // Lets ids with the consecutive sequences from `first` on join the last run, or begins one.
  // Returns whether it began one.
  bool extend_runs(Sequence first, std::size_t count, std::uint64_t time_ms);
  void ensure_index();
  void place(Slot slot);
  void resize(std::size_t slots);
  std::uint64_t oldest_run_end() const;
  std::size_t drop_run();

  HashKey key_;
  std::deque<MessageIdHash> hashes_;
  std::uint64_t first_position_ = 0;  // of hashes_.front()
  std::deque<RunBounds> runs_;
  std::vector<Slot> slots_;
  std::size_t stale_ = 0;           // slots of ids that have left, until the index is made anew
  bool indexed_ = true;             // false: ids were loaded and are not in the index
  std::uint64_t last_time_ms_ = 0;  // of the youngest id ever
};

}  // namespace holdfast::broker
