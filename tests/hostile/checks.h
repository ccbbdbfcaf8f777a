// What a harness checked, one line each.

#pragma once

#include <fmt/format.h>

#include <cstdio>
#include <string>

namespace holdfast::hostile {

class Checks {
 public:
  void check(bool holds, const std::string& sentence) {
    fmt::print("{}  {}\n", holds ? "ok    " : "FAILED", sentence);
    std::fflush(stdout);
    ++(holds ? passed_ : failed_);
  }
  int passed() const { return passed_; }
  int failed() const { return failed_; }

 private:
  int passed_ = 0;
  int failed_ = 0;
};

}  // namespace holdfast::hostile
