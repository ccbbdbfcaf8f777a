// Tells the service manager that started this process, systemd or one like it, how far it is, if it
// has asked to be told: sd_notify(3), one datagram to the socket that NOTIFY_SOCKET names. Without
// libsystemd, which would bring three compressions and a cipher library into the process for it.

#pragma once

#include <string_view>

#include "holdfast/status.h"

namespace holdfast::broker {

// `state` is lines of NAME=VALUE: "READY=1", "STOPPING=1". Ok as well if nobody has asked.
// kInvalidArgument: NOTIFY_SOCKET is no address. kInternal: the datagram cannot be sent.
// Any thread that does not change the environment meanwhile.
Status tell_service_manager(std::string_view state);

}  // namespace holdfast::broker
