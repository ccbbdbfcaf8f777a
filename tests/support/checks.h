// What a harness checked, one line each.

#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <string>

namespace holdfast::test {

class Checks {
 public:
  void check(bool holds, const std::string& sentence) {
    fmt::print("{}  {}\n", holds ? "ok    " : "FAILED", sentence);
    std::fflush(stdout);
    ++(holds ? passed_ : failed_);
  }
  int passed() const { return passed_; }
  int failed() const { return failed_; }
  // The closing line; the exit code.
  int finish() const {
    fmt::print("{} passed, {} failed\n", passed_, failed_);
    return failed_ == 0 ? 0 : 1;
  }

 private:
  int passed_ = 0;
  int failed_ = 0;
};

}  // namespace holdfast::test
