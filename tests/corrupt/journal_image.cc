#include "corrupt/journal_image.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <fstream>
#include <iterator>
#include <memory>
#include <utility>

#include "corrupt/engine.h"
#include "corrupt/image.h"
#include "store/checker.h"

namespace holdfast::corrupt {

namespace {

// So small that the workload fills it several times.
constexpr std::uint64_t kJournalBytes = 256 << 10;
constexpr std::size_t kEntriesMin = 8;

template <typename Value>
Value read_at(const std::string& bytes, std::size_t at) {
  Value value{};
  std::memcpy(&value, bytes.data() + at, sizeof(value));
  return value;
}

std::string read_journal(const std::string& directory) {
  std::ifstream file(journal_path_in(directory), std::ios::binary);
  return {std::istreambuf_iterator<char>(file), std::istreambuf_iterator<char>()};
}

// The entries from the journal's start up to that of the last batch; none, if that is in the
// tables.
std::vector<JournalEntryPlace> entries_of(const std::string& journal, std::uint64_t last_batch) {
  std::vector<JournalEntryPlace> entries;
  for (std::size_t at = 0; at < journal.size();) {
    const auto bytes = read_at<std::uint32_t>(journal, at + 4);
    const auto batch = read_at<std::uint64_t>(journal, at + 8);
    if (!entries.empty() && batch != entries.back().batch + 1) break;
    entries.push_back({batch, at, at + kJournalHeaderBytes + bytes});
    if (batch == last_batch) return entries;
    at = (entries.back().end + kJournalPageBytes - 1) / kJournalPageBytes * kJournalPageBytes;
  }
  return {};
}

// As a kill leaves it: the files are read beside the broker that has them open.
Status do_workload(const std::string& directory, crash::Random& random, JournalImage* image) {
  Result<std::unique_ptr<Engine>> engine = Engine::open(directory, start_of_time(), kJournalBytes);
  if (!engine) return engine.status();
  const auto look = [&] { image->older.push_back(read_journal(directory)); };
  const auto is_enough = [&] {
    return entries_of(read_journal(directory), (*engine)->last_batch()).size() >= kEntriesMin;
  };
  Status status = run_workload(**engine, random, look, is_enough, image);
  if (!status.ok()) return status;
  image->data = read_data_file(directory);
  image->journal = read_journal(directory);
  image->entries = entries_of(image->journal, (*engine)->last_batch());
  image->now = (*engine)->now();
  image->now.monotonic += Milliseconds(1'000);
  image->now.wall += Milliseconds(1'000);
  return Status();
}

Status put_both(const std::string& directory, const JournalImage& image,
                const std::string& journal) {
  if (Status status = put_data_file(directory, image.data); !status) return status;
  return put_journal(directory, journal);
}

// Whether the store itself sees these entries.
Status check_entries(const std::string& directory, const JournalImage& image) {
  if (image.entries.size() < kEntriesMin) return harness_fault("There is too little journaled.");
  const Result<broker::CheckReport> report = broker::check_directory(directory, {});
  if (!report) return report.status();
  if (!report->findings.empty() || report->batches_journaled != image.entries.size() ||
      report->batch_number + 1 != image.entries.front().batch) {
    return harness_fault(
        fmt::format("The sound image has {} findings, and {} batches behind {} where {} from {} on "
                    "are journaled.",
                    report->findings.size(), report->batches_journaled, report->batch_number,
                    image.entries.size(), image.entries.front().batch));
  }
  return Status();
}

// What is owed after each number of entries: those behind it are taken away.
Status serve_all(const std::string& directory, JournalImage* image) {
  const ServingPlan plan{directory, image->queues, image->republishes, image->now, false};
  auto result = std::make_unique<ServingResult>();
  for (std::size_t count = 0; count <= image->entries.size(); ++count) {
    std::string journal = image->journal;
    for (std::size_t i = count; i < image->entries.size(); ++i) {
      const JournalEntryPlace& entry = image->entries[i];
      std::fill(journal.begin() + static_cast<std::ptrdiff_t>(entry.begin),
                journal.begin() + static_cast<std::ptrdiff_t>(entry.end), '\0');
    }
    if (Status status = put_both(directory, *image, journal); !status) return status;
    *result = {};
    if (Status status = serve(plan, result.get()); !status) return status;
    image->owed.push_back(*result);
    const std::uint64_t batch = image->entries.front().batch - 1 + count;
    Status status = check_owed(*image, image->republishes, *result, batch);
    if (!status.ok()) {
      return harness_fault(fmt::format("After {} of {} entries: {}", count, image->entries.size(),
                                       status.message()));
    }
  }
  return Status();
}

}  // namespace

std::string journal_path_in(const std::string& directory) { return directory + "/store/journal"; }

Status put_journal(const std::string& directory, const std::string& bytes) {
  std::ofstream file(journal_path_in(directory), std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (file) return Status();
  return harness_fault(fmt::format("{} cannot be written.", journal_path_in(directory)));
}

Result<JournalImage> make_journal_image(const std::string& directory, crash::Random& random) {
  JournalImage image;
  if (Status status = do_workload(directory, random, &image); !status) return status;
  image.republishes = choose_republishes(image);
  if (Status status = put_both(directory, image, image.journal); !status) return status;
  if (Status status = check_entries(directory, image); !status) return status;
  if (Status status = serve_all(directory, &image); !status) return status;
  return image;
}

}  // namespace holdfast::corrupt
