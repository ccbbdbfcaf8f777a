#include "corrupt/image.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>

#include "corrupt/engine.h"
#include "store/environment.h"
#include "store/record.h"

namespace holdfast::corrupt {

namespace {

constexpr std::size_t kPageBytes = 4096;

std::string data_file_in(const std::string& directory) { return directory + "/store/data.mdb"; }

// Values point into the map, whose pages carry their numbers: so each tells where in the file it
// is.
std::size_t place_in_file(const std::uint8_t* value) {
  const auto address = reinterpret_cast<std::uintptr_t>(value);
  const std::size_t in_page = address % kPageBytes;
  std::uint64_t page = 0;
  std::memcpy(&page, value - in_page, sizeof(page));
  return page * kPageBytes + in_page;
}

Status locate_blocks(const std::string& directory, Image* image) {
  auto environment = broker::Environment::open(
      {.directory = directory + "/store", .map_bytes = 1 << 30, .read_only = true});
  if (!environment) return environment.status();
  Result<broker::Transaction> transaction = (*environment)->begin_read();
  if (!transaction) return transaction.status();
  Result<broker::Cursor> cursor = transaction->cursor(broker::Table::kBlocks);
  if (!cursor) return cursor.status();
  for (bool found = cursor->first(); found; found = cursor->next()) {
    const std::optional<broker::BlockKey> key = broker::read_block_key(cursor->key());
    if (!key) return harness_fault("A block's key is not legible.");
    const ByteSpan value = cursor->value();
    const auto block = broker::Block::from_record(key->queue, key->first, value);
    if (!block) return block.status();
    BlockPlace place;
    place.queue = key->queue;
    place.begin = place_in_file(value.data());
    place.end = place.begin + value.size();
    std::size_t last_end = sizeof(broker::BlockHeader);
    for (std::size_t i = 0; i < (*block)->entry_count(); ++i) {
      const ByteSpan raw = (*block)->raw_entry(i);
      const auto at = static_cast<std::size_t>(raw.data() - (*block)->bytes().data());
      place.entries.push_back(
          {(*block)->entry(i).sequence, place.begin + at, place.begin + at + raw.size()});
      last_end = at + raw.size();
    }
    place.table_begin = place.begin + last_end;
    if (image->file.compare(place.begin, value.size(), std::string(value.begin(), value.end())) !=
        0) {
      return harness_fault("A block is not where its page number says.");
    }
    image->blocks.push_back(std::move(place));
  }
  std::sort(image->blocks.begin(), image->blocks.end(),
            [](const BlockPlace& a, const BlockPlace& b) { return a.begin < b.begin; });
  return Status();
}

Status check_variety(const Image& image) {
  std::set<std::pair<broker::PageKind, std::string_view>> kinds;
  for (const broker::PageSeen& page : image.pages) kinds.emplace(page.kind, page.table);
  const bool whole = kinds.contains({broker::PageKind::kOverflow, "blocks"}) &&
                     kinds.contains({broker::PageKind::kBranch, "blocks"}) &&
                     kinds.contains({broker::PageKind::kLeaf, "retries"}) &&
                     kinds.contains({broker::PageKind::kLeaf, "acks"}) &&
                     kinds.contains({broker::PageKind::kLeaf, "dedup"}) &&
                     kinds.contains({broker::PageKind::kFree, "free"});
  if (!whole || image.owed.served_count < 50) {
    return harness_fault("The image has not something of everything; change its workload.");
  }
  return Status();
}

}  // namespace

std::string read_data_file(const std::string& directory) {
  constexpr std::streamoff kLastPageAt = 136;  // in a meta page
  std::ifstream file(data_file_in(directory), std::ios::binary);
  std::uint64_t last_page = 0;
  for (const std::streamoff meta_page : {0, 1}) {
    std::uint64_t last = 0;
    file.seekg(meta_page * static_cast<std::streamoff>(kPageBytes) + kLastPageAt);
    file.read(reinterpret_cast<char*>(&last), sizeof(last));
    last_page = std::max(last_page, last);
  }
  std::string bytes((last_page + 1) * kPageBytes, '\0');
  file.seekg(0);
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

Status put_data_file(const std::string& directory, const std::string& bytes) {
  std::error_code ignored;
  std::filesystem::remove(directory + "/store/lock.mdb", ignored);
  std::ofstream file(data_file_in(directory), std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (file) return Status();
  return harness_fault(fmt::format("{} cannot be written.", data_file_in(directory)));
}

Result<Image> make_image(const std::string& directory, crash::Random& random) {
  Image image;
  {
    Result<std::unique_ptr<Engine>> engine = Engine::open(directory, start_of_time());
    if (!engine) return engine.status();
    const auto look = [&] { image.older.push_back(read_data_file(directory)); };
    const auto is_enough = [] { return true; };
    Status status = run_workload(**engine, random, look, is_enough, &image);
    if (!status.ok()) return status;
    image.now = (*engine)->now();
  }
  image.now.monotonic += Milliseconds(1'000);
  image.now.wall += Milliseconds(1'000);
  image.file = read_data_file(directory);
  image.republishes = choose_republishes(image);
  const Result<broker::PageReport> pages =
      broker::check_pages(data_file_in(directory), broker::PageScope::kAll,
                          [&](const broker::PageSeen& seen) { image.pages.push_back(seen); });
  if (!pages) return pages.status();
  if (!pages->findings.empty()) {
    return harness_fault("The sound image has a finding: " + pages->findings.front().where + " " +
                         pages->findings.front().what);
  }
  if (Status status = locate_blocks(directory, &image); !status) return status;
  const ServingPlan plan{directory, image.queues, image.republishes, image.now, false};
  auto result = std::make_unique<ServingResult>();
  if (Status status = serve(plan, result.get()); !status) return status;
  image.owed = *result;
  if (Status status = check_owed(image, image.republishes, image.owed, kAllBatches); !status) {
    return status;
  }
  if (Status status = check_variety(image); !status) return status;
  return image;
}

}  // namespace holdfast::corrupt
