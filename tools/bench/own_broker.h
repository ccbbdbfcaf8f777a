// A broker of the bench's own: started in a temporary directory, stopped and removed at the end.

#pragma once

#include <sys/types.h>

#include <filesystem>
#include <memory>
#include <string>

#include "holdfast/status.h"

namespace holdfast::bench {

class OwnBroker {
 public:
  // `binary` empty: the holdfastd beside this program, or in its build tree, or in PATH. The data
  // goes into a new directory under `parent`. kUnreachable with what the broker said if it does not
  // start.
  static Result<std::unique_ptr<OwnBroker>> start(const std::string& binary,
                                                  const std::filesystem::path& parent);
  // Stops it and removes its data.
  ~OwnBroker();
  OwnBroker(const OwnBroker&) = delete;
  OwnBroker& operator=(const OwnBroker&) = delete;

  const std::string& address() const { return address_; }
  std::uint32_t pid() const { return static_cast<std::uint32_t>(pid_); }
  const std::filesystem::path& directory() const { return directory_; }

 private:
  OwnBroker() = default;
  Status run(const std::string& binary);
  Status wait_ready(int output);

  std::filesystem::path directory_;
  pid_t pid_ = -1;
  int output_ = -1;
  std::string address_;
};

}  // namespace holdfast::bench
