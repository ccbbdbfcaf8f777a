#include "cli/interrupt.h"

#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <csignal>
#include <initializer_list>

namespace holdfast::cli {
namespace {

volatile std::sig_atomic_t interrupting_signal = 0;
// A pipe that the interrupt writes to, whichever thread it comes to; -1: none is caught.
std::array<int, 2> wake_ends = {-1, -1};

void note_interrupt(int number) {
  const int error = errno;
  interrupting_signal = number;
  // Full, it wakes as well; without a pipe the flag tells.
  [[maybe_unused]] const ssize_t ignored = ::write(wake_ends[1], "", 1);
  errno = error;
}

void catch_with(int flags) {
  if (wake_ends[0] < 0 && ::pipe2(wake_ends.data(), O_CLOEXEC | O_NONBLOCK) != 0) {
    wake_ends = {-1, -1};
  }
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action {};
    if (sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN) continue;
    action = {};
    action.sa_handler = note_interrupt;
    action.sa_flags = flags;
    sigaction(signal, &action, nullptr);
  }
}

}  // namespace

void catch_interrupts() { catch_with(SA_RESTART); }

void catch_first_interrupt() { catch_with(static_cast<int>(SA_RESTART | SA_RESETHAND)); }

bool interrupted() { return interrupting_signal != 0; }

Status check_interrupt() {
  return interrupted() ? Status(ErrorCode::kCancelled, "Interrupted.") : Status();
}

bool wait_for_input(int file_descriptor) {
  std::array<pollfd, 2> waiting = {pollfd{file_descriptor, POLLIN, 0},
                                   pollfd{wake_ends[0], POLLIN, 0}};
  while (!interrupted()) {
    if (::poll(waiting.data(), waiting.size(), -1) >= 0 || errno != EINTR) break;
  }
  return !interrupted();
}

void end_by_interrupt() {
  std::signal(interrupting_signal, SIG_DFL);
  std::raise(interrupting_signal);
}

}  // namespace holdfast::cli
