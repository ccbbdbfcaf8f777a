// A trial: one damage, the check, and a broker that serves what is left. Check and broker run in
// processes of their own, which the damage may end.
//
// What is owed:
//   bytes    what is delivered was published, to that queue, byte for byte (or is set aside as a
//            dead letter that says so); an id answered as a duplicate names its first message
//   end      the check and the broker end by themselves, see looks.h. No signal ends them, but for
//            SIGBUS and SIGSEGV a broker that has started: on the pages of LMDB that a start does
//            not read, and where its file is cut while it runs
//   told     if the check finds nothing, the broker serves exactly what the sound image owes:
//            nothing is missing, nothing that was settled comes again, no attempt is forgotten.
//            A stale page may roll back the count of attempts, which nothing else in the file
//            contradicts
//   counted  a message that is not served is counted as corrupt by the broker, or it did not start
//            or stopped with a sentence
//   rest     damage inside the records of blocks costs only the messages that it hit, and they are
//            set aside; everything else is served

#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "corrupt/damage.h"
#include "corrupt/image.h"
#include "corrupt/looks.h"

namespace holdfast::corrupt {

struct TrialCounts {
  std::uint64_t trials = 0;
  std::uint64_t used_pages_hit = 0;
  std::uint64_t found_by_check = 0;
  std::uint64_t harmless = 0;  // served whole, and the check finds nothing
  std::uint64_t refused_at_start = 0;
  std::uint64_t stopped_by_status = 0;  // while it served
  std::uint64_t stopped_by_signal = 0;  // likewise, with a sentence
  std::uint64_t losses_counted = 0;     // trials in which messages were set aside
  std::uint64_t inside_blocks = 0;      // trials of which `rest` was asked
  std::uint64_t rolled_back = 0;        // attempts forgotten by a stale page
};

class Trials {
 public:
  // `directory` holds the store that the image was made in.
  Trials(const Image& image, std::string directory);

  // The violation; nullopt if everything that is owed was given.
  std::optional<std::string> run(const Damage& damage);
  const TrialCounts& counts() const { return counts_; }

 private:
  using Cost = std::vector<std::pair<QueueId, Sequence>>;

  std::optional<std::string> judge(const Damage& damage, const Ending& check,
                                   const Ending& serving);
  std::optional<std::string> judge_bytes() const;
  std::optional<std::string> judge_losses(bool stopped) const;
  std::optional<std::string> judge_rest(const Cost& cost) const;
  // The first difference from what the sound image gives.
  std::optional<std::string> difference(bool attempts_count) const;
  // Which messages the damage may cost; nullopt: it is not inside the records of blocks alone.
  std::optional<Cost> cost_of(const Damage& damage) const;

  const Image& image_;
  const std::string directory_;
  Looks looks_;
  TrialCounts counts_;
};

}  // namespace holdfast::corrupt
