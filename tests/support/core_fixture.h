// A core with a memory store in virtual time, and the verbs that tests of the core are written in.
//
// Each verb runs the core until it is quiet: fetches are answered, batches committed, effects
// collected. hold_commits() keeps batches back, as a slow disk would; crash() loses what was not
// committed and starts a new core from the store.

#pragma once

#include <map>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "core/core.h"
#include "support/memory_store.h"

namespace holdfast::broker {

struct Received {
  ConsumerId consumer;
  Sequence sequence = 0;
  std::uint32_t attempt = 0;
  std::string id;
  std::string body;
  bool has_provenance = false;
};

struct DeadLetterSeen {
  Sequence sequence = 0;
  std::string id;
  std::string body;
  std::string source;
  Sequence source_sequence = 0;
  wire::Cause reason = wire::Cause_None;
  std::string error;
  std::uint32_t attempts = 0;
  std::vector<wire::Cause> history;
  std::vector<std::string> history_errors;
};

class CoreFixture {
 public:
  explicit CoreFixture(CoreOptions core_options = CoreOptions());

  // ---- the world ----
  void pass(Milliseconds duration);  // wakes the core whenever it asks for it
  // Tells the core of its room, as store.space has it.
  void tell_space() { core_->space_changed(store.space, now_); }
  void hold_commits() { holding_commits_ = true; }
  void release_commits();
  // What is held for one commit; a batch, as long as the store is not slow.
  void commit_one();
  // Reads of blocks.
  void hold_fetches() { holding_fetches_ = true; }
  void release_fetches();
  // Reads of older ids.
  void hold_reads() { holding_reads_ = true; }
  void release_reads();
  void crash();
  void restart() { crash(); }
  void restart_with(CoreOptions options) {
    options_ = std::move(options);
    crash();
  }
  void run();
  Now now() const { return now_; }
  void set_wall_clock(WallTime wall) { now_.wall = wall; }

  // ---- requests; the session is opened on first use ----
  using Setting = std::pair<QueueSetting, std::uint64_t>;
  void create_queue(const std::string& name, const std::vector<Setting>& settings = {});
  void edit_queue(const std::string& name, const std::vector<Setting>& settings);
  void delete_queue(const std::string& name);
  std::uint64_t purge(const std::string& name);
  // Returns the correlation.
  std::uint64_t publish(const std::string& queue, const std::string& id,
                        const std::string& body = "body");
  ConsumerId subscribe(const std::string& queue, std::uint32_t credit, std::uint32_t lease_ms = 0,
                       SessionId session = SessionId(2));
  void settle(ConsumerId consumer, wire::SettleKind kind, std::vector<SequenceRange> ranges,
              std::string reason = "", std::optional<Milliseconds> delay = std::nullopt,
              SessionId session = SessionId(2));
  void ack(ConsumerId consumer, Sequence sequence) {
    settle(consumer, wire::SettleKind_Ack, {{sequence, sequence}});
  }
  void nack(ConsumerId consumer, Sequence sequence, std::string reason = "") {
    settle(consumer, wire::SettleKind_Nack, {{sequence, sequence}}, std::move(reason));
  }
  void extend(ConsumerId consumer, Sequence sequence, std::uint32_t lease_ms);
  void set_credit(ConsumerId consumer, std::uint32_t messages, std::uint64_t bytes = 0);
  // Returns the correlation.
  std::uint64_t unsubscribe(ConsumerId consumer, SessionId session = SessionId(2));
  void disconnect(SessionId session = SessionId(2));
  MovedReply redrive(const std::string& queue, std::vector<Sequence> sequences);
  MovedReply redrive_all(const std::string& queue, std::uint32_t limit = 256, Sequence to = 0,
                         bool dry_run = false);
  MovedReply discard(const std::string& queue, std::vector<Sequence> sequences);
  std::vector<PeekReply> peek(const std::string& queue, std::uint32_t limit = 100,
                              Sequence from = 0);
  // Null: it was refused, or the answer waits for a commit.
  std::shared_ptr<const AttemptsReport> attempts(const std::string& queue, Sequence sequence);
  std::shared_ptr<const AttemptsReport> last_attempts() const { return last_attempts_; }
  std::vector<DeadLetterSeen> dead_letters(const std::string& queue);

  // ---- what came back since it was last asked for ----
  std::vector<Received> deliveries();
  // Sequences only.
  std::vector<Sequence> delivered();
  std::optional<ConfirmReply> confirm_of(std::uint64_t correlation) const;
  std::optional<Status> error_of(std::uint64_t correlation) const;
  bool is_ok(std::uint64_t correlation) const { return oks_.contains(correlation); }
  std::vector<LeaseLostNotice> lost_leases();
  std::vector<ConsumerEndedNotice> ended_consumers();
  SettledReply last_settled() const { return last_settled_; }
  Status last_error() const { return last_error_; }
  QueueReport report(const std::string& queue);
  QueueId id_of(const std::string& queue) { return report(queue).id; }

  // Reads of blocks so far.
  std::size_t fetches() const { return fetches_; }
  // Reads of older ids so far.
  std::size_t ids_requests() const { return ids_requests_; }

  Core& core() { return *core_; }
  MemoryStore store;

 private:
  Asker ask(SessionId session = SessionId(1));
  void open(SessionId session);
  void start();
  void take_batches();
  void take_effects();
  MovedReply move(const std::string& queue, std::vector<Sequence> sequences, bool all,
                  std::uint32_t limit, bool redrive, Sequence to = 0, bool dry_run = false);

  CoreOptions options_;
  Now now_;
  std::unique_ptr<Core> core_;
  std::map<SessionId, bool> open_sessions_;
  std::uint64_t last_correlation_ = 0;
  std::size_t fetches_ = 0;
  std::size_t ids_requests_ = 0;
  bool holding_fetches_ = false;
  std::vector<FetchRequest> fetches_waiting_;
  bool holding_reads_ = false;
  std::vector<IdsRequest> ids_waiting_;
  bool holding_commits_ = false;
  Batches held_;
  std::vector<Received> deliveries_;
  std::vector<LeaseLostNotice> lost_leases_;
  std::vector<ConsumerEndedNotice> ended_consumers_;
  std::vector<ConfirmReply> confirms_;
  std::map<std::uint64_t, Status> errors_;
  std::set<std::uint64_t> oks_;
  SettledReply last_settled_;
  Status last_error_;
  std::shared_ptr<const QueueReport> last_report_;
  std::optional<MovedReply> last_moved_;
  std::vector<PeekReply> peeked_;
  std::shared_ptr<const AttemptsReport> last_attempts_;
  std::vector<std::vector<std::uint8_t>> kept_;  // bytes that peeked entries point into
};

// Every sequence from the first to the last.
std::vector<Sequence> range(Sequence first, Sequence last);
// A finished wire::Message.
std::vector<std::uint8_t> encode_test_message(const std::string& id, const std::string& body);

}  // namespace holdfast::broker
