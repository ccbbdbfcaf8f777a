// The broker as a process of its own: started, awaited, killed, and never left behind.

#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "holdfast/status.h"

namespace holdfast::crash {

class BrokerProcess {
 public:
  // `directory` gets the data (in data/) and what the broker says (broker.log). `more_arguments`
  // follow --data and --listen.
  BrokerProcess(std::filesystem::path binary, std::filesystem::path directory, std::uint16_t port,
                std::vector<std::string> more_arguments = {});
  ~BrokerProcess();  // kill()
  BrokerProcess(const BrokerProcess&) = delete;
  BrokerProcess& operator=(const BrokerProcess&) = delete;

  // Starts it and returns at once. It must not be running.
  Status start();
  // Until it says that it is ready; kTimeout, or kInternal if it ended instead.
  Status wait_ready(std::chrono::milliseconds timeout);
  // SIGTERM, upon which it drains, and returns at once. It must be running.
  void terminate();
  // SIGKILL, and waits for the end. kInternal if it had ended by itself before, with its last
  // words; but after terminate() it may have ended well.
  Status kill();
  // The last kill() came after the broker had drained and ended, as terminate() told it.
  bool had_drained() const { return had_drained_; }
  // It has said since its start that it is ready.
  bool is_ready() const;
  bool running() const { return pid_ > 0; }

  std::string address() const { return "127.0.0.1:" + std::to_string(port_); }
  std::filesystem::path data_directory() const { return directory_ / "data"; }

 private:
  std::string said_since_start() const;
  Status ended_by_itself(int wait_status);

  const std::filesystem::path binary_;
  const std::filesystem::path directory_;
  const std::uint16_t port_;
  const std::vector<std::string> more_arguments_;
  pid_t pid_ = -1;
  bool is_draining_ = false;
  bool had_drained_ = false;
  std::uintmax_t log_begin_ = 0;
};

// A port of the loopback that nobody listens on now, below those that the system gives to outgoing
// connections, so that no client can take it while the broker is down.
std::uint16_t free_port(std::uint64_t seed);

}  // namespace holdfast::crash
