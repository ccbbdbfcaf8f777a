// CHECK: what must hold whatever the world does. A failed check is a bug of Holdfast: it prints the
// condition, the place and the values, and aborts, in release builds too.

#pragma once

#include <fmt/format.h>

#include <string>
#include <string_view>

namespace holdfast {

[[noreturn]] void check_failed(std::string_view condition, std::string_view file, int line,
                               const std::string& values);

}  // namespace holdfast

// CHECK(condition) or CHECK(condition, "format {}", values…).
#define CHECK(condition, ...)                                                                  \
  do {                                                                                         \
    if (!(condition)) [[unlikely]] {                                                           \
      ::holdfast::check_failed(#condition, __FILE__, __LINE__, ::fmt::format("" __VA_ARGS__)); \
    }                                                                                          \
  } while (false)
