// The broker: sockets, sessions, core and store joined on one libuv loop.
//
// Happy path of a turn: the loop reads sockets, every frame becomes a request to the core; before
// the loop waits again, the pump hands the next batches to the store, turns what the core said into
// frames, and writes to each connection once. Commits and reads report back through StoreLink.
//
// Drain: no new connections, Goodbye to all, settles go on; when the core is drained and everything
// has been sent, or the deadline has passed, the connections are closed, the last batch is
// committed, and run() returns.
//
// Failures: when the store fails, run() returns its error at once; nothing that was said after the
// failure leaves the process.
//
// Everything but request_drain() belongs to the thread that calls run().

#pragma once

#include <uv.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.h"
#include "core/core.h"
#include "net/connection.h"
#include "net/deadlines.h"
#include "net/listener.h"
#include "net/log.h"
#include "net/peers.h"
#include "net/reply.h"
#include "net/session.h"
#include "net/store_link.h"
#include "store/store.h"

namespace holdfast::broker {

struct BrokerOptions {
  std::string listen = "127.0.0.1:7411";  // HOST:PORT, port 0: a free one; empty: no TCP
  std::string unix_path;                  // empty: no unix socket
  std::string data_directory;             // for people to read
  CoreOptions core;
  SessionOptions session;  // its node_id comes from the store
  ConnectionOptions connection;
  DeadlineOptions deadlines;
  PeerLimits limits;
  Milliseconds drain{4'000};      // told to clients as their time to settle
  Milliseconds drain_grace{500};  // after it, before connections are closed
};

class Broker final : private BrokerFacts, private StoreLinkOwner {
 public:
  // Reads the state from the store, starts it, and listens. `loop`, `store` and `log` outlive the
  // broker. Errors are the store's and the listeners'; then nothing listens.
  static Result<std::unique_ptr<Broker>> start(uv_loop_t& loop, Store& store, Log& log,
                                               BrokerOptions options);
  // Closes what is open, the store included, without sending anything more.
  ~Broker() override;

  // Runs the loop until drained, or until the store has failed. Ok: everything is committed, the
  // store and all sockets are closed.
  Status run();
  // Begins to drain; a second call ends that at once after the commit under way. Any thread.
  void request_drain();

  // Where it listens: "127.0.0.1:7411", "unix:/run/holdfast.sock".
  std::vector<std::string> addresses() const;

 private:
  // What is counted and told in the log at most once in a while.
  struct ToldSeldom {
    // How many are to be told now; 0: none.
    std::uint64_t due(std::uint64_t counted, MonotonicTime now);

    std::uint64_t told = 0;
    MonotonicTime next_at{};
  };
  enum class Phase : std::uint8_t { kServing, kDraining, kCommittingLast, kDone, kFailed };

  Broker(uv_loop_t& loop, Store& store, Log& log, BrokerOptions options);
  Status load();
  Status listen();

  // BrokerFacts
  std::size_t append_status(std::uint64_t correlation, FrameWriter& out, Now now) override;
  std::size_t append_connections(std::uint64_t correlation, std::uint64_t from, FrameWriter& out,
                                 Now now) override;

  // StoreLinkOwner
  void on_committed(const CommitResult& result) override;
  void on_fetched(const FetchResult& result) override;
  void on_ids_fetched(const IdsResult& result) override;
  void on_space(const SpaceReport& space) override;
  void on_store_failed(const Status& status) override;

  void pump();
  bool pump_round(Now now);
  bool gathers_more() const;
  void advance_core(Now now);
  void arm_timer(Now now);
  void note_space(const SpaceReport& space);
  void tell_counted(MonotonicTime now);
  void answer_drain_requests(Now now);
  void advance_drain(Now now);
  void tell_unsettled(Now now);
  void close_listeners();
  void tear_down();

  uv_loop_t& loop_;
  Store& store_;
  Log& log_;
  BrokerOptions options_;
  Core core_;
  ReplyEncoder encoder_;
  SessionContext context_;
  Peers peers_;
  std::optional<StoreLink> link_;

  uv_prepare_t prepare_;
  uv_timer_t timer_;
  uv_idle_t again_;             // running: the pump has more to do, so the loop does not wait
  bool looks_first_ = false;    // at its sockets, in this turn, before the core does what is due
  bool has_committed_ = false;  // since the last turn
  bool holds_back_ = false;     // the next batch, until the turn after this one
  uv_async_t drain_signal_;
  int handles_open_ = 0;
  std::vector<std::unique_ptr<Listener>> listeners_;
  std::vector<std::unique_ptr<Listener>> closing_listeners_;
  std::size_t listeners_open_ = 0;  // closing ones included

  std::atomic<int> drains_requested_ = 0;
  Phase phase_ = Phase::kServing;
  bool hurry_ = false;
  bool publishes_allowed_ = true;
  bool commits_wait_ = false;
  ToldSeldom turned_away_told_;
  ToldSeldom corrupt_told_;
  ToldSeldom room_refusals_told_;
  ToldSeldom moves_held_up_told_;
  ToldSeldom ids_cut_short_told_;
  bool torn_down_ = false;
  MonotonicTime started_at_;
  MonotonicTime drain_until_;
  std::optional<MonotonicTime> armed_for_;
  std::optional<CoreReport> report_;  // shared by those that ask before anybody is told more
  Status failure_;
};

}  // namespace holdfast::broker
