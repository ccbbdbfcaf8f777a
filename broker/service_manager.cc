#include "service_manager.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cerrno>
#include <cstddef>
#include <cstdlib>
#include <cstring>

#include "holdfast/text.h"
#include "store/file.h"

namespace holdfast::broker {

Status tell_service_manager(std::string_view state) {
  const char* const asked = std::getenv("NOTIFY_SOCKET");
  const std::string_view path = asked == nullptr ? std::string_view() : asked;
  if (path.empty()) return Status();
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if ((path[0] != '/' && path[0] != '@') || path.size() >= sizeof(address.sun_path)) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("NOTIFY_SOCKET is {}; it must be a path from the root on, or @ and a "
                              "name, of at most {} bytes.",
                              quoted(path), sizeof(address.sun_path) - 1));
  }
  std::memcpy(address.sun_path, path.data(), path.size());
  if (path[0] == '@') address.sun_path[0] = '\0';  // a name of Linux' own, in no directory
  const File socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
  if (socket.ok() &&
      ::sendto(socket.descriptor(), state.data(), state.size(), MSG_NOSIGNAL,
               reinterpret_cast<const sockaddr*>(&address),
               static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + path.size())) >= 0) {
    return Status();
  }
  return Status(ErrorCode::kInternal,
                fmt::format("The service manager at NOTIFY_SOCKET {} cannot be told {}: {}.",
                            quoted(path), quoted(state), std::strerror(errno)));
}

}  // namespace holdfast::broker
