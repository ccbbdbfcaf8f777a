// The ledger: what was asked of the broker and what it promised, told entry by entry from the log,
// and what a store must hold and must not hold because of it. Nothing in it comes from the broker.

#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "disk/log.h"

namespace holdfast::disk {

// What a store was found to hold, without what is settled.
struct Found {
  struct Stored {
    std::uint32_t message = 0;
    std::uint32_t queue = 0;
    bool dead = false;  // in the queue's dead-letter queue
  };
  std::vector<Stored> stored;
  std::set<std::uint32_t> queues;
};

struct MessageState {
  std::uint32_t queue = 0;
  std::uint32_t asked = 0;
  std::uint32_t refused = 0;
  bool confirmed = false;
  std::uint64_t sequence = 0;  // of the confirm
  std::uint32_t acks_open = 0;
  bool acked = false;
  std::uint32_t rejects_open = 0;
  bool rejected = false;            // and not redriven since
  bool redriven_meanwhile = false;  // while a reject is open
  bool must_exist = false;          // unless something below says otherwise
  bool perhaps_gone = false;        // a purge or an ack that no answer came to
  bool purge_asked = false;         // of what was confirmed before
  bool purged = false;
};

struct QueueState {
  bool created = false;
  bool delete_asked = false;
  bool deleted = false;
  std::uint32_t redrives_open = 0;  // in this life
};

class Ledger {
 public:
  void tell(const Entry& entry);

  // What contradicts a promise, as a sentence; nullopt: nothing.
  std::optional<std::string> check(const Found& found) const;

  const std::map<std::uint32_t, QueueState>& queues() const { return queues_; }
  // By number; `asked` is 0 for one that was never used.
  const std::vector<MessageState>& messages() const { return messages_; }

  struct Counts {
    std::uint64_t confirmed = 0;
    std::uint64_t duplicates = 0;
    std::uint64_t acked = 0;
    std::uint64_t rejected = 0;
    std::uint64_t deleted = 0;
    std::uint64_t lives = 0;
  };
  const Counts& counts() const { return counts_; }

 private:
  MessageState& message(const Entry& entry);
  void confirm(const Entry& entry);
  std::optional<std::string> check_message(std::uint32_t number, std::uint32_t main,
                                           std::uint32_t dead) const;
  std::optional<std::string> check_queues(const Found& found) const;

  std::vector<MessageState> messages_;
  std::map<std::uint32_t, QueueState> queues_;
  Counts counts_;
  std::optional<std::string> finding_;  // something was said that must not be
};

}  // namespace holdfast::disk
