#include "store/faults.h"

#include <fmt/format.h>
#include <signal.h>
#include <unistd.h>

#include <array>
#include <cstddef>

#include "store/directory.h"
#include "store/environment.h"

namespace holdfast::broker {

namespace {

constexpr int kExitInternal = 70;
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

extern "C" void on_fault(int signal, siginfo_t* information, void*) {
  for (const Fault& fault : faults) {
    if (fault.signal != signal) continue;
    [[maybe_unused]] const ssize_t written =
        write(STDERR_FILENO, fault.sentence.data(), fault.sentence_bytes);
    if (signal == SIGBUS) _exit(kExitInternal);
    sigaction(signal, &fault.before, nullptr);
    // What the program did is done again when this returns; what was sent is not.
    if (information->si_code <= 0) raise(signal);
  }
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
