// Recent blocks, so that live traffic is never read back from disk. Bounded by bytes; what was used
// least lately goes first. A block's bytes never change, so a cached block may be stale only in
// that it holds messages that were settled since.

#pragma once

#include <cstddef>
#include <list>
#include <map>
#include <memory>
#include <utility>

#include "core/block.h"

namespace holdfast::broker {

class BlockCache {
 public:
  explicit BlockCache(std::size_t bytes_max) : bytes_max_(bytes_max) {}

  void insert(std::shared_ptr<const Block> block);
  // The block that holds this sequence; null if none does.
  std::shared_ptr<const Block> find(QueueId queue, Sequence sequence);
  void erase(QueueId queue, Sequence first);
  void erase_queue(QueueId queue);
  std::size_t bytes() const { return bytes_; }

 private:
  using Key = std::pair<QueueId, Sequence>;  // first sequence
  struct Node {
    std::shared_ptr<const Block> block;
    std::list<Key>::iterator use;
  };
  using Nodes = std::map<Key, Node>;
  Nodes::iterator erase(Nodes::iterator node);

  std::size_t bytes_max_;
  std::size_t bytes_ = 0;
  Nodes nodes_;
  std::list<Key> uses_;  // least lately used first
};

}  // namespace holdfast::broker
