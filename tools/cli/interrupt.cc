#include "cli/interrupt.h"

#include <csignal>
#include <initializer_list>

namespace holdfast::cli {
namespace {

volatile std::sig_atomic_t interrupting_signal = 0;

void catch_with(int flags) {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    struct sigaction action {};
    if (sigaction(signal, nullptr, &action) == 0 && action.sa_handler == SIG_IGN) continue;
    action = {};
    action.sa_handler = [](int number) { interrupting_signal = number; };
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

void end_by_interrupt() {
  std::signal(interrupting_signal, SIG_DFL);
  std::raise(interrupting_signal);
}

}  // namespace holdfast::cli
