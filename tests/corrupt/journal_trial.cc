#include "corrupt/journal_trial.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <tuple>
#include <utility>
#include <vector>

#include "corrupt/image.h"

namespace holdfast::corrupt {

namespace {

auto place_of(const Served& served) {
  return std::tuple(served.queue, served.sequence, served.checksum, served.attempt,
                    served.is_set_aside);
}

// A message that went to a dead-letter queue while it was served got its sequence there by chance.
std::vector<Served> sorted(const ServingResult& result, const History& history) {
  std::vector<Served> all(result.served.begin(), result.served.begin() + result.served_count);
  for (Served& one : all) {
    if (one.queue != kNoQueue && history.queues[one.queue].ends_with(".dead")) one.sequence = 0;
  }
  std::sort(all.begin(), all.end(),
            [](const Served& a, const Served& b) { return place_of(a) < place_of(b); });
  return all;
}

bool differs(const std::string& a, const std::string& b, std::size_t begin, std::size_t end) {
  return a.compare(begin, end - begin, b, begin, end - begin) != 0;
}

}  // namespace

JournalTrials::JournalTrials(const JournalImage& image, std::string directory)
    : image_(image), directory_(std::move(directory)), looks_(directory_) {}

std::optional<std::string> JournalTrials::run(const JournalDamage& damage) {
  ++counts_.trials;
  if (Status status = put_data_file(directory_, image_.data); !status) return status.message();
  if (Status status = put_journal(directory_, damage.journal); !status) return status.message();
  if (damage.kind == JournalDamageKind::kMissing) {
    std::filesystem::remove(journal_path_in(directory_));
  }
  const Expected expected = expected_of(damage);
  ++(expected.refused                            ? counts_.refused
     : expected.entries == image_.entries.size() ? counts_.whole
                                                 : counts_.cut);
  if (expected.told > 0) ++counts_.told;
  const Ending check = looks_.check();
  const Ending serving =
      looks_.serve({directory_, image_.queues, image_.republishes, image_.now, false, 0});
  std::optional<std::string> violation = judge(expected, check, serving);
  if (violation) {
    *violation += fmt::format("\n  damage: {}\n  the check said: {}\n  the broker said: {}",
                              damage.what, check.said, serving.said);
  }
  return violation;
}

JournalTrials::Expected JournalTrials::expected_of(const JournalDamage& damage) const {
  if (damage.kind == JournalDamageKind::kMissing ||
      damage.journal.size() != image_.journal.size()) {
    return {.refused = true};
  }
  const auto hit = std::find_if(
      image_.entries.begin(), image_.entries.end(), [&](const JournalEntryPlace& entry) {
        return differs(damage.journal, image_.journal, entry.begin, entry.end);
      });
  if (hit != image_.entries.end() && a_later_one_begins(damage.journal, *hit)) {
    return {.refused = true, .batch = hit->batch};
  }
  Expected expected{.entries = static_cast<std::size_t>(hit - image_.entries.begin())};
  if (hit != image_.entries.end() &&
      !differs(damage.journal, image_.journal, hit->begin, hit->begin + kJournalHeaderBytes)) {
    expected.told = hit->batch;
  }
  return expected;
}

// At its own place or at another, as long as it is behind the place of the one that was hit.
bool JournalTrials::a_later_one_begins(const std::string& journal,
                                       const JournalEntryPlace& hit) const {
  for (std::size_t at = hit.begin; at < journal.size(); at += kJournalPageBytes) {
    for (const JournalEntryPlace& entry : image_.entries) {
      if (entry.batch > hit.batch && journal.compare(at, kJournalHeaderBytes, image_.journal,
                                                     entry.begin, kJournalHeaderBytes) == 0) {
        return true;
      }
    }
  }
  return false;
}

std::optional<std::string> JournalTrials::judge(const Expected& expected, const Ending& check,
                                                const Ending& serving) const {
  if (auto violation = looks_.judge_ending("check", check, false)) return violation;
  if (auto violation = looks_.judge_ending("broker", serving, false)) return violation;
  if (expected.refused) return judge_refusal(expected, check, serving);
  if (!check.exited_with(0)) return "told: the check finds something, and nothing is owed for it";
  if (!serving.exited_with(0)) return "told: the broker stopped, and nothing is owed for it";
  if (looks_.result().batch_cut_short != expected.told) {
    return fmt::format("cut: batch {} is not whole, and told was {}", expected.told,
                       looks_.result().batch_cut_short);
  }
  const auto differs = difference(image_.owed[expected.entries]);
  if (!differs) return std::nullopt;
  return fmt::format("served: of {} entries {} are sound, and {}", image_.entries.size(),
                     expected.entries, *differs);
}

std::optional<std::string> JournalTrials::judge_refusal(const Expected& expected,
                                                        const Ending& check,
                                                        const Ending& serving) const {
  if (looks_.result().started || serving.exited_with(0)) {
    return fmt::format("refused: the broker started, and batch {} is lost", expected.batch);
  }
  if (check.exited_with(0)) return "refused: the check found nothing";
  const std::string batch = expected.batch == 0 ? "" : fmt::format("atch {}", expected.batch);
  for (const Ending* ending : {&check, &serving}) {
    if (ending->said.find(batch) == std::string::npos ||
        ending->said.find("journal") == std::string::npos) {
      return fmt::format("refused: 'b{}' of the journal is not named", batch);
    }
  }
  return std::nullopt;
}

std::optional<std::string> JournalTrials::difference(const ServingResult& owed) const {
  const ServingResult& result = looks_.result();
  if (!result.finished) return "the broker did not go on";
  const std::vector<Served> served = sorted(result, image_);
  const std::vector<Served> wanted = sorted(owed, image_);
  if (served != wanted) {
    const auto at = std::mismatch(served.begin(), served.end(), wanted.begin(), wanted.end());
    const auto describe = [&](auto one, auto end) {
      return one == end ? std::string("nothing")
                        : fmt::format("message {} of {} as attempt {}", one->sequence,
                                      one->queue == kNoQueue ? "?" : image_.queues[one->queue],
                                      one->attempt);
    };
    return fmt::format("{} is served where {} is owed ({} and {} in all)",
                       describe(at.first, served.end()), describe(at.second, wanted.end()),
                       served.size(), wanted.size());
  }
  if (result.republished != owed.republished) return "an id is answered in another way";
  if (result.corrupt_counted + result.records_damaged > 0) return "damage is counted";
  if (result.messages_left + result.fresh_lost > 0) return "messages are left or lost";
  return std::nullopt;
}

}  // namespace holdfast::corrupt
