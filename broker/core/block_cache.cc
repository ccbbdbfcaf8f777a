#include "core/block_cache.h"

namespace holdfast::broker {

void BlockCache::insert(std::shared_ptr<const Block> block) {
  const Key key(block->queue(), block->first_sequence());
  erase(key.first, key.second);
  bytes_ += block->bytes().size();
  const auto use = uses_.insert(uses_.end(), key);
  nodes_.emplace(key, Node{std::move(block), use});
  // The newest stays even if it alone is larger than the bound: its reader is about to use it.
  while (bytes_ > bytes_max_ && nodes_.size() > 1) erase(nodes_.find(uses_.front()));
}

std::shared_ptr<const Block> BlockCache::find(QueueId queue, Sequence sequence) {
  auto node = nodes_.upper_bound(Key(queue, sequence));
  if (node == nodes_.begin()) return nullptr;
  --node;
  const Block& block = *node->second.block;
  if (block.queue() != queue || block.last_sequence() < sequence) return nullptr;
  uses_.splice(uses_.end(), uses_, node->second.use);
  return node->second.block;
}

BlockCache::Nodes::iterator BlockCache::erase(Nodes::iterator node) {
  bytes_ -= node->second.block->bytes().size();
  uses_.erase(node->second.use);
  return nodes_.erase(node);
}

void BlockCache::erase(QueueId queue, Sequence first) {
  const auto node = nodes_.find(Key(queue, first));
  if (node != nodes_.end()) erase(node);
}

void BlockCache::erase_queue(QueueId queue) {
  auto node = nodes_.lower_bound(Key(queue, 0));
  while (node != nodes_.end() && node->first.first == queue) node = erase(node);
}

}  // namespace holdfast::broker
