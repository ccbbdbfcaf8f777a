#include "crash/broker_process.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <thread>
#include <utility>

#include "crash/random.h"

namespace holdfast::crash {

BrokerProcess::BrokerProcess(std::filesystem::path binary, std::filesystem::path directory,
                             std::uint16_t port, std::vector<std::string> more_arguments)
    : binary_(std::move(binary)),
      directory_(std::move(directory)),
      port_(port),
      more_arguments_(std::move(more_arguments)) {}

BrokerProcess::~BrokerProcess() {
  if (running()) (void)kill();
}

Status BrokerProcess::start() {
  const std::filesystem::path log = directory_ / "broker.log";
  std::error_code ignored;
  log_begin_ = std::filesystem::exists(log, ignored) ? std::filesystem::file_size(log, ignored) : 0;
  const std::string data = data_directory().string();
  const std::string listen = address();
  const std::string binary = binary_.string();
  std::vector<const char*> arguments = {binary.c_str(), "--data", data.c_str(), "--listen",
                                        listen.c_str()};
  for (const std::string& argument : more_arguments_) arguments.push_back(argument.c_str());
  arguments.push_back(nullptr);
  const int log_file = ::open(log.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644);
  if (log_file < 0) {
    return {ErrorCode::kInternal,
            fmt::format("The file {} cannot be opened: {}.", log.string(), std::strerror(errno))};
  }
  const pid_t parent = ::getpid();
  const pid_t pid = ::fork();
  if (pid == 0) {
    // Only what may be called between fork and exec. It ends with the harness, however that ends.
    ::prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (::getppid() != parent) ::_exit(127);
    ::dup2(log_file, STDOUT_FILENO);
    ::dup2(log_file, STDERR_FILENO);
    ::execv(arguments[0], const_cast<char* const*>(arguments.data()));
    ::_exit(127);
  }
  ::close(log_file);
  if (pid < 0) {
    return {ErrorCode::kInternal, fmt::format("fork failed: {}.", std::strerror(errno))};
  }
  pid_ = pid;
  is_draining_ = had_drained_ = false;
  return {};
}

Status BrokerProcess::wait_ready(std::chrono::milliseconds timeout) {
  const auto deadline = std::chrono::steady_clock::now() + timeout;
  while (!is_ready()) {
    int wait_status = 0;
    if (::waitpid(pid_, &wait_status, WNOHANG) == pid_) return ended_by_itself(wait_status);
    if (std::chrono::steady_clock::now() >= deadline) {
      return {ErrorCode::kTimeout, fmt::format("The broker was not ready after {} ms. It said:\n{}",
                                               timeout.count(), said_since_start())};
    }
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return {};
}

void BrokerProcess::terminate() {
  is_draining_ = true;
  ::kill(pid_, SIGTERM);
}

Status BrokerProcess::kill() {
  int wait_status = 0;
  if (::waitpid(pid_, &wait_status, WNOHANG) != pid_) {
    ::kill(pid_, SIGKILL);
    ::waitpid(pid_, &wait_status, 0);
  }
  had_drained_ = is_draining_ && WIFEXITED(wait_status) && WEXITSTATUS(wait_status) == 0;
  const bool is_killed = WIFSIGNALED(wait_status) && WTERMSIG(wait_status) == SIGKILL;
  if (!had_drained_ && !is_killed) return ended_by_itself(wait_status);
  pid_ = -1;
  return {};
}

bool BrokerProcess::is_ready() const {
  return said_since_start().find(" ready on ") != std::string::npos;
}

std::string BrokerProcess::said_since_start() const {
  std::ifstream log(directory_ / "broker.log");
  log.seekg(static_cast<std::streamoff>(log_begin_));
  std::ostringstream text;
  text << log.rdbuf();
  return text.str();
}

Status BrokerProcess::ended_by_itself(int wait_status) {
  pid_ = -1;
  const std::string how = WIFSIGNALED(wait_status)
                              ? fmt::format("with signal {}", WTERMSIG(wait_status))
                              : fmt::format("with exit code {}", WEXITSTATUS(wait_status));
  return {ErrorCode::kInternal,
          fmt::format("The broker ended by itself, {}. It said:\n{}", how, said_since_start())};
}

std::uint16_t free_port(std::uint64_t seed) {
  // The port is no part of what a seed replays: two runs at a time must not meet.
  Random random(seed ^ static_cast<std::uint64_t>(::getpid()) << 32);
  for (int tries = 0; tries < 1'000; ++tries) {
    const auto port = static_cast<std::uint16_t>(20'000 + random.below(12'000));
    const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in where{};
    where.sin_family = AF_INET;
    where.sin_port = htons(port);
    where.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const bool is_free = ::bind(socket, reinterpret_cast<sockaddr*>(&where), sizeof where) == 0;
    ::close(socket);
    if (is_free) return port;
  }
  return 0;
}

}  // namespace holdfast::crash
