// One run: a core, a store in memory, clients, time and what goes wrong, all chosen by a seed. A
// disk that takes its time: batches are applied and reported, and blocks read and handed over, as
// separate steps, so that a crash can fall between any two of them. After the given number of steps
// the faults stop, everything is drained, and nothing may be left.

#pragma once

#include <fmt/format.h>

#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "sim/model.h"
#include "sim/script.h"
#include "support/memory_store.h"

namespace holdfast::broker::sim {

// Ways to break the broker, to show that a run finds it.
enum class Sabotage : std::uint8_t {
  kNothing,
  kConfirmBeforeCommit,  // says committed first; what a crash then loses was confirmed
  kDropAcks,             // what was settled above the floor is not stored
  kDropBlock,            // now and then a block is not stored
  kForgetAttempts,       // no record of a retry is stored
  kForgetWatermark,      // nor how far first deliveries may have come
  kForgetIds,            // nor the ids of the dedup window
  kKeepBlocks,           // blocks whose messages are settled stay in the store
  kOtherBytes,           // a cold read gives other bytes, whose checksum is right
};
std::optional<Sabotage> find_sabotage(std::string_view name);
std::vector<std::string> sabotage_names();

// Among the clients; client 0 manages.
inline constexpr std::size_t kPublisher = 1;

// What went wrong in a run, besides the crashes, which the model counts.
struct Faults {
  std::uint64_t frames_lost = 0;
  std::uint64_t frames_repeated = 0;
  std::uint64_t confirms_lost = 0;
  std::uint64_t retried = 0;  // publishes, with the id of one that was not answered
  std::uint64_t commits_failed = 0;
  std::uint64_t commits_without_room = 0;
  std::uint64_t commits_slow = 0;
  std::uint64_t commits_joint = 0;  // of several batches
  std::uint64_t clock_jumps = 0;
};

class World {
 public:
  World(std::uint64_t seed, Sabotage sabotage, bool print_events);
  // The broken promise; nullopt if all were kept.
  std::optional<std::string> run(std::uint64_t steps);
  const std::deque<std::string>& last_events() const { return events_; }
  const Model::Counts& counts() const { return model_.counts(); }
  const Faults& faults() const { return faults_; }

 private:
  struct Reading {
    FetchRequest request;
    std::optional<FetchResult> result;  // once read
  };
  struct Unanswered {
    QueueId queue;
    std::string id;
  };

  // ---- world.cc: time, disk, crashes ----
  void start();
  void crash(bool gracefully);
  void shut_down();
  void fail_commit();
  void pass(Milliseconds duration);
  void take_effects();
  void tell(const Effect& effect);
  bool commit_step();
  bool fetch_step();
  void settle_down();
  void take_batches();
  CommitResult apply(const Batches& batches);
  Batch as_stored(const Batch& batch);  // by the sabotage
  FetchResult read(const FetchRequest& request);
  bool read_ids_step();
  void drain();
  void ack_everything();
  bool drained();
  void look();
  void rest();
  // As the core tells it now.
  std::vector<QueueReport> list_queues();
  template <typename... Values>
  void note(fmt::format_string<Values...> format, Values&&... values) {
    note_text(fmt::format(format, std::forward<Values>(values)...));
  }
  void note_text(std::string text);

  // ---- actions.cc: what clients and people do ----
  void act(Action action);
  Asker ask(SessionId session) { return {session, ++last_correlation_}; }
  SessionId session(std::size_t which);
  std::map<QueueId, std::string> queues_known() const;  // not deleted, as far as is known
  std::optional<QueueId> some_queue(bool dead);
  std::optional<ConsumerId> some_consumer();
  void create_missing_queues();
  void publish_some();
  void publish_one(QueueId queue, std::string id);
  bool retry_one();
  void hear(const Effect& effect);
  std::string some_id();
  void subscribe(QueueId queue, std::uint32_t credit, std::uint32_t lease_ms, SessionId session);
  void settle_some();
  void settle(ConsumerId consumer, wire::SettleKind kind, std::vector<Sequence> sequences,
              std::optional<Milliseconds> delay);
  void extend_some();
  void change_credit();
  void disconnect(std::size_t client);
  bool frame_is_lost(SessionId session);
  void change_room();
  void give_room(SessionId id, std::uint64_t bytes);
  void change_unread();
  void purge();
  void edit();
  void delete_queue();
  void move();
  void peek();
  void ask_attempts();
  Pending pending(Kind kind, SessionId session, QueueId queue = QueueId());

  Sabotage sabotage_;
  bool print_events_;
  Script script_;
  Model model_;
  MemoryStore store_;
  Now now_;
  std::unique_ptr<Core> core_;
  Batches batches_;                          // under way
  std::optional<CommitResult> commit_done_;  // and durable
  std::deque<Reading> readings_;
  std::deque<IdsRequest> ids_readings_;
  std::map<std::size_t, SessionId> sessions_;  // by the client they belong to
  std::uint64_t last_session_ = 0;
  std::uint64_t last_correlation_ = 0;
  std::uint64_t last_id_ = 0;
  // What the publisher asked for and has no answer to; and that of ended connections, to be asked
  // for again.
  std::map<std::uint64_t, Unanswered> unanswered_;
  std::deque<Unanswered> retries_;
  bool publisher_broken_ = false;  // a confirm was lost, and its connection with it
  bool faults_stopped_ = false;
  std::uint64_t attempts_without_room_ = 0;  // of the commit under way
  Faults faults_;
  std::vector<QueueReport> listed_;
  std::string messages_left_;
  std::deque<std::string> events_;
};

}  // namespace holdfast::broker::sim
