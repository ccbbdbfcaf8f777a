// Interrupts (SIGINT, SIGTERM, SIGHUP) for a command that has something to remove before it ends.

#pragma once

namespace holdfast::cli {

// From now on they do not end the process, but are told by interrupted().
void catch_interrupts();
bool interrupted();

}  // namespace holdfast::cli
