// The committer: the thread on which all commits run, one at a time.
//
// Happy path: commit() puts batches into the mailbox. A small one by itself is appended to the
// journal, which makes it durable by one flush, and `committed` is called; only then its changes
// are made in the tables, in a transaction that stays open over many batches (the catching up).
// That is committed when the journal is full, when many pages were changed, when there has been
// nothing to do for a while, at the end, and together with what is not journaled: a large batch,
// for which writing it twice would cost more than the flushes, several in one commit, one that
// removes blocks by the queue, and any while space is short.
//
// With nothing to do the thread sleeps; once a minute it frees the slots of dead readers, and while
// publishes are refused, or a large one would be, it looks at the space every second. Otherwise it
// does so once after commits have ended, so that what they freed does not show as in use.
//
// Failures: without space the transaction is aborted, `space` is told once that commits wait, and
// it is tried again every 200 ms, beginning with what the journal holds, until it succeeds or
// stop() is called. Any other error is final: `fatal` is called, and nothing is committed or
// reported from then on, what is handed over later neither, because it is not known what the disk
// holds. So is a file that somebody has removed: what was confirmed from then on would be lost with
// it.
//
// start(), commit() and stop() belong to one thread, the owner.

#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <thread>

#include "core/batch.h"
#include "store/batch_writer.h"
#include "store/environment.h"
#include "store/journal.h"
#include "store/journaled_records.h"
#include "store/space.h"
#include "store/table_writer.h"

namespace holdfast::broker {

struct CommitterCallbacks {
  std::function<void(CommitResult)> committed;
  std::function<void(Status)> fatal;
  std::function<void(SpaceReport)> space;  // may be empty
};

// What a committer works on; all outlive it.
struct CommitterParts {
  Environment* environment;
  Space* space;
  Journal* journal;  // null: there is none
  JournaledRecords* journaled;
  std::chrono::milliseconds catch_up_interval;  // as StoreOptions has them
  std::chrono::milliseconds reader_check_interval;
};

class Committer {
 public:
  // `progress` and `owners` are what the tables hold; the journal is empty.
  Committer(const CommitterParts& parts, const ProgressRecord& progress, OwnerSums owners);
  Committer(const Committer&) = delete;
  Committer& operator=(const Committer&) = delete;
  ~Committer() { stop(); }

  void start(CommitterCallbacks callbacks);
  void commit(Batches batches);
  // Waits for the commit under way, but not for one that waits for space. May be called twice.
  void stop();

 private:
  void run();
  // Waits for batches; none when it is time to stop or to do what is due meanwhile.
  Batches wait_for_batches();
  void do_idle_work();
  void look_at_space();

  // Fails if somebody has removed them.
  void check_files();
  void commit_until_done(const Batches& batches);
  bool is_for_journal(const Batch& batch) const;
  // Returns false if the batch is to go to the tables after all.
  bool commit_to_journal(const Batch& batch);
  // Together with all that is journaled; without a batch that alone.
  void commit_to_tables(const Batches& batches);
  Outcome try_commit_to_tables(const Batches& batches, TrimsLeft* left);

  // Whether publishes may be refused that more room would allow: a refusal makes no commit that
  // would measure it.
  bool looks_for_room() const { return publishes_refused_ || space_->is_short(); }
  bool look_due() const { return looks_for_room() || !space_->is_counted(); }

  // Makes the changes of a batch that was just journaled in the tables, not yet committed.
  Outcome catch_up(const Batch& batch, TrimsLeft* left);
  // Begins the transaction and makes in it the changes of all that is journaled.
  Outcome catch_up_anew();
  bool catching_up_due() const { return journal_ != nullptr && !journal_->empty(); }

  // Up to the batch with that number; `bytes` are what they added.
  void report_committed(std::uint64_t number, std::size_t bytes, TrimsLeft left);
  // A commit that changes nothing: what the commit before it has freed becomes usable.
  Outcome commit_nothing();
  bool means_full(const Outcome& outcome) const;
  // Returns false if it is time to stop.
  bool wait_for_space(const Outcome& outcome);
  void report_waiting(const Outcome& outcome);
  void fail(const Outcome& outcome, std::uint64_t batch_number);
  void fail(Status status);

  Environment* environment_;
  Space* space_;
  Journal* journal_;
  JournaledRecords* journaled_;
  const std::chrono::milliseconds catch_up_interval_;
  const std::chrono::milliseconds reader_check_interval_;
  CommitterCallbacks callbacks_;

  // The thread's, all of them.
  ProgressRecord progress_;        // what is durable
  ProgressRecord table_progress_;  // what the tables hold of that
  BatchWriter writer_;
  JournalEntry entry_;
  std::optional<Transaction> catching_up_;  // holds all that is journaled
  std::uint64_t bytes_changed_ = 0;         // in it, at most; a journal's worth or two
  bool waiting_for_space_ = false;
  bool publishes_refused_;
  std::chrono::steady_clock::time_point began_;
  std::chrono::steady_clock::time_point readers_checked_;
  std::chrono::steady_clock::time_point next_look_;
  std::uint64_t freed_up_to_ = 0;  // what this batch freed is usable

  std::atomic<bool> failed_ = false;  // the thread's to set, before it calls `fatal`

  std::mutex mutex_;
  std::condition_variable changed_;
  Batches mailbox_;        // under mutex_
  bool busy_ = false;      // under mutex_: batches were taken and not yet reported
  bool stopping_ = false;  // under mutex_
  std::thread thread_;
};

}  // namespace holdfast::broker
