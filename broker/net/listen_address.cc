#include "net/listen_address.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>

#include <cstring>

#include "holdfast/text.h"

namespace holdfast::broker {

Result<Address> parse_listen_address(std::string_view text) {
  Result<Address> parsed = parse_address(text, 0);
  if (parsed.ok() && !parsed->is_unix()) return parsed;
  return Status(ErrorCode::kInvalidArgument,
                fmt::format("listen is {}; it must be HOST:PORT with a port from 0 to 65535, e.g. "
                            "127.0.0.1:7411 or [::1]:7411, or empty.",
                            quoted(text)));
}

Result<sockaddr_storage> resolve_listen_address(std::string_view text) {
  const Result<Address> parsed = parse_listen_address(text);
  if (!parsed.ok()) return parsed.status();
  addrinfo hints{};
  hints.ai_family = AF_UNSPEC;
  hints.ai_socktype = SOCK_STREAM;
  hints.ai_flags = AI_PASSIVE | AI_NUMERICSERV;
  addrinfo* found = nullptr;
  const int result =
      getaddrinfo(parsed->host.c_str(), std::to_string(parsed->port).c_str(), &hints, &found);
  if (result != 0 || found == nullptr) {
    return Status(
        ErrorCode::kInvalidArgument,
        fmt::format("The host \"{}\" of the listen address \"{}\" cannot be resolved: {}.",
                    parsed->host, text, gai_strerror(result)));
  }
  sockaddr_storage address{};
  std::memcpy(&address, found->ai_addr, found->ai_addrlen);
  freeaddrinfo(found);
  return address;
}

Status check_unix_path(std::string_view path) {
  if (path.empty() || path.size() > kUnixPathBytesMax ||
      path.find('\0') != std::string_view::npos) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("The unix socket path \"{}\" has {} bytes; a path has 1 to {}.", path,
                              path.size(), kUnixPathBytesMax));
  }
  return Status();
}

std::string format_address(const sockaddr_storage& address) {
  char text[INET6_ADDRSTRLEN] = {};
  if (address.ss_family == AF_INET) {
    sockaddr_in in{};
    std::memcpy(&in, &address, sizeof(in));
    inet_ntop(AF_INET, &in.sin_addr, text, sizeof(text));
    return fmt::format("{}:{}", text, ntohs(in.sin_port));
  }
  if (address.ss_family == AF_INET6) {
    sockaddr_in6 in{};
    std::memcpy(&in, &address, sizeof(in));
    inet_ntop(AF_INET6, &in.sin6_addr, text, sizeof(text));
    return fmt::format("[{}]:{}", text, ntohs(in.sin6_port));
  }
  return "unix";
}

}  // namespace holdfast::broker
