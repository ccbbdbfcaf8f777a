// A consumer that settles in every way there is, and tells the ledger what it saw, asked and was
// answered.

#pragma once

#include <chrono>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>

#include "crash/ledger.h"
#include "crash/random.h"
#include "holdfast/client.h"

namespace holdfast::crash {

enum class Mood {
  kMixed,  // mostly acks; also nacks, rejects, releases, lets go of some and keeps some too long
  kDrain,  // acks everything but what always fails
};

struct SettlerPlan {
  std::string name;
  std::string queue;
  std::uint64_t seed = 0;
  Mood mood = Mood::kMixed;
  Life life = 0;  // the broker's when the settler is made
};

class Settler {
 public:
  Settler(ClientOptions options, Ledger& ledger, SettlerPlan plan);
  ~Settler();  // stop()
  Settler(const Settler&) = delete;
  Settler& operator=(const Settler&) = delete;

  Status start();
  // Gives back what it keeps, waits for the answers of what it settled, closes its client.
  void stop();

  // Whether a message of this id fails at every attempt, in every mood.
  static bool always_fails(std::string_view id) { return mix(hash_text(id)) % 40 == 0; }

 private:
  struct Kept {
    Delivery delivery;
    Ticket ticket;
    std::chrono::steady_clock::time_point since;
  };

  void handle(Delivery delivery);
  void handle_mixed(Delivery delivery, Ticket ticket);
  void settle(Delivery& delivery, Ticket ticket, Settlement settlement);
  void keep(Delivery delivery, Ticket ticket);
  void settle_what_was_kept_too_long();

  const ClientOptions options_;
  Ledger& ledger_;
  const SettlerPlan plan_;

  std::mutex mutex_;
  Random random_;
  std::deque<Kept> kept_;  // oldest first

  std::optional<Client> client_;
  std::optional<Consumer> consumer_;
};

}  // namespace holdfast::crash
