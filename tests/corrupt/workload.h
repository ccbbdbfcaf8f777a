// The workload: publishers, consumers and people, as a seed decides, at a broker whose store is
// then damaged: messages of all sizes in blocks of all sizes, settled here and there; retries, dead
// letters, purged and deleted queues, ids; pages freed and used again.

#pragma once

#include <cstdint>
#include <functional>
#include <limits>
#include <map>
#include <string>
#include <unordered_map>
#include <vector>

#include "corrupt/engine.h"
#include "corrupt/serving.h"
#include "crash/random.h"

namespace holdfast::corrupt {

struct PublishedMessage {
  std::string queue;
  std::string id;
  Sequence sequence = 0;
  std::uint64_t stored_by = 0;  // the batch
  std::uint64_t acked_by = 0;   // likewise; 0: it was not

  bool is_owed_after(std::uint64_t batch) const {
    return stored_by <= batch && (acked_by == 0 || acked_by > batch);
  }
};

// What was done, as those outside know it.
struct History {
  // That are served. Others come and go.
  std::vector<std::string> queues = {"letters",      "parcels",      "notes",
                                     "letters.dead", "parcels.dead", "notes.dead"};
  std::map<QueueId, std::uint32_t> queue_indexes;
  std::map<std::uint32_t, Sequence> next_sequences;               // by index, at the end
  std::unordered_map<std::uint64_t, PublishedMessage> published;  // by checksum of the bytes
};

inline constexpr std::uint64_t kAllBatches = std::numeric_limits<std::uint64_t>::max();

// When it begins.
Now start_of_time();

// All of it, then more until `is_enough`. `look` is called after every tenth round.
Status run_workload(Engine& engine, crash::Random& random, const std::function<void()>& look,
                    const std::function<bool()>& is_enough, History* history);

// The last ids of each queue that remembers them.
std::vector<Republish> choose_republishes(const History& history);

// What is owed after this batch is served once, as it was published; nothing else is.
Status check_owed(const History& history, const std::vector<Republish>& republishes,
                  const ServingResult& owed, std::uint64_t batch);

// Of this harness, or of a sound store that is not served as it should be.
Status harness_fault(std::string what);

}  // namespace holdfast::corrupt
