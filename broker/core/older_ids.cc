#include "core/older_ids.h"

#include <algorithm>

#include "base/check.h"

namespace holdfast::broker {

namespace {
constexpr std::size_t kTableIdsMin = 1024;
// A table is made for so many times the ids that are there: few tables, each to be asked.
constexpr std::size_t kTableGrowth = 3;
constexpr std::size_t kPrefetchIds = 16;
}  // namespace

void OlderIds::add(const RecentIds::Run& run) {
  const std::size_t count = run.hashes.size();
  if (chunks_.empty() || chunks_.back().ids + count > options_.chunk_ids_max ||
      tables_.back().ids + count > tables_.back().fingerprints.ids_max()) {
    begin_chunk(run);
  }
  Chunk& chunk = chunks_.back();
  chunk.last_time_ms = std::max(chunk.last_time_ms, run.last_time_ms);
  chunk.ids += count;
  Table& table = tables_.back();
  table.ids += count;
  size_ += count;
  const auto number =
      static_cast<std::uint32_t>(first_chunk_ + chunks_.size() - 1 - table.first_chunk);
  // Every slot is a cache miss: they are asked for a few ids ahead.
  for (std::size_t i = 0; i < count; ++i) {
    table.fingerprints.prefetch(place_of(run.hashes[std::min(i + kPrefetchIds, count - 1)]));
    table.fingerprints.insert(place_of(run.hashes[i]), number);
  }
}

void OlderIds::begin_chunk(const RecentIds::Run& run) {
  const std::uint64_t number = first_chunk_ + chunks_.size();
  const std::size_t count = run.hashes.size();
  if (tables_.empty() || tables_.back().ids + count > tables_.back().fingerprints.ids_max() ||
      number - tables_.back().first_chunk == FingerprintTable::kChunksMax) {
    const std::size_t ids_max =
        std::max({count, std::min({kTableGrowth * size_, options_.table_ids_max}),
                  std::min(kTableIdsMin, options_.table_ids_max)});
    tables_.push_back({FingerprintTable(ids_max, options_.tag_mask), number, 0});
  }
  chunks_.push_back({{run.first_time_ms, run.first}, run.last_time_ms, 0});
}

void OlderIds::find_chunks(const MessageIdHash& hash, std::vector<std::uint64_t>* chunks) const {
  const std::uint64_t place = place_of(hash);
  for (const Table& table : tables_) {
    table.fingerprints.visit_chunks(place, [&](std::uint32_t index) {
      const std::uint64_t chunk = table.first_chunk + index;
      if (chunk >= first_chunk_) chunks->push_back(chunk);
    });
  }
  if (chunks->size() < 2) return;
  std::sort(chunks->begin(), chunks->end());
  chunks->erase(std::unique(chunks->begin(), chunks->end()), chunks->end());
}

OlderIds::ChunkKeys OlderIds::chunk_keys(std::uint64_t chunk) const {
  CHECK(chunk >= first_chunk_ && chunk < first_chunk_ + chunks_.size());
  const std::size_t index = chunk - first_chunk_;
  ChunkKeys keys{chunks_[index].begin, {}, false, chunks_[index].ids};
  if (index + 1 < chunks_.size()) {
    keys.end = chunks_[index + 1].begin;
    keys.has_end = true;
  }
  return keys;
}

std::size_t OlderIds::drop_oldest() {
  const std::size_t count = chunks_.front().ids;
  chunks_.pop_front();
  ++first_chunk_;
  size_ -= count;
  while (!tables_.empty() && first_chunk_ >= (tables_.size() > 1 ? tables_[1].first_chunk
                                                                 : first_chunk_ + chunks_.size())) {
    tables_.pop_front();
  }
  return count;
}

std::size_t OlderIds::expire(std::uint64_t before_ms) {
  std::size_t count = 0;
  while (!chunks_.empty() && chunks_.front().last_time_ms <= before_ms) count += drop_oldest();
  return count;
}

void OlderIds::clear() {
  first_chunk_ += chunks_.size();
  chunks_ = {};
  tables_.clear();
  size_ = 0;
}

}  // namespace holdfast::broker
