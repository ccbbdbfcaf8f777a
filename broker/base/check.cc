#include "base/check.h"

#include <cstdio>
#include <cstdlib>

namespace holdfast {

void check_failed(std::string_view condition, std::string_view file, int line,
                  const std::string& values) {
  fmt::print(stderr, "holdfast: CHECK({}) failed at {}:{} {}\n", condition, file, line, values);
  std::fflush(stderr);
  std::abort();
}

}  // namespace holdfast
