// A broker behind a bad network, killed now and then, until so many replies were lost.
//
// Producers publish and consumers settle through the proxy; whatever reply is lost, the client
// library asks again. Then the load ends, new clients drain the queues without the proxy, the
// broker is killed and started a last time, and what it says it holds is compared with the ledger
// (crash/ledger.h says what is checked; orderly.h adds the order of first deliveries).
//
// Before that: duplicates whose original is not durable yet; see early_duplicates().

#pragma once

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "crash/broker_process.h"
#include "crash/drain.h"
#include "crash/ledger.h"
#include "crash/producer.h"
#include "crash/random.h"
#include "crash/settler.h"
#include "holdfast/client.h"
#include "hostile/launcher.h"
#include "network/orderly.h"
#include "network/proxy.h"

namespace holdfast::network {

struct TrialPlan {
  std::filesystem::path broker;
  std::filesystem::path shim;       // hostile/slow_disk_shim.cc
  std::filesystem::path directory;  // exists, empty
  std::uint64_t seed = 0;
  std::uint64_t retries = 2'000;       // publishes whose reply was lost and that were retried
  std::uint32_t early_duplicates = 8;  // kills at the confirm of a duplicate
};

struct TrialResult {
  std::vector<std::string> violations;
  crash::LedgerCounts counts;
  ProxyCounts proxy;
  std::uint64_t kills = 0;
  std::uint64_t early_duplicates = 0;
  std::uint64_t slow_flushes = 0;  // of the disk, while they were sent
  std::uint64_t firsts = 0;
};

class Trial {
 public:
  explicit Trial(const TrialPlan& plan);
  TrialResult run();

 private:
  bool found_something() const { return !ledger_.violations().empty(); }
  ClientOptions client_options(const std::string& name, const std::string& address) const;
  bool create_queues();
  void early_duplicates();
  void early_duplicate(const std::string& id);
  std::vector<std::uint64_t> sequences_of(const std::string& queue, const std::string& id);
  void start_load();
  void lose_replies();
  void end_load();
  void start_broker();
  void kill_broker();

  const TrialPlan plan_;
  crash::Random random_;
  crash::Ledger ledger_;
  hostile::SlowDisk disk_;
  const std::uint16_t port_;
  crash::BrokerProcess broker_;
  crash::Drain drain_;
  crash::Life life_ = 0;
  std::unique_ptr<Proxy> proxy_;
  std::vector<std::unique_ptr<crash::Producer>> producers_;
  std::unique_ptr<crash::Settler> settlers_[2];
  std::unique_ptr<OrderlyConsumer> orderly_;
  TrialResult result_;
};

}  // namespace holdfast::network
