// The dedup window of one queue: which message ids were published lately, and under which sequence.
//
// The youngest ids are kept as exact hashes (RecentIds), the older ones as fingerprints (OlderIds).
// find_recent() answers at once; where find_chunks() names chunks, their records must be read from
// the store to know.
//
// Ids move from recent to older when the owner says so, in whole runs and only when their records
// are durable, because from then on these are all that knows them.

#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "core/older_ids.h"
#include "core/recent_ids.h"

namespace holdfast::broker {

struct DedupOptions {
  std::uint64_t ids_max = 32'000'000;     // over all queues
  std::size_t recent_ids_max = 1u << 20;  // of them kept as exact hashes, over all queues
  std::size_t recent_ids_of_queue_max = 16u << 10;
  OlderIdsOptions older;
};

// Over all windows of a broker.
struct DedupTotals {
  std::uint64_t ids = 0;
  std::uint64_t recent_ids = 0;
};

class DedupWindow {
 public:
  // The totals outlive it.
  DedupWindow(const DedupOptions& options, const HashKey& key, DedupTotals& totals)
      : options_(options), totals_(totals), key_(key) {}
  ~DedupWindow() { clear(); }
  DedupWindow(const DedupWindow&) = delete;
  DedupWindow& operator=(const DedupWindow&) = delete;

  // What find_chunks() will look at, while find_recent() looks.
  void prefetch_older(const MessageIdHash& hash) const {
    if (ids_) ids_->older.prefetch(hash);
  }
  std::optional<Sequence> find_recent(const MessageIdHash& hash) {
    return ids_ ? ids_->recent.find(hash) : std::nullopt;
  }
  // The chunks of older ids that may hold it.
  void find_chunks(const MessageIdHash& hash, std::vector<std::uint64_t>* chunks) const {
    if (ids_) ids_->older.find_chunks(hash, chunks);
  }
  // Of a chunk that find_chunks() has just named: its records are those with keys from `begin` to
  // before `end`.
  OlderIds::ChunkKeys chunk_keys(std::uint64_t chunk) const;

  // As in RecentIds.
  bool insert(const MessageIdHash& hash, Sequence sequence, std::uint64_t time_ms);
  void load(std::span<const MessageIdHash> hashes, Sequence first, std::uint64_t time_ms);
  // Moves the oldest runs to the older ids while there are too many recent ones; only those whose
  // sequences are all up to `durable_to`.
  void age(Sequence durable_to);

  // Forgets ids of `before_ms` or earlier, in whole runs or chunks. Returns whether any left.
  bool expire(std::uint64_t before_ms);
  // Forgets the oldest chunk or run, unless nothing would be left. Returns how many ids left.
  std::size_t drop_oldest();
  void clear();

  std::size_t size() const { return ids_ ? ids_->recent.size() + ids_->older.size() : 0; }
  // Where the window begins, as the store's records are keyed: everything before it may go. When
  // the window is empty, past everything that was in it.
  IdKey begin_key() const;

 private:
  struct Ids {
    Ids(const DedupOptions& options, const HashKey& key) : recent(key), older(options.older, key) {}
    RecentIds recent;
    OlderIds older;
  };
  Ids& ensure_ids();
  void forget(std::size_t older, std::size_t recent);

  const DedupOptions& options_;
  DedupTotals& totals_;
  HashKey key_;
  // Null until the first one comes: most queues of a broker with many have none, and the half that
  // are dead-letter queues never do.
  std::unique_ptr<Ids> ids_;
};

}  // namespace holdfast::broker
