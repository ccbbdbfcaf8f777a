// Between the loop and the store: batches go over to the committer thread, blocks are read on the
// loop's worker threads, and what comes of either is told on the loop's thread.
//
// Happy path: commit() hands over batches; the committer's callback puts the result into a mailbox
// and wakes the loop, which calls on_committed(). fetch() queues a work item; on_fetched() follows.
// Only a few are handed to the worker threads at a time, so that what was read never waits in
// memory for a loop that is busy; the others wait their turn.
//
// Failures: after on_store_failed() nothing else is told; what the disk holds is unknown and the
// owner must stop without saying anything more.
//
// Belongs to the loop's thread; only the mailbox is shared.

#pragma once

#include <uv.h>

#include <cstddef>
#include <deque>
#include <memory>
#include <mutex>
#include <optional>
#include <vector>

#include "core/batch.h"
#include "core/reads.h"
#include "holdfast/status.h"
#include "net/wakeup.h"
#include "store/store.h"

namespace holdfast::broker {

class StoreLinkOwner {
 public:
  virtual ~StoreLinkOwner() = default;
  virtual void on_committed(const CommitResult& result) = 0;
  virtual void on_fetched(const FetchResult& result) = 0;
  virtual void on_ids_fetched(const IdsResult& result) = 0;
  // The room was looked at without a commit, or the commit under way waits for room.
  virtual void on_space(const SpaceReport& space) = 0;
  virtual void on_store_failed(const Status& status) = 0;
};

class StoreLink {
 public:
  // All outlive the object. Starts the store's committer.
  StoreLink(uv_loop_t& loop, Store& store, StoreLinkOwner& owner);
  ~StoreLink();
  StoreLink(const StoreLink&) = delete;
  StoreLink& operator=(const StoreLink&) = delete;

  // Not while commit_under_way().
  void commit(Batches batches);
  bool commit_under_way() const { return commit_under_way_; }
  void fetch(const FetchRequest& request);
  void fetch_ids(const IdsRequest& request);

  // Closes the store, which waits for a commit under way; its result is not told any more, but a
  // failure is. Then run the loop until closed(): only then may the object be destroyed.
  // Idempotent.
  void close();
  bool closed() const { return wakeup_.closed() && fetches_under_way_ == 0; }

 private:
  struct Fetch;
  template <typename Request, typename Answer>
  struct FetchOf;

  // Any thread: puts it into the mailbox and wakes the loop.
  template <typename Fill>
  void tell_loop(Fill fill);
  void open_mailbox();
  // Reads on a worker thread, then tells the owner.
  template <typename Request, typename Answer>
  void queue_fetch(const Request& request, Result<Answer> (Store::*read)(const Request&),
                   void (StoreLinkOwner::*told)(const Answer&));
  void start_fetches();
  void fetch_done(Fetch& fetch);

  uv_loop_t& loop_;
  Store& store_;
  StoreLinkOwner& owner_;
  Wakeup wakeup_;
  bool commit_under_way_ = false;
  bool closing_ = false;
  bool failed_ = false;
  std::size_t fetches_under_way_ = 0;
  std::deque<std::unique_ptr<Fetch>> fetches_waiting_;

  std::mutex mailbox_mutex_;
  std::optional<CommitResult> mailbox_committed_;
  std::optional<SpaceReport> mailbox_space_;
  std::optional<Status> mailbox_failure_;
};

}  // namespace holdfast::broker
