// The older part of a dedup window: of each id a fingerprint, while its exact hash is in the store
// alone.
//
// Whole runs of ids come in, oldest first, and are gathered into chunks of up to 4,096 ids. A
// FingerprintTable tells which chunks may hold an id; whether one does is told by the records of
// the store, which the owner reads (chunk_keys() says which). Tables grow in size: each is made for
// three times what the window holds, up to 4,194,304 ids, so an id costs 5.3 bytes in a full table,
// and a look-up asks few tables. Chunks leave from the front; a table goes with its last chunk.

#pragma once

#include <cstdint>
#include <deque>
#include <utility>
#include <vector>

#include "core/fingerprint_table.h"
#include "core/recent_ids.h"

namespace holdfast::broker {

// Where a record of the store stands in its queue's window: (time, first sequence).
using IdKey = std::pair<std::uint64_t, Sequence>;

struct OlderIdsOptions {
  std::size_t chunk_ids_max = 4096;
  std::size_t table_ids_max = 4u << 20;
  std::uint32_t tag_mask = ~std::uint32_t{0};  // for tests, see fingerprint_table.h
};

class OlderIds {
 public:
  OlderIds(const OlderIdsOptions& options, const HashKey& key) : options_(options), key_(key) {}

  // The runs come in order, each at most chunk_ids_max ids.
  void add(const RecentIds::Run& run);

  void prefetch(const MessageIdHash& hash) const {
    const std::uint64_t place = place_of(hash);
    for (const Table& table : tables_) table.fingerprints.prefetch(place);
  }
  // Numbers of the chunks that may hold the id, ascending; they stay the chunks' until they leave.
  void find_chunks(const MessageIdHash& hash, std::vector<std::uint64_t>* chunks) const;
  struct ChunkKeys {
    IdKey begin;  // of its first record
    IdKey end;    // of the first record after it; only if there is a later chunk
    bool has_end = false;
    std::size_t ids = 0;  // so far: the last chunk may still grow
  };
  ChunkKeys chunk_keys(std::uint64_t chunk) const;

  // Drops the chunks whose youngest id is from `before_ms` or earlier. Returns how many ids left.
  std::size_t expire(std::uint64_t before_ms);
  // There must be one.
  std::size_t drop_oldest();
  void clear();

  std::size_t size() const { return size_; }
  bool empty() const { return chunks_.empty(); }
  // Of the oldest record; there must be one.
  IdKey begin_key() const { return chunks_.front().begin; }

 private:
  struct Chunk {
    IdKey begin;
    std::uint64_t last_time_ms = 0;
    std::size_t ids = 0;
  };
  struct Table {
    FingerprintTable fingerprints;
    std::uint64_t first_chunk = 0;
    std::size_t ids = 0;
  };

  // Of an id, in every table.
  std::uint64_t place_of(const MessageIdHash& hash) const {
    return scatter(key_, hash.high, hash.low);
  }
  void begin_chunk(const RecentIds::Run& run);

  OlderIdsOptions options_;
  HashKey key_;
  std::deque<Chunk> chunks_;
  std::uint64_t first_chunk_ = 0;  // number of chunks_.front()
  std::deque<Table> tables_;
  std::size_t size_ = 0;
};

}  // namespace holdfast::broker
