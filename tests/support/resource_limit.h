// A limit of this process, such as RLIMIT_FSIZE in bytes, for as long as the object lives. A write
// beyond a file's size is an error then, as in the broker, and no signal.

#pragma once

#include <doctest/doctest.h>
#include <sys/resource.h>

#include <csignal>
#include <cstdint>

namespace holdfast::test {

class ResourceLimit {
 public:
  ResourceLimit(__rlimit_resource_t resource, std::uint64_t most)
      : resource_(resource), handler_(std::signal(SIGXFSZ, SIG_IGN)) {
    REQUIRE_EQ(::getrlimit(resource_, &before_), 0);
    const rlimit limit{.rlim_cur = most, .rlim_max = before_.rlim_max};
    REQUIRE_EQ(::setrlimit(resource_, &limit), 0);
  }
  ~ResourceLimit() {
    ::setrlimit(resource_, &before_);
    std::signal(SIGXFSZ, handler_);
  }
  ResourceLimit(const ResourceLimit&) = delete;
  ResourceLimit& operator=(const ResourceLimit&) = delete;

 private:
  const __rlimit_resource_t resource_;
  void (*const handler_)(int);
  rlimit before_{};
};

}  // namespace holdfast::test
