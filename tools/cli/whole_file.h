// A file that appears whole or not at all: written under another name beside it, synced, renamed.
// Its owner may write it, its group read it. Standard output, and what is no regular file (a pipe,
// a device), is written as it is.

#pragma once

#include <unistd.h>

#include <string>
#include <string_view>

#include "holdfast/status.h"

namespace holdfast::cli {

class WholeFile {
 public:
  // False: what has this name is written as it is.
  static bool would_appear_whole(const std::string& name);
  // "-" is standard output. kInvalidArgument if the file cannot be created or opened. A regular
  // file of this name is replaced by finish(), until then it stays; of a symbolic link that is the
  // file it leads to, and the link stays.
  static Result<WholeFile> create(const std::string& name);

  WholeFile(WholeFile&& other) noexcept;
  WholeFile& operator=(WholeFile&&) = delete;
  WholeFile(const WholeFile&) = delete;
  WholeFile& operator=(const WholeFile&) = delete;
  // abandon()
  ~WholeFile();

  // kStorageFailed.
  Status write(std::string_view bytes);
  // After it a regular file is there, durably. kStorageFailed.
  Status finish();
  // Without finish() nothing is left behind; nothing may be written after it.
  void abandon();
  bool appears_whole() const { return !temporary_path_.empty(); }
  // It was a pipe, and its reader has gone.
  bool pipe_is_closed() const { return pipe_is_closed_; }

 private:
  WholeFile(std::string path, std::string temporary_path, int file_descriptor)
      : path_(std::move(path)),
        temporary_path_(std::move(temporary_path)),
        file_descriptor_(file_descriptor) {}
  Status write_out();
  Status failed(std::string_view step);
  bool is_standard_output() const { return file_descriptor_ == STDOUT_FILENO; }

  std::string path_;
  std::string temporary_path_;  // empty: written as it is
  int file_descriptor_;
  std::string pending_;
  bool pipe_is_closed_ = false;
};

}  // namespace holdfast::cli
