// Serving: a broker starts on a data directory, every queue is drained, every id that is known is
// published once more, and new messages go in and out. What happened is written down as it
// happens, in memory that is shared with the one who watches, so that it is there when the serving
// process is not.

#pragma once

#include <array>
#include <cstdint>
#include <string>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "holdfast/status.h"

namespace holdfast::corrupt {

inline constexpr std::size_t kServedMax = 4096;
inline constexpr std::size_t kRepublishMax = 16;
inline constexpr std::uint32_t kNoQueue = ~std::uint32_t{0};

struct Served {
  std::uint32_t queue = kNoQueue;  // index
  std::uint32_t attempt = 0;
  Sequence sequence = 0;
  std::uint64_t checksum = 0;  // computed here over the bytes delivered
  // A dead letter in place of messages that can no longer be read: where they stood.
  bool is_set_aside = false;
  Sequence source_sequence = 0;
  bool operator==(const Served&) const = default;
};

// An id that is published again.
struct Republish {
  std::string queue;
  std::string id;
  Sequence sequence = 0;        // of the first one
  std::uint64_t stored_by = 0;  // the batch that stored that
};

struct RepublishAnswer {
  bool answered = false;
  bool duplicate = false;
  Sequence sequence = 0;
  bool operator==(const RepublishAnswer&) const = default;
};

// Plain memory: lives in a mapping that two processes share.
struct ServingResult {
  bool started = false;
  bool finished = false;
  std::uint32_t served_count = 0;
  std::array<Served, kServedMax> served;
  std::array<RepublishAnswer, kRepublishMax> republished;
  std::uint64_t corrupt_counted = 0;  // by the queues' counters
  std::uint64_t records_damaged = 0;
  std::uint64_t batch_cut_short = 0;
  std::uint64_t messages_left = 0;  // after the drain
  std::uint32_t fresh_lost = 0;     // new messages that did not come out as they went in
};

struct ServingPlan {
  std::string directory;
  std::vector<std::string> queues;  // empty: those that the broker lists
  std::vector<Republish> republishes;
  Now now;
  // The data file is cut short after the start, under the broker's feet.
  bool cut_while_running = false;
  std::uint64_t cut_to_bytes = 0;
};

// The end of a broker that stopped by itself is its status.
Status serve(const ServingPlan& plan, ServingResult* result);

}  // namespace holdfast::corrupt
