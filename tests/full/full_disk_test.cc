// A disk that fills up: a broker on a file system of 32 MB of its own, filled until it refuses,
// killed, restarted, drained, filled again.
//
//   full_disk_test --broker PATH
//
// Mounts a tmpfs, which takes root. Without that right a quota of the same size stands in for the
// disk, and the output says so. The last line is `N passed, N failed`.

#include <fmt/format.h>
#include <sys/mount.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <cerrno>
#include <chrono>
#include <condition_variable>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "crash/broker_process.h"
#include "holdfast/client.h"

namespace holdfast::full {
namespace {

using Clock = std::chrono::steady_clock;

constexpr std::uint64_t kDiskBytes = 32u << 20;
constexpr std::size_t kBodyBytes = 1000;
// However the store keeps its reserve: more than half of the disk is for messages.
constexpr std::uint64_t kStoredBytesMin = kDiskBytes / 2;
constexpr int kRejected = 20;
constexpr std::chrono::seconds kPatience{60};

class FullDisk {
 public:
  explicit FullDisk(const std::string& broker)
      : directory_(std::filesystem::temp_directory_path() /
                   fmt::format("holdfast-full-{}", ::getpid())),
        disk_(directory_ / "data") {
    // Only the data: what the broker says must have room.
    std::filesystem::create_directories(disk_);
    mounted_ = ::mount("tmpfs", disk_.c_str(), "tmpfs", 0, "size=32m") == 0;
    std::vector<std::string> arguments;
    if (!mounted_) {
      fmt::print("No tmpfs can be mounted here ({}): a quota of 32 MiB stands in for it.\n",
                 std::strerror(errno));
      write_quota();
      arguments = {"--config", (directory_ / "quota.toml").string()};
    }
    broker_.emplace(broker, directory_, crash::free_port(static_cast<std::uint64_t>(::getpid())),
                    arguments);
  }
  ~FullDisk() {
    client_.reset();
    broker_.reset();
    if (mounted_) ::umount2(disk_.c_str(), MNT_DETACH);
    std::filesystem::remove_all(directory_);
  }
  FullDisk(const FullDisk&) = delete;
  FullDisk& operator=(const FullDisk&) = delete;

  int run() {
    start();
    must(client_->admin().create_queue("q"));
    const std::uint64_t first = fill("first");
    reject_some();
    client_.reset();
    must(broker_->kill());
    start();
    check(publish_one("while-full").status().code() == ErrorCode::kStorageFull,
          "after SIGKILL and a restart it is still full and says so");
    drain();
    resume();
    const std::uint64_t second = fill("second");
    check(second * 3 >= first * 2,
          fmt::format("the second time it takes {} messages, at least two thirds of the first {}",
                      second, first));
    drain();
    discard_dead_letters();
    fmt::print("{} passed, {} failed\n", passed_, failed_);
    return failed_ == 0 ? 0 : 1;
  }

 private:
  void check(bool holds, const std::string& sentence) {
    fmt::print("{}  {}\n", holds ? "ok    " : "FAILED", sentence);
    std::fflush(stdout);
    ++(holds ? passed_ : failed_);
  }

  void must(const Status& status) {
    if (status.ok()) return;
    fmt::print("{}\n{} passed, {} failed\n", status.to_string(), passed_, failed_ + 1);
    std::fflush(stdout);
    broker_.reset();
    if (mounted_) ::umount2(disk_.c_str(), MNT_DETACH);
    std::_Exit(1);
  }
  template <typename T>
  T must(Result<T> result) {
    must(result.status());
    return std::move(*result);
  }

  void write_quota() const {
    std::FILE* const file = std::fopen((directory_ / "quota.toml").c_str(), "w");
    fmt::print(file, "[limits]\ndisk_bytes_max = \"32MiB\"\n");
    std::fclose(file);
  }

  void start() {
    must(broker_->start());
    must(broker_->wait_ready(std::chrono::seconds(30)));
    ClientOptions options(broker_->address());
    options.timeout = std::chrono::seconds(2);  // how long publish() insists on a full disk
    client_.emplace(must(Client::connect(options)));
  }

  Result<PublishReceipt> publish_one(const std::string& id) {
    return client_->publish("q", Message(id, std::string(kBodyBytes, 'x')));
  }

  // Publishes until the broker refuses; returns how many it confirmed.
  std::uint64_t fill(const std::string& prefix) {
    std::mutex mutex;
    std::uint64_t confirmed = 0;
    std::uint64_t full = 0;
    std::uint64_t other = 0;
    for (std::uint64_t i = 0; i < 2 * kDiskBytes / kBodyBytes; ++i) {
      const std::string id = fmt::format("{}-{}", prefix, i);
      client_->publish_async(
          "q", Message(id, std::string(kBodyBytes, 'x')), [&, id](Result<PublishReceipt> receipt) {
            const std::lock_guard<std::mutex> lock(mutex);
            if (receipt.ok()) {
              ++confirmed;
              expected_[id] = receipt->sequence;
            } else {
              ++(receipt.status().code() == ErrorCode::kStorageFull ? full : other);
            }
          });
      const std::lock_guard<std::mutex> lock(mutex);
      if (full > 0) break;
    }
    must(client_->flush());
    // What was on its way was refused while it counted against the room; now one at a time.
    Status last;
    while (last.ok() && confirmed < 2 * kDiskBytes / kBodyBytes) {
      const std::string id = fmt::format("{}-alone-{}", prefix, confirmed);
      const Result<PublishReceipt> receipt = publish_one(id);
      last = receipt.status();
      if (!receipt.ok()) break;
      ++confirmed;
      expected_[id] = receipt->sequence;
    }
    check(full > 0 && other == 0 && last.code() == ErrorCode::kStorageFull,
          fmt::format("publishes are refused with storage_full after {} messages, {:.1f} MB",
                      confirmed, static_cast<double>(confirmed * kBodyBytes) / 1e6));
    check(confirmed * kBodyBytes >= kStoredBytesMin, "more than half of the disk was used");
    check(!must(client_->admin().status()).publishes_allowed, "the status says so");
    return confirmed;
  }

  // Moves to the dead-letter queue go on while new messages are refused.
  void reject_some() {
    std::vector<Delivery> deliveries =
        must(client_->receive("q", kRejected, std::chrono::seconds(30)));
    std::uint64_t rejected = 0;
    for (Delivery& delivery : deliveries) {
      dead_.insert(delivery.message().id);
      expected_.erase(delivery.message().id);
      must(delivery.reject("set aside on a full disk"));
      ++rejected;
    }
    const QueueReport report = must(client_->admin().queue("q"));
    check(rejected > 0 && report.dead == rejected,
          fmt::format("on the full disk {} messages went to the dead-letter queue", rejected));
  }

  void drain() {
    std::mutex mutex;
    std::condition_variable changed;
    std::uint64_t acked = 0;
    std::uint64_t failed = 0;
    std::uint64_t unexpected = 0;
    const std::uint64_t wanted = expected_.size();
    Consumer consumer = must(client_->consume("q", ConsumeOptions(), [&](Delivery delivery) {
      const Status status = delivery.ack();
      const std::lock_guard<std::mutex> lock(mutex);
      const auto found = expected_.find(delivery.message().id);
      if (found == expected_.end() || found->second != delivery.message().sequence ||
          delivery.body().size() != kBodyBytes) {
        ++unexpected;
      } else {
        expected_.erase(found);
      }
      ++(status.ok() ? acked : failed);
      changed.notify_all();
    }));
    {
      std::unique_lock<std::mutex> lock(mutex);
      changed.wait_for(lock, kPatience, [&] { return expected_.empty(); });
    }
    consumer.stop();
    check(expected_.empty() && unexpected == 0 && failed == 0,
          fmt::format("everything stored was drained and acked: {} of {}, {} unexpected, {} acks "
                      "failed",
                      acked, wanted, unexpected, failed));
  }

  void resume() {
    const Clock::time_point begin = Clock::now();
    Result<PublishReceipt> receipt = publish_one("resumed");
    while (!receipt.ok() && Clock::now() - begin < kPatience) receipt = publish_one("resumed");
    check(receipt.ok() && !receipt->duplicate, "publishing resumes by itself");
    if (receipt.ok()) expected_["resumed"] = receipt->sequence;
  }

  void discard_dead_letters() {
    std::uint64_t found = 0;
    for (const StoredMessage& letter : must(client_->admin().peek("q.dead", 1000)).messages) {
      if (dead_.contains(letter.id)) ++found;
    }
    check(found == dead_.size(), "every message that was set aside is in the dead-letter queue");
    check(must(client_->admin().discard_all("q", 0, 256)).moved == dead_.size(),
          "and can be discarded");
  }

  const std::filesystem::path directory_;
  const std::filesystem::path disk_;  // where BrokerProcess puts the data
  bool mounted_ = false;
  std::optional<crash::BrokerProcess> broker_;
  std::optional<Client> client_;
  std::map<std::string, std::uint64_t> expected_;  // confirmed and not yet consumed → sequence
  std::set<std::string> dead_;
  int passed_ = 0;
  int failed_ = 0;
};

}  // namespace
}  // namespace holdfast::full

int main(int argc, char** argv) {
  std::string broker;
  CLI::App app("A Holdfast broker on a disk of 32 MB.");
  app.add_option("--broker", broker, "the holdfastd to start")->required();
  CLI11_PARSE(app, argc, argv);
  return holdfast::full::FullDisk(broker).run();
}
