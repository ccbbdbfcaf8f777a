#include "core/dedup_window.h"

namespace holdfast::broker {

namespace {
// However many recent ids there are in all, a queue with fewer keeps them.
constexpr std::size_t kRecentKept = 64;
}  // namespace

OlderIds::ChunkKeys DedupWindow::chunk_keys(std::uint64_t chunk) const {
  OlderIds::ChunkKeys keys = older_.chunk_keys(chunk);
  if (!keys.has_end) keys.end = recent_.begin_key();
  return keys;
}

bool DedupWindow::insert(const MessageIdHash& hash, Sequence sequence, std::uint64_t time_ms) {
  ++totals_.ids;
  ++totals_.recent_ids;
  return recent_.insert(hash, sequence, time_ms);
}

void DedupWindow::load(std::span<const MessageIdHash> hashes, Sequence first,
                       std::uint64_t time_ms) {
  totals_.ids += hashes.size();
  totals_.recent_ids += hashes.size();
  recent_.load(hashes, first, time_ms);
}

void DedupWindow::age(Sequence durable_to) {
  for (;;) {
    const std::size_t recent = recent_.size();
    const bool too_many = recent > options_.recent_ids_of_queue_max ||
                          (totals_.recent_ids > options_.recent_ids_max && recent > kRecentKept);
    if (!too_many || recent_.oldest_run_last() > durable_to) return;
    const RecentIds::Run run = recent_.take_oldest();
    totals_.recent_ids -= run.hashes.size();
    older_.add(run);
  }
}

void DedupWindow::forget(std::size_t older, std::size_t recent) {
  totals_.ids -= older + recent;
  totals_.recent_ids -= recent;
}

bool DedupWindow::expire(std::uint64_t before_ms) {
  const std::size_t older = older_.expire(before_ms);
  const std::size_t recent = older_.empty() ? recent_.expire(before_ms) : 0;
  forget(older, recent);
  return older + recent > 0;
}

std::size_t DedupWindow::drop_oldest() {
  if (!older_.empty()) {
    const std::size_t dropped = older_.drop_oldest();
    forget(dropped, 0);
    return dropped;
  }
  if (recent_.run_count() < 2) return 0;
  const std::size_t dropped = recent_.take_oldest().hashes.size();
  forget(0, dropped);
  return dropped;
}

void DedupWindow::clear() {
  forget(older_.size(), recent_.size());
  older_.clear();
  recent_.clear();
}

}  // namespace holdfast::broker
