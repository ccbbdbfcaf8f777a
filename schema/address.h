// Where a broker listens: HOST:PORT, [IPV6]:PORT or unix:PATH.

#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "holdfast/status.h"

namespace holdfast {

struct Address {
  std::string host;  // empty for a unix socket
  std::uint16_t port = 0;
  std::string unix_path;  // empty for TCP

  bool is_unix() const { return !unix_path.empty(); }
  std::string to_string() const;
};

// kInvalidArgument with a sentence that shows the forms.
Result<Address> parse_address(std::string_view text);

}  // namespace holdfast
