// The way of batches to the store, in order: one gathers, sealed ones wait, those of one commit are
// under way. With them goes what is to be said when they are durable. And since what is on its way
// will take room, it is here that everything that adds to the store asks whether there is some.

#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>
#include <string_view>
#include <vector>

#include "core/batch.h"
#include "core/records.h"
#include "core/requests.h"

namespace holdfast::broker {

class Queue;

// A retry that is sent when the commit that counts its attempt is done.
struct StartedRetry {
  QueueId queue;
  Sequence sequence = 0;
  ConsumerId consumer;
  std::shared_ptr<const Block> block;
  std::size_t index = 0;
};

// What a commit makes true.
struct Promises {
  std::vector<Effect> said;
  std::size_t answers_bytes = 0;  // of `said`, its confirms of new messages not counted
  std::vector<StartedRetry> started;
};

// While publishes are refused, one batch takes at most about so much of the reserve for messages
// that are moved or rewritten, and half as much for records of attempts: what they free is usable
// by the second commit after theirs, and the smallest reserve is 512 KiB.
inline constexpr std::size_t kReserveStepBytes = 64 * 1024;
inline constexpr std::size_t kRetryStepBytes = kReserveStepBytes / 2;

// A new queue takes at most about so much of the store's room, and more the longer its name is; its
// dead-letter queue takes as much again.
std::size_t created_queue_bytes(std::string_view name);

// What gathers since the last batch was sealed. Whoever changes something durable adds it here.
struct Gathering {
  std::vector<Queue*> queues;  // touched ones, in the order of touching
  std::vector<BlockKey> blocks_removed;
  std::vector<std::shared_ptr<const Block>> blocks_rewritten;
  std::vector<AckKey> acks_removed;  // these and the next: damaged ones, which no queue knows of
  std::vector<RetryKey> retries_removed;
  std::uint32_t next_id = 0;
  std::size_t bytes = 0;            // of messages, and of records of attempts
  std::size_t retry_bytes = 0;      // those of the records
  std::size_t rewritten_bytes = 0;  // of messages, in blocks that were rewritten
  std::size_t moved_bytes = 0;      // likewise, moved to a dead-letter queue or back
  std::size_t created = 0;          // of the touched queues, those that are new
  std::size_t created_bytes = 0;    // that these take
  std::size_t appended = 0;         // of the touched queues, those that something is appended to
  Promises promises;

  bool empty() const {
    return queues.empty() && next_id == 0 && acks_removed.empty() && retries_removed.empty();
  }
  std::size_t reread_bytes() const { return rewritten_bytes + moved_bytes; }
  // Of the store's room that it takes, at most.
  std::size_t room_bytes() const;
  // Of that, what nobody asks room for: the pages of queues in which messages are only settled or
  // purged, or which are edited or deleted.
  std::size_t unasked_bytes() const;
};

// What a batch weighs, or several of them.
struct Weight {
  std::size_t bytes = 0;    // of messages, and of records of attempts
  std::size_t room = 0;     // of the store's room that it takes, at most
  std::size_t unasked = 0;  // of that, what nobody asked room for
  std::size_t reread = 0;   // bytes of messages that were moved or rewritten

  void add(const Weight& other);
  void take_off(const Weight& other);
};

// A batch on its way: sealed, then under way.
struct Sealed {
  std::unique_ptr<Batch> batch;
  std::uint64_t number = 0;
  Weight weight;
  std::size_t growth = 0;  // of the store by it, in bytes, about
  // Of records of attempts, that it still takes in while it is sealed; the last one may be more.
  std::size_t retry_bytes_left = 0;
  Promises promises;
  struct Advance {
    QueueId queue;
    Sequence committed_to = 0;
    Sequence delivered_to = 0;
    std::shared_ptr<const Block> block;  // null: none appended
    Sequence trimmed_below = 0;          // what its block trim, if any, asked for
    bool trims_dedup = false;
  };
  std::vector<Advance> advances;
  std::vector<QueueId> queues_removed;
};

class CommitPipeline {
 public:
  explicit CommitPipeline(std::size_t batch_bytes_max) : batch_bytes_max_(batch_bytes_max) {}

  // The last batch that is durable; before anything gathers.
  void start(std::uint64_t batch_number, const SpaceReport& space);

  // ---- gathering and sealing ----
  Gathering& gathering() { return gathering_; }
  const Gathering& gathering() const { return gathering_; }
  // Of the batch that gathers.
  std::uint64_t number() const { return number_; }
  // Whether it has grown to the size of a batch, or touches more queues than one may: what takes
  // messages away is never refused, so it is here that it is kept from outgrowing what is left.
  bool is_full() const;
  // The batch with what gathers. Between the two, what the touched queues have is put into it; at
  // the end it waits for its commit. False: it stayed empty, and `next` keeps its promises
  // for the caller.
  Sealed begin_sealing();
  bool end_sealing(Sealed& next);
  // Says it when all that came before is durable. False: it is, and the caller may say it.
  bool say_when_durable(Effect& effect);
  // About the memory that all takes which was given to that and is not durable yet.
  std::uint64_t answers_bytes() const { return answers_bytes_; }

  // ---- committing ----
  // Whether a batch may be committed now, by itself or together with those under way.
  bool may_take() const;
  bool has_sealed() const { return !sealed_.empty(); }
  // Only after may_take(): the oldest that waits is under way from now on. Null: none waits, or it
  // does not fit in with those that are.
  std::unique_ptr<Batch> take();
  // Those that are durable now, oldest first.
  std::deque<Sealed> committed(const CommitResult& result);
  bool idle() const { return under_way_.empty() && sealed_.empty() && gathering_.empty(); }
  // Of the last batch that is durable.
  std::uint64_t committed_number() const;
  std::uint64_t commits() const { return commits_; }
  // Of the last 1,024 commits, ascending, in µs.
  std::vector<std::uint32_t> commit_durations_us() const;

  // ---- room ----
  void set_space(const SpaceReport& space) { space_ = space; }
  const SpaceReport& space() const { return space_; }
  // Of messages that are not durable yet.
  std::uint64_t pending_bytes() const;
  // Of the store's room that they take, with all else that waits to be stored.
  std::uint64_t pending_room_bytes() const;
  // Whether so much of what was moved and rewritten waits to be committed that nothing should be
  // read which adds to it.
  bool lags() const;
  // Whether so many bytes can be stored besides those that wait to be: whatever adds to the store
  // asks, as a publish does. Where there is no room, what is not a publish takes from the reserve,
  // a little for each batch, and nothing of its second half: that is for what takes messages away,
  // and, but for the last quarter, for counting retries. Those that begin later are counted when
  // there is room: without them some messages could not be taken away.
  bool has_room_for(std::size_t bytes) const;
  bool has_reserve_for(std::size_t bytes) const;
  // What records of attempts may take in the batch that gathers.
  std::size_t retry_bytes_max() const;
  // Whether a message of so many bytes may be moved in that batch.
  bool may_move(std::size_t bytes) const;
  // Whether there is room in it for the record that counts a retry before it is sent.
  bool may_count_retry() const;

 private:
  // Whether batches may be committed together with those that were taken.
  bool may_join() const;
  // What a batch may take that nobody asks room for.
  std::uint64_t unasked_bytes_max() const;
  Promises* newest_promises();

  const std::size_t batch_bytes_max_;
  Gathering gathering_;
  std::uint64_t number_ = 1;
  std::deque<Sealed> sealed_;     // oldest first
  std::deque<Sealed> under_way_;  // likewise: one commit's
  Weight on_their_way_;           // of both; there may be very many
  std::uint64_t answers_bytes_ = 0;
  SpaceReport space_;
  std::uint64_t commits_ = 0;
  std::array<std::uint32_t, 1024> durations_us_{};
  bool disk_is_slow_ = false;  // as the last commit tells
};

}  // namespace holdfast::broker
