#include "cli/input.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "cli/interrupt.h"
#include "holdfast/text.h"

namespace holdfast::cli {

Result<Input> Input::open(const std::string& path) {
  if (path == "-") return Input("standard input", STDIN_FILENO, false);
  const int file_descriptor = ::open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (file_descriptor < 0) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("File {} cannot be opened: {}.", quoted(path), std::strerror(errno)));
  }
  return Input(fmt::format("file {}", quoted(path)), file_descriptor, true);
}

Input::Input(Input&& other) noexcept
    : name_(std::move(other.name_)),
      file_descriptor_(other.file_descriptor_),
      is_owner_(std::exchange(other.is_owner_, false)),
      buffer_(std::move(other.buffer_)),
      taken_(other.taken_),
      lines_(other.lines_) {}

Input::~Input() {
  if (is_owner_) ::close(file_descriptor_);
}

Result<bool> Input::fill() {
  constexpr std::size_t kPieceBytes = 256u << 10;
  buffer_.resize(kPieceBytes);
  taken_ = 0;
  for (;;) {
    if (!wait_for_input(file_descriptor_)) {
      buffer_.clear();
      return check_interrupt();
    }
    const ssize_t count = ::read(file_descriptor_, buffer_.data(), buffer_.size());
    if (count < 0 && errno == EINTR) continue;
    if (count < 0) {
      buffer_.clear();
      return Status(ErrorCode::kInvalidArgument,
                    fmt::format("Reading {} failed: {}.", name_, std::strerror(errno)));
    }
    buffer_.resize(static_cast<std::size_t>(count));
    return count > 0;
  }
}

Result<std::string> Input::read_body() {
  std::string body;
  for (;;) {
    const Result<bool> more = fill();
    if (!more.ok()) return more.status();
    if (!*more) return body;
    if (body.size() + buffer_.size() > kMessageBodyBytesMax) {
      return Status(ErrorCode::kMessageTooLarge,
                    fmt::format("The body in {} has more than {} bytes, the most that any queue "
                                "takes; --lines would make every line a message.",
                                name_, kMessageBodyBytesMax));
    }
    body += buffer_;
  }
}

Result<bool> Input::read_line(Line& line, std::size_t bytes_max) {
  line.text.clear();
  line.is_too_long = false;
  if (const Status status = check_interrupt(); !status.ok()) return status;
  bool any = false;
  for (;;) {
    if (taken_ == buffer_.size()) {
      const Result<bool> more = fill();
      if (!more.ok()) return more.status();
      if (!*more) break;
    }
    any = true;
    const std::size_t end = buffer_.find('\n', taken_);
    const std::size_t part_end = end == std::string::npos ? buffer_.size() : end;
    if (line.is_too_long || line.text.size() + (part_end - taken_) > bytes_max) {
      line.is_too_long = true;
      line.text.clear();
    } else {
      line.text.append(buffer_, taken_, part_end - taken_);
    }
    taken_ = end == std::string::npos ? part_end : end + 1;
    if (end != std::string::npos) break;
  }
  if (any) line.number = ++lines_;
  return any;
}

}  // namespace holdfast::cli
