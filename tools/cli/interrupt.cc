#include "cli/interrupt.h"

#include <csignal>
#include <initializer_list>

namespace holdfast::cli {
namespace {

volatile std::sig_atomic_t was_interrupted = 0;

}  // namespace

void catch_interrupts() {
  for (const int signal : {SIGINT, SIGTERM, SIGHUP}) {
    std::signal(signal, [](int) { was_interrupted = 1; });
  }
}

bool interrupted() { return was_interrupted != 0; }

}  // namespace holdfast::cli
