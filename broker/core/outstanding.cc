#include "core/outstanding.h"

#include <bit>

#include "base/check.h"

namespace holdfast::broker {

namespace {
constexpr std::size_t kSlotsMin = 16;
}  // namespace

std::size_t OutstandingTable::home(Sequence sequence) const {
  return static_cast<std::size_t>(scatter(key_, sequence, 0) >>
                                  (64 - std::countr_zero(slots_.size())));
}

Outstanding* OutstandingTable::find(Sequence sequence) const {
  if (size_ == 0) return nullptr;
  const std::size_t mask = slots_.size() - 1;
  for (std::size_t at = home(sequence);; at = (at + 1) & mask) {
    const Slot& slot = slots_[at];
    if (slot.entry == nullptr) return nullptr;
    if (slot.sequence == sequence) return slot.entry;
  }
}

Outstanding& OutstandingTable::insert(Sequence sequence) {
  if ((size_ + 1) * 2 > slots_.size()) grow();
  Outstanding* entry = nullptr;
  if (free_.empty()) {
    if (!pool_) pool_.emplace();
    entry = &pool_->emplace_back();
  } else {
    entry = free_.back();
    free_.pop_back();
    *entry = Outstanding();
  }
  entry->sequence = sequence;
  const std::size_t mask = slots_.size() - 1;
  std::size_t at = home(sequence);
  for (; slots_[at].entry != nullptr; at = (at + 1) & mask) {
    CHECK(slots_[at].sequence != sequence, "message {} is outstanding already", sequence);
  }
  slots_[at] = {sequence, entry};
  ++size_;
  return *entry;
}

void OutstandingTable::erase(Outstanding& entry) {
  const std::size_t mask = slots_.size() - 1;
  std::size_t hole = home(entry.sequence);
  while (slots_[hole].entry != &entry) {
    CHECK(slots_[hole].entry != nullptr, "message {} is not outstanding", entry.sequence);
    hole = (hole + 1) & mask;
  }
  // Move back what a search would no longer reach across the hole.
  for (std::size_t at = (hole + 1) & mask; slots_[at].entry != nullptr; at = (at + 1) & mask) {
    const std::size_t distance_home = (at - home(slots_[at].sequence)) & mask;
    const std::size_t distance_hole = (at - hole) & mask;
    if (distance_home >= distance_hole) {
      slots_[hole] = slots_[at];
      hole = at;
    }
  }
  slots_[hole] = Slot();
  --size_;
  entry.history.reset();
  free_.push_back(&entry);
  if (size_ == 0 && pool_->size() > 4096) clear();
}

void OutstandingTable::grow() {
  std::vector<Slot> old = std::move(slots_);
  slots_ = std::vector<Slot>(old.empty() ? kSlotsMin : old.size() * 2);
  const std::size_t mask = slots_.size() - 1;
  for (const Slot& slot : old) {
    if (slot.entry == nullptr) continue;
    std::size_t at = home(slot.sequence);
    while (slots_[at].entry != nullptr) at = (at + 1) & mask;
    slots_[at] = slot;
  }
}

void OutstandingTable::clear() {
  slots_ = {};
  size_ = 0;
  free_ = {};
  pool_.reset();
}

}  // namespace holdfast::broker
