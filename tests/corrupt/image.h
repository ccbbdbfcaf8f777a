// An image: a data directory with something of everything in it, what was published into it, and
// what a broker that starts on it owes.
//
// It is made through the core, by the workload. The data file is kept as it was at several moments,
// so that a page can be put back to an older version of itself.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "corrupt/serving.h"
#include "corrupt/workload.h"
#include "crash/random.h"
#include "store/pages.h"

namespace holdfast::corrupt {

// Where an entry of a block lies in the data file.
struct EntryPlace {
  Sequence sequence = 0;
  std::size_t begin = 0;
  std::size_t end = 0;
};

struct BlockPlace {
  QueueId queue;
  std::size_t begin = 0;
  std::size_t end = 0;
  std::size_t table_begin = 0;
  std::vector<EntryPlace> entries;
};

struct Image : History {
  std::string file;                // the data file's bytes, up to the end of its pages
  std::vector<std::string> older;  // as it was before
  std::vector<broker::PageSeen> pages;
  std::vector<BlockPlace> blocks;  // ascending by place
  Now now;                         // when it was left
  std::vector<Republish> republishes;
  ServingResult owed;  // what serving the sound image gives
};

// Makes the image in this directory, which must be empty. An error is a fault of the broker or of
// this harness: a sound image that is not served as it should be.
Result<Image> make_image(const std::string& directory, crash::Random& random);

// The bytes of the directory's data file, up to the end of its pages; behind them it is a hole.
std::string read_data_file(const std::string& directory);
// Puts these bytes into it, and removes what a process left beside it.
Status put_data_file(const std::string& directory, const std::string& bytes);

}  // namespace holdfast::corrupt
