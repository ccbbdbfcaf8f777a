// What is done to the broker. An attack runs on a thread of its own until it is told to stop, and
// leaves nothing open behind it.

#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "crash/random.h"
#include "hostile/launcher.h"

namespace holdfast::hostile {

// Whom, and with what.
struct Target {
  std::string address;
  std::uint16_t port = 0;
  SlowDisk* disk = nullptr;
  std::string own_binary;  // starts children that are stopped
};

class Attack {
 public:
  explicit Attack(std::string name) : name_(std::move(name)) {}
  virtual ~Attack() = default;
  Attack(const Attack&) = delete;
  Attack& operator=(const Attack&) = delete;

  virtual void run(const std::atomic<bool>& stop) = 0;
  // Done by itself, before it was told to stop.
  virtual bool done() const { return false; }

  const std::string& name() const { return name_; }
  // How often the fault was there, in words_for_hits(); with fewer than hits_min() the run is void.
  std::uint64_t hits() const { return hits_; }
  virtual std::string_view words_for_hits() const = 0;
  virtual std::uint64_t hits_min() const { return 1; }
  // By how much the broker's memory may grow because of it, at most.
  virtual std::uint64_t memory_bytes_max() const = 0;
  // By how much the steady pair may be slower because of it, besides the ordinary bound.
  virtual std::chrono::milliseconds delay_max() const { return std::chrono::milliseconds(0); }
  // The broker has next to nothing to do because of it.
  virtual bool is_idle() const { return false; }
  // What went wrong; for reading after run().
  const std::vector<std::string>& violations() const { return violations_; }

 protected:
  std::atomic<std::uint64_t> hits_{0};
  std::vector<std::string> violations_;

 private:
  const std::string name_;
};

// consumers.cc
std::unique_ptr<Attack> never_reading_consumers(const Target& target, std::uint32_t connections);
std::unique_ptr<Attack> slowly_reading_consumers(const Target& target, std::uint32_t connections);
std::unique_ptr<Attack> stopped_consumers(const Target& target, std::uint32_t processes);
// What the child of stopped_consumers() does; its exit code.
int consume_until_stopped(const std::string& address);

// connections.cc
std::unique_ptr<Attack> slow_loris(const Target& target, std::uint32_t connections);
std::unique_ptr<Attack> half_frames(const Target& target, std::uint32_t connections);
std::unique_ptr<Attack> resets(const Target& target, std::uint64_t total, std::uint64_t seed);
// Opens connections until the broker takes no more, and keeps trying.
std::unique_ptr<Attack> exhaustion(const Target& target, std::uint32_t connections_max);
std::unique_ptr<Attack> garbage(const Target& target, std::uint32_t connections,
                                std::uint64_t seed);

// slow_disk.cc
// `alone`: nobody else takes from the held queue, so that what a consumer gets of it can be
// counted.
std::unique_ptr<Attack> slow_disk(const Target& target, std::chrono::milliseconds delay,
                                  std::uint32_t publishers, bool alone);
// While a flush takes this long: connections that ask for what waits for it, and go.
std::unique_ptr<Attack> askers_that_go(const Target& target, std::chrono::milliseconds delay);

}  // namespace holdfast::hostile
