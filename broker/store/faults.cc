#include "store/faults.h"

#include <fmt/format.h>
#include <signal.h>
#include <sysexits.h>
#include <unistd.h>

#include <array>
#include <cstddef>
#include <cstdlib>
#include <exception>

#include "store/directory.h"
#include "store/environment.h"

namespace holdfast::broker {

namespace {

constexpr std::size_t kPathBytesMax = 4096;

// A signal handler can reach nothing but static storage.
struct Fault {
  int signal;
  std::string_view name;
  std::array<char, kPathBytesMax + 512> sentence{};
  std::size_t sentence_bytes = 0;
  struct sigaction before {};
};
std::array<Fault, 4> faults{
    {{SIGBUS, "SIGBUS"}, {SIGSEGV, "SIGSEGV"}, {SIGFPE, "SIGFPE"}, {SIGABRT, "SIGABRT"}}};
std::string_view program_name;

extern "C" void on_fault(int signal, siginfo_t* information, void*) {
  for (const Fault& fault : faults) {
    if (fault.signal != signal) continue;
    [[maybe_unused]] const ssize_t written =
        write(STDERR_FILENO, fault.sentence.data(), fault.sentence_bytes);
    if (signal == SIGBUS) _exit(EX_SOFTWARE);
    sigaction(signal, &fault.before, nullptr);
    // What the program did is done again when this returns; what was sent is not.
    if (information->si_code <= 0) raise(signal);
  }
}

// Writes without memory, of which there may be none.
void say_stopped_by_exception(std::string_view what) {
  for (const std::string_view part :
       {program_name, std::string_view(": Stopped by an exception, "), what,
        std::string_view(". If the system lacks memory or threads, give it more; else it is a "
                         "fault of this program.\n")}) {
    [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, part.data(), part.size());
  }
}

// What SIGABRT would say suspects the data file.
[[noreturn]] void on_terminate() {
  if (const std::exception_ptr exception = std::current_exception()) {
    for (const Fault& fault : faults) {
      if (fault.signal == SIGABRT) sigaction(SIGABRT, &fault.before, nullptr);
    }
    try {
      std::rethrow_exception(exception);
    } catch (const std::exception& known) {
      say_stopped_by_exception(known.what());
    } catch (...) {
      say_stopped_by_exception("of an unknown kind");
    }
  }
  std::abort();
}

std::string sentence_of(const Fault& fault, std::string_view program, std::string_view data_file) {
  if (fault.signal == SIGBUS) {
    return fmt::format(
        "{}: The data file \"{}\" could not be read (SIGBUS): it was truncated or its device "
        "failed. Look at the device, then run `holdfast check` on the directory.\n",
        program, data_file);
  }
  return fmt::format(
      "{}: Stopped by {}. A damaged data file can be the reason: run `holdfast check` on the "
      "directory of \"{}\". If that finds nothing, it is a fault of this program.\n",
      program, fault.name, data_file);
}

}  // namespace

void explain_faults(std::string_view program, const std::string& data_directory) {
  program_name = program;
  std::set_terminate(on_terminate);
  const std::string data_file =
      fmt::format("{}/{}/{}", data_directory, kStoreName, kDataFileName).substr(0, kPathBytesMax);
  for (Fault& fault : faults) {
    const std::string sentence = sentence_of(fault, program, data_file);
    fault.sentence_bytes = sentence.copy(fault.sentence.data(), fault.sentence.size());
    struct sigaction action {};
    action.sa_sigaction = on_fault;
    action.sa_flags = SA_SIGINFO;
    sigemptyset(&action.sa_mask);
    sigaction(fault.signal, &action, &fault.before);
  }
}

}  // namespace holdfast::broker
