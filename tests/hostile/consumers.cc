// Consumers that take messages and do nothing with them.

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <thread>

#include "holdfast/client.h"
#include "hostile/attack.h"
#include "hostile/bounds.h"
#include "hostile/line.h"

extern char** environ;

namespace holdfast::hostile {

namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// What waits for one of them: up to twice the mark, and one message more; buffers grow by doubling.
constexpr std::uint64_t kMemoryEach =
    2 * (2 * kOutputBytesHigh + kHeldBodyBytes) + kConnectionBytes;

// What a consumer is delivered waits for a commit, on a slow disk behind those of all that is
// published there: longer than that may take.
constexpr std::chrono::seconds kDeliveryPatience{180};

// Bare connections with a small window that read `rate` bytes a second, and open again when the
// broker has had enough of them.
class DeafConsumers final : public Attack {
 public:
  DeafConsumers(const Target& target, std::uint32_t connections, std::size_t bytes_per_second)
      : Attack(bytes_per_second == 0 ? "consumers that never read"
                                     : "consumers that read a byte a second"),
        target_(target),
        bytes_per_second_(bytes_per_second),
        connections_(connections),
        lines_(connections) {}

  void run(const std::atomic<bool>& stop) override {
    const std::string opening = hello_frame(1'000) + subscribe_frame(kHeldQueue, kHeldMessages);
    const std::string ping = ping_frame();
    auto next_second = steady_clock::now();
    while (!stop) {
      for (Line& line : lines_) {
        if (!line.closed_by_peer()) continue;
        line = Line(target_.port, 4'096);
        if (line.send(opening) == opening.size()) ++hits_;
      }
      if (steady_clock::now() >= next_second) {
        next_second += std::chrono::seconds(1);
        for (Line& line : lines_) {
          // It lives, it only does not read.
          line.send(ping);
          char bytes[1];
          if (bytes_per_second_ > 0) line.receive(bytes, sizeof bytes);
        }
      }
      std::this_thread::sleep_for(milliseconds(20));
    }
    lines_.clear();
  }
  std::string_view words_for_hits() const override { return "subscribed"; }
  // Each was closed by the broker as a slow reader and came again.
  std::uint64_t hits_min() const override { return 2 * connections_; }
  std::uint64_t memory_bytes_max() const override { return connections_ * kMemoryEach; }

 private:
  const Target target_;
  const std::size_t bytes_per_second_;
  const std::uint64_t connections_;
  std::vector<Line> lines_;
};

// Whole programs that are stopped in the middle of their work.
class StoppedConsumers final : public Attack {
 public:
  StoppedConsumers(const Target& target, std::uint32_t processes)
      : Attack("consumers that are stopped by SIGSTOP"), target_(target), processes_(processes) {}

  void run(const std::atomic<bool>& stop) override {
    std::vector<Child> children;
    for (std::uint32_t i = 0; i < processes_; ++i) children.push_back(start_child());
    for (const Child& child : children) {
      if (!has_a_delivery(child)) {
        violations_.push_back("A consumer of its own process cannot be started.");
        continue;
      }
      ::kill(child.process, SIGSTOP);
      ++hits_;
    }
    while (!stop) std::this_thread::sleep_for(milliseconds(20));
    for (const Child& child : children) {
      if (child.output >= 0) ::close(child.output);
      if (child.process < 0) continue;
      ::kill(child.process, SIGKILL);
      ::waitpid(child.process, nullptr, 0);
    }
  }
  std::string_view words_for_hits() const override { return "processes stopped"; }
  std::uint64_t hits_min() const override { return processes_; }
  std::uint64_t memory_bytes_max() const override { return processes_ * kMemoryEach; }

 private:
  struct Child {
    pid_t process = -1;
    int output = -1;
  };

  Child start_child() const {
    int output[2];
    if (::pipe2(output, O_CLOEXEC) != 0) return {};
    posix_spawn_file_actions_t actions;
    ::posix_spawn_file_actions_init(&actions);
    ::posix_spawn_file_actions_adddup2(&actions, output[1], STDOUT_FILENO);
    const char* const arguments[] = {target_.own_binary.c_str(), "--consume",
                                     target_.address.c_str(), nullptr};
    Child child{.process = -1, .output = output[0]};
    if (::posix_spawn(&child.process, target_.own_binary.c_str(), &actions, nullptr,
                      const_cast<char* const*>(arguments), environ) != 0) {
      child.process = -1;
    }
    ::posix_spawn_file_actions_destroy(&actions);
    ::close(output[1]);
    return child;
  }

  // Waits until it says so. It ends by itself when nothing comes.
  static bool has_a_delivery(const Child& child) {
    char line[8];
    return child.process >= 0 && ::read(child.output, line, sizeof line) > 0;
  }

  const Target target_;
  const std::uint32_t processes_;
};

}  // namespace

std::unique_ptr<Attack> never_reading_consumers(const Target& target, std::uint32_t connections) {
  return std::make_unique<DeafConsumers>(target, connections, 0);
}

std::unique_ptr<Attack> slowly_reading_consumers(const Target& target, std::uint32_t connections) {
  return std::make_unique<DeafConsumers>(target, connections, 1);
}

std::unique_ptr<Attack> stopped_consumers(const Target& target, std::uint32_t processes) {
  return std::make_unique<StoppedConsumers>(target, processes);
}

int consume_until_stopped(const std::string& address) {
  ::alarm(600);  // ends even if whoever started it does not
  Result<Client> client = Client::connect(ClientOptions(address));
  if (!client.ok()) return 1;
  ConsumeOptions options;
  options.prefetch = 64;
  std::atomic<bool> came{false};
  const Result<Consumer> consumer =
      client->consume(kHeldQueue, options, [&came](Delivery delivery) {
        came = true;
        std::this_thread::sleep_for(std::chrono::seconds(600));
        static_cast<void>(delivery.state());
      });
  if (!consumer.ok()) return 1;
  const auto patience = steady_clock::now() + kDeliveryPatience;
  while (!came && steady_clock::now() < patience) std::this_thread::sleep_for(milliseconds(10));
  if (!came) ::_exit(1);
  std::puts("holds");
  std::fflush(stdout);
  for (;;) ::pause();
}

}  // namespace holdfast::hostile
