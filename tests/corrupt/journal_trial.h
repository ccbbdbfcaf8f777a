// A trial of the journal: one damage, the check, and a broker that serves what is left.
//
// What is owed, besides that both end by themselves, see looks.h, and no signal ends them:
//   whole    where no entry that the tables lack was hit, everything is served, and the check finds
//            nothing
//   refused  where one was hit and a later one was begun, or the file is missing or has another
//            size, the broker does not start and says why; it names the batch, and so does the
//            check
//   cut      where one was hit and none behind it was begun, that is what a crash leaves: exactly
//            what was stored before it is served, and a warning names the batch, if its header is
//            left

#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "corrupt/journal_damage.h"
#include "corrupt/journal_image.h"
#include "corrupt/looks.h"

namespace holdfast::corrupt {

struct JournalTrialCounts {
  std::uint64_t trials = 0;
  std::uint64_t whole = 0;
  std::uint64_t refused = 0;
  std::uint64_t cut = 0;
  std::uint64_t told = 0;  // of those
};

class JournalTrials {
 public:
  // `directory` holds the store that the image was made in.
  JournalTrials(const JournalImage& image, std::string directory);

  // The violation; nullopt if everything that is owed was given.
  std::optional<std::string> run(const JournalDamage& damage);
  const JournalTrialCounts& counts() const { return counts_; }

 private:
  struct Expected {
    bool refused = false;
    std::uint64_t batch = 0;  // that is named then; 0: it is the file
    std::size_t entries = 0;  // else: so many are served
    std::uint64_t told = 0;   // and of this batch it is told that it is not whole; 0: of none
  };

  Expected expected_of(const JournalDamage& damage) const;
  bool a_later_one_begins(const std::string& journal, const JournalEntryPlace& hit) const;
  std::optional<std::string> judge(const Expected& expected, const Ending& check,
                                   const Ending& serving) const;
  std::optional<std::string> judge_refusal(const Expected& expected, const Ending& check,
                                           const Ending& serving) const;
  std::optional<std::string> difference(const ServingResult& owed) const;

  const JournalImage& image_;
  const std::string directory_;
  Looks looks_;
  JournalTrialCounts counts_;
};

}  // namespace holdfast::corrupt
