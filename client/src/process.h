// Which process this is, without a system call: each publish and each settle asks.

#pragma once

#include <sys/types.h>

namespace holdfast::client {

// As getpid(), any thread. A child that did not come of fork(), but of the bare system call, is
// taken for its parent.
pid_t current_process();

}  // namespace holdfast::client
