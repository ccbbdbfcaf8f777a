// Where a broker listens: HOST:PORT, [IPV6]:PORT or unix:PATH.

#pragma once

#include <cstddef>
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

// The longest path that a unix socket can have, from the kernel's sockaddr_un.
inline constexpr std::size_t kUnixPathBytesMax = 107;

// kInvalidArgument with a sentence that shows the forms. With a `port_min` of 0 it is an address to
// listen on: port 0 asks the system for a free one.
Result<Address> parse_address(std::string_view text, std::uint16_t port_min = 1);

}  // namespace holdfast
