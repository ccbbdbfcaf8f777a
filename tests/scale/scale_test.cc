// What the broker costs when there is much of something: messages in the backlog, ids in the dedup
// window, idle connections, queues. Drives a real broker through the client library and reads its
// memory from /proc.
//
//   scale_test --broker PATH [--messages N] [--connections N] [--queues N]
//
// Memory is RssAnon: what the process has for itself, without the pages of its mapped file. Times
// are shown; only the bounds that the broker promises at any size are checked. The last line is `N
// passed, N failed`.

#include <fmt/format.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <filesystem>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "crash/broker_process.h"
#include "holdfast/client.h"
#include "support/checks.h"
#include "support/command_line.h"
#include "support/process.h"

namespace holdfast::scale {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kMegabyte = 1'000'000;
constexpr std::uint64_t kRssMax = 250 * kMegabyte;
constexpr std::uint64_t kConnectionBytesMax = 2 * 1024;
constexpr std::uint64_t kQueueBytesMax = 8 * 1024;
constexpr std::size_t kBodyBytes = 200;

struct Options {
  std::string broker;
  std::uint64_t messages = 5'000'000;
  std::uint64_t connections = 1'000;
  std::uint64_t queues = 1'000;
};

[[noreturn]] void give_up(const Status& status) {
  fmt::print("{}\n0 passed, 1 failed\n", status.to_string());
  std::exit(1);
}

template <typename T>
T must(Result<T> result) {
  if (!result.ok()) give_up(result.status());
  return std::move(*result);
}

void must(const Status& status) {
  if (!status.ok()) give_up(status);
}

// Memory that cannot be read would pass every bound.
std::uint64_t rss_anon_bytes(pid_t pid) {
  const std::uint64_t bytes = test::rss_anon_bytes(pid);
  if (bytes > 0) return bytes;
  give_up(Status(ErrorCode::kInternal, fmt::format("/proc/{}/status has no RssAnon.", pid)));
}

double seconds_since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

class Scale {
 public:
  explicit Scale(const Options& options)
      : options_(options),
        directory_(std::filesystem::temp_directory_path() /
                   fmt::format("holdfast-scale-{}", ::getpid())),
        broker_(options.broker, directory_,
                crash::free_port(static_cast<std::uint64_t>(::getpid()))) {
    std::filesystem::create_directories(directory_);
  }
  ~Scale() { std::filesystem::remove_all(directory_); }
  Scale(const Scale&) = delete;
  Scale& operator=(const Scale&) = delete;

  int run() {
    start();
    connections_and_queues();
    fill();
    restart();
    forgotten_ids();
    drain();
    return checks_.finish();
  }

 private:
  void start() {
    must(broker_.start());
    must(broker_.wait_ready(std::chrono::seconds(30)));
    connect();
  }

  void connect() {
    ClientOptions options(broker_.address());
    options.timeout = std::chrono::minutes(5);
    client_.emplace(must(Client::connect(options)));
    pid_ = static_cast<pid_t>(must(client_->admin().status()).pid);
  }

  void connections_and_queues() {
    const std::uint64_t before = rss_anon_bytes(pid_);
    {
      std::vector<Client> idle;
      for (std::uint64_t i = 0; i < options_.connections; ++i) {
        idle.push_back(must(Client::connect(ClientOptions(broker_.address()))));
      }
      const std::uint64_t grown = rss_anon_bytes(pid_) - std::min(before, rss_anon_bytes(pid_));
      checks_.check(
          grown / options_.connections < kConnectionBytesMax,
          fmt::format("{} idle connections cost {} bytes each, less than {}", options_.connections,
                      grown / options_.connections, kConnectionBytesMax));
    }
    const std::uint64_t between = rss_anon_bytes(pid_);
    for (std::uint64_t i = 0; i < options_.queues; ++i) {
      must(client_->admin().create_queue(fmt::format("queue-{}", i)));
    }
    const std::uint64_t grown = rss_anon_bytes(pid_) - std::min(between, rss_anon_bytes(pid_));
    checks_.check(
        grown / options_.queues < kQueueBytesMax,
        fmt::format("{} queues with their dead-letter queues cost {} bytes each, less than {}",
                    options_.queues, grown / options_.queues, kQueueBytesMax));
  }

  static std::string id_of(std::uint64_t number) { return fmt::format("scale-{:012}", number); }

  void fill() {
    must(client_->admin().create_queue("backlog", {{"dedup-window", 3'600'000}}));
    std::atomic<std::uint64_t> refused{0};
    std::uint64_t highest = 0;
    const Clock::time_point begin = Clock::now();
    Message message(std::string(kBodyBytes, 'x'));
    for (std::uint64_t i = 1; i <= options_.messages; ++i) {
      message.id = id_of(i);
      client_->publish_async("backlog", message, [&](Result<PublishReceipt> receipt) {
        if (!receipt.ok() || receipt->duplicate) ++refused;
      });
      if (i % 100'000 == 0) highest = std::max(highest, rss_anon_bytes(pid_));
    }
    must(client_->flush());
    const double seconds = seconds_since(begin);
    highest = std::max(highest, rss_anon_bytes(pid_));
    checks_.check(refused == 0,
                  fmt::format("{} messages of {} bytes were stored ({:.0f}/s)", options_.messages,
                              kBodyBytes, static_cast<double>(options_.messages) / seconds));
    checks_.check(highest < kRssMax,
                  fmt::format("filling took at most {} MB of memory, less than {}",
                              highest / kMegabyte, kRssMax / kMegabyte));
  }

  void restart() {
    client_.reset();
    must(broker_.kill());
    const Clock::time_point begin = Clock::now();
    must(broker_.start());
    must(broker_.wait_ready(std::chrono::minutes(5)));
    const double ready_seconds = seconds_since(begin);
    connect();
    std::vector<Delivery> first = must(client_->receive("backlog", 1, std::chrono::minutes(5)));
    const double first_seconds = seconds_since(begin);
    checks_.check(first.size() == 1 && first[0].message().sequence == 1,
                  fmt::format("after SIGKILL the broker was ready in {:.2f} s and made its first "
                              "delivery {:.2f} s after its start",
                              ready_seconds, first_seconds));
    must(first[0].release());
  }

  // Samples of the whole window, in no order that a cache would like.
  void forgotten_ids() {
    std::uint64_t wrong = 0;
    const std::uint64_t samples = std::min<std::uint64_t>(options_.messages, 10'000);
    for (std::uint64_t i = 0; i < samples; ++i) {
      const std::uint64_t number = 1 + i * 2'654'435'761 % options_.messages;
      const PublishReceipt receipt =
          must(client_->publish("backlog", Message(id_of(number), "again")));
      if (!receipt.duplicate || receipt.sequence != number) ++wrong;
    }
    checks_.check(wrong == 0,
                  fmt::format("of {} ids asked for again after the restart, {} were forgotten",
                              samples, wrong));
    const std::uint64_t known = must(client_->admin().queue("backlog")).dedup_ids;
    checks_.check(known == options_.messages, fmt::format("{} ids are in the dedup window", known));
  }

  void drain() {
    std::mutex mutex;
    std::condition_variable changed;
    std::uint64_t acked = 0;
    std::uint64_t out_of_order = 0;
    std::uint64_t last = 1;
    ConsumeOptions options;
    options.prefetch = 4096;
    const Clock::time_point begin = Clock::now();
    Consumer consumer = must(client_->consume("backlog", options, [&](Delivery delivery) {
      const std::uint64_t sequence = delivery.message().sequence;
      {
        const std::lock_guard<std::mutex> lock(mutex);
        if (sequence != 1 && sequence != last + 1) ++out_of_order;
        last = std::max(last, sequence);
      }
      delivery.ack_async([&](Status status) {
        if (!status.ok()) return;
        const std::lock_guard<std::mutex> lock(mutex);
        if (++acked == options_.messages) changed.notify_all();
      });
    }));
    std::uint64_t highest = 0;
    {
      std::unique_lock<std::mutex> lock(mutex);
      while (acked < options_.messages && seconds_since(begin) < 600) {
        changed.wait_for(lock, std::chrono::milliseconds(200));
        highest = std::max(highest, rss_anon_bytes(pid_));
      }
    }
    const double seconds = seconds_since(begin);
    consumer.stop();
    checks_.check(acked == options_.messages && out_of_order == 0,
                  fmt::format("{} were consumed and acked ({:.0f}/s), {} out of order", acked,
                              static_cast<double>(acked) / seconds, out_of_order));
    checks_.check(highest < kRssMax,
                  fmt::format("draining took at most {} MB of memory, less than {}",
                              highest / kMegabyte, kRssMax / kMegabyte));
    const QueueReport report = must(client_->admin().queue("backlog"));
    checks_.check(report.messages == 0 && report.bytes == 0, "the queue is empty");
  }

  const Options options_;
  const std::filesystem::path directory_;
  crash::BrokerProcess broker_;
  std::optional<Client> client_;
  pid_t pid_ = 0;
  test::Checks checks_;
};

}  // namespace
}  // namespace holdfast::scale

int main(int argc, char** argv) {
  holdfast::scale::Options options;
  holdfast::test::CommandLine line("What a Holdfast broker costs when there is much of something.");
  line.file("--broker", &options.broker, "The holdfastd to start");
  line.number("--messages", &options.messages, "In one queue", {.min = 1'000, .max = 100'000'000});
  line.number("--connections", &options.connections, "That are idle", {.min = 1, .max = 20'000});
  line.number("--queues", &options.queues, "That are empty", {.min = 1, .max = 50'000});
  line.parse(argc, argv);
  holdfast::test::raise_descriptor_limit();
  return holdfast::scale::Scale(options).run();
}
