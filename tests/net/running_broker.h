// A broker that runs on a thread of its own, on loopback, over a store in memory whose commits a
// test can hold back or let fail.

#pragma once

#include <uv.h>

#include <condition_variable>
#include <cstdint>
#include <cstdio>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "net/broker.h"
#include "support/memory_store.h"
#include "support/raw_client.h"

namespace holdfast::test {

// MemoryStore behind the contract of Store: commits on a thread of its own.
class HeldStore final : public broker::Store {
 public:
  HeldStore();
  ~HeldStore() override;

  // From now on commits wait until let_go().
  void hold();
  void let_go();
  // The next commit, or the one that is held, fails; if none comes, closing does.
  void fail_next();
  // Waits until a commit is held.
  void wait_for_commit();
  // Lets go, and waits until the commit has been reported.
  void let_go_and_wait();
  // Reports the room as a committer does that looks at it, or waits for it; so do commits from then
  // on.
  void tell_space(broker::SpaceReport report);
  void set_room_of_commits(broker::SpaceReport report);
  void flip_bit_in_message(QueueId queue, Sequence sequence);

  Result<broker::StoredState> load() override;
  Result<std::uint64_t> load_dedup(const broker::DedupLoader& loader) override;
  void start(std::function<void(broker::CommitResult)> committed, std::function<void(Status)> fatal,
             std::function<void(broker::SpaceReport)> space) override;
  void commit(broker::Batches batches) override;
  Result<broker::FetchResult> fetch_blocking(const broker::FetchRequest& request) override;
  Result<broker::IdsResult> fetch_ids_blocking(const broker::IdsRequest& request) override;
  void close() override;

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable changed_;
  broker::MemoryStore memory_;
  broker::Batches batches_;
  std::function<void(broker::CommitResult)> committed_;
  std::function<void(Status)> fatal_;
  std::function<void(broker::SpaceReport)> space_;
  bool held_ = false;
  bool telling_ = false;
  bool fails_ = false;
  bool closed_ = false;
  std::thread committer_;
};

// Options with a free port; deadlines as in production unless a test shortens them.
broker::BrokerOptions loopback_options();
// A drain that does not end by itself does so after 40 ms.
broker::BrokerOptions short_drain_options();

class RunningBroker {
 public:
  explicit RunningBroker(broker::BrokerOptions options = loopback_options());
  // Over this store instead of the one in memory.
  RunningBroker(broker::BrokerOptions options, std::unique_ptr<broker::Store> store);
  // Stops it at once.
  ~RunningBroker();

  HeldStore& store() { return *held_store_; }
  // What its log holds by now.
  std::string logged() const;
  const std::string& address() const { return address_; }
  // A connection that has said Hello.
  RawClient connect(std::string_view name = "raw", std::uint32_t heartbeat_ms = 0);
  // One that has not.
  RawClient connect_silently() { return RawClient(address_); }
  void request_drain() { broker_->request_drain(); }
  // The loop's thread does nothing but this, between looking at its sockets and at its clock. What
  // it does may call this again: that is done in the next turn.
  void on_loop(std::function<void()> work);
  // Waits until run() has returned, and gives what it returned.
  Status wait();
  // Destroys the broker, as the end of the process would.
  void destroy() { broker_.reset(); }

 private:
  void start(broker::BrokerOptions options);

  uv_loop_t loop_;
  uv_async_t on_loop_signal_;
  std::mutex on_loop_mutex_;
  std::function<void()> on_loop_work_;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> log_file_{std::tmpfile(), std::fclose};
  broker::Log log_{log_file_.get()};
  std::unique_ptr<broker::Store> store_;
  HeldStore* held_store_ = nullptr;
  std::unique_ptr<broker::Broker> broker_;
  std::string address_;
  std::thread thread_;
  Status outcome_;
};

// What ConnectionList says of the connection with this name.
struct SeenConnection {
  bool reading = true;
  std::uint64_t output_bytes = 0;
  std::uint64_t unconfirmed_bytes = 0;
  std::uint64_t frames_in = 0;
};
SeenConnection look_at(RawClient& watcher, std::string_view name);
// How many connections the broker has.
std::uint32_t count_connections(RawClient& watcher);

}  // namespace holdfast::test
