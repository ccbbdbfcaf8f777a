// Messages as a program sees them: what it publishes, and what it reads back.

#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace holdfast {

using Headers = std::vector<std::pair<std::string, std::string>>;

// What a program publishes. Bounds: id 1 to 128 bytes of UTF-8 (empty: the client chooses one, a
// new one for each call, so that what a program publishes again itself needs an id of its own), at
// most 64 headers of UTF-8 with 16 KiB in all, their names not empty, body up to the queue's
// max-message-bytes (1 MiB by default).
struct Message {
  Message() = default;
  explicit Message(std::string body_bytes) : body(std::move(body_bytes)) {}
  Message(std::string message_id, std::string body_bytes)
      : id(std::move(message_id)), body(std::move(body_bytes)) {}

  std::string id;
  std::string body;
  Headers headers;
};

struct PublishReceipt {
  std::uint64_t sequence = 0;
  std::string id;
  bool duplicate = false;  // this id is in the dedup window; `sequence` is the first one's
};

// One ended attempt of a message, as recorded by the broker.
struct AttemptReport {
  std::uint32_t number = 0;
  std::string cause;  // lease_expired, nacked, rejected, connection_lost, broker_restarted
  std::string consumer;
  std::string error;
  std::chrono::system_clock::time_point delivered_at;  // epoch: not known
  std::chrono::system_clock::time_point ended_at;
};

// How far a message came: what Admin::attempts() tells.
struct AttemptsReport {
  std::uint64_t sequence = 0;
  std::string state;           // ready, in_flight, waiting, moving
  std::uint32_t attempts = 0;  // so far, one under way included
  std::string consumer;        // in_flight: the name of the one that holds it
  // waiting: when it is ready again; in_flight: when its lease ends; else the epoch
  std::chrono::system_clock::time_point due_at;
  std::vector<AttemptReport> history;  // the last 16 that failed, oldest first
};

// Where a dead letter came from.
struct Provenance {
  std::string source;
  std::uint64_t source_sequence = 0;
  std::string subscription;
  std::string reason;  // retry_limit, rejected, corrupt
  std::string error;
  std::uint32_t attempts = 0;
  std::chrono::system_clock::time_point dead_at;
  std::chrono::system_clock::time_point published_at;
  std::vector<AttemptReport> history;  // the last 16, oldest first
};

// A message as it is stored: what peek shows and a consumer receives.
struct StoredMessage {
  std::string queue;
  std::uint64_t sequence = 0;
  std::uint32_t attempt = 0;  // delivered: 1 for the first; peeked: attempts so far
  std::string id;
  std::string body;
  Headers headers;
  std::chrono::system_clock::time_point published_at;
  std::string state;            // peeked: ready, in_flight, waiting, moving; delivered: in_flight
  bool is_dead_letter = false;  // then `provenance` says where it came from
  Provenance provenance;
};

}  // namespace holdfast
