// A publisher under load: publishes as fast as its window allows, now and then an id that was
// confirmed before, and tells the ledger what it asked and what it was answered.

#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "crash/ledger.h"
#include "crash/random.h"
#include "holdfast/client.h"

namespace holdfast::crash {

struct ProducerPlan {
  std::string name;  // part of its ids: unique in the run
  std::uint64_t seed = 0;
  std::vector<std::string> queues;
  bool synchronous = false;   // one publish at a time, by the blocking call
  std::uint32_t window = 32;  // else so many unconfirmed
  std::uint32_t messages_max = 2'500;
};

class Producer {
 public:
  Producer(ClientOptions options, Ledger& ledger, ProducerPlan plan);
  ~Producer();  // stop(), and closes its client: what is unconfirmed is given up
  Producer(const Producer&) = delete;
  Producer& operator=(const Producer&) = delete;

  // Connects and begins.
  Status start();
  // Publishes nothing new, and waits for its thread.
  void stop();
  // After stop(): waits until everything that was published got its answer. Empty, or an id that
  // got none in time.
  std::string wait_answered(std::chrono::milliseconds timeout);

 private:
  void run();
  bool wait_for_room();
  std::string choose_id(const std::string& queue);
  void publish(const std::string& queue, const std::string& id);
  void answered(const std::string& id, const Result<PublishReceipt>& result);

  const ClientOptions options_;
  Ledger& ledger_;
  const ProducerPlan plan_;
  Random random_;
  std::uint32_t published_ = 0;  // by its own thread

  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;
  std::multiset<std::string> unanswered_;

  std::optional<Client> client_;
  std::thread thread_;
};

}  // namespace holdfast::crash
