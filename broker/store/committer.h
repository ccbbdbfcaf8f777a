// The committer: the thread on which all commits run, one at a time.
//
// Happy path: commit() puts a batch into the mailbox; the thread applies it in one transaction,
// commits that, measures the space, and calls `committed`. With nothing to do it sleeps; once a
// minute it frees the slots of dead readers, and while publishes are refused it looks at the space
// every second.
//
// Failures: without space the transaction is aborted and the same batch tried again every 200 ms,
// until it succeeds or stop() is called. Any other error is final: `fatal` is called, and nothing
// is committed or reported from then on, because it is not known what the disk holds.
//
// start(), commit() and stop() belong to one thread, the owner.

#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <thread>

#include "core/batch.h"
#include "store/batch_writer.h"
#include "store/environment.h"
#include "store/space.h"

namespace holdfast::broker {

struct CommitterCallbacks {
  std::function<void(CommitResult)> committed;
  std::function<void(Status)> fatal;
  std::function<void(SpaceReport)> space;  // may be empty
};

class Committer {
 public:
  // Both outlive it. `progress` is what the environment holds.
  Committer(Environment* environment, Space* space, const ProgressRecord& progress);
  Committer(const Committer&) = delete;
  Committer& operator=(const Committer&) = delete;
  ~Committer() { stop(); }

  void start(CommitterCallbacks callbacks);
  void commit(std::unique_ptr<Batch> batch);
  // Waits for the commit under way, but not for one that waits for space. May be called twice.
  void stop();

 private:
  void run();
  // Waits for a batch; null when it is time to stop or to do what is due meanwhile.
  std::unique_ptr<Batch> wait_for_batch();
  void do_idle_work();
  void commit_until_done(const Batch& batch);
  Outcome try_commit(const Batch& batch, TrimsLeft* left);
  Outcome write_and_commit(const Batch& batch, TrimsLeft* left);
  void report_committed(const Batch& batch, TrimsLeft left);
  // A commit that changes nothing: what the commit before it has freed becomes usable.
  Outcome commit_nothing();
  bool means_full(const Outcome& outcome) const;
  // Returns false if it is time to stop.
  bool wait_for_space(const Outcome& outcome);
  void fail(const Outcome& outcome, std::uint64_t batch_number);

  Environment* environment_;
  Space* space_;
  ProgressRecord progress_;  // what is committed; the thread's
  BatchWriter writer_;
  CommitterCallbacks callbacks_;
  bool failed_ = false;             // the thread's
  bool waiting_for_space_ = false;  // likewise
  bool publishes_refused_ = false;  // likewise
  std::chrono::steady_clock::time_point began_;
  std::chrono::steady_clock::time_point readers_checked_;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::unique_ptr<Batch> mailbox_;  // under mutex_
  bool busy_ = false;               // under mutex_: a batch was taken and not yet reported
  bool stopping_ = false;           // under mutex_
  std::thread thread_;
};

}  // namespace holdfast::broker
