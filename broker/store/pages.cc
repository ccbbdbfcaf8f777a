#include "store/pages.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cerrno>
#include <cstring>
#include <memory>
#include <optional>
#include <utility>

#include "store/environment.h"
#include "store/file.h"

namespace holdfast::broker {

namespace {

constexpr std::uint32_t kMagic = 0xBEEFC0DE;
constexpr std::uint32_t kVersion = 1;
constexpr std::uint64_t kMetaPages = 2;
constexpr std::uint64_t kNoPage = ~std::uint64_t{0};
constexpr std::uint64_t kPageBytesMin = 512;
constexpr std::uint64_t kPageBytesMax = 32768;
constexpr std::uint16_t kDepthMax = 32;
constexpr std::size_t kFindingsMax = 50;
constexpr std::uint64_t kBlockLeavesAtStart = 4096;

constexpr std::uint16_t kBranchFlag = 0x01;
constexpr std::uint16_t kLeafFlag = 0x02;
constexpr std::uint16_t kOverflowFlag = 0x04;
constexpr std::uint16_t kMetaFlag = 0x08;
constexpr std::uint16_t kBigDataFlag = 0x01;  // of a node: the value is on overflow pages
constexpr std::uint16_t kTableFlag = 0x02;    // the value is the root of a table
constexpr std::uint16_t kIntegerKeys = 0x08;  // of a table: keys are native numbers

struct TableRoot {
  std::uint32_t pad;  // of the free table in a meta page: the page size
  std::uint16_t flags;
  std::uint16_t depth;
  std::uint64_t branch_pages;
  std::uint64_t leaf_pages;
  std::uint64_t overflow_pages;
  std::uint64_t entries;
  std::uint64_t root;
};
static_assert(sizeof(TableRoot) == 48);

struct Meta {
  std::uint32_t magic;
  std::uint32_t version;
  std::uint64_t address;
  std::uint64_t map_bytes;
  TableRoot free_table;
  TableRoot main_table;
  std::uint64_t last_page;
  std::uint64_t transaction;
};
static_assert(sizeof(Meta) == 136);

struct PageHeader {
  std::uint64_t page;
  std::uint16_t pad;
  std::uint16_t flags;
  std::uint16_t lower;  // on an overflow page these two are the number of its pages
  std::uint16_t upper;
};
static_assert(sizeof(PageHeader) == kPageHeaderBytes);

constexpr std::uint64_t kMetaBytes = sizeof(PageHeader) + sizeof(Meta);

struct NodeHeader {
  std::uint16_t low;
  std::uint16_t high;
  std::uint16_t flags;
  std::uint16_t key_bytes;
};
static_assert(sizeof(NodeHeader) == 8);

template <typename Value>
Value read_at(const std::uint8_t* bytes) {
  Value value;
  std::memcpy(&value, bytes, sizeof(value));
  return value;
}

// What a tree was found to have, against what its root says.
struct TreeCounts {
  std::uint64_t branch_pages = 0;
  std::uint64_t leaf_pages = 0;
  std::uint64_t overflow_pages = 0;
  std::uint64_t entries = 0;
};

// Keys of a page lie in [low, high); nullopt: no bound.
struct KeyBounds {
  std::optional<ByteSpan> low;
  std::optional<ByteSpan> high;
};

struct Tree {
  std::string_view name;
  TableRoot root;
  std::uint64_t leaves_max = ~std::uint64_t{0};  // more are not looked at
  bool values_wanted = true;
  bool sound = true;
  TreeCounts counts{};
  // Called with each record of a sound leaf.
  std::function<void(ByteSpan key, ByteSpan value)> record{};
};

// Pages that are about to be read one after the other. From a cold cache each would wait for the
// device, so the system is asked for all of them beforehand: for those side by side at once, when
// the next one is not, and for the last when this ends.
class ReadAhead {
 public:
  ReadAhead(int file, std::uint64_t page_bytes, std::uint64_t end_page)
      : file_(file), page_bytes_(page_bytes), end_page_(end_page) {}
  ReadAhead(const ReadAhead&) = delete;
  ReadAhead& operator=(const ReadAhead&) = delete;
  ~ReadAhead() { ask(); }

  void add(std::uint64_t page) {
    if (page >= end_page_) return;  // damaged
    if (page != first_ + count_) {
      ask();
      first_ = page;
      count_ = 0;
    }
    ++count_;
  }

 private:
  // Only advice: what comes of it is seen when the pages are read.
  void ask() const {
    if (count_ == 0) return;
    static_cast<void>(::posix_fadvise(file_, static_cast<off_t>(first_ * page_bytes_),
                                      static_cast<off_t>(count_ * page_bytes_),
                                      POSIX_FADV_WILLNEED));
  }

  const int file_;
  const std::uint64_t page_bytes_;
  const std::uint64_t end_page_;
  std::uint64_t first_ = 0;
  std::uint64_t count_ = 0;
};

class PageWalk {
 public:
  PageWalk(int file, std::uint64_t file_bytes, const std::string& data_file, PageScope scope,
           const std::function<void(const PageSeen&)>& seen)
      : file_(file), file_bytes_(file_bytes), data_file_(data_file), scope_(scope), seen_(seen) {}

  Result<PageReport> run();

 private:
  using Page = std::unique_ptr<std::uint8_t[]>;

  bool read_bytes(std::uint64_t at, std::size_t wanted, std::uint8_t* bytes);
  Page read_pages(std::uint64_t first, std::uint64_t count);
  std::optional<Meta> read_meta(std::uint64_t page, std::uint64_t at);
  std::optional<Meta> choose_meta();
  bool is_whole(const Meta& meta);
  void walk_tables(const Meta& meta);
  void walk(Tree* tree);
  void walk_page(Tree* tree, std::uint64_t page, std::uint16_t level, const KeyBounds& bounds);
  void ask_for_children(const Tree& tree, const std::uint8_t* bytes, bool leaves);
  void ask_for_values(const Tree& tree, std::uint64_t leaf);
  bool page_is_sound(const Tree& tree, std::uint64_t page, const std::uint8_t* bytes, bool leaf);
  bool nodes_are_sound(const std::uint8_t* bytes, bool leaf);
  bool keys_ascend(const Tree& tree, const std::uint8_t* bytes, bool leaf, const KeyBounds& bounds);
  void walk_leaf(Tree* tree, std::uint64_t page, const std::uint8_t* bytes);
  bool place_can_be(const NodeHeader& node, const std::uint8_t* at) const;
  bool value_of(Tree* tree, const NodeHeader& node, const std::uint8_t* at, Page* overflow,
                ByteSpan* value);
  void check_counts(const Tree& tree);
  void take_free_pages(ByteSpan key, ByteSpan value);
  void check_transaction();
  bool claim(std::uint64_t first, std::uint64_t count, PageKind kind, std::string_view table);
  void check_all_claimed();
  Status cannot_be_read() const { return Outcome(read_error_).to_status("Reading " + data_file_); }
  void find(std::string where, std::string what);
  void find_in_page(Tree* tree, std::uint64_t page, std::string what) {
    tree->sound = false;
    find(fmt::format("page {} of table {}", page, tree->name), std::move(what));
  }

  std::size_t node_count(const std::uint8_t* bytes) const {
    return (read_at<PageHeader>(bytes).lower - sizeof(PageHeader)) / sizeof(std::uint16_t);
  }
  const std::uint8_t* node_at(const std::uint8_t* bytes, std::size_t index) const {
    return bytes +
           read_at<std::uint16_t>(bytes + sizeof(PageHeader) + index * sizeof(std::uint16_t));
  }
  std::size_t node_bytes(const NodeHeader& node, bool leaf) const {
    std::size_t bytes = sizeof(NodeHeader) + node.key_bytes;
    if (leaf) bytes += (node.flags & kBigDataFlag) != 0 ? sizeof(std::uint64_t) : value_bytes(node);
    return bytes + bytes % 2;
  }
  static std::uint32_t value_bytes(const NodeHeader& node) {
    return node.low | static_cast<std::uint32_t>(node.high) << 16;
  }
  static std::uint64_t child_of(const NodeHeader& node) {
    return value_bytes(node) | static_cast<std::uint64_t>(node.flags) << 32;
  }
  static ByteSpan key_of(const std::uint8_t* node) {
    return {node + sizeof(NodeHeader), read_at<NodeHeader>(node).key_bytes};
  }

  const int file_;
  const std::uint64_t file_bytes_;
  const std::string& data_file_;
  const PageScope scope_;
  const std::function<void(const PageSeen&)>& seen_;
  PageReport report_;
  std::uint64_t page_bytes_ = 0;
  std::uint64_t transaction_ = 0;
  std::uint64_t last_freed_by_ =
      0;  // the transaction of the free table's last record; 0: none, or it is damaged
  std::vector<bool> claimed_;
  std::uint64_t claimed_count_ = 0;
  bool is_lmdb_ = false;  // a meta page is one
  int read_error_ = 0;
};

void PageWalk::find(std::string where, std::string what) {
  if (report_.findings.size() < kFindingsMax) {
    report_.findings.push_back({std::move(where), std::move(what)});
  }
}

// False, and read_error_ says why, if they cannot be read.
bool PageWalk::read_bytes(std::uint64_t at, std::size_t wanted, std::uint8_t* bytes) {
  for (std::size_t done = 0; done < wanted;) {
    const ssize_t got = ::pread(file_, bytes + done, wanted - done, static_cast<off_t>(at + done));
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) {
      read_error_ = got < 0 ? errno : EIO;
      return false;
    }
    done += static_cast<std::size_t>(got);
  }
  return true;
}

// Null, and read_error_ says why, if they cannot be read.
PageWalk::Page PageWalk::read_pages(std::uint64_t first, std::uint64_t count) {
  Page bytes(new std::uint8_t[count * page_bytes_]);
  if (!read_bytes(first * page_bytes_, count * page_bytes_, bytes.get())) return nullptr;
  return bytes;
}

std::optional<Meta> PageWalk::read_meta(std::uint64_t page, std::uint64_t at) {
  std::array<std::uint8_t, kMetaBytes> bytes{};
  if (file_bytes_ < at + bytes.size() || !read_bytes(at, bytes.size(), bytes.data())) {
    return std::nullopt;
  }
  const auto header = read_at<PageHeader>(bytes.data());
  const auto meta = read_at<Meta>(bytes.data() + sizeof(PageHeader));
  if (meta.magic == kMagic) is_lmdb_ = true;
  const std::uint64_t size = meta.free_table.pad;
  if (header.page != page || header.flags != kMetaFlag || meta.magic != kMagic ||
      meta.version != kVersion || !std::has_single_bit(size) || size < kPageBytesMin ||
      size > kPageBytesMax) {
    return std::nullopt;
  }
  return meta;
}

std::optional<Meta> PageWalk::choose_meta() {
  const std::optional<Meta> first = read_meta(0, 0);
  // Where the first one is damaged, the second is looked for at the usual place.
  const std::optional<Meta> second = read_meta(1, first ? first->free_table.pad : 4096);
  if (!first || !second) {
    find(fmt::format("page {}", first ? 1 : 0), "is not the meta page that belongs there");
    return std::nullopt;
  }
  const Meta& newer = first->transaction > second->transaction ? *first : *second;
  const Meta& older = first->transaction > second->transaction ? *second : *first;
  // A commit writes the page whose number is that of its transaction modulo 2, so that a commit
  // that is cut short leaves the other. In a file without a commit both are transaction 0.
  if (newer.free_table.pad != older.free_table.pad ||
      (newer.transaction != 0 &&
       (newer.transaction - older.transaction != 1 || second->transaction % 2 != 1))) {
    find("pages 0 and 1",
         fmt::format("do not belong together: they name the transactions {} and {}",
                     first->transaction, second->transaction));
    return std::nullopt;
  }
  return newer;
}

bool PageWalk::is_whole(const Meta& meta) {
  page_bytes_ = meta.free_table.pad;
  if (meta.last_page < file_bytes_ / page_bytes_) return true;
  find(data_file_, fmt::format("is cut short: it has {} bytes, and its last page is number {}, of "
                               "{} bytes each",
                               file_bytes_, meta.last_page, page_bytes_));
  return false;
}

Result<PageReport> PageWalk::run() {
  if (file_bytes_ < kMetaBytes) {
    find(data_file_, fmt::format("is cut short: it has {} bytes", file_bytes_));
    return std::move(report_);
  }
  const std::optional<Meta> meta = choose_meta();
  if (read_error_ != 0) return cannot_be_read();
  if (!is_lmdb_) report_.findings.clear();  // it is another program's
  if (!meta || !is_whole(*meta)) return std::move(report_);
  report_.end_page = meta->last_page + 1;
  transaction_ = meta->transaction;
  claimed_.resize(report_.end_page);
  claim(0, kMetaPages, PageKind::kMeta, "");
  walk_tables(*meta);
  if (read_error_ != 0) return cannot_be_read();
  if (scope_ == PageScope::kAll && report_.findings.empty()) check_all_claimed();
  return std::move(report_);
}

void PageWalk::walk_tables(const Meta& meta) {
  std::vector<std::pair<std::string_view, TableRoot>> roots;
  Tree main{.name = "main", .root = meta.main_table};
  main.record = [&](ByteSpan key, ByteSpan value) {
    const std::string_view name(reinterpret_cast<const char*>(key.data()), key.size());
    for (std::size_t i = 0; i < kTableCount; ++i) {
      const std::string_view known = table_name(static_cast<Table>(i));
      if (name != known || value.size() != sizeof(TableRoot)) continue;
      roots.emplace_back(known, read_at<TableRoot>(value.data()));
      return;
    }
    find("table main", "holds something else than the tables of Holdfast");
  };
  walk(&main);
  if (main.sound && roots.size() != kTableCount) {
    find("table main", fmt::format("has {} of the {} tables", roots.size(), kTableCount));
  }
  for (const auto& [name, root] : roots) {
    const bool is_blocks = name == table_name(Table::kBlocks);
    Tree tree{.name = name, .root = root};
    if (is_blocks && scope_ == PageScope::kForStart) {
      tree.leaves_max = kBlockLeavesAtStart;
      tree.values_wanted = false;
    }
    walk(&tree);
  }
  Tree free{.name = "free", .root = meta.free_table};
  free.record = [this](ByteSpan key, ByteSpan value) { take_free_pages(key, value); };
  walk(&free);
  if (free.sound) check_transaction();
}

void PageWalk::walk(Tree* tree) {
  const TableRoot& root = tree->root;
  const std::uint16_t flags = tree->name == "free" ? kIntegerKeys : 0;
  if ((root.root == kNoPage) != (root.depth == 0) || root.depth > kDepthMax ||
      root.flags != flags) {
    tree->sound = false;
    return find(fmt::format("table {}", tree->name), "has a root that cannot be");
  }
  if (root.depth > 0) walk_page(tree, root.root, 1, {});
  if (tree->sound && read_error_ == 0) check_counts(*tree);
}

void PageWalk::walk_page(Tree* tree, std::uint64_t page, std::uint16_t level,
                         const KeyBounds& bounds) {
  const bool leaf = level == tree->root.depth;
  if (!claim(page, 1, leaf ? PageKind::kLeaf : PageKind::kBranch, tree->name)) {
    tree->sound = false;
    return;
  }
  ++(leaf ? tree->counts.leaf_pages : tree->counts.branch_pages);
  if (leaf && tree->counts.leaf_pages > tree->leaves_max) return;
  const Page bytes = read_pages(page, 1);
  if (bytes == nullptr) return;
  if (!page_is_sound(*tree, page, bytes.get(), leaf)) {
    return find_in_page(tree, page, "is not the page that belongs there, or its header is damaged");
  }
  if (!nodes_are_sound(bytes.get(), leaf)) {
    return find_in_page(tree, page, "has nodes that do not lie side by side inside it");
  }
  if (!keys_ascend(*tree, bytes.get(), leaf, bounds)) {
    return find_in_page(tree, page, "has keys that are out of order");
  }
  if (leaf) return walk_leaf(tree, page, bytes.get());
  ask_for_children(*tree, bytes.get(), level + 1 == tree->root.depth);
  const std::size_t count = node_count(bytes.get());
  for (std::size_t i = 0; i < count && read_error_ == 0; ++i) {
    KeyBounds below = bounds;
    if (i > 0) below.low = key_of(node_at(bytes.get(), i));
    if (i + 1 < count) below.high = key_of(node_at(bytes.get(), i + 1));
    const auto node = read_at<NodeHeader>(node_at(bytes.get(), i));
    walk_page(tree, child_of(node), static_cast<std::uint16_t>(level + 1), below);
  }
}

void PageWalk::ask_for_children(const Tree& tree, const std::uint8_t* bytes, bool leaves) {
  std::size_t count = node_count(bytes);
  if (leaves) {
    count = std::min(count, tree.leaves_max - std::min(tree.leaves_max, tree.counts.leaf_pages));
  }
  const auto child = [&](std::size_t i) {
    return child_of(read_at<NodeHeader>(node_at(bytes, i)));
  };
  {
    ReadAhead ahead(file_, page_bytes_, report_.end_page);
    for (std::size_t i = 0; i < count; ++i) ahead.add(child(i));
  }
  if (!leaves || !tree.values_wanted) return;
  for (std::size_t i = 0; i < count && read_error_ == 0; ++i) {
    if (child(i) < report_.end_page) ask_for_values(tree, child(i));
  }
}

void PageWalk::ask_for_values(const Tree& tree, std::uint64_t leaf) {
  const Page page = read_pages(leaf, 1);
  const std::uint8_t* const bytes = page.get();
  if (bytes == nullptr || !page_is_sound(tree, leaf, bytes, true) ||
      !nodes_are_sound(bytes, true)) {
    return;  // found when it is walked
  }
  ReadAhead ahead(file_, page_bytes_, report_.end_page);
  for (std::size_t i = 0; i < node_count(bytes); ++i) {
    const std::uint8_t* const at = node_at(bytes, i);
    const auto node = read_at<NodeHeader>(at);
    if ((node.flags & kBigDataFlag) == 0) continue;
    ahead.add(read_at<std::uint64_t>(at + sizeof(NodeHeader) + node.key_bytes));
  }
}

bool PageWalk::page_is_sound(const Tree& tree, std::uint64_t page, const std::uint8_t* bytes,
                             bool leaf) {
  const auto header = read_at<PageHeader>(bytes);
  const std::size_t nodes_min = leaf || tree.name == "free" ? 1 : 2;
  return header.page == page && header.flags == (leaf ? kLeafFlag : kBranchFlag) &&
         header.lower % 2 == 0 && header.lower <= header.upper && header.upper <= page_bytes_ &&
         header.lower >= sizeof(PageHeader) + nodes_min * sizeof(std::uint16_t);
}

// LMDB keeps the nodes of a page packed at its end, in any order.
bool PageWalk::nodes_are_sound(const std::uint8_t* bytes, bool leaf) {
  std::vector<std::pair<std::size_t, std::size_t>> places;
  for (std::size_t i = 0; i < node_count(bytes); ++i) {
    const std::uint8_t* const node = node_at(bytes, i);
    const auto at = static_cast<std::size_t>(node - bytes);
    if (at > page_bytes_ - sizeof(NodeHeader)) return false;
    places.emplace_back(at, at + node_bytes(read_at<NodeHeader>(node), leaf));
  }
  std::sort(places.begin(), places.end());
  std::size_t end = read_at<PageHeader>(bytes).upper;
  for (const auto& [node_begin, node_end] : places) {
    if (node_begin != end) return false;
    end = node_end;
  }
  return end == page_bytes_;
}

bool PageWalk::keys_ascend(const Tree& tree, const std::uint8_t* bytes, bool leaf,
                           const KeyBounds& bounds) {
  const bool numbers = (tree.root.flags & kIntegerKeys) != 0;
  const auto less = [numbers](ByteSpan a, ByteSpan b) {
    if (numbers) return read_at<std::uint64_t>(a.data()) < read_at<std::uint64_t>(b.data());
    return std::lexicographical_compare(a.begin(), a.end(), b.begin(), b.end());
  };
  std::optional<ByteSpan> previous;
  // The first key of a branch page stands for everything below the second and may hold anything.
  for (std::size_t i = leaf ? 0 : 1; i < node_count(bytes); ++i) {
    const ByteSpan key = key_of(node_at(bytes, i));
    if (key.empty() || (numbers && key.size() != sizeof(std::uint64_t))) return false;
    if (previous ? !less(*previous, key) : bounds.low && less(key, *bounds.low)) return false;
    previous = key;
  }
  return !previous || !bounds.high || less(*previous, *bounds.high);
}

void PageWalk::walk_leaf(Tree* tree, std::uint64_t page, const std::uint8_t* bytes) {
  const std::uint16_t flags_allowed = tree->name == "main" ? kTableFlag : kBigDataFlag;
  for (std::size_t i = 0; i < node_count(bytes); ++i) {
    const std::uint8_t* const at = node_at(bytes, i);
    const auto node = read_at<NodeHeader>(at);
    Page overflow;
    ByteSpan value;
    if ((node.flags & ~flags_allowed) != 0 || !place_can_be(node, at) ||
        (tree->values_wanted && !value_of(tree, node, at, &overflow, &value))) {
      return find_in_page(tree, page, fmt::format("has a value that is not where node {} says", i));
    }
    ++tree->counts.entries;
    if (tree->record) tree->record(key_of(at), value);
  }
}

// Whether the file has the pages on which the value is to be: what lies behind its end is a SIGBUS.
bool PageWalk::place_can_be(const NodeHeader& node, const std::uint8_t* at) const {
  if ((node.flags & kBigDataFlag) == 0) return true;
  const auto first = read_at<std::uint64_t>(at + sizeof(NodeHeader) + node.key_bytes);
  return first < report_.end_page &&
         overflow_pages(value_bytes(node), page_bytes_) <= report_.end_page - first;
}

// Of a value whose place can be. It is read only where somebody wants it.
bool PageWalk::value_of(Tree* tree, const NodeHeader& node, const std::uint8_t* at, Page* overflow,
                        ByteSpan* value) {
  const std::uint8_t* const data = at + sizeof(NodeHeader) + node.key_bytes;
  *value = {data, value_bytes(node)};
  if ((node.flags & kBigDataFlag) == 0) return true;
  const auto first = read_at<std::uint64_t>(data);
  const std::uint64_t wanted = overflow_pages(value_bytes(node), page_bytes_);
  // How many there are says the first of them, too: a node that is damaged may want a gigabyte.
  *overflow = read_pages(first, 1);
  if (*overflow == nullptr) return false;
  const std::uint64_t count = overflow_run(overflow->get(), first);
  if (count < wanted || !claim(first, count, PageKind::kOverflow, tree->name)) return false;
  tree->counts.overflow_pages += count;
  if (tree->record && wanted > 1) *overflow = read_pages(first, wanted);
  if (*overflow == nullptr) return false;
  *value = {overflow->get() + sizeof(PageHeader), value_bytes(node)};
  return true;
}

void PageWalk::check_counts(const Tree& tree) {
  const TreeCounts& counts = tree.counts;
  const TableRoot& root = tree.root;
  if (counts.branch_pages == root.branch_pages && counts.leaf_pages == root.leaf_pages &&
      (counts.leaf_pages > tree.leaves_max || counts.entries == root.entries) &&
      (!tree.values_wanted || counts.overflow_pages == root.overflow_pages)) {
    return;
  }
  find(fmt::format("table {}", tree.name),
       fmt::format("has {} records on {} pages, and its root says {} on {}", counts.entries,
                   counts.branch_pages + counts.leaf_pages + counts.overflow_pages, root.entries,
                   root.branch_pages + root.leaf_pages + root.overflow_pages));
}

// A record: key, the transaction that freed them; value, the number of pages and then their
// numbers.
void PageWalk::take_free_pages(ByteSpan key, ByteSpan value) {
  const auto freed_by = read_at<std::uint64_t>(key.data());
  const std::uint64_t room = value.size() / sizeof(std::uint64_t);
  const std::uint64_t count = room > 0 ? read_at<std::uint64_t>(value.data()) : kNoPage;
  last_freed_by_ = 0;
  if (freed_by == 0 || freed_by > transaction_ || count >= room) {
    return find("table free", fmt::format("has a damaged record of transaction {}", freed_by));
  }
  last_freed_by_ = freed_by;
  std::uint64_t previous = kNoPage;
  for (std::uint64_t i = 1; i <= count; ++i) {
    const auto page = read_at<std::uint64_t>(value.data() + i * sizeof(std::uint64_t));
    if (page >= previous) {
      return find("table free",
                  fmt::format("has a record of transaction {} that is out of order", freed_by));
    }
    if (!claim(page, 1, PageKind::kFree, "free")) return;
    previous = page;
  }
}

// The number of an older transaction of which one bit has turned may suit the other meta page's, so
// that the older one holds. But each commit frees pages and notes them under its own number, last
// in the free table. (One that is too low tells nothing: LMDB itself writes the number before when
// the flush of a commit fails, and leaves the rest of the page.)
void PageWalk::check_transaction() {
  constexpr std::uint64_t kSuits = 2;  // N - 1 and N + 1 both belong to N
  if (last_freed_by_ == 0 || last_freed_by_ + kSuits != transaction_) return;
  find(fmt::format("page {}", transaction_ % 2),
       fmt::format("names transaction {}, its free pages are those of {}", transaction_,
                   last_freed_by_));
}

bool PageWalk::claim(std::uint64_t first, std::uint64_t count, PageKind kind,
                     std::string_view table) {
  if (first >= report_.end_page || count > report_.end_page - first) {
    find(fmt::format("table {}", table),
         fmt::format("names page {}, and the last is {}", first, report_.end_page - 1));
    return false;
  }
  for (std::uint64_t page = first; page < first + count; ++page) {
    if (claimed_[page]) {
      find(fmt::format("page {}", page),
           fmt::format("is used twice, or free and used; the second time by table {}", table));
      return false;
    }
    claimed_[page] = true;
  }
  claimed_count_ += count;
  if (seen_) seen_({first, count, kind, table});
  return true;
}

void PageWalk::check_all_claimed() {
  if (claimed_count_ == report_.end_page) return;
  const auto lost = std::find(claimed_.begin(), claimed_.end(), false);
  find(fmt::format("page {}", lost - claimed_.begin()),
       fmt::format("is neither used nor free, the first of {}", report_.end_page - claimed_count_));
}

}  // namespace

std::uint64_t overflow_pages(std::uint64_t value_bytes, std::uint64_t page_bytes) {
  return (sizeof(PageHeader) - 1 + value_bytes) / page_bytes + 1;
}

std::uint64_t overflow_run(const std::uint8_t* header, std::uint64_t page) {
  const auto read = read_at<PageHeader>(header);
  if (read.page != page || read.flags != kOverflowFlag) return 0;
  return read.lower | static_cast<std::uint64_t>(read.upper) << 16;
}

Result<PageReport> check_pages(const std::string& data_file, PageScope scope,
                               const std::function<void(const PageSeen&)>& seen) {
  const File file(data_file, O_RDONLY);
  if (file.error() == ENOENT) {
    PageReport report;
    report.findings.push_back({data_file, "is missing"});
    return report;
  }
  if (means_no_access(file.error())) {
    return no_access(data_file, file.error(), scope == PageScope::kAll);
  }
  if (!file.ok()) return Outcome(file.error()).to_status("Opening " + data_file);
  struct stat status {};
  if (::fstat(file.descriptor(), &status) != 0) {
    return Outcome(errno).to_status("Looking at " + data_file);
  }
  // The pages of a tree lie between others, which reading ahead would bring along.
  static_cast<void>(::posix_fadvise(file.descriptor(), 0, 0, POSIX_FADV_RANDOM));
  return PageWalk(file.descriptor(), static_cast<std::uint64_t>(status.st_size), data_file, scope,
                  seen)
      .run();
}

}  // namespace holdfast::broker
