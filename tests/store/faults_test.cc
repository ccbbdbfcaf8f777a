// What a process says of a fault before it ends of it.

#include "store/faults.h"

#include <doctest/doctest.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <new>
#include <string>
#include <thread>

namespace holdfast::broker {

TEST_CASE("a broker that had no memory left said that its data file may be damaged") {
  int ends[2] = {-1, -1};
  REQUIRE(::pipe(ends) == 0);
  const pid_t child = ::fork();
  REQUIRE(child >= 0);
  if (child == 0) {
    ::dup2(ends[1], STDERR_FILENO);
    ::close(ends[0]);
    ::close(ends[1]);
    const rlimit no_core{0, 0};
    ::setrlimit(RLIMIT_CORE, &no_core);
    ::signal(SIGABRT, SIG_DFL);  // not the test's, which tells of a test that failed
    explain_faults("holdfastd", "/data");
    std::thread([] { throw std::bad_alloc(); }).join();
    ::_exit(0);
  }
  ::close(ends[1]);
  std::string said;
  char part[512];
  for (ssize_t count = 0; (count = ::read(ends[0], part, sizeof(part))) > 0;) {
    said.append(part, static_cast<std::size_t>(count));
  }
  ::close(ends[0]);
  int status = 0;
  REQUIRE(::waitpid(child, &status, 0) == child);
  CHECK(WIFSIGNALED(status));
  CHECK(said.find("holdfastd: Stopped by an exception, std::bad_alloc. If the system lacks memory "
                  "or threads, give it more") != std::string::npos);
  CHECK(said.find("data file") == std::string::npos);
}

}  // namespace holdfast::broker
