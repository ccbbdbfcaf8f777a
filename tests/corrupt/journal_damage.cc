#include "corrupt/journal_damage.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <limits>
#include <utility>

namespace holdfast::corrupt {

namespace {

constexpr std::size_t kSectorBytes = 512;
constexpr std::size_t kRunMax = 64;
constexpr std::size_t kPagesMax = 8;  // side by side
constexpr std::size_t kSizeAt = 4;    // in the header

struct Weight {
  JournalDamageKind kind;
  std::string_view name;
  std::uint32_t percent;
};
constexpr std::array<Weight, kJournalDamageKinds> kWeights{
    {{JournalDamageKind::kBit, "journal: bit flipped", 20},
     {JournalDamageKind::kByte, "journal: byte changed", 8},
     {JournalDamageKind::kBytes, "journal: bytes changed", 8},
     {JournalDamageKind::kSize, "journal: size changed", 8},
     {JournalDamageKind::kZeroSector, "journal: sector zeroed", 8},
     {JournalDamageKind::kZeroPages, "journal: pages zeroed", 10},
     {JournalDamageKind::kGarbagePage, "journal: page garbled", 4},
     {JournalDamageKind::kSwappedPages, "journal: pages swapped", 6},
     {JournalDamageKind::kSwappedEntries, "journal: entries swapped", 6},
     {JournalDamageKind::kStalePages, "journal: pages stale", 10},
     {JournalDamageKind::kMisplacedPage, "journal: page misplaced", 3},
     {JournalDamageKind::kTruncated, "journal: cut", 3},
     {JournalDamageKind::kGrown, "journal: grown", 3},
     {JournalDamageKind::kMissing, "journal: missing", 3}}};

JournalDamageKind choose_kind(crash::Random& random) {
  std::uint64_t choice = random.below(100);
  for (const Weight& weight : kWeights) {
    if (choice < weight.percent) return weight.kind;
    choice -= weight.percent;
  }
  return JournalDamageKind::kBit;
}

class Chooser {
 public:
  Chooser(const JournalImage& image, crash::Random& random) : image_(image), random_(random) {}

  JournalDamage choose(JournalDamageKind kind) {
    damage_.kind = kind;
    do {
      damage_.journal = image_.journal;
      apply();
    } while (kind != JournalDamageKind::kMissing && damage_.journal == image_.journal);
    return std::move(damage_);
  }

 private:
  std::size_t page_count() const { return image_.journal.size() / kJournalPageBytes; }

  // The last entry as often as all others together.
  const JournalEntryPlace& choose_entry() {
    if (random_.once_in(2)) return image_.entries.back();
    return image_.entries[random_.below(image_.entries.size())];
  }

  // Mostly in an entry, and there often in its header; now and then anywhere in the file.
  std::size_t choose_place() {
    if (random_.once_in(8)) return random_.below(image_.journal.size());
    const JournalEntryPlace& entry = choose_entry();
    const std::size_t size = random_.once_in(3) ? kJournalHeaderBytes : entry.end - entry.begin;
    return entry.begin + random_.below(size);
  }
  std::size_t choose_page() { return choose_place() / kJournalPageBytes; }
  std::size_t choose_page_count(std::size_t first) {
    const std::size_t wanted = random_.once_in(2) ? 1 : 1 + random_.below(kPagesMax);
    return std::min(wanted, page_count() - first);
  }

  char* page_at(std::size_t page) { return damage_.journal.data() + page * kJournalPageBytes; }

  void say(std::string_view detail) {
    damage_.what = fmt::format("{}: {}", damage_name(damage_.kind), detail);
  }

  void apply() {
    switch (damage_.kind) {
      case JournalDamageKind::kBit:
      case JournalDamageKind::kByte:
      case JournalDamageKind::kBytes:
        return change_bytes();
      case JournalDamageKind::kSize:
        return change_size();
      case JournalDamageKind::kTruncated:
        return resize(random_.below(image_.journal.size()));
      case JournalDamageKind::kGrown:
        return resize(image_.journal.size() + 1 + random_.below(2 * kJournalPageBytes));
      case JournalDamageKind::kMissing:
        return say("");
      default:
        return change_pages();
    }
  }

  void change_bytes() {
    const std::size_t at = choose_place();
    if (damage_.kind == JournalDamageKind::kBit) {
      const std::uint64_t bit = random_.below(8);
      damage_.journal[at] = static_cast<char>(damage_.journal[at] ^ (1 << bit));
      return say(fmt::format("bit {} of byte {}", bit, at));
    }
    const std::size_t wanted =
        damage_.kind == JournalDamageKind::kByte ? 1 : 2 + random_.below(kRunMax);
    const std::size_t count = std::min(wanted, damage_.journal.size() - at);
    for (std::size_t i = 0; i < count; ++i) {
      damage_.journal[at + i] = static_cast<char>(random_.next());
    }
    say(fmt::format("{} bytes from {} on", count, at));
  }

  void change_size() {
    const std::size_t at = choose_entry().begin;
    const std::array<std::uint32_t, 5> sizes{
        0, std::numeric_limits<std::uint32_t>::max(), std::numeric_limits<std::int32_t>::max(),
        static_cast<std::uint32_t>(image_.journal.size() - at - kJournalHeaderBytes),
        static_cast<std::uint32_t>(random_.next())};
    const std::uint32_t size = sizes[random_.below(sizes.size())];
    std::memcpy(damage_.journal.data() + at + kSizeAt, &size, sizeof(size));
    say(fmt::format("{} bytes, says the header at {}", size, at));
  }

  void resize(std::size_t size) {
    damage_.journal.resize(size);
    say(fmt::format("to {} of {} bytes", size, image_.journal.size()));
  }

  void change_pages() {
    const std::size_t page = choose_page();
    const std::size_t other = random_.below(page_count());
    switch (damage_.kind) {
      case JournalDamageKind::kZeroSector: {
        const std::size_t begin = choose_place() / kSectorBytes * kSectorBytes;
        std::fill_n(damage_.journal.begin() + static_cast<std::ptrdiff_t>(begin), kSectorBytes,
                    '\0');
        return say(fmt::format("from {} on", begin));
      }
      case JournalDamageKind::kZeroPages: {
        const std::size_t count = choose_page_count(page);
        std::fill_n(page_at(page), count * kJournalPageBytes, '\0');
        return say(fmt::format("{} from page {} on", count, page));
      }
      case JournalDamageKind::kGarbagePage:
        std::generate_n(page_at(page), kJournalPageBytes,
                        [this] { return static_cast<char>(random_.next()); });
        return say(fmt::format("page {}", page));
      case JournalDamageKind::kSwappedPages:
        return swap_pages(page, other);
      case JournalDamageKind::kSwappedEntries:
        return swap_pages(choose_entry().begin / kJournalPageBytes,
                          choose_entry().begin / kJournalPageBytes);
      case JournalDamageKind::kMisplacedPage:
        std::copy_n(image_.journal.data() + other * kJournalPageBytes, kJournalPageBytes,
                    page_at(page));
        return say(fmt::format("page {} by page {}", page, other));
      default:
        return make_stale(page);
    }
  }

  void swap_pages(std::size_t page, std::size_t other) {
    if (page != other) {
      std::swap_ranges(page_at(page), page_at(page) + kJournalPageBytes, page_at(other));
    }
    say(fmt::format("pages {} and {}", page, other));
  }

  void make_stale(std::size_t page) {
    const std::size_t count = choose_page_count(page);
    const std::size_t version = random_.below(image_.older.size());
    std::copy_n(image_.older[version].data() + page * kJournalPageBytes, count * kJournalPageBytes,
                page_at(page));
    say(fmt::format("{} from page {} on as of snapshot {} of {}", count, page, version + 1,
                    image_.older.size()));
  }

  const JournalImage& image_;
  crash::Random& random_;
  JournalDamage damage_;
};

}  // namespace

std::string_view damage_name(JournalDamageKind kind) {
  return kWeights[static_cast<std::size_t>(kind)].name;
}

JournalDamage choose_damage(const JournalImage& image, crash::Random& random) {
  const JournalDamageKind kind = choose_kind(random);
  return Chooser(image, random).choose(kind);
}

}  // namespace holdfast::corrupt
