// The device: what is on it for certain, what is only in the page cache, and what a loss of power
// may leave of that. It follows the directory's entries of the log.
//
// A file's bytes are certain once they were synced, or written through. A name (of a new, renamed
// or removed file) is certain once its directory was synced. Of what is not certain any part may be
// there after a loss of power: single pages, single sectors of 512 bytes, names without bytes and
// bytes without names; a file then ends behind the last part that is there, or farther, and what
// was never written in between reads as zeroes.
//
// What a sync that failed was to make certain is never made so by a later one: the page cache takes
// it for clean. It must be written anew.
//
// The contents of the two lock files mean nothing after a loss of power and are not followed.

#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "crash/random.h"
#include "disk/log.h"

namespace holdfast::disk {

using Bytes = std::vector<std::uint8_t>;

// A state that the directory may be found in: its files by path, its directories with no bytes.
struct DeviceState {
  struct Node {
    bool directory = false;
    Bytes bytes;             // what is behind them reads as zeroes
    std::uint64_t size = 0;  // of the file; not less than its bytes
    bool operator==(const Node&) const = default;
  };
  std::map<std::string, Node> nodes;
};

// How much of what is not certain is there.
enum class Survival { kNothing, kEverything, kSome };

// Ways in which a device may lie, to show that it would be noticed.
enum class Lie { kNothing, kSync, kWriteThrough };

class Device {
 public:
  explicit Device(Lie lie) : lie_(lie) {}

  void apply(const Entry& entry);
  // Whether anything is not certain.
  bool certain() const;
  DeviceState state(Survival survival, crash::Random& random) const;

 private:
  struct Write {
    std::uint64_t offset = 0;
    std::span<const std::uint8_t> bytes;  // in the log
    bool failed = false;                  // to be synced
  };
  struct File {
    Bytes certain;
    std::uint64_t certain_size = 0;
    std::uint64_t cached_size = 0;
    std::vector<Write> uncertain;
  };
  // A change of names.
  struct Change {
    EntryKind kind = EntryKind::kCreate;
    std::string path;
    std::string to;
    std::shared_ptr<File> file;
    bool certain = false;
  };
  using Names = std::map<std::string, std::shared_ptr<File>>;  // null: a directory

  void write(const Entry& entry, File& file);
  template <typename Visit>
  static void for_each_within(File& file, std::uint64_t begin, std::uint64_t end,
                              const Visit& visit);
  void change_names(const Entry& entry);
  void sync(const std::string& path);
  void fail_sync(const std::string& path);
  static void change(Names& names, const Change& change);
  DeviceState::Node node_of(const File& file, Survival survival, crash::Random& random) const;

  Lie lie_;
  Names cached_;
  Names certain_;                // by the changes before those of `changes_`
  std::vector<Change> changes_;  // since, in order
};

}  // namespace holdfast::disk
