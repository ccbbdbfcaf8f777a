// The settled messages of one subscription: a floor, up to which everything is settled, and ranges
// above it.
//
// In memory the part above the floor is a map of disjoint ranges. There is an unsettled message
// between any two of them, and what was settled by consumers leaves only outstanding ones there,
// bounded by outstanding_max. What a redrive or discard takes out of the middle of a dead-letter
// queue was never delivered: of those ranges there may be one for each letter, about 64 bytes. On
// disk it is one bitmap for each chunk of 4,096 sequences that was touched, and one record for a
// run of full chunks; collect() names the records that changed since the last call.

#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "core/records.h"

namespace holdfast::broker {

class SettledSet {
 public:
  SettledSet(SubscriptionId subscription, Sequence floor)
      : subscription_(subscription), floor_(floor) {}

  // Takes over a record of the store; the floor must be set before.
  void load(const AckRecord& record);

  Sequence floor() const { return floor_; }
  // The highest settled sequence.
  Sequence highest() const { return ranges_.empty() ? floor_ : ranges_.rbegin()->second; }
  bool contains(Sequence sequence) const;
  // How many sequences up to `last`, which nothing settled is above, are not settled.
  std::uint64_t unsettled_count(Sequence last) const;
  // Whether any sequence in [first, last] is not settled.
  bool any_unsettled(Sequence first, Sequence last) const;

  // Returns false if it was settled already.
  bool settle(Sequence sequence);
  // Settles everything up to `last`.
  void settle_through(Sequence last);
  // Likewise, but for what is in these ranges, which ascend.
  void settle_all_but(std::span<const SequenceRange> kept, Sequence last);

  // Calls visit(sequence) for every unsettled sequence in [first, last], ascending.
  template <typename Visit>
  void for_each_unsettled(Sequence first, Sequence last, Visit visit) const {
    Sequence next = first > floor_ ? first : floor_ + 1;
    auto range = ranges_.upper_bound(next);
    if (range != ranges_.begin()) --range;
    for (; next <= last; ++range) {
      const Sequence stop = range == ranges_.end() || range->first > last ? last + 1 : range->first;
      for (; next < stop; ++next) visit(next);
      if (range == ranges_.end()) return;
      if (next <= range->second && next >= range->first) next = range->second + 1;
    }
  }

  // Appends the records that bring the store up to date.
  void collect(std::vector<AckKey>& removed, std::vector<AckRecord>& put);
  // Appends a removal for every record in the store, for a subscription that goes.
  void collect_removal(std::vector<AckKey>& removed);

 private:
  void add_range(Sequence first, Sequence last);
  void touch(Sequence sequence);
  void absorb();
  void collect_chunk(std::uint64_t chunk, std::vector<AckKey>& removed,
                     std::vector<AckRecord>& put);
  void fill_bitmap(std::uint64_t chunk, AckRecord& record) const;

  SubscriptionId subscription_;
  Sequence floor_;
  std::map<Sequence, Sequence> ranges_;  // first → last, all above floor_ + 1
  std::uint64_t above_ = 0;              // sequences in ranges_
  std::vector<std::uint64_t> touched_;   // chunks changed since the last collect(), with repeats
  // What the store holds: first chunk → length of the run of full chunks, 0 for a bitmap.
  std::map<std::uint64_t, std::uint64_t> stored_;
};

}  // namespace holdfast::broker
