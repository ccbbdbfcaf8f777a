// What must be true of a broker that is killed at any moment, kept outside of it.
//
// The ledger is told what the harness asked of the broker, what the broker answered, and what it
// delivered; it never asks the broker. Each answer and each delivery is checked at once against all
// that came before, and after a drain everything that is still owed is checked:
//
// - A confirmed message was received, or is in the dead-letter queue, byte for byte.
// - After a confirmed ack or reject no settle that is asked for later is confirmed, and a client
// that
//   connected after the next start of the broker never receives the message again. (Two acks under
//   way at once may both be confirmed: when one consumer holds two deliveries of a message, one
//   settle answers both.)
// - An id has one sequence, a sequence one id; publishing an id again gives its first sequence.
// - Attempt numbers are used again only as often as deliveries were given back, and none is above
//   the limit.
// - What was rejected, or failed its last attempt, is in the dead-letter queue, once.
//
// A request whose answer never came may have happened or not; then either is right.
//
// Threads: every method may be called from any thread.

#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "holdfast/message.h"
#include "holdfast/status.h"

namespace holdfast::crash {

enum class Settlement { kAck, kNack, kReject, kRelease };
std::string_view settlement_name(Settlement settlement);

// A life of the broker: from one start to the next kill, numbered from 1.
using Life = std::uint32_t;

// One delivery as a handler saw it; shown again when it is settled.
struct Ticket {
  std::string id;
  std::uint32_t attempt = 0;
  std::uint64_t asked_at = 0;  // the ledger's count of events when the settle was asked for
};

struct LedgerCounts {
  std::uint64_t asked = 0;
  std::uint64_t confirmed = 0;   // first confirms
  std::uint64_t duplicates = 0;  // publishes answered as duplicates
  std::uint64_t delivered = 0;
  std::uint64_t acked = 0;
  std::uint64_t nacked = 0;
  std::uint64_t rejected = 0;
  std::uint64_t unanswered_settles = 0;
  std::uint64_t dead = 0;
  std::uint64_t redriven = 0;
};

class Ledger {
 public:
  Ledger(std::uint64_t seed, std::uint32_t attempts_max);

  // The body and headers that belong to an id.
  std::string body_of(std::string_view id) const;
  static Headers headers_of(std::string_view id);

  // ---- publishing ----
  void publish_asked(std::string_view queue, const std::string& id);
  void publish_confirmed(const std::string& id, const PublishReceipt& receipt);
  // kCancelled, kConnectionLost, kTimeout: nobody knows. Anything else was not to be expected.
  void publish_unanswered(const std::string& id, const Status& status);
  // A confirmed id of this queue, chosen by `choice`, for publishing it again; empty: there is
  // none.
  std::string confirmed_id(std::string_view queue, std::uint64_t choice) const;

  // ---- consuming ----
  // To a handler. `client_since` is the life in which this consumer's client was made: what comes
  // to it was sent in that life or later.
  Ticket delivered(const StoredMessage& message, Life client_since);
  void settle_asked(Ticket& ticket, Settlement settlement);
  void settle_ended(const Ticket& ticket, Settlement settlement, const Status& status);
  // Dropped unsettled: the client gives it back, if the connection still stands.
  void given_back(const Ticket& ticket);

  // ---- lives ----
  void broker_started(Life life);

  // ---- after a drain: `queue` is empty, `dead_letters` is all of its dead-letter queue ----
  void check_drained(std::string_view queue, const std::vector<StoredMessage>& dead_letters);
  // All dead letters of the queue were removed; nothing of them may come again.
  void dead_letters_discarded(std::string_view queue);
  // A redrive was asked for; `left` is what the dead-letter queue holds since.
  void dead_letters_redriven(std::string_view queue, const std::vector<StoredMessage>& left);

  // What the harness itself found, e.g. a broker that ended by itself.
  void add_violation(const std::string& sentence);
  std::vector<std::string> violations() const;
  LedgerCounts counts() const;
  // The story of one message, for a sentence of the harness.
  std::string story_of(const std::string& id) const;
  // Of one that a drain still waits for; for a drain that stands still.
  std::string story_of_waiting() const;

 private:
  struct Event {
    std::uint64_t microseconds;
    Life life;
    std::string text;
  };
  struct Story {
    std::string queue;
    std::uint64_t first_sequence = 0;    // as published
    std::uint64_t current_sequence = 0;  // differs after a redrive
    bool confirmed = false;
    bool closed = false;  // acked or dead, and checked after a drain
    bool dead = false;    // was seen in the dead-letter queue
    bool was_delivered = false;
    bool reject_asked = false;
    std::uint32_t acks_open = 0;  // asked and neither confirmed nor refused
    bool must_be_dead = false;    // a confirmed reject, or a confirmed nack of the last attempt
    bool acked = false;
    std::uint64_t final_at = 0;  // count of events when the final settle was confirmed
    Life final_life = 0;
    std::uint32_t redrives = 0;
    std::set<std::uint32_t> attempts_seen;
    std::uint32_t given_back = 0;         // releases asked for, deliveries dropped
    std::uint32_t attempts_repeated = 0;  // deliveries with a number that was seen before
    std::vector<Event> events;

    bool is_final() const { return final_at != 0; }
  };

  // All of these need the mutex.
  Story* find(const std::string& id);
  void tell(Story& story, std::string text);
  void violate(const std::string& id, const Story& story, const std::string& sentence);
  std::string story_text(const std::string& id, const Story& story) const;
  void learn_sequence(const std::string& id, Story& story, std::uint64_t sequence);
  void check_dead_letter(const std::string& id, Story& story, const StoredMessage& letter);
  void check_owed(const std::string& id, Story& story);

  const std::uint64_t seed_;
  const std::uint32_t attempts_max_;
  const std::chrono::steady_clock::time_point begin_ = std::chrono::steady_clock::now();

  mutable std::mutex mutex_;
  Life life_ = 0;
  std::uint64_t event_count_ = 0;
  std::unordered_map<std::string, Story> stories_;
  std::set<std::string> open_;  // ids that the next drain is to account for
  std::map<std::string, std::set<std::string>, std::less<>> dead_ids_;
  std::map<std::string, std::vector<std::string>, std::less<>> confirmed_ids_;
  std::map<std::string, std::unordered_map<std::uint64_t, std::string>, std::less<>> sequences_;
  std::vector<std::string> violations_;
  LedgerCounts counts_;
};

}  // namespace holdfast::crash
