// The pages of a data file, looked at without LMDB.
//
// LMDB has no checksums and believes its pages: a damaged header sends it, and what it then copies,
// anywhere in memory. So the trees that it walks are checked before it is let at the file: that the
// two meta pages belong together, that every page is what the page above it says, its nodes lie
// inside it, its keys ascend within their bounds, no page is used twice or is free as well, and
// that each table has as many pages and records as its root says.
//
// How pages look is LMDB's mdb.c, version 0.9: page 0 and 1 are meta pages, of which the one with
// the higher transaction holds; a tree has branch pages, leaf pages, and overflow pages for values
// of more than half a page.
//
// What cannot be told: a meta page, or a whole commit, of which the device gives back the version
// before, or a meta page whose transaction became that of its version before by the turn of a bit,
// which is how LMDB leaves it when a commit fails. That is the state of an earlier commit, sound in
// itself.

#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "holdfast/status.h"
#include "store/finding.h"

namespace holdfast::broker {

enum class PageKind : std::uint8_t { kMeta, kBranch, kLeaf, kOverflow, kFree };

// A page in use, or a run of overflow pages.
struct PageSeen {
  std::uint64_t first = 0;
  std::uint64_t count = 1;
  PageKind kind = PageKind::kMeta;
  std::string_view table;  // "main" and "free" for LMDB's own; empty for meta
};

enum class PageScope : std::uint8_t {
  kAll,
  // What a start has time for: all but the values of the blocks, and of the leaf pages of the
  // blocks, which grow with the messages stored, the first 4,096.
  kForStart,
};

struct PageReport {
  std::uint64_t end_page = 0;
  // About the file as a whole (it is missing, or cut short) there is one alone, whose `where` is
  // the file. There are none of a file that is not LMDB's at all: nothing was looked at.
  std::vector<CheckFinding> findings;
};

// Reads the file, which nobody may have open for writing. kStorageFailed: it cannot be read.
// `seen` (may be empty) is told of every page.
Result<PageReport> check_pages(const std::string& data_file, PageScope scope,
                               const std::function<void(const PageSeen&)>& seen = {});

// How many pages a value of so many bytes needs, if it does not fit into a leaf page.
std::uint64_t overflow_pages(std::uint64_t value_bytes, std::uint64_t page_bytes);
// How many pages the value has that begins on this overflow page; 0: this is not the header of the
// overflow page with this number. LMDB frees as many. They may be more than the value needs: a
// smaller one that is put over another within one transaction stays where that was.
std::uint64_t overflow_run(const std::uint8_t* header, std::uint64_t page);
// Bytes of a page's header, behind which an overflow page's value begins.
inline constexpr std::size_t kPageHeaderBytes = 16;

}  // namespace holdfast::broker
