// A disk whose flushes take long, while publishers push, or clients ask and go.

#include <fmt/format.h>

#include <algorithm>
#include <deque>
#include <future>
#include <mutex>
#include <optional>
#include <set>
#include <thread>

#include "holdfast/client.h"
#include "hostile/attack.h"
#include "hostile/bounds.h"
#include "hostile/line.h"

namespace holdfast::hostile {

namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::string_view kPushedQueue = "pushed";
constexpr std::size_t kPushedBodyBytes = 16'000;
constexpr std::chrono::seconds kPatience{60};
// A commit to the tables flushes its data, then the page that makes it valid; one to the journal
// flushes once.
constexpr int kFlushesOfCommit = 2;
constexpr int kFlushesMin = 1;
constexpr std::uint32_t kHeartbeatMs = 500;
constexpr milliseconds kLongDelay{1'000};
// From here on what waits is committed together, at most so many batches of a mebibyte.
constexpr milliseconds kJoinedDelay{200};
constexpr std::size_t kBatchesOfCommit = 16;

std::string body_of(const std::string& id) {
  return std::string(kPushedBodyBytes, static_cast<char>('a' + crash::hash_text(id) % 26));
}

// Publishes as fast as its client allows, into a client that is confirmed slowly. What is confirmed
// sooner than the disk can have stored it was confirmed early.
class Pusher {
 public:
  // `run` and `number` are part of its ids: an id that was published before would be a duplicate,
  // which is confirmed at once.
  Pusher(const Target& target, std::int64_t run, std::uint32_t number, milliseconds shortest)
      : target_(target), run_(run), number_(number), shortest_(shortest) {}

  Status start() {
    ClientOptions options(target_.address);
    options.reconnect = false;
    options.timeout = kPatience;
    // Others may have all the connections that there are for a moment.
    const auto deadline = steady_clock::now() + kPatience;
    for (;;) {
      Result<Client> client = Client::connect(options);
      if (client.ok()) {
        client_.emplace(std::move(*client));
        return {};
      }
      if (!client.status().retryable() || steady_clock::now() > deadline) return client.status();
      std::this_thread::sleep_for(milliseconds(20));
    }
  }

  void push(const std::atomic<bool>& stop) {
    for (std::uint64_t i = 0; !stop; ++i) {
      const std::string id = fmt::format("pushed-{}-{}-{}", run_, number_, i);
      const auto begin = steady_clock::now();
      client_->publish_async(kPushedQueue, Message(id, body_of(id)),
                             [this, id, begin](const Result<PublishReceipt>& receipt) {
                               answered(id, begin, receipt);
                             });
    }
  }

  // After the disk is fast again: everything is confirmed.
  void finish() {
    const Status status = client_->flush();
    if (!status.ok()) violations_.push_back("Flushing a pusher: " + status.to_string());
    client_.reset();
  }
  // From here on confirms may be quicker.
  void disk_is_fast() {
    const std::lock_guard lock(mutex_);
    shortest_ = milliseconds(0);
  }

  std::set<std::string> confirmed_;
  std::vector<std::string> violations_;

 private:
  void answered(const std::string& id, steady_clock::time_point begin,
                const Result<PublishReceipt>& receipt) {
    const std::lock_guard lock(mutex_);
    if (!receipt.ok()) {
      violations_.push_back(fmt::format("{} failed: {}", id, receipt.status().to_string()));
      return;
    }
    if (receipt->duplicate) violations_.push_back(id + " was called a duplicate.");
    confirmed_.insert(id);
    const auto took = steady_clock::now() - begin;
    if (took < shortest_) {
      violations_.push_back(fmt::format(
          "{} was confirmed after {} ms, and a commit takes at least {} ms: too early.", id,
          std::chrono::duration_cast<milliseconds>(took).count(), shortest_.count()));
    }
  }

  const Target target_;
  const std::int64_t run_;
  const std::uint32_t number_;
  std::mutex mutex_;
  milliseconds shortest_;
  std::optional<Client> client_;
};

// A connection that only listens: the longest time in which the broker said nothing.
class Listener {
 public:
  explicit Listener(std::uint16_t port) : line_(port) { line_.send(hello_frame(kHeartbeatMs)); }

  void look() {
    char bytes[4'096];
    const auto now = steady_clock::now();
    if (line_.receive(bytes, sizeof bytes) > 0) {
      longest_ = std::max(longest_, now - heard_);
      heard_ = now;
    }
    if (now >= next_ping_) {
      line_.send(ping_frame());
      next_ping_ = now + milliseconds(kHeartbeatMs);
    }
  }
  bool is_open() const { return line_.is_open(); }
  milliseconds longest() const {
    return std::chrono::duration_cast<milliseconds>(
        std::max(longest_, steady_clock::now() - heard_));
  }

 private:
  Line line_;
  steady_clock::time_point heard_ = steady_clock::now();
  steady_clock::time_point next_ping_ = heard_ + milliseconds(kHeartbeatMs);
  steady_clock::duration longest_{0};
};

// A consumer that was granted all of the held queue and has read next to nothing of it: the rest is
// delivered as it reads, whatever the disk does.
class LateReader {
 public:
  explicit LateReader(std::uint16_t port) : line_(port, 64 * 1024) {
    line_.send(hello_frame() + subscribe_frame(kHeldQueue, kHeldMessages));
    // Its deliveries begin when the commit that lets them is done.
    const auto deadline = steady_clock::now() + kPatience;
    while (bytes_ < kHeldBodyBytes && line_.is_open() && steady_clock::now() < deadline) {
      read(4'096);
      std::this_thread::sleep_for(milliseconds(1));
    }
  }

  // Whether it got everything until then.
  bool read_all(steady_clock::time_point deadline) {
    constexpr std::uint64_t kAll = std::uint64_t{kHeldMessages} * kHeldBodyBytes;
    while (bytes_ < kAll && line_.is_open() && steady_clock::now() < deadline) {
      if (read(256 * 1024) == 0) std::this_thread::sleep_for(milliseconds(1));
    }
    return bytes_ >= kAll;
  }
  std::uint64_t bytes() const { return bytes_; }

 private:
  std::size_t read(std::size_t bytes_max) {
    buffer_.resize(bytes_max);
    const std::size_t received = line_.receive(buffer_.data(), bytes_max);
    bytes_ += received;
    return received;
  }

  Line line_;
  std::string buffer_;
  std::uint64_t bytes_ = 0;
};

class SlowDiskAttack final : public Attack {
 public:
  SlowDiskAttack(const Target& target, milliseconds delay, std::uint32_t publishers, bool alone)
      : Attack(fmt::format("a disk whose flushes take {} ms, and {} publishers that push",
                           delay.count(), publishers)),
        target_(target),
        delay_(delay),
        publishers_(publishers),
        alone_(alone) {}

  void run(const std::atomic<bool>& stop) override {
    Result<Client> client = Client::connect(ClientOptions(target_.address));
    if (!client.ok())
      return violate("The broker cannot be reached: " + client.status().to_string());
    const auto created = client->admin().create_queue(kPushedQueue, {}, true);
    if (!created.ok()) return violate("The queue cannot be made: " + created.status().to_string());
    Listener listener(target_.port);
    std::optional<LateReader> reader;
    // So long that one commit is enough to read it all.
    if (alone_ && delay_ >= kLongDelay) reader.emplace(target_.port);
    const std::uint64_t delayed_before = target_.disk->delayed_total();
    target_.disk->set_delay(delay_);
    if (reader) deliveries_go_on(*reader);
    reader.reset();
    push(stop, listener, delayed_before);
    if (!listener.is_open()) violate("An idle connection was dropped while the disk was slow.");
    // A heartbeat is due after the interval; the machine may add to that as much again, and a dead
    // peer is one that was silent for three.
    if (listener.longest() > milliseconds(3 * kHeartbeatMs)) {
      violate(
          fmt::format("The broker said nothing for {} ms on a connection with heartbeats every "
                      "{} ms.",
                      listener.longest().count(), kHeartbeatMs));
    }
    drain(*client);
  }
  std::string_view words_for_hits() const override { return "slow flushes"; }
  std::uint64_t hits_min() const override { return kFlushesOfCommit; }
  // What each has published and is not confirmed: in the block, and in the buffer that it came in
  // or the pages that are being written.
  std::uint64_t memory_bytes_max() const override {
    return publishers_ * (2 * kUnconfirmedBytes + kConnectionBytes) + 8 * kMebibyte;
  }
  // The commit under way, then those of what all publishers may have waiting before it, then its
  // own; and flushes in between.
  milliseconds delay_max() const override {
    const std::size_t commit_bytes = (delay_ >= kJoinedDelay ? kBatchesOfCommit : 1) * kMebibyte;
    const auto commits = static_cast<int>(publishers_ * kUnconfirmedBytes / commit_bytes) + 3;
    return commits * (kFlushesOfCommit + 1) * delay_;
  }

 private:
  void violate(std::string sentence) { violations_.push_back(std::move(sentence)); }

  void deliveries_go_on(LateReader& reader) {
    const auto patience = steady_clock::now() + kPatience;
    // The steady pair publishes, so a commit begins at once.
    while (!target_.disk->delays_now() && steady_clock::now() < patience) {
      std::this_thread::sleep_for(milliseconds(1));
    }
    const auto begin = steady_clock::now();
    if (!reader.read_all(begin + delay_ * kFlushesOfCommit / 2)) {
      violate(
          fmt::format("During one slow commit a consumer got {} bytes of durable messages that "
                      "it had been granted, and {} were to come.",
                      reader.bytes(), kHeldMessages * kHeldBodyBytes));
    }
  }

  void push(const std::atomic<bool>& stop, Listener& listener, std::uint64_t delayed_before) {
    std::vector<std::unique_ptr<Pusher>> pushers;
    std::vector<std::thread> threads;
    std::atomic<bool> stop_pushing{false};
    const std::int64_t run = steady_clock::now().time_since_epoch().count();
    for (std::uint32_t i = 0; i < publishers_; ++i) {
      auto pusher = std::make_unique<Pusher>(target_, run, i, kFlushesMin * delay_);
      const Status status = pusher->start();
      if (!status.ok()) {
        violate("A publisher cannot connect: " + status.to_string());
        continue;
      }
      pushers.push_back(std::move(pusher));
      threads.emplace_back(
          [&stop_pushing, one = pushers.back().get()] { one->push(stop_pushing); });
    }
    while (!stop) {
      listener.look();
      hits_ = target_.disk->delayed_total() - delayed_before;
      std::this_thread::sleep_for(milliseconds(5));
    }
    stop_pushing = true;
    for (const auto& pusher : pushers) pusher->disk_is_fast();
    target_.disk->set_delay(milliseconds(0));
    for (std::thread& thread : threads) thread.join();
    for (const auto& pusher : pushers) {
      pusher->finish();
      violations_.insert(violations_.end(), pusher->violations_.begin(), pusher->violations_.end());
      confirmed_.merge(pusher->confirmed_);
    }
  }

  // Everything confirmed is there.
  void drain(Client& client) {
    std::mutex mutex;
    std::set<std::string> missing = confirmed_;
    ConsumeOptions options;
    options.prefetch = 256;
    Result<Consumer> consumer = client.consume(kPushedQueue, options, [&](Delivery delivery) {
      {
        const std::lock_guard lock(mutex);
        missing.erase(delivery.message().id);
        if (delivery.body() != body_of(delivery.message().id)) {
          violate(delivery.message().id + " came with another body.");
        }
      }
      delivery.ack_async();
    });
    if (!consumer.ok()) return violate("Draining: " + consumer.status().to_string());
    const auto deadline = steady_clock::now() + kPatience;
    for (;;) {
      const auto report = client.admin().queue(kPushedQueue);
      if (report.ok() && report->messages == 0) break;
      if (!report.ok() || steady_clock::now() > deadline) break;
      std::this_thread::sleep_for(milliseconds(10));
    }
    consumer->stop();
    if (!missing.empty()) {
      violate(fmt::format("Of {} confirmed messages {} are lost, e.g. {}.", confirmed_.size(),
                          missing.size(), *missing.begin()));
    }
  }

  const Target target_;
  const milliseconds delay_;
  const std::uint32_t publishers_;
  const bool alone_;
  std::set<std::string> confirmed_;
};

// Each asks for a queue thousands of times, and is gone before any of it can be answered: what
// waits to be said to it remains.
class AskersThatGo final : public Attack {
 public:
  AskersThatGo(const Target& target, milliseconds delay)
      : Attack(fmt::format("clients that ask and go, while a flush takes {} ms", delay.count())),
        target_(target),
        delay_(delay),
        asked_(hello_frame(kHeartbeatMs)) {
    const std::string open = open_frame(kHeldQueue);
    for (int i = 0; i < kAsked; ++i) asked_ += open;
  }

  void run(const std::atomic<bool>& stop) override {
    target_.disk->set_delay(delay_);
    std::deque<Asker> askers;
    while (!stop) {
      if (askers.size() == kAtOnce) {
        if (askers.front().sent == asked_.size()) ++hits_;
        askers.pop_front();
      }
      askers.push_back({Line(target_.port), 0});
      for (Asker& asker : askers) {
        if (asker.sent == asked_.size()) continue;
        asker.sent += asker.line.send(std::string_view(asked_).substr(asker.sent));
      }
      std::this_thread::sleep_for(kPause);
    }
    target_.disk->set_delay(milliseconds(0));
  }
  std::string_view words_for_hits() const override { return "connections that asked"; }
  std::uint64_t hits_min() const override { return 100; }
  // A vector of answers that grows may take half as much again.
  std::uint64_t memory_bytes_max() const override { return kAnswersBytesTotal * 3 / 2; }
  // The commit under way, the next one, and those of the queue that is filled and drained.
  milliseconds delay_max() const override { return 3 * (kFlushesOfCommit + 1) * delay_; }

 private:
  struct Asker {
    Line line;
    std::size_t sent = 0;
  };
  static constexpr int kAsked = 2'000;
  static constexpr std::size_t kAtOnce = 16;
  static constexpr milliseconds kPause{5};

  const Target target_;
  const milliseconds delay_;
  std::string asked_;
};

}  // namespace

std::unique_ptr<Attack> slow_disk(const Target& target, milliseconds delay,
                                  std::uint32_t publishers, bool alone) {
  return std::make_unique<SlowDiskAttack>(target, delay, publishers, alone);
}

std::unique_ptr<Attack> askers_that_go(const Target& target, milliseconds delay) {
  return std::make_unique<AskersThatGo>(target, delay);
}

}  // namespace holdfast::hostile
