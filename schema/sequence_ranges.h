// Ranges of sequences: ascending, as Settle and Extend carry them, cut into frames within the
// bounds of the protocol; and as they are read from an answer.

#pragma once

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <vector>

#include "schema/frame.h"

namespace holdfast {

class SequenceRanges {
 public:
  // `sequence` is not below the last one; equal to it changes nothing. False: the frame is full, it
  // was not taken.
  bool add(std::uint64_t sequence) {
    if (!ranges_.empty()) {
      if (sequence == ranges_.back().last()) return true;
      if (count_ == kRangesSequencesMax) return false;
      if (sequence == ranges_.back().last() + 1) {
        ranges_.back() = wire::SequenceRange(ranges_.back().first(), sequence);
        ++count_;
        return true;
      }
      if (ranges_.size() == kRangesMax) return false;
    }
    ranges_.emplace_back(sequence, sequence);
    ++count_;
    return true;
  }

  std::uint64_t count() const { return count_; }
  bool empty() const { return ranges_.empty(); }
  const std::vector<wire::SequenceRange>& ranges() const { return ranges_; }
  void clear() {
    ranges_.clear();
    count_ = 0;
  }

 private:
  std::vector<wire::SequenceRange> ranges_;
  std::uint64_t count_ = 0;
};

// The sequences of ranges that the broker sent: nothing is assumed about their order, and very many
// are looked up.
class SequenceSet {
 public:
  // Null is none.
  explicit SequenceSet(const flatbuffers::Vector<const wire::SequenceRange*>* ranges) {
    if (ranges == nullptr) return;
    std::vector<wire::SequenceRange> sorted;
    for (const wire::SequenceRange* range : *ranges) sorted.push_back(*range);
    std::ranges::sort(sorted, {}, &wire::SequenceRange::first);
    for (const wire::SequenceRange& range : sorted) {
      if (range.first() > range.last()) continue;
      if (ranges_.empty() || range.first() > ranges_.back().last()) {
        ranges_.push_back(range);
      } else if (range.last() > ranges_.back().last()) {
        ranges_.back() = wire::SequenceRange(ranges_.back().first(), range.last());
      }
    }
  }

  bool empty() const { return ranges_.empty(); }
  bool contains(std::uint64_t sequence) const {
    const auto after = std::ranges::upper_bound(ranges_, sequence, {}, &wire::SequenceRange::first);
    return after != ranges_.begin() && sequence <= std::prev(after)->last();
  }

 private:
  std::vector<wire::SequenceRange> ranges_;  // ascending, apart
};

}  // namespace holdfast
