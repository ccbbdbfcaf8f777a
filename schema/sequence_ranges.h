// Ascending ranges of sequences, as Settle and Extend carry them, cut into frames within the bounds
// of the protocol.

#pragma once

#include <cstdint>
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

// Whether `sequence` is in one of these; null holds none. The ranges come from the broker, so
// nothing is assumed about their order.
inline bool contains(const flatbuffers::Vector<const wire::SequenceRange*>* ranges,
                     std::uint64_t sequence) {
  if (ranges == nullptr) return false;
  for (const wire::SequenceRange* range : *ranges) {
    if (range->first() <= sequence && sequence <= range->last()) return true;
  }
  return false;
}

}  // namespace holdfast
