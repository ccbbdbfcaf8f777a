#include "process.h"

#include <pthread.h>
#include <unistd.h>

#include <atomic>

namespace holdfast::client {

namespace {

std::atomic<pid_t> process{0};

void note_process() { process.store(::getpid()); }

// False until then, and if the system has no room to note what is to be done in a child.
const bool is_noted = [] {
  note_process();
  return pthread_atfork(nullptr, nullptr, note_process) == 0;
}();

}  // namespace

pid_t current_process() { return is_noted ? process.load() : ::getpid(); }

}  // namespace holdfast::client
