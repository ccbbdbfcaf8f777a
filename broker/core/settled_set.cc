#include "core/settled_set.h"

#include <algorithm>

namespace holdfast::broker {

namespace {
Sequence chunk_first(std::uint64_t chunk) { return chunk * kAckChunk; }
Sequence chunk_last(std::uint64_t chunk) { return chunk * kAckChunk + kAckChunk - 1; }
}  // namespace

bool SettledSet::contains(Sequence sequence) const {
  if (sequence <= floor_) return true;
  auto range = ranges_.upper_bound(sequence);
  if (range == ranges_.begin()) return false;
  --range;
  return sequence <= range->second;
}

std::uint64_t SettledSet::unsettled_count(Sequence last) const {
  if (last <= floor_) return 0;
  return last - floor_ - above_;
}

bool SettledSet::any_unsettled(Sequence first, Sequence last) const {
  first = std::max(first, floor_ + 1);
  if (first > last) return false;
  auto range = ranges_.upper_bound(first);
  if (range == ranges_.begin()) return true;
  --range;
  return range->second < last;
}

void SettledSet::load(const AckRecord& record) {
  stored_[record.chunk] = record.full_chunks;
  if (record.full_chunks > 0) {
    add_range(chunk_first(record.chunk), chunk_last(record.chunk + record.full_chunks - 1));
  } else {
    for (std::uint64_t offset = 0; offset < kAckChunk; ++offset) {
      if ((record.bitmap[offset / 64] >> (offset % 64) & 1) != 0) {
        settle(chunk_first(record.chunk) + offset);
      }
    }
  }
  touched_.clear();
}

void SettledSet::add_range(Sequence first, Sequence last) {
  first = std::max(first, floor_ + 1);
  if (first > last) return;
  auto after = ranges_.upper_bound(first);
  if (after != ranges_.begin() && std::prev(after)->second + 1 >= first) --after;
  while (after != ranges_.end() && after->first <= last + 1) {
    first = std::min(first, after->first);
    last = std::max(last, after->second);
    above_ -= after->second - after->first + 1;
    after = ranges_.erase(after);
  }
  above_ += last - first + 1;
  ranges_.emplace_hint(after, first, last);
  absorb();
}

void SettledSet::touch(Sequence sequence) {
  const std::uint64_t chunk = sequence / kAckChunk;
  if (touched_.empty() || touched_.back() != chunk) touched_.push_back(chunk);
}

void SettledSet::absorb() {
  while (!ranges_.empty() && ranges_.begin()->first <= floor_ + 1) {
    const auto range = ranges_.begin();
    above_ -= range->second - range->first + 1;
    floor_ = std::max(floor_, range->second);
    ranges_.erase(range);
  }
}

bool SettledSet::settle(Sequence sequence) {
  if (sequence <= floor_) return false;
  if (sequence == floor_ + 1) {
    floor_ = sequence;
    absorb();
    return true;
  }
  auto after = ranges_.upper_bound(sequence);
  auto before = after == ranges_.begin() ? ranges_.end() : std::prev(after);
  if (before != ranges_.end() && sequence <= before->second) return false;
  touch(sequence);
  ++above_;
  const bool joins_before = before != ranges_.end() && before->second + 1 == sequence;
  const bool joins_after = after != ranges_.end() && after->first == sequence + 1;
  if (joins_before) {
    before->second = joins_after ? after->second : sequence;
    if (joins_after) ranges_.erase(after);
  } else if (joins_after) {
    const Sequence last = after->second;
    ranges_.emplace_hint(ranges_.erase(after), sequence, last);
  } else {
    ranges_.emplace_hint(after, sequence, sequence);
  }
  return true;
}

void SettledSet::settle_through(Sequence last) {
  if (last <= floor_) return;
  floor_ = last;
  absorb();
}

void SettledSet::settle_all_but(std::span<const SequenceRange> kept, Sequence last) {
  Sequence next = floor_ + 1;
  const auto settle_before = [&](Sequence end) {
    if (next >= end || !any_unsettled(next, end - 1)) return;
    for (std::uint64_t chunk = next / kAckChunk; chunk <= (end - 1) / kAckChunk; ++chunk) {
      touched_.push_back(chunk);
    }
    add_range(next, end - 1);
  };
  for (const SequenceRange& range : kept) {
    settle_before(std::min(range.first, last + 1));
    next = std::max(next, range.last + 1);
  }
  settle_before(last + 1);
}

void SettledSet::collect(std::vector<AckKey>& removed, std::vector<AckRecord>& put) {
  // A record that ends below the first range above the floor says nothing that the floor does not.
  const Sequence needed_from = ranges_.empty() ? ~Sequence{0} : ranges_.begin()->first;
  while (!stored_.empty()) {
    const auto [chunk, run] = *stored_.begin();
    if (chunk_last(chunk + (run > 0 ? run - 1 : 0)) >= needed_from) break;
    removed.push_back({subscription_, chunk});
    stored_.erase(stored_.begin());
  }
  std::sort(touched_.begin(), touched_.end());
  touched_.erase(std::unique(touched_.begin(), touched_.end()), touched_.end());
  for (const std::uint64_t chunk : touched_) {
    if (chunk_last(chunk) > floor_) collect_chunk(chunk, removed, put);
  }
  touched_.clear();
}

void SettledSet::collect_chunk(std::uint64_t chunk, std::vector<AckKey>& removed,
                               std::vector<AckRecord>& put) {
  AckRecord record;
  record.subscription = subscription_;
  record.chunk = chunk;
  auto range = ranges_.upper_bound(chunk_first(chunk));
  if (range != ranges_.begin()) --range;
  const bool full = range != ranges_.end() && range->first <= chunk_first(chunk) &&
                    range->second >= chunk_last(chunk);
  if (full) {
    record.chunk = (range->first + kAckChunk - 1) / kAckChunk;
    record.full_chunks = (range->second + 1) / kAckChunk - record.chunk;
    auto stale = stored_.lower_bound(record.chunk);
    while (stale != stored_.end() && stale->first < record.chunk + record.full_chunks) {
      if (stale->first == record.chunk) {
        if (stale->second == record.full_chunks) return;  // a chunk of the same run put it already
        ++stale;
        continue;
      }
      removed.push_back({subscription_, stale->first});
      stale = stored_.erase(stale);
    }
  } else {
    fill_bitmap(chunk, record);
    const bool empty = std::all_of(record.bitmap.begin(), record.bitmap.end(),
                                   [](auto word) { return word == 0; });
    if (empty) {
      if (stored_.erase(chunk) > 0) removed.push_back({subscription_, chunk});
      return;
    }
  }
  stored_[record.chunk] = record.full_chunks;
  put.push_back(record);
}

void SettledSet::fill_bitmap(std::uint64_t chunk, AckRecord& record) const {
  auto range = ranges_.upper_bound(chunk_first(chunk));
  if (range != ranges_.begin()) --range;
  for (; range != ranges_.end() && range->first <= chunk_last(chunk); ++range) {
    const Sequence first = std::max(range->first, chunk_first(chunk));
    const Sequence last = std::min(range->second, chunk_last(chunk));
    for (Sequence sequence = first; sequence <= last; ++sequence) {
      const std::uint64_t offset = sequence % kAckChunk;
      record.bitmap[offset / 64] |= std::uint64_t{1} << (offset % 64);
    }
  }
}

void SettledSet::collect_removal(std::vector<AckKey>& removed) {
  for (const auto& [chunk, run] : stored_) removed.push_back({subscription_, chunk});
  stored_.clear();
  touched_.clear();
}

}  // namespace holdfast::broker
