// Interrupts (SIGINT, SIGTERM, SIGHUP) for a command that has something to do before it ends. Those
// that were ignored when the tool was started, as by nohup, stay so.

#pragma once

#include "holdfast/status.h"

namespace holdfast::cli {

// From now on they do not end the process, but are told by interrupted().
void catch_interrupts();
// The same of the first alone: the same signal again ends the process at once. For a command that
// leaves nothing behind, but has something to say.
void catch_first_interrupt();
bool interrupted();
// kCancelled once one came.
Status check_interrupt();
// Waits until there is something to read, its end or an error included; false: an interrupt came.
bool wait_for_input(int file_descriptor);
// Only after an interrupt: ends the process by it, as it would have ended uncaught, so that a shell
// whose loop this ran in ends, too.
void end_by_interrupt();

}  // namespace holdfast::cli
