#include "base/check.h"

#include <cstdlib>

#include "base/standard_streams.h"

namespace holdfast {

void check_failed(std::string_view condition, std::string_view file, int line,
                  const std::string& values) {
  write_to_standard_error(
      fmt::format("holdfast: CHECK({}) failed at {}:{} {}\n", condition, file, line, values));
  std::abort();
}

}  // namespace holdfast
