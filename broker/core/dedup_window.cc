#include "core/dedup_window.h"

namespace holdfast::broker {

namespace {
// However many recent ids there are in all, a queue with fewer keeps them.
constexpr std::size_t kRecentKept = 64;
}  // namespace

DedupWindow::Ids& DedupWindow::ensure_ids() {
  if (!ids_) ids_ = std::make_unique<Ids>(options_, key_);
  return *ids_;
}

IdKey DedupWindow::begin_key() const {
  if (!ids_) return {1, 0};  // past the time 0, as of an empty window
  return ids_->older.empty() ? ids_->recent.begin_key() : ids_->older.begin_key();
}

OlderIds::ChunkKeys DedupWindow::chunk_keys(std::uint64_t chunk) const {
  OlderIds::ChunkKeys keys = ids_->older.chunk_keys(chunk);
  if (!keys.has_end) keys.end = ids_->recent.begin_key();
  return keys;
}

bool DedupWindow::insert(const MessageIdHash& hash, Sequence sequence, std::uint64_t time_ms) {
  ++totals_.ids;
  ++totals_.recent_ids;
  return ensure_ids().recent.insert(hash, sequence, time_ms);
}

void DedupWindow::load(std::span<const MessageIdHash> hashes, Sequence first,
                       std::uint64_t time_ms) {
  totals_.ids += hashes.size();
  totals_.recent_ids += hashes.size();
  ensure_ids().recent.load(hashes, first, time_ms);
}

void DedupWindow::age(Sequence durable_to) {
  if (!ids_) return;
  for (;;) {
    const std::size_t recent = ids_->recent.size();
    const bool too_many = recent > options_.recent_ids_of_queue_max ||
                          (totals_.recent_ids > options_.recent_ids_max && recent > kRecentKept);
    if (!too_many || ids_->recent.oldest_run_last() > durable_to) return;
    const RecentIds::Run run = ids_->recent.take_oldest();
    totals_.recent_ids -= run.hashes.size();
    ids_->older.add(run);
  }
}

void DedupWindow::forget(std::size_t older, std::size_t recent) {
  totals_.ids -= older + recent;
  totals_.recent_ids -= recent;
}

bool DedupWindow::expire(std::uint64_t before_ms) {
  if (!ids_) return false;
  const std::size_t older = ids_->older.expire(before_ms);
  const std::size_t recent = ids_->older.empty() ? ids_->recent.expire(before_ms) : 0;
  forget(older, recent);
  return older + recent > 0;
}

std::size_t DedupWindow::drop_oldest() {
  if (!ids_) return 0;
  if (!ids_->older.empty()) {
    const std::size_t dropped = ids_->older.drop_oldest();
    forget(dropped, 0);
    return dropped;
  }
  if (ids_->recent.run_count() < 2) return 0;
  const std::size_t dropped = ids_->recent.take_oldest().hashes.size();
  forget(0, dropped);
  return dropped;
}

// What was the youngest id stays known: where the window begins does not go back.
void DedupWindow::clear() {
  if (!ids_) return;
  forget(ids_->older.size(), ids_->recent.size());
  ids_->older.clear();
  ids_->recent.clear();
}

}  // namespace holdfast::broker
