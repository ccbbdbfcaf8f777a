// A broker without its sockets: the real store and the real core, driven in one thread and in
// virtual time. What a request leads to has happened when run() returns.

#pragma once

#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>

#include "core/core.h"
#include "store/store.h"

namespace holdfast::corrupt {

class Engine {
 public:
  // Starts as the broker does: opens the directory, loads the state and the ids.
  // A store that is made then gets a journal of so many bytes, and the tables catch up with it only
  // where they must.
  static Result<std::unique_ptr<Engine>> open(const std::string& directory, Now now,
                                              std::uint64_t journal_bytes = 0);
  ~Engine();
  Engine(const Engine&) = delete;
  Engine& operator=(const Engine&) = delete;

  // Until nothing is under way any more. A status that is not ok is the end: the broker would stop.
  Status run();
  // Lets time pass, as far as the core wants to be woken before `until`.
  Status pass(Milliseconds duration);

  broker::Core& core() { return *core_; }
  // That was committed here; of what is said just now it is the batch.
  std::uint64_t last_batch() const { return last_batch_; }
  Now now() const { return now_; }
  broker::Asker ask(SessionId session);
  // Records that the start left out, with a warning in the broker's log.
  std::uint64_t records_damaged() const { return records_damaged_; }
  // Likewise a batch of the journal; 0: none.
  std::uint64_t batch_cut_short() const { return batch_cut_short_; }

  // Hears everything that the core says; must not call it.
  std::function<void(const broker::Effect&)> listener;

 private:
  Engine(std::unique_ptr<broker::Store> store, Now now);
  Status load();
  Status take_effects(bool* did_something);
  Status commit(std::unique_ptr<broker::Batch> batch);

  std::unique_ptr<broker::Store> store_;
  std::unique_ptr<broker::Core> core_;
  Now now_;
  std::uint64_t records_damaged_ = 0;
  std::uint64_t batch_cut_short_ = 0;
  std::uint64_t last_correlation_ = 0;
  std::uint64_t last_batch_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<broker::CommitResult> committed_;
  std::optional<Status> failed_;
};

}  // namespace holdfast::corrupt
