#include "corrupt/damage.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <utility>

namespace holdfast::corrupt {

namespace {

constexpr std::size_t kPageBytes = 4096;
constexpr std::size_t kSectorBytes = 512;
constexpr std::size_t kRunMax = 64;
// Where headers and the offsets of nodes are.
constexpr std::size_t kPageHeadBytes = 160;

struct Weight {
  DamageKind kind;
  std::string_view name;
  std::uint32_t percent;
};
constexpr std::array<Weight, kDamageKinds> kWeights{
    {{DamageKind::kBit, "bit flipped", 38},
     {DamageKind::kByte, "byte changed", 10},
     {DamageKind::kBytes, "bytes changed", 12},
     {DamageKind::kZeroSector, "sector zeroed", 6},
     {DamageKind::kZeroPage, "page zeroed", 6},
     {DamageKind::kGarbagePage, "page garbled", 4},
     {DamageKind::kSwappedPages, "pages swapped", 6},
     {DamageKind::kStalePage, "page stale", 10},
     {DamageKind::kMisplacedPage, "page misplaced", 4},
     {DamageKind::kTruncated, "file cut", 2},
     {DamageKind::kCutWhileRunning, "file cut under the broker", 2}}};

DamageKind choose_kind(crash::Random& random) {
  std::uint64_t choice = random.below(100);
  for (const Weight& weight : kWeights) {
    if (choice < weight.percent) return weight.kind;
    choice -= weight.percent;
  }
  return DamageKind::kBit;
}

std::string_view kind_name(broker::PageKind kind) {
  static constexpr std::array<std::string_view, 5> kNames{"meta", "branch", "leaf", "overflow",
                                                          "free"};
  return kNames[static_cast<std::size_t>(kind)];
}

class Chooser {
 public:
  Chooser(const Image& image, crash::Random& random) : image_(image), random_(random) {}

  Damage choose(DamageKind kind) {
    damage_.kind = kind;
    damage_.file = image_.file;
    do {
      damage_.file = image_.file;
      apply();
      compare();
    } while (damage_.changed.empty() && damage_.file.size() == image_.file.size() &&
             kind != DamageKind::kCutWhileRunning);
    return std::move(damage_);
  }

 private:
  std::size_t page_count() const { return image_.file.size() / kPageBytes; }

  // The rare pages as often as the many; now and then anywhere in the file.
  std::size_t choose_page() {
    const std::uint64_t choice = random_.below(10);
    if (choice == 0) return random_.below(page_count());
    if (choice < 5) {
      const broker::PageSeen& seen = image_.pages[random_.below(image_.pages.size())];
      return seen.first + random_.below(seen.count);
    }
    std::map<std::pair<broker::PageKind, std::string_view>, std::vector<std::size_t>> sorts;
    for (const broker::PageSeen& seen : image_.pages) {
      for (std::size_t i = 0; i < seen.count; ++i) {
        sorts[{seen.kind, seen.table}].push_back(seen.first + i);
      }
    }
    const auto sort =
        std::next(sorts.begin(), static_cast<std::ptrdiff_t>(random_.below(sorts.size())));
    return sort->second[random_.below(sort->second.size())];
  }

  std::size_t choose_place() {
    const std::size_t page = choose_page();
    name_page(page);
    return page * kPageBytes + random_.below(random_.once_in(2) ? kPageHeadBytes : kPageBytes);
  }

  void name_page(std::size_t page) {
    where_ = fmt::format("page {}", page);
    for (const broker::PageSeen& seen : image_.pages) {
      if (page < seen.first || page >= seen.first + seen.count) continue;
      where_ += fmt::format(" ({} {})", kind_name(seen.kind), seen.table);
      damage_.hits_used_page = seen.kind != broker::PageKind::kFree;
      return;
    }
    damage_.hits_used_page = false;
  }

  char* page_at(std::size_t page) { return damage_.file.data() + page * kPageBytes; }

  void say(std::string_view detail) {
    damage_.what = fmt::format("{}: {}{}", damage_name(damage_.kind), where_, detail);
  }

  void apply() {
    switch (damage_.kind) {
      case DamageKind::kBit:
      case DamageKind::kByte:
      case DamageKind::kBytes:
        return change_bytes();
      case DamageKind::kZeroSector:
        return zero_sector();
      case DamageKind::kTruncated:
        return truncate();
      case DamageKind::kCutWhileRunning:
        damage_.hits_used_page = true;
        damage_.what = damage_name(damage_.kind);
        return;
      default:
        return change_page();
    }
  }

  void change_bytes() {
    const std::size_t at = choose_place();
    if (damage_.kind == DamageKind::kBit) {
      const std::uint64_t bit = random_.below(8);
      damage_.file[at] = static_cast<char>(damage_.file[at] ^ (1 << bit));
      return say(fmt::format(", bit {} of byte {}", bit, at % kPageBytes));
    }
    const std::size_t wanted = damage_.kind == DamageKind::kByte ? 1 : 2 + random_.below(kRunMax);
    const std::size_t count = std::min(wanted, damage_.file.size() - at);
    for (std::size_t i = 0; i < count; ++i)
      damage_.file[at + i] = static_cast<char>(random_.next());
    say(fmt::format(", {} bytes from {} on", count, at % kPageBytes));
  }

  void zero_sector() {
    const std::size_t begin = choose_place() / kSectorBytes * kSectorBytes;
    std::fill_n(damage_.file.begin() + static_cast<std::ptrdiff_t>(begin), kSectorBytes, '\0');
    say(fmt::format(", from {} on", begin % kPageBytes));
  }

  void truncate() {
    std::size_t size = random_.below(image_.file.size());
    if (random_.once_in(2)) size -= size % kPageBytes;
    damage_.file.resize(size);
    damage_.hits_used_page = size / kPageBytes < image_.pages.size();
    damage_.what = fmt::format("file cut to {} of {} bytes", size, image_.file.size());
  }

  void change_page() {
    const std::size_t page = choose_page();
    name_page(page);
    const std::size_t other = random_.below(page_count());
    switch (damage_.kind) {
      case DamageKind::kZeroPage:
        std::fill_n(page_at(page), kPageBytes, '\0');
        return say("");
      case DamageKind::kGarbagePage:
        std::generate_n(page_at(page), kPageBytes,
                        [this] { return static_cast<char>(random_.next()); });
        return say("");
      case DamageKind::kSwappedPages:
        std::swap_ranges(page_at(page), page_at(page) + kPageBytes, page_at(other));
        return say(fmt::format(" with page {}", other));
      case DamageKind::kMisplacedPage:
        std::copy_n(page_at(other), kPageBytes, page_at(page));
        return say(fmt::format(" by page {}", other));
      default:
        return make_stale(page);
    }
  }

  void make_stale(std::size_t page) {
    if (page < 2) return;
    std::vector<std::size_t> differ;
    for (std::size_t i = 0; i < image_.older.size(); ++i) {
      const std::string& older = image_.older[i];
      if (older.size() < (page + 1) * kPageBytes) continue;
      if (older.compare(page * kPageBytes, kPageBytes, image_.file, page * kPageBytes,
                        kPageBytes) != 0) {
        differ.push_back(i);
      }
    }
    if (differ.empty()) return;
    const std::size_t version = differ[random_.below(differ.size())];
    std::copy_n(image_.older[version].data() + page * kPageBytes, kPageBytes, page_at(page));
    say(fmt::format(" as of snapshot {} of {}", version + 1, image_.older.size()));
  }

  void compare() {
    damage_.changed.clear();
    const std::size_t count = std::min(damage_.file.size(), image_.file.size());
    for (std::size_t page = 0; page * kPageBytes < count; ++page) {
      const std::size_t begin = page * kPageBytes;
      const std::size_t bytes = std::min(kPageBytes, count - begin);
      if (damage_.file.compare(begin, bytes, image_.file, begin, bytes) == 0) continue;
      for (std::size_t i = begin; i < begin + bytes; ++i) {
        if (damage_.file[i] != image_.file[i]) damage_.changed.push_back(i);
      }
    }
  }

  const Image& image_;
  crash::Random& random_;
  Damage damage_;
  std::string where_;
};

}  // namespace

std::string_view damage_name(DamageKind kind) {
  return kWeights[static_cast<std::size_t>(kind)].name;
}

Damage choose_damage(const Image& image, crash::Random& random) {
  const DamageKind kind = choose_kind(random);
  return Chooser(image, random).choose(kind);
}

}  // namespace holdfast::corrupt
