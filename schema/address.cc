#include "schema/address.h"

#include <fmt/format.h>
#include <sys/un.h>

#include <charconv>

namespace holdfast {

namespace {

constexpr std::string_view kUnixPrefix = "unix:";
static_assert(kUnixPathBytesMax + 1 == sizeof(sockaddr_un::sun_path));  // with its closing zero

Status not_an_address(std::string_view text, std::string_view why) {
  return Status(ErrorCode::kInvalidArgument,
                fmt::format("\"{}\" is not a broker address: {}. Write HOST:PORT, e.g. "
                            "127.0.0.1:7411, or unix:PATH.",
                            text, why));
}

}  // namespace

std::string Address::to_string() const {
  if (is_unix()) return std::string(kUnixPrefix) + unix_path;
  if (host.find(':') != std::string::npos) return fmt::format("[{}]:{}", host, port);
  return fmt::format("{}:{}", host, port);
}

Result<Address> parse_address(std::string_view text, std::uint16_t port_min) {
  Address address;
  if (text.starts_with(kUnixPrefix)) {
    address.unix_path = text.substr(kUnixPrefix.size());
    if (address.unix_path.empty()) return not_an_address(text, "the path is empty");
    if (address.unix_path.size() > kUnixPathBytesMax) {
      return not_an_address(text, fmt::format("the path has {} bytes, the system's limit is {}",
                                              address.unix_path.size(), kUnixPathBytesMax));
    }
    return address;
  }
  if (text.find("://") != std::string_view::npos) {
    return not_an_address(text, "it is written without a scheme, which is what stands before ://");
  }
  const std::size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return not_an_address(text, "it has no port");
  std::string_view host = text.substr(0, colon);
  if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  } else if (host.find(':') != std::string_view::npos) {
    return not_an_address(text, "an IPv6 host is written in brackets, e.g. [::1]:7411");
  }
  if (host.empty()) return not_an_address(text, "the host is empty");
  const std::string_view digits = text.substr(colon + 1);
  const auto [end, error] =
      std::from_chars(digits.data(), digits.data() + digits.size(), address.port);
  if (error != std::errc() || end != digits.data() + digits.size() || address.port < port_min) {
    return not_an_address(text, fmt::format("the port is not a number from {} to 65535", port_min));
  }
  address.host = host;
  return address;
}

}  // namespace holdfast
