#include "bench/own_broker.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <poll.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <system_error>

namespace holdfast::bench {

namespace {

constexpr int kStartTimeoutMs = 30'000;

std::string find_binary() {
  std::error_code error;
  const std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  for (const auto& beside :
       {self.parent_path() / "holdfastd", self.parent_path() / ".." / "broker" / "holdfastd"}) {
    if (::access(beside.c_str(), X_OK) == 0) return beside.string();
  }
  return "holdfastd";
}

Status system_error(std::string_view what) {
  return Status(ErrorCode::kInternal, fmt::format("{}: {}.", what, std::strerror(errno)));
}

}  // namespace

Result<std::unique_ptr<OwnBroker>> OwnBroker::start(const std::string& binary,
                                                    const std::filesystem::path& parent) {
  std::unique_ptr<OwnBroker> broker(new OwnBroker());
  std::string directory = (parent / "holdfast-bench-XXXXXX").string();
  if (!binary.empty() && binary.find('/') != std::string::npos &&
      ::access(binary.c_str(), X_OK) != 0) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("--broker {} cannot be run: {}.", binary, std::strerror(errno)));
  }
  if (::mkdtemp(directory.data()) == nullptr) {
    const bool is_named_wrong = errno == ENOENT || errno == ENOTDIR || errno == EACCES;
    return Status(is_named_wrong ? ErrorCode::kInvalidArgument : ErrorCode::kStorageFailed,
                  fmt::format("No directory can be made in {}: {}. Name another one with --dir.",
                              parent.string(), std::strerror(errno)));
  }
  broker->directory_ = directory;
  if (Status status = broker->run(binary.empty() ? find_binary() : binary); !status.ok()) {
    return status;
  }
  return broker;
}

Status OwnBroker::run(const std::string& binary) {
  std::array<int, 2> ends{};
  if (::pipe2(ends.data(), O_CLOEXEC) != 0) return system_error("No pipe to the broker");
  const std::string data = (directory_ / "data").string();
  const std::array<const char*, 6> arguments = {binary.c_str(), "--data",      data.c_str(),
                                                "--listen",     "127.0.0.1:0", nullptr};
  const pid_t parent = ::getpid();
  pid_ = ::fork();
  if (pid_ == 0) {
    // Only what may be called between fork and exec. It ends with the bench, however that ends.
    ::prctl(PR_SET_PDEATHSIG, SIGTERM);
    if (::getppid() != parent) ::_exit(127);
    ::dup2(ends[1], STDOUT_FILENO);
    ::dup2(ends[1], STDERR_FILENO);
    ::execvp(binary.c_str(), const_cast<char* const*>(arguments.data()));
    ::_exit(127);
  }
  ::close(ends[1]);
  output_ = ends[0];
  if (pid_ < 0) return system_error("The broker cannot be started");
  Status status = wait_ready(output_);
  if (!status.ok()) {
    return Status(ErrorCode::kUnreachable,
                  fmt::format("{} did not start. {}", binary, status.message()));
  }
  return status;
}

Status OwnBroker::wait_ready(int output) {
  std::string said;
  for (;;) {
    constexpr std::string_view kReady = " ready on ";
    const std::size_t at = said.find(kReady);
    const std::size_t end = at == std::string::npos ? at : said.find(',', at);
    if (end != std::string::npos) {
      address_ = said.substr(at + kReady.size(), end - at - kReady.size());
      return Status();
    }
    pollfd waiting{output, POLLIN, 0};
    std::array<char, 1024> piece{};
    const ssize_t bytes =
        ::poll(&waiting, 1, kStartTimeoutMs) > 0 ? ::read(output, piece.data(), piece.size()) : 0;
    if (bytes <= 0) {
      return Status(ErrorCode::kUnreachable,
                    said.empty() ? std::string("It said nothing; name it with --broker.")
                                 : fmt::format("It said: {}", said));
    }
    said.append(piece.data(), static_cast<std::size_t>(bytes));
  }
}

OwnBroker::~OwnBroker() {
  if (pid_ > 0) {
    ::kill(pid_, SIGTERM);
    ::waitpid(pid_, nullptr, 0);
  }
  if (output_ >= 0) ::close(output_);
  std::error_code ignored;
  std::filesystem::remove_all(directory_, ignored);
}

}  // namespace holdfast::bench
