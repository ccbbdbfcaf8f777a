#include "corrupt/trial.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <set>
#include <tuple>
#include <utility>

#include "core/block.h"

namespace holdfast::corrupt {

namespace {

auto place_of(const Served& served) {
  return std::tuple(served.queue, served.sequence, served.checksum, served.attempt,
                    served.is_set_aside);
}

// Whether LMDB may follow what was damaged after the start: a start does not read the values of
// blocks. Nor does it the leaf pages of `blocks` behind the first 4,096, but no image is so large.
bool hits_page_unread_at_start(const Damage& damage, const Image& image) {
  constexpr std::size_t kImagePageBytes = 4096;
  for (const broker::PageSeen& seen : image.pages) {
    if (seen.kind != broker::PageKind::kOverflow || seen.table != "blocks") continue;
    const std::size_t begin = seen.first * kImagePageBytes;
    const auto at = std::lower_bound(damage.changed.begin(), damage.changed.end(), begin);
    if (at != damage.changed.end() && *at < begin + seen.count * kImagePageBytes) return true;
  }
  return false;
}

// A message that went to a dead-letter queue while it was served got its sequence there by chance.
std::vector<Served> sorted(const ServingResult& result, const Image& image) {
  std::vector<Served> all(result.served.begin(), result.served.begin() + result.served_count);
  for (Served& one : all) {
    const auto next = image.next_sequences.find(one.queue);
    if (next != image.next_sequences.end() && one.sequence >= next->second) one.sequence = 0;
  }
  std::sort(all.begin(), all.end(),
            [](const Served& a, const Served& b) { return place_of(a) < place_of(b); });
  return all;
}

// Whether only the number of a meta page's transaction became that of its version before. So LMDB
// leaves the newer of the two when a commit fails: the commit before holds, and nothing tells.
bool is_as_a_failed_commit_leaves(const Damage& damage, const std::string& sound) {
  constexpr std::size_t kMetaPageBytes = 4096;
  constexpr std::size_t kTransactionAt = 16 + 128;
  if (damage.changed.empty() || damage.file.size() != sound.size()) return false;
  const std::size_t at = damage.changed.front() / kMetaPageBytes * kMetaPageBytes + kTransactionAt;
  if (at > kMetaPageBytes + kTransactionAt || damage.changed.front() < at ||
      damage.changed.back() >= at + sizeof(std::uint64_t)) {
    return false;
  }
  std::uint64_t before = 0;
  std::uint64_t after = 0;
  std::memcpy(&before, sound.data() + at, sizeof(before));
  std::memcpy(&after, damage.file.data() + at, sizeof(after));
  return after + 2 == before;
}

}  // namespace

Trials::Trials(const Image& image, std::string directory)
    : image_(image), directory_(std::move(directory)), looks_(directory_) {}

std::optional<std::string> Trials::run(const Damage& damage) {
  ++counts_.trials;
  if (damage.hits_used_page) ++counts_.used_pages_hit;
  if (Status status = put_data_file(directory_, damage.file); !status) return status.message();
  const Ending checked = looks_.check();
  ServingPlan plan{directory_, image_.queues, image_.republishes, image_.now, false, 0};
  plan.cut_while_running = damage.kind == DamageKind::kCutWhileRunning;
  plan.cut_to_bytes = image_.file.size() / 2;
  const Ending serving = looks_.serve(plan);
  std::optional<std::string> violation = judge(damage, checked, serving);
  if (violation) {
    *violation += fmt::format("\n  damage: {}\n  the check said: {}\n  the broker said: {}",
                              damage.what, checked.said, serving.said);
  }
  return violation;
}

std::optional<std::string> Trials::judge(const Damage& damage, const Ending& check,
                                         const Ending& serving) {
  if (auto violation = judge_bytes()) return violation;
  const bool cut_while_running = damage.kind == DamageKind::kCutWhileRunning;
  const bool signal_allowed =
      looks_.result().started && (cut_while_running || hits_page_unread_at_start(damage, image_));
  if (auto violation = looks_.judge_ending("check", check, false)) return violation;
  if (auto violation = looks_.judge_ending("broker", serving, signal_allowed)) return violation;

  const bool found = !check.exited_with(0) || cut_while_running;
  if (found) ++counts_.found_by_check;
  const bool stopped = !serving.exited_with(0);
  if (stopped && !looks_.result().started) ++counts_.refused_at_start;
  if (stopped && looks_.result().started) {
    const bool by_signal = serving.signal() != 0;
    ++(by_signal ? counts_.stopped_by_signal : counts_.stopped_by_status);
  }
  const bool counted = looks_.result().corrupt_counted > 0;
  if (counted) ++counts_.losses_counted;

  const std::optional<std::string> differs = difference(true);
  if (!differs && !found) ++counts_.harmless;
  if (differs && !found && !is_as_a_failed_commit_leaves(damage, image_.file)) {
    if (damage.kind != DamageKind::kStalePage || difference(false)) {
      return "told: the check found nothing, but " + *differs;
    }
    ++counts_.rolled_back;
  }
  if (auto violation = judge_losses(stopped)) return violation;
  const auto cost = cost_of(damage);
  if (!cost) return std::nullopt;
  ++counts_.inside_blocks;
  return judge_rest(*cost);
}

std::optional<std::string> Trials::judge_bytes() const {
  for (std::uint32_t i = 0; i < looks_.result().served_count; ++i) {
    const Served& served = looks_.result().served[i];
    if (served.is_set_aside) continue;
    const std::string what =
        fmt::format("message {} of {}", served.sequence,
                    served.queue == kNoQueue ? "an unknown queue" : image_.queues[served.queue]);
    const auto published = image_.published.find(served.checksum);
    if (published == image_.published.end()) {
      return "bytes: " + what + " was delivered with bytes that nobody published";
    }
    if (served.queue == kNoQueue ||
        !image_.queues[served.queue].starts_with(published->second.queue)) {
      return "bytes: " + what + " was published to another queue";
    }
  }
  for (std::size_t i = 0; i < image_.republishes.size(); ++i) {
    const RepublishAnswer& answer = looks_.result().republished[i];
    if (answer.duplicate && answer.sequence != image_.republishes[i].sequence) {
      return fmt::format("bytes: the id '{}' is called a duplicate of message {}, it was {}",
                         image_.republishes[i].id, answer.sequence, image_.republishes[i].sequence);
    }
  }
  return std::nullopt;
}

std::optional<std::string> Trials::judge_losses(bool stopped) const {
  if (stopped || looks_.result().corrupt_counted > 0) return std::nullopt;
  std::set<std::uint64_t> seen;
  for (std::uint32_t i = 0; i < looks_.result().served_count; ++i)
    seen.insert(looks_.result().served[i].checksum);
  for (std::uint32_t i = 0; i < image_.owed.served_count; ++i) {
    const Served& owed = image_.owed.served[i];
    if (seen.contains(owed.checksum)) continue;
    return fmt::format("counted: message {} of {} is not served, and nothing is counted as corrupt",
                       owed.sequence, image_.queues[owed.queue]);
  }
  return std::nullopt;
}

std::optional<std::string> Trials::judge_rest(const Cost& cost) const {
  const std::vector<Served> served = sorted(looks_.result(), image_);
  const std::vector<Served> owed = sorted(image_.owed, image_);
  std::set<std::pair<std::uint32_t, Sequence>> hit;
  for (const auto& [queue, sequence] : cost) {
    const auto index = image_.queue_indexes.find(queue);
    if (index != image_.queue_indexes.end()) hit.emplace(index->second, sequence);
  }
  if (!looks_.result().finished) return "rest: the broker did not go on";
  std::uint64_t missing = 0;
  for (const Served& one : owed) {
    const bool there = std::find(served.begin(), served.end(), one) != served.end();
    if (there) continue;
    ++missing;
    const PublishedMessage& published = image_.published.at(one.checksum);
    const auto source = std::find(image_.queues.begin(), image_.queues.end(), published.queue);
    if (!hit.contains({one.queue, one.sequence}) &&
        !hit.contains(
            {static_cast<std::uint32_t>(source - image_.queues.begin()), published.sequence})) {
      return fmt::format("rest: message {} of {} is not served, and the damage is not in it",
                         one.sequence, image_.queues[one.queue]);
    }
  }
  if (missing != looks_.result().corrupt_counted) {
    return fmt::format("rest: {} messages are not served, and {} counted as corrupt", missing,
                       looks_.result().corrupt_counted);
  }
  if (looks_.result().messages_left + looks_.result().fresh_lost > 0) {
    return fmt::format("rest: {} messages are left, {} new ones were not served",
                       looks_.result().messages_left, looks_.result().fresh_lost);
  }
  return std::nullopt;
}

std::optional<std::string> Trials::difference(bool attempts_count) const {
  if (!looks_.result().finished) return "the broker did not go on";
  std::vector<Served> served = sorted(looks_.result(), image_);
  std::vector<Served> owed = sorted(image_.owed, image_);
  if (!attempts_count) {
    for (Served& one : served) one.attempt = 0;
    for (Served& one : owed) one.attempt = 0;
  }
  const auto [got, wanted] = std::mismatch(served.begin(), served.end(), owed.begin(), owed.end());
  if (got != served.end() || wanted != owed.end()) {
    const auto describe = [&](auto at, auto end) {
      if (at == end) return std::string("nothing");
      return fmt::format("message {} of {} as attempt {}", at->sequence, image_.queues[at->queue],
                         at->attempt);
    };
    return fmt::format("{} is served where {} is owed ({} and {} in all)",
                       describe(got, served.end()), describe(wanted, owed.end()), served.size(),
                       owed.size());
  }
  if (looks_.result().republished != image_.owed.republished) return "an id is not known any more";
  if (looks_.result().corrupt_counted + looks_.result().records_damaged > 0)
    return "damage is counted";
  if (looks_.result().messages_left + looks_.result().fresh_lost > 0)
    return "messages are left or lost";
  return std::nullopt;
}

std::optional<Trials::Cost> Trials::cost_of(const Damage& damage) const {
  if (damage.file.size() != image_.file.size() || damage.changed.empty()) return std::nullopt;
  Cost cost;
  auto block = image_.blocks.begin();
  for (auto at = damage.changed.begin(); at != damage.changed.end();) {
    while (block != image_.blocks.end() && block->end <= *at) ++block;
    if (block == image_.blocks.end() || *at < block->begin) return std::nullopt;
    const auto begin = at;
    while (at != damage.changed.end() && *at < block->end) ++at;
    const std::size_t header_end = block->begin + sizeof(broker::BlockHeader);
    const bool header = *begin < header_end;
    const bool table = *(at - 1) >= block->table_begin;
    const auto in_entry = [&](const EntryPlace& entry) {
      const auto first = std::lower_bound(begin, at, entry.begin);
      return first != at && *first < entry.end;
    };
    const bool entries = std::any_of(block->entries.begin(), block->entries.end(), in_entry);
    for (const EntryPlace& entry : block->entries) {
      if (header || (table && entries) || in_entry(entry)) {
        cost.emplace_back(block->queue, entry.sequence);
      }
    }
  }
  return cost;
}

}  // namespace holdfast::corrupt
