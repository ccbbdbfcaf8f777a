#include "store/directory.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <linux/magic.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <optional>
#include <vector>

#include "store/environment.h"
#include "store/journal.h"
#include "store/record.h"

namespace holdfast::broker {

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kLockName = "holdfast.lock";
constexpr std::string_view kNewStoreName = "store.new";
constexpr std::string_view kFormatName = "format";
constexpr std::string_view kFormatPrefix = "holdfast store ";
// A file system's own directory, in the root of a freshly made one.
constexpr std::string_view kLostAndFound = "lost+found";

constexpr std::array<std::string_view, 4> kStoreFiles = {kFormatName, kDataFileName, kLockFileName,
                                                         kJournalFileName};

std::string error_text(int error) { return std::strerror(error); }

// What to do about a directory that will not do depends on who asks: a broker, or a check, which
// only reads.
Status system_error(std::string_view doing, const std::string& path, int error,
                    bool read_only = false) {
  if (means_no_access(error)) {
    return Status(
        ErrorCode::kDirectoryReadOnly,
        fmt::format("{} {} failed: {}. {}", doing, path, error_text(error),
                    read_only ? kReadAsAnotherUser
                              : "Give the broker's user write access to the data directory, or "
                                "name another one."));
  }
  return Outcome(error).to_status(fmt::format("{} {}", doing, path));
}

Status sync_path(const std::string& path) {
  const File file(path, O_RDONLY);
  if (!file.ok()) return system_error("Opening", path, file.error());
  if (::fsync(file.descriptor()) != 0) return system_error("Flushing", path, errno);
  return Status();
}

std::string parent_of(const std::string& path) {
  const std::string parent = fs::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

// The name of the directory may have been made by a start that died before it was flushed. A broker
// makes none where it may not read.
Status sync_parent(const std::string& path) {
  Status status = sync_path(parent_of(path));
  return status.code() == ErrorCode::kDirectoryReadOnly ? Status() : status;
}

// Of the process that has locked the file (flock) the pid that it wrote into it. Nullopt: what is
// written there is of a process that was killed, or /proc/locks does not tell.
std::optional<pid_t> holder_of(const File& file) {
  std::array<char, 24> text{};
  const ssize_t bytes = ::pread(file.descriptor(), text.data(), text.size(), 0);
  pid_t written = 0;
  struct stat info {};
  if (bytes <= 0 || std::from_chars(text.data(), text.data() + bytes, written).ec != std::errc() ||
      ::fstat(file.descriptor(), &info) != 0) {
    return std::nullopt;
  }
  // A line: "1: FLOCK  ADVISORY  WRITE 4711 fe:00:1234 0 EOF".
  const std::string pid = fmt::format(" {} ", written);
  const std::string inode = fmt::format(":{} ", info.st_ino);
  std::ifstream locks("/proc/locks");
  for (std::string line; std::getline(locks, line);) {
    const auto has = [&line](std::string_view word) { return line.find(word) != line.npos; };
    if (has(" FLOCK ") && has(pid) && has(inode)) return written;
  }
  return std::nullopt;
}

std::string format_line() { return fmt::format("{}{}\n", kFormatPrefix, kFormatVersion); }

Status foreign(std::string_view reason, bool read_only = false) {
  return Status(ErrorCode::kDirectoryForeign,
                fmt::format("{} Name {}.", reason,
                            read_only ? "the data directory of a broker"
                                      : "an empty directory, or one of Holdfast's own"));
}

Status write_format(const std::string& path) {
  const File file(path, O_WRONLY | O_CREAT | O_EXCL, kFileMode);
  if (!file.ok()) return system_error("Creating", path, file.error());
  const std::string line = format_line();
  const ssize_t written = ::write(file.descriptor(), line.data(), line.size());
  if (written != static_cast<ssize_t>(line.size())) {
    return system_error("Writing", path, written < 0 ? errno : ENOSPC);
  }
  if (::fsync(file.descriptor()) != 0) return system_error("Flushing", path, errno);
  return Status();
}

// Reads DIR/store/format and judges it.
Status check_format(const std::string& store_path, bool read_only) {
  const std::string path = store_path + "/" + std::string(kFormatName);
  const File file(path, O_RDONLY);
  if (!file.ok()) {
    if (file.error() == ENOENT || file.error() == ENOTDIR) {
      return foreign(fmt::format("{} is not a store of Holdfast: it has no file \"{}\".",
                                 store_path, kFormatName),
                     read_only);
    }
    return system_error("Reading", path, file.error(), read_only);
  }
  std::array<char, 64> buffer{};
  const ssize_t bytes = ::read(file.descriptor(), buffer.data(), buffer.size());
  if (bytes < 0) return system_error("Reading", path, errno);
  const std::string_view text(buffer.data(), static_cast<std::size_t>(bytes));
  std::uint32_t version = 0;
  const char* const number = text.data() + kFormatPrefix.size();
  if (!text.starts_with(kFormatPrefix) || !text.ends_with('\n')) {
    return foreign(fmt::format("{} does not say that it is a store of Holdfast.", path), read_only);
  }
  const auto [end, error] = std::from_chars(number, text.data() + text.size() - 1, version);
  if (error != std::errc() || end != text.data() + text.size() - 1 || version == 0) {
    return foreign(fmt::format("{} does not say that it is a store of Holdfast.", path), read_only);
  }
  if (version != kFormatVersion) {
    return Status(
        version > kFormatVersion ? ErrorCode::kDirectoryNewer : ErrorCode::kDirectoryForeign,
        fmt::format("{} has format {}; this Holdfast ({}) knows format {}. Run the "
                    "version that wrote it.",
                    store_path, version, HOLDFAST_VERSION, kFormatVersion));
  }
  return Status();
}

// What is in a directory, judged without changing anything.
enum class Contents { kMissing, kNoStore, kEmptyStore, kStore };

// As a mount of a fresh file system is, or one whose disk is not mounted.
bool is_empty(const std::string& store_path) {
  std::error_code error;
  for (fs::directory_iterator entries(store_path, error);
       !error && entries != fs::directory_iterator(); entries.increment(error)) {
    if (entries->path().filename() != kLostAndFound) return false;
  }
  return !error;
}

Result<Contents> inspect(const std::string& path, bool read_only) {
  struct stat info {};
  if (::stat(path.c_str(), &info) != 0) {
    if (errno == ENOENT) return Contents::kMissing;
    return system_error("Looking at", path, errno, read_only);
  }
  if (!S_ISDIR(info.st_mode)) {
    return foreign(fmt::format("{} is not a directory.", path), read_only);
  }
  std::error_code error;
  bool has_store = false;
  fs::directory_iterator entries(path, error);
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    const std::string name = entries->path().filename().string();
    if (name == kStoreName) {
      has_store = true;
    } else if (name != kLockName && name != kNewStoreName && name != kLostAndFound) {
      return foreign(fmt::format("{} holds \"{}\", which is not Holdfast's.", path, name),
                     read_only);
    }
  }
  if (error) return system_error("Reading", path, error.value(), read_only);
  if (!has_store) return Contents::kNoStore;
  const std::string store_path = path + "/" + std::string(kStoreName);
  if (is_empty(store_path)) return Contents::kEmptyStore;
  Status status = check_format(store_path, read_only);
  if (!status) return status;
  return Contents::kStore;
}

// Removes what a first creation that was cut short has left, and nothing that it cannot have left.
Status remove_leftover(const std::string& path) {
  std::error_code error;
  fs::directory_iterator entries(path, error);
  if (error == std::errc::no_such_file_or_directory) return Status();
  for (; !error && entries != fs::directory_iterator(); entries.increment(error)) {
    const std::string name = entries->path().filename().string();
    if (std::find(kStoreFiles.begin(), kStoreFiles.end(), name) == kStoreFiles.end()) {
      return foreign(fmt::format("{} holds \"{}\", which is not Holdfast's.", path, name));
    }
  }
  if (error) return system_error("Reading", path, error.value());
  for (const std::string_view name : kStoreFiles) {
    const std::string file = path + "/" + std::string(name);
    if (::unlink(file.c_str()) != 0 && errno != ENOENT) {
      return system_error("Removing", file, errno);
    }
  }
  if (::rmdir(path.c_str()) != 0) return system_error("Removing", path, errno);
  return Status();
}

// Creates the directory with its parents and makes their names durable.
Status create_directory(const std::string& path) {
  std::vector<std::string> parents;  // of those that are made
  std::error_code error;
  for (std::string at = path; !fs::exists(at, error) && at != parent_of(at);) {
    at = parent_of(at);
    parents.push_back(at);
  }
  fs::create_directories(path, error);
  if (error) return system_error("Creating the directory", path, error.value());
  for (const std::string& parent : parents) {
    if (Status status = sync_path(parent); !status) return status;
  }
  return Status();
}

Status check_file_system(const std::string& path) {
  struct statfs info {};
  if (::statfs(path.c_str(), &info) != 0) return system_error("Looking at", path, errno);
  const std::string_view name =
      network_file_system_name(static_cast<std::uint64_t>(info.f_type) & UINT32_MAX);
  if (name.empty()) return Status();
  return Status(ErrorCode::kOperationRefused,
                fmt::format("{} is on a network file system ({}), where neither locks nor flushes "
                            "can be trusted. Name a directory on a local disk.",
                            path, name));
}

}  // namespace

std::string_view network_file_system_name(std::uint64_t type) {
  switch (type) {
    case NFS_SUPER_MAGIC:
      return "NFS";
    case SMB_SUPER_MAGIC:
      return "SMB";
    case 0xFE534D42:
      return "SMB2";
    case 0xFF534D42:
      return "CIFS";
    case V9FS_MAGIC:
      return "9P";
    case AFS_SUPER_MAGIC:
    case 0x6B414653:
      return "AFS";
    case CODA_SUPER_MAGIC:
      return "Coda";
    case NCP_SUPER_MAGIC:
      return "NCP";
    case 0x00C36400:
      return "Ceph";
    case 0x0BD00BD0:
      return "Lustre";
    case 0x01161970:
      return "GFS2";
    case 0x7461636F:
      return "OCFS2";
    default:
      return {};
  }
}

Result<std::unique_ptr<DataDirectory>> DataDirectory::open(const DirectoryOptions& options,
                                                           const Creator& create) {
  // Looked at before anything is touched, and again under the lock: a broker that was first may
  // have created the store meanwhile.
  Result<Contents> contents = inspect(options.path, options.read_only);
  if (!contents) return contents.status();
  if (options.read_only && *contents != Contents::kStore) {
    return foreign(
        fmt::format("There is no {} {}.",
                    *contents == Contents::kMissing ? "directory" : "store in", options.path),
        true);
  }
  if (*contents == Contents::kMissing) {
    if (Status status = create_directory(options.path); !status) return status;
  }
  std::unique_ptr<DataDirectory> directory(new DataDirectory(options.path));
  if (!options.allow_network_file_system) {
    if (Status status = check_file_system(options.path); !status) return status;
    // May be a mount or a link to another one.
    if (*contents == Contents::kStore || *contents == Contents::kEmptyStore) {
      if (Status status = check_file_system(directory->store_path()); !status) return status;
    }
  }
  if (*contents == Contents::kEmptyStore) return directory->refuse_empty_store();
  if (Status status = directory->lock_directory(options.read_only); !status) return status;
  contents = inspect(options.path, options.read_only);
  if (!contents) return contents.status();
  if (options.read_only) {
    Status status = directory->lock_store(true);
    if (!status) return status;
    return directory;
  }
  if (*contents == Contents::kEmptyStore) return directory->refuse_empty_store();
  if (*contents == Contents::kNoStore) {
    if (Status status = directory->check_nothing_is_lost(); !status) return status;
  }
  if (Status status = remove_leftover(directory->path_ + "/" + std::string(kNewStoreName));
      !status) {
    return status;
  }
  if (*contents == Contents::kNoStore) {
    if (Status status = directory->create_store(create); !status) return status;
  } else if (Status status = sync_path(directory->path_); !status) {
    // Whoever renamed the store into place may have died before that was flushed.
    return status;
  }
  if (Status status = directory->lock_store(false); !status) return status;
  directory->show_pid();
  return directory;
}

// So that no pid is left there that will be another program's: an empty line stays, which tells
// that a store was there.
DataDirectory::~DataDirectory() {
  if (!shows_pid_) return;
  const File file(lock_path(), O_WRONLY);
  if (!file.ok() || ::pwrite(file.descriptor(), "\n", 1, 0) != 1) return;
  static_cast<void>(::ftruncate(file.descriptor(), 1) == 0);
}

std::string DataDirectory::store_path() const { return path_ + "/" + std::string(kStoreName); }
std::string DataDirectory::lock_path() const { return path_ + "/" + std::string(kLockName); }

Status DataDirectory::lock(File file, std::string_view path) {
  if (::flock(file.descriptor(), LOCK_EX | LOCK_NB) == 0) {
    locks_.push_back(std::move(file));
    return Status();
  }
  if (errno != EWOULDBLOCK) return system_error("Locking", std::string(path), errno);
  const std::optional<pid_t> holder = holder_of(File(lock_path(), O_RDONLY));
  return Status(
      ErrorCode::kDirectoryLocked,
      fmt::format("The data directory {} is in use by {}. Stop that one first, or name another "
                  "directory.",
                  path,
                  holder ? fmt::format("another process (pid {})", *holder)
                         : std::string("another process, a broker or `holdfast check`")));
}

// The directory itself comes first, so that nothing is changed in one that is locked; the lock on
// it holds even if the lock file is removed.
Status DataDirectory::lock_directory(bool read_only) {
  File itself(path_, O_RDONLY | O_DIRECTORY);
  if (!itself.ok()) return system_error("Opening", path_, itself.error(), read_only);
  if (Status status = lock(std::move(itself), path_); !status) return status;
  File file(lock_path(), read_only ? O_RDONLY : O_RDWR | O_CREAT, kFileMode);
  if (file.ok()) return lock(std::move(file), path_);
  if (read_only && file.error() == ENOENT) return Status();
  return system_error("Opening", lock_path(), file.error(), read_only);
}

// It may be another directory's as well, by a mount or a link.
Status DataDirectory::lock_store(bool read_only) {
  File store(store_path(), O_RDONLY | O_DIRECTORY);
  if (!store.ok()) return system_error("Opening", store_path(), store.error(), read_only);
  return lock(std::move(store), store_path());
}

// A start that was killed before it had a store leaves the lock file empty: it is written only once
// the store is there, durably. A store that has gone since is one that somebody misses.
Status DataDirectory::check_nothing_is_lost() const {
  struct stat info {};
  if (::stat(lock_path().c_str(), &info) != 0) {
    return errno == ENOENT ? Status() : system_error("Looking at", lock_path(), errno);
  }
  if (info.st_size == 0) return Status();
  return Status(ErrorCode::kDirectoryForeign,
                fmt::format("The store of {} is gone: a broker had one in it before. Bring it back "
                            "(is a disk not mounted?), or remove {} to begin with an empty store.",
                            path_, lock_path()));
}

// A new store is made beside the place that it is renamed to, so that it is whole or not there.
Status DataDirectory::refuse_empty_store() const {
  if (Status status = check_nothing_is_lost(); !status) return status;
  return Status(ErrorCode::kDirectoryForeign,
                fmt::format("{} is empty, and a new store cannot be made in it. Unmount it, or "
                            "remove it, and start the broker once; a store can then be copied to "
                            "the disk that is to be mounted there.",
                            store_path()));
}

// A courtesy to whom finds the directory locked, and the mark of a directory that has a store: on a
// full disk there is neither.
void DataDirectory::show_pid() {
  const std::string pid = fmt::format("{}\n", ::getpid());
  const File file(lock_path(), O_WRONLY | O_TRUNC);
  shows_pid_ = file.ok() && ::pwrite(file.descriptor(), pid.data(), pid.size(), 0) > 0;
}

Status DataDirectory::create_store(const Creator& create) {
  const std::string fresh = path_ + "/" + std::string(kNewStoreName);
  if (::mkdir(fresh.c_str(), 0750) != 0) return system_error("Creating", fresh, errno);
  Status status = create(fresh);
  if (status) status = write_format(fresh + "/" + std::string(kFormatName));
  if (status) status = sync_path(fresh + "/" + std::string(kDataFileName));
  if (status) status = sync_path(fresh);
  if (status) status = sync_parent(path_);
  if (status && ::rename(fresh.c_str(), store_path().c_str()) != 0) {
    status = system_error("Renaming", fresh, errno);
  }
  if (!status) {
    // What remains in spite of this is removed at the next start.
    static_cast<void>(remove_leftover(fresh).ok());
    return status;
  }
  return sync_path(path_);
}

}  // namespace holdfast::broker
