// What is published: bodies and lines, read from standard input or a file without holding more than
// one of them.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "holdfast/status.h"
#include "schema/field_limits.h"

namespace holdfast::cli {

// An open file, closed at the end unless it is standard input. One thread at a time.
class Input {
 public:
  // "-": standard input; otherwise the file at this path. kInvalidArgument if it cannot be opened.
  static Result<Input> open(const std::string& path);

  Input(Input&& other) noexcept;
  Input& operator=(Input&&) = delete;
  Input(const Input&) = delete;
  ~Input();

  // Everything up to the end. kMessageTooLarge past kMessageBodyBytesMax.
  Result<std::string> read_body();

  struct Line {
    std::string text;          // without its end
    std::uint64_t number = 0;  // from 1
    bool is_too_long = false;  // `text` is empty then, the line was passed over
  };
  // False at the end. A last line without an end counts; a line may be empty; one of more than
  // `bytes_max` is too long. kCancelled after an interrupt that was caught.
  Result<bool> read_line(Line& line, std::size_t bytes_max);

 private:
  Input(std::string name, int file_descriptor, bool is_owner)
      : name_(std::move(name)), file_descriptor_(file_descriptor), is_owner_(is_owner) {}
  // Reads the next piece into buffer_; false at the end.
  Result<bool> fill();

  std::string name_;
  int file_descriptor_;
  bool is_owner_;
  std::string buffer_;
  std::size_t taken_ = 0;  // bytes of buffer_ that were handed out
  std::uint64_t lines_ = 0;
};

}  // namespace holdfast::cli
