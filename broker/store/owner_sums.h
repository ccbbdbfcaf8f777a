// The records of all queues and subscriptions as one number, the sum of their checksums. Progress
// holds it, so that a start finds a record that is sound in itself but not as the last commit left
// it: what a device leaves that did not write a page though it said so.

#pragma once

#include <cstdint>
#include <cstring>
#include <map>
#include <utility>

#include "schema/frame.h"
#include "store/record.h"

namespace holdfast::broker {

class OwnerSums {
 public:
  // A record of that table, which ends in its checksum. The one it replaces no longer counts, so
  // putting it twice is putting it once.
  void put(Table table, std::uint32_t owner, ByteSpan record) {
    std::uint64_t checksum = 0;
    if (record.size() >= sizeof(checksum)) {
      std::memcpy(&checksum, record.data() + record.size() - sizeof(checksum), sizeof(checksum));
    }
    std::uint64_t& kept = checksums_[{table, owner}];
    sum_ += checksum - kept;  // modulo 2^64
    kept = checksum;
  }
  void remove(Table table, std::uint32_t owner) {
    const auto found = checksums_.find({table, owner});
    if (found == checksums_.end()) return;
    sum_ -= found->second;
    checksums_.erase(found);
  }
  std::uint64_t sum() const { return sum_; }

 private:
  std::map<std::pair<Table, std::uint32_t>, std::uint64_t> checksums_;
  std::uint64_t sum_ = 0;
};

}  // namespace holdfast::broker
