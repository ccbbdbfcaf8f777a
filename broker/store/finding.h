// What a check of a store finds damaged.

#pragma once

#include <string>

namespace holdfast::broker {

struct CheckFinding {
  std::string where;  // table and key in words
  std::string what;
};

}  // namespace holdfast::broker
