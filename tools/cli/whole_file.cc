#include "cli/whole_file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <system_error>
#include <utility>

#include "holdfast/text.h"

namespace holdfast::cli {

namespace {

// Messages are in it, which are in the store for no more people than these.
constexpr mode_t kFileMode = 0640;

// What errno says.
Status cannot_be(std::string_view step, const std::string& name) {
  return Status(ErrorCode::kInvalidArgument,
                fmt::format("File {} cannot be {}: {}.", quoted(name), step, std::strerror(errno)));
}

// What symbolic links lead to from there, whether it exists or not.
Result<std::string> end_of_links(const std::string& path) {
  constexpr int kLinksMax = 40;  // as many as Linux follows
  std::filesystem::path end = path;
  for (int links = 0; links <= kLinksMax; ++links) {
    std::error_code error;
    const std::filesystem::path target = std::filesystem::read_symlink(end, error);
    if (error) return end.string();  // no link
    end = end.parent_path() / target;
  }
  return Status(ErrorCode::kInvalidArgument,
                fmt::format("File {} cannot be created: it leads through more than {} symbolic "
                            "links. Name the file that is meant.",
                            quoted(path), kLinksMax));
}

}  // namespace

bool WholeFile::would_appear_whole(const std::string& name) {
  if (name == "-") return false;
  // Asked of the name itself: what a link in /proc says of a pipe is no path.
  struct stat info {};
  return ::stat(name.c_str(), &info) != 0 || S_ISREG(info.st_mode);
}

Result<WholeFile> WholeFile::create(const std::string& name) {
  if (name == "-") return WholeFile(name, {}, STDOUT_FILENO);
  if (!would_appear_whole(name)) {
    const int file_descriptor = ::open(name.c_str(), O_WRONLY | O_CLOEXEC);
    if (file_descriptor >= 0) return WholeFile(name, {}, file_descriptor);
    return cannot_be("opened", name);
  }
  const Result<std::string> path = end_of_links(name);
  if (!path.ok()) return path.status();
  std::string temporary_path = fmt::format("{}.{}.part", *path, ::getpid());
  const int file_descriptor =
      ::open(temporary_path.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, kFileMode);
  if (file_descriptor < 0) return cannot_be("created", name);
  return WholeFile(*path, std::move(temporary_path), file_descriptor);
}

WholeFile::WholeFile(WholeFile&& other) noexcept
    : path_(std::move(other.path_)),
      temporary_path_(std::move(other.temporary_path_)),
      file_descriptor_(std::exchange(other.file_descriptor_, -1)),
      pending_(std::move(other.pending_)),
      pipe_is_closed_(other.pipe_is_closed_) {}

WholeFile::~WholeFile() { abandon(); }

void WholeFile::abandon() {
  if (file_descriptor_ < 0 || is_standard_output()) return;
  ::close(std::exchange(file_descriptor_, -1));
  if (!temporary_path_.empty()) ::unlink(temporary_path_.c_str());
}

Status WholeFile::write(std::string_view bytes) {
  constexpr std::size_t kPendingBytesMax = 64u << 10;
  pending_ += bytes;
  return pending_.size() < kPendingBytesMax ? Status() : write_out();
}

Status WholeFile::write_out() {
  std::string_view rest = pending_;
  while (!rest.empty()) {
    const ssize_t written = ::write(file_descriptor_, rest.data(), rest.size());
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) {
      pipe_is_closed_ = errno == EPIPE;
      return failed("written");
    }
    rest.remove_prefix(static_cast<std::size_t>(written));
  }
  pending_.clear();
  return Status();
}

Status WholeFile::finish() {
  Status written = write_out();
  if (!written.ok() || temporary_path_.empty()) return written;
  if (::fsync(file_descriptor_) != 0) return failed("flushed to the device");
  if (::rename(temporary_path_.c_str(), path_.c_str()) != 0) return failed("put in its place");
  ::close(std::exchange(file_descriptor_, -1));
  const std::size_t slash = path_.rfind('/');
  const std::string directory = slash == std::string::npos ? "." : path_.substr(0, slash + 1);
  const int directory_descriptor = ::open(directory.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (directory_descriptor < 0) return failed("flushed to its directory");
  const bool is_synced = ::fsync(directory_descriptor) == 0;
  Status status = is_synced ? Status() : failed("flushed to its directory");
  ::close(directory_descriptor);
  return status;
}

Status WholeFile::failed(std::string_view step) {
  return Status(
      ErrorCode::kStorageFailed,
      fmt::format("{} cannot be {}: {}.",
                  is_standard_output() ? "Standard output" : fmt::format("File {}", quoted(path_)),
                  step, std::strerror(errno)));
}

}  // namespace holdfast::cli
