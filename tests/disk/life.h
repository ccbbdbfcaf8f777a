// A life: what a broker does between start and end, with the real core and the real store, in
// virtual time, driven by clients whose choices a seed makes. All that is asked and said goes into
// the log.
//
// The owner's thread and the committer take turns: a commit is waited for, and the committer goes
// on only after what it reported has been told. So the order of the log follows from the seed.
//
// Failures: when the store fails or refuses to open, that is logged and the life ends; nothing is
// said after it.

#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "core/core.h"
#include "crash/random.h"
#include "disk/ledger.h"
#include "disk/log.h"
#include "store/store.h"

namespace holdfast::disk {

// So small that it is full now and then.
inline constexpr std::uint64_t kJournalBytes = 256 << 10;

struct LifePlan {
  std::string directory;
  std::uint64_t seed = 1;
  std::uint32_t steps = 20;
  bool reopen = false;  // closes and opens the store in the middle
  // See StoreOptions.
  std::chrono::milliseconds catch_up_interval = broker::StoreOptions().catch_up_interval;
};

enum class LifeEnd { kDone, kRefused, kFailed };

class Life {
 public:
  // `before`: all that was logged until now. Call it where the calling thread's calls are not
  // watched; those of the store are.
  Life(LifePlan plan, const Ledger& before, Log& log);
  ~Life();
  LifeEnd run();
  // Closes the store in an orderly way; without it, it is left as it is.
  void close();

 private:
  struct Pending {
    EntryKind done;     // logged when it is answered
    EntryKind refused;  // likewise
    std::vector<std::pair<Sequence, std::uint32_t>> messages = {};
    std::uint32_t queue = 0;
  };
  struct Held {
    ConsumerId consumer;
    Sequence sequence = 0;
    std::uint32_t message = 0;
    std::uint32_t queue = 0;
  };
  struct QueueHandle {
    QueueId id;
    bool deleted = false;
  };

  // ---- the store ----
  bool open();
  void end(EntryKind kind, const Status& why);
  void settle_down();  // until nothing is to be read or committed
  void commit(broker::Batches batches);
  // Hands over one more, with this number, and waits for the committer's end: that it reports it is
  // logged, and must not be.
  void commit_after_failure(std::uint64_t number);
  void take_effects();
  void take(const broker::Effect& effect);
  void take_settled(const broker::SettledReply& reply);
  void take_error(const broker::ErrorReply& reply);

  // ---- what clients and people do ----
  void step();
  void create_queue();
  void find_queues();
  void publish(std::uint32_t message, std::uint32_t queue);
  void publish_new();
  void publish_again();
  void publish_unanswered();
  void subscribe(std::uint32_t queue);
  void settle_some();
  void settle(const Held& held, wire::SettleKind kind,
              const std::string& reason = "chosen by a seed");
  // One message fails more often than its record keeps attempts, each with a long reason and then
  // each with none: the record grows over a page, and gets shorter where it stands.
  void fail_often();
  void purge();
  void delete_queue();
  void redrive();
  void pass(Milliseconds duration);
  std::optional<std::uint32_t> some_queue();

  broker::Asker ask(Pending pending);
  void log(EntryKind kind, std::uint32_t queue, std::uint32_t message = 0, Sequence sequence = 0,
           bool duplicate = false);

  LifePlan plan_;
  Log& log_;
  crash::Random random_;
  Ledger ledger_;  // what was before this life
  std::uint32_t next_message_ = 1;
  std::uint32_t next_queue_ = 1;

  Now now_;
  std::unique_ptr<broker::Store> store_;
  std::unique_ptr<broker::Core> core_;
  bool disk_is_slow_ = false;  // as the core is told: it has several batches committed together
  std::optional<LifeEnd> ended_;
  std::map<std::uint32_t, QueueHandle> queues_;
  std::map<std::uint32_t, std::uint32_t> queue_of_message_;
  std::map<ConsumerId, std::uint32_t> consumers_;  // their queues
  std::vector<Held> held_;
  std::map<std::uint64_t, Pending> pending_;
  std::uint64_t last_correlation_ = 0;

  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<broker::CommitResult> committed_;  // under mutex_; emptied when it was told
  std::optional<Status> failed_;                   // under mutex_
  std::optional<broker::SpaceReport> space_;       // under mutex_
};

}  // namespace holdfast::disk
