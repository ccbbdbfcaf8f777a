// A journal image: a data directory as a kill leaves it, with batches in the journal that the
// tables have not taken in, and what a broker owes that starts on the first so many of them.
//
// It is made by the same workload as the image. The journal is kept as it was at several moments,
// so that older pages of it can be put back.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "corrupt/serving.h"
#include "corrupt/workload.h"
#include "crash/random.h"

namespace holdfast::corrupt {

inline constexpr std::size_t kJournalPageBytes = 4096;
inline constexpr std::size_t kJournalHeaderBytes = 32;

// An entry that the tables have not taken in.
struct JournalEntryPlace {
  std::uint64_t batch = 0;
  std::size_t begin = 0;
  std::size_t end = 0;  // of its changes; what follows is padding
};

struct JournalImage : History {
  std::string data;     // the data file's bytes
  std::string journal;  // the journal's
  std::vector<std::string> older;
  std::vector<JournalEntryPlace> entries;  // ascending
  Now now;                                 // when it was left
  std::vector<Republish> republishes;
  // What serving gives after so many of the entries.
  std::vector<ServingResult> owed;
};

// As make_image().
Result<JournalImage> make_journal_image(const std::string& directory, crash::Random& random);

std::string journal_path_in(const std::string& directory);
Status put_journal(const std::string& directory, const std::string& bytes);

}  // namespace holdfast::corrupt
