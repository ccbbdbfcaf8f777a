// A well-behaved publisher and consumer, on connections that must not be lost: what others do to
// the broker may not be felt here.
//
// It publishes at a steady pace and checks what it gets: everything confirmed arrives, byte for
// byte, first deliveries in order, nothing again after its ack was confirmed.

#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <unordered_map>
#include <vector>

#include "holdfast/client.h"

namespace holdfast::hostile {

// From the call of publish to its confirm, and to the receipt; in milliseconds.
struct Latency {
  double p50 = 0;
  double p99 = 0;
  double max = 0;
};

struct PairPhase {
  std::uint64_t published = 0;
  double shortest_confirm_ms = 0;
  Latency confirm;
  Latency receipt;
};

class SteadyPair {
 public:
  SteadyPair(std::string address, std::string queue, std::chrono::microseconds pace);
  ~SteadyPair();
  SteadyPair(const SteadyPair&) = delete;
  SteadyPair& operator=(const SteadyPair&) = delete;

  // Creates the queue, connects and begins.
  Status start();
  // Publishes nothing more, waits until everything is confirmed and acked.
  void stop();
  void begin_phase();
  // Of the messages published since; what is not answered yet counts with the time until now.
  PairPhase end_phase();
  std::vector<std::string> violations() const;

 private:
  using Clock = std::chrono::steady_clock;
  struct Sent {
    Clock::time_point at;
    bool confirmed = false;
    bool acked = false;
  };

  void publish_steadily();
  void confirmed(std::uint64_t number, const Result<PublishReceipt>& receipt);
  void received(Delivery delivery);
  void acked(std::uint64_t number, const Status& status);
  void forget_if_done(std::uint64_t number);
  void violate(std::string sentence);

  const std::string address_;
  const std::string queue_;
  const std::chrono::microseconds pace_;
  std::atomic<bool> stopping_{false};

  mutable std::mutex mutex_;
  std::condition_variable changed_;
  std::unordered_map<std::uint64_t, Sent> open_;  // by number
  std::uint64_t published_ = 0;
  std::uint64_t last_sequence_ = 0;
  std::uint64_t phase_begins_ = 0;  // number of its first message
  std::vector<double> confirm_ms_;
  std::vector<double> receipt_ms_;
  std::vector<std::string> violations_;

  std::optional<Client> publisher_;
  std::optional<Client> receiver_;
  std::optional<Consumer> consumer_;
  std::thread thread_;
};

}  // namespace holdfast::hostile
