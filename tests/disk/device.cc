#include "disk/device.h"

#include <algorithm>
#include <cstring>

#include "base/check.h"

namespace holdfast::disk {

namespace {

constexpr std::size_t kPageBytes = 4096;
constexpr std::size_t kSectorBytes = 512;

std::string parent_of(const std::string& path) {
  const std::size_t slash = path.rfind('/');
  return slash == std::string::npos ? "." : path.substr(0, slash);
}

bool is_lock_file(std::string_view path) {
  return path.ends_with("lock.mdb") || path.ends_with("holdfast.lock");
}

void put(Bytes& bytes, std::uint64_t offset, std::span<const std::uint8_t> what) {
  if (bytes.size() < offset + what.size()) bytes.resize(offset + what.size());
  std::memcpy(bytes.data() + offset, what.data(), what.size());
}

}  // namespace

void Device::apply(const Entry& entry) {
  const std::string path(entry.path.data());
  switch (entry.kind) {
    case EntryKind::kWrite:
    case EntryKind::kTruncate: {
      if (is_lock_file(path)) return;
      const auto found = cached_.find(path);
      CHECK(found != cached_.end() && found->second != nullptr, "{} was not created", path);
      if (entry.kind == EntryKind::kWrite) return write(entry, *found->second);
      CHECK(entry.offset >= found->second->cached_size, "{} is cut short, which is not followed",
            path);
      found->second->cached_size = entry.offset;
      return;
    }
    case EntryKind::kSync:
      return sync(path);
    case EntryKind::kSyncFailed:
      return fail_sync(path);
    case EntryKind::kCreate:
    case EntryKind::kMakeDirectory:
    case EntryKind::kRename:
    case EntryKind::kRemove:
      return change_names(entry);
    default:
      return;
  }
}

void Device::write(const Entry& entry, File& file) {
  file.cached_size = std::max(file.cached_size, entry.offset + entry.size);
  const std::uint64_t begin = entry.offset / kPageBytes * kPageBytes;
  const std::uint64_t end = (entry.offset + entry.size + kPageBytes - 1) / kPageBytes * kPageBytes;
  if (entry.through && lie_ != Lie::kWriteThrough) {
    // What was written to these pages before goes to the device with them.
    for_each_within(file, begin, end, [&file](Write& write) {
      put(file.certain, write.offset, write.bytes);
      return false;
    });
    put(file.certain, entry.offset, entry.bytes());
    file.certain_size = std::max<std::uint64_t>(file.certain_size, file.certain.size());
  } else {
    // They are not clean any more, whatever they were taken for.
    for_each_within(file, begin, end, [](Write& write) {
      write.failed = false;
      return true;
    });
    file.uncertain.push_back({entry.offset, entry.bytes(), false});
  }
}

// Cuts what is not certain at both ends, and keeps of what is between them what `visit` keeps.
template <typename Visit>
void Device::for_each_within(File& file, std::uint64_t begin, std::uint64_t end,
                             const Visit& visit) {
  std::vector<Write> left;
  for (const Write& write : file.uncertain) {
    const std::uint64_t write_end = write.offset + write.bytes.size();
    const std::uint64_t from = std::clamp(begin, write.offset, write_end);
    const std::uint64_t to = std::clamp(end, write.offset, write_end);
    const auto part = [&write](std::uint64_t first, std::uint64_t last) {
      return Write{first, write.bytes.subspan(first - write.offset, last - first), write.failed};
    };
    if (from > write.offset) left.push_back(part(write.offset, from));
    if (Write within = part(from, to); from < to && visit(within)) left.push_back(within);
    if (to < write_end) left.push_back(part(to, write_end));
  }
  file.uncertain = std::move(left);
}

void Device::sync(const std::string& path) {
  const auto found = cached_.find(path);
  const bool directory = path == "." || (found != cached_.end() && found->second == nullptr);
  if (!directory) {
    if (found == cached_.end() || lie_ == Lie::kSync) return;
    File& file = *found->second;
    for (const Write& write : file.uncertain) {
      if (!write.failed) put(file.certain, write.offset, write.bytes);
    }
    std::erase_if(file.uncertain, [](const Write& write) { return !write.failed; });
    file.certain_size = file.cached_size;
    return;
  }
  for (Change& change : changes_) {
    const bool its_own =
        parent_of(change.path) == path || (!change.to.empty() && parent_of(change.to) == path);
    if (its_own) change.certain = true;
  }
  while (!changes_.empty() && changes_.front().certain) {
    change(certain_, changes_.front());
    changes_.erase(changes_.begin());
  }
}

void Device::fail_sync(const std::string& path) {
  const auto found = cached_.find(path);
  if (found == cached_.end() || found->second == nullptr) return;
  for (Write& write : found->second->uncertain) write.failed = true;
}

void Device::change_names(const Entry& entry) {
  Change one{entry.kind, entry.path.data(), entry.to.data(), nullptr, false};
  if (entry.kind == EntryKind::kCreate) one.file = std::make_shared<File>();
  change(cached_, one);
  changes_.push_back(std::move(one));
}

// A change that has lost what it rests on has not happened either.
void Device::change(Names& names, const Change& change) {
  const auto there = [&names](const std::string& path) {
    return path == "." || names.contains(path);
  };
  const std::string below = change.path + "/";
  switch (change.kind) {
    case EntryKind::kCreate:
    case EntryKind::kMakeDirectory:
      if (there(parent_of(change.path))) names[change.path] = change.file;
      return;
    case EntryKind::kRemove: {
      const auto next = names.lower_bound(below);
      if (next == names.end() || !next->first.starts_with(below)) names.erase(change.path);
      return;
    }
    default:
      break;
  }
  if (!there(change.path)) return;
  Names moved;
  std::erase_if(names, [&](const auto& name) {
    if (name.first != change.path && !name.first.starts_with(below)) return false;
    moved.emplace(change.to + name.first.substr(change.path.size()), name.second);
    return true;
  });
  names.merge(moved);
}

bool Device::certain() const {
  return changes_.empty() && std::all_of(cached_.begin(), cached_.end(), [](const auto& name) {
           return name.second == nullptr || name.second->uncertain.empty();
         });
}

DeviceState Device::state(Survival survival, crash::Random& random) const {
  Names names = certain_;
  // A file system with a journal keeps a beginning of the changes, others any of them.
  const bool journal = random.once_in(2);
  std::size_t kept = survival == Survival::kEverything ? changes_.size() : 0;
  if (survival == Survival::kSome) kept = random.below(changes_.size() + 1);
  for (std::size_t i = 0; i < changes_.size(); ++i) {
    const bool survives = survival == Survival::kSome && !journal ? random.once_in(2) : i < kept;
    if (changes_[i].certain || survives) change(names, changes_[i]);
  }
  DeviceState state;
  for (const auto& [path, file] : names) {
    DeviceState::Node& node = state.nodes[path];
    if (file != nullptr) {
      node = node_of(*file, survival, random);
    } else {
      node.directory = true;
    }
  }
  return state;
}

DeviceState::Node Device::node_of(const File& file, Survival survival,
                                  crash::Random& random) const {
  DeviceState::Node node{.bytes = file.certain, .size = file.certain_size};
  if (survival == Survival::kNothing) return node;
  const std::size_t piece_bytes = random.once_in(2) ? kPageBytes : kSectorBytes;
  // Of a hundred pieces.
  constexpr std::uint64_t kChances[] = {3, 20, 50, 80, 97};
  const std::uint64_t chance =
      survival == Survival::kEverything ? 100 : kChances[random.below(std::size(kChances))];
  for (const Write& write : file.uncertain) {
    for (std::size_t at = 0; at < write.bytes.size();) {
      // Pieces are those of the device: the first and the last may be shorter.
      const std::size_t size =
          std::min(write.bytes.size() - at, piece_bytes - (write.offset + at) % piece_bytes);
      if (random.below(100) < chance) {
        put(node.bytes, write.offset + at, write.bytes.subspan(at, size));
      }
      at += size;
    }
  }
  if (survival == Survival::kEverything || random.once_in(3)) {
    node.size = std::max(node.size, file.cached_size);
  }
  node.size = std::max<std::uint64_t>(node.size, node.bytes.size());
  return node;
}

}  // namespace holdfast::disk
