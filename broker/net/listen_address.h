// Where a broker listens and who a peer is: "HOST:PORT" and socket addresses, as text and as bytes.

#pragma once

#include <sys/socket.h>

#include <string>
#include <string_view>

#include "holdfast/status.h"
#include "schema/address.h"

namespace holdfast::broker {

// "127.0.0.1:7411", "[::1]:7411", "localhost:7411"; port 0 asks the system for a free one.
// kInvalidArgument if it is no such address.
Result<Address> parse_listen_address(std::string_view text);
// Resolves names, which may block. kInvalidArgument as above, and if the name is unknown.
Result<sockaddr_storage> resolve_listen_address(std::string_view text);
// kInvalidArgument if a unix socket cannot have this path.
Status check_unix_path(std::string_view path);
// "127.0.0.1:7411", "[::1]:7411"; "unix" for a unix socket.
std::string format_address(const sockaddr_storage& address);

}  // namespace holdfast::broker
