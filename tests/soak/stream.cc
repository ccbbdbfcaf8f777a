#include "soak/stream.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <utility>

#include "support/process.h"

namespace holdfast::soak {

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kTick{10};
constexpr std::uint64_t kTicksPerSecond = 100;
constexpr std::uint64_t kBytesPerKnownId = 16;
constexpr const char* kQueue = "soak";

std::uint64_t on_disk_bytes(const std::filesystem::path& directory) {
  std::uint64_t bytes = 0;
  for (const auto& entry : std::filesystem::recursive_directory_iterator(directory)) {
    struct stat info {};
    if (::stat(entry.path().c_str(), &info) == 0) {
      bytes += static_cast<std::uint64_t>(info.st_blocks) * 512;
    }
  }
  return bytes;
}

}  // namespace

Stream::Stream(StreamPlan plan, const std::string& broker, const std::filesystem::path& directory)
    : plan_(std::move(plan)),
      directory_(directory),
      broker_(broker, directory,
              crash::free_port(std::hash<std::string>()(plan_.name) +
                               static_cast<std::uint64_t>(::getpid()))) {}

Stream::~Stream() {
  stopping_ = true;
  if (producer_.joinable()) producer_.join();
  consumer_.reset();
  first_.reset();
  client_.reset();
}

Status Stream::start() {
  if (Status status = broker_.start(); !status) return status;
  if (Status status = broker_.wait_ready(std::chrono::seconds(30)); !status) return status;
  Result<Client> client = Client::connect(ClientOptions(broker_.address()));
  if (!client.ok()) return client.status();
  client_.emplace(std::move(*client));
  const Result<BrokerReport> report = client_->admin().status();
  if (!report.ok()) return report.status();
  pid_ = static_cast<pid_t>(report->pid);
  if (Result<QueueReport> made = client_->admin().create_queue(kQueue); !made.ok()) {
    return made.status();
  }
  ConsumeOptions options;
  options.prefetch = 1024;
  Result<Consumer> consumer =
      client_->consume(kQueue, options, [this](Delivery delivery) { handle(std::move(delivery)); });
  if (!consumer.ok()) return consumer.status();
  consumer_.emplace(std::move(*consumer));
  producer_ = std::thread([this] { publish_until_stopped(); });
  return {};
}

void Stream::publish_until_stopped() {
  const Message message(std::string(plan_.body_bytes, 's'));
  const Clock::time_point begin = Clock::now();
  for (std::uint64_t tick = 1, sent = 0; !stopping_; ++tick) {
    for (; sent < plan_.rate * tick / kTicksPerSecond; ++sent) {
      client_->publish_async(kQueue, message, [this](Result<PublishReceipt> receipt) {
        if (!receipt.ok()) return complain(receipt.status());
        ++published_;
      });
    }
    std::this_thread::sleep_until(begin + kTick * tick);
  }
}

void Stream::handle(Delivery delivery) {
  const StoredMessage& message = delivery.message();
  if (message.body.size() != plan_.body_bytes) {
    complain(Status(ErrorCode::kInternal,
                    fmt::format("Message {} came with {} bytes instead of {}.", message.sequence,
                                message.body.size(), plan_.body_bytes)));
  }
  if (plan_.keeps_first && message.sequence == 1) {
    const std::lock_guard<std::mutex> lock(mutex_);
    first_.emplace(std::move(delivery));
    return;
  }
  const auto done = [this](std::atomic<std::uint64_t>& count) {
    return [this, &count](Status status) {
      if (!status) return complain(status);
      ++count;
    };
  };
  if (plan_.one_retried_of != 0 && message.attempt == 1 &&
      message.sequence % plan_.one_retried_of == 0) {
    delivery.nack_async("not now", plan_.retry_delay, done(nacked_));
  } else {
    delivery.ack_async(done(acked_));
  }
}

void Stream::complain(const Status& status) {
  const std::lock_guard<std::mutex> lock(mutex_);
  if (!complaint_) complaint_ = status;
}

Status Stream::first_complaint() {
  const std::lock_guard<std::mutex> lock(mutex_);
  return complaint_.value_or(Status());
}

Result<Sample> Stream::sample() {
  if (Status status = first_complaint(); !status) return status;
  const Result<BrokerReport> broker = client_->admin().status();
  if (!broker.ok()) return broker.status();
  const Result<QueueReport> queue = client_->admin().queue(kQueue);
  if (!queue.ok()) return queue.status();
  return Sample{.published = published_,
                .acked = acked_,
                .rss_anon_bytes = test::rss_anon_bytes(pid_),
                .used_bytes = broker->store_bytes,
                .on_disk_bytes = on_disk_bytes(broker_.data_directory()),
                .live_bytes = queue->bytes + queue->dedup_ids * kBytesPerKnownId,
                .messages = queue->messages};
}

Status Stream::finish(std::chrono::seconds timeout) {
  stopping_ = true;
  producer_.join();
  if (Status status = client_->flush(); !status) return status;
  const Clock::time_point deadline = Clock::now() + timeout;
  for (;;) {
    if (Status status = first_complaint(); !status) return status;
    const Result<QueueReport> queue = client_->admin().queue(kQueue);
    if (!queue.ok()) return queue.status();
    const std::uint64_t kept = plan_.keeps_first ? 1 : 0;
    if (queue->messages == queue->waiting + kept && acked_ + queue->messages == published_) break;
    if (Clock::now() > deadline) {
      return Status(ErrorCode::kTimeout,
                    fmt::format("{}: of {} messages {} are acked and {} not settled, {} of those "
                                "waiting for their retry.",
                                plan_.name, published_.load(), acked_.load(), queue->messages,
                                queue->waiting));
    }
    std::this_thread::sleep_for(kTick);
  }
  return {};
}

}  // namespace holdfast::soak
