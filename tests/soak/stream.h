// A stream: a broker of its own through whose one queue messages pass at a steady rate, and samples
// of what it takes of memory and disk.

#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <filesystem>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "crash/broker_process.h"
#include "holdfast/client.h"

namespace holdfast::soak {

struct StreamPlan {
  std::string name;
  std::uint64_t rate = 0;  // messages a second
  std::size_t body_bytes = 1024;
  // The first message is held unsettled until the end.
  bool keeps_first = false;
  // Of this many messages one is nacked once, to come again after `retry_delay`; 0: none.
  std::uint64_t one_retried_of = 0;
  std::chrono::milliseconds retry_delay{0};
};

struct Sample {
  std::uint64_t published = 0;  // confirmed
  std::uint64_t acked = 0;      // durably
  std::uint64_t rss_anon_bytes = 0;
  std::uint64_t used_bytes = 0;     // of the store, as the broker tells
  std::uint64_t on_disk_bytes = 0;  // blocks of all files in the data directory
  std::uint64_t live_bytes = 0;     // messages that are not settled, and 16 bytes for each known id
  std::uint64_t messages = 0;       // that are not settled
};

class Stream {
 public:
  // `directory` must exist.
  Stream(StreamPlan plan, const std::string& broker, const std::filesystem::path& directory);
  ~Stream();
  Stream(const Stream&) = delete;
  Stream& operator=(const Stream&) = delete;

  Status start();
  Result<Sample> sample();
  // Stops publishing and settles what is left of it, but for what waits for its retry: returns an
  // error if a message was lost, refused, or came changed.
  Status finish(std::chrono::seconds timeout);
  const StreamPlan& plan() const { return plan_; }

 private:
  void publish_until_stopped();
  void handle(Delivery delivery);
  void complain(const Status& status);
  Status first_complaint();

  const StreamPlan plan_;
  const std::filesystem::path directory_;
  crash::BrokerProcess broker_;
  std::optional<Client> client_;
  std::optional<Consumer> consumer_;
  std::thread producer_;
  std::atomic<bool> stopping_{false};
  std::atomic<std::uint64_t> published_{0};
  std::atomic<std::uint64_t> acked_{0};
  std::atomic<std::uint64_t> nacked_{0};
  pid_t pid_ = 0;

  std::mutex mutex_;
  std::optional<Delivery> first_;    // under mutex_
  std::optional<Status> complaint_;  // likewise
};

}  // namespace holdfast::soak
