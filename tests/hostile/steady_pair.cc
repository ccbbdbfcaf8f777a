#include "hostile/steady_pair.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <utility>

#include "crash/random.h"

namespace holdfast::hostile {

namespace {

constexpr std::size_t kBodyBytes = 200;
constexpr std::chrono::seconds kPatience{60};
constexpr std::size_t kViolationsMax = 20;

std::string id_of(std::uint64_t number) { return fmt::format("steady-{}", number); }

std::string body_of(std::uint64_t number) {
  std::string body(kBodyBytes, '\0');
  crash::Random random(number);
  for (char& byte : body) byte = static_cast<char>(random.next());
  return body;
}

double milliseconds_since(std::chrono::steady_clock::time_point then) {
  return std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - then).count();
}

// Nearest rank.
Latency latency_of(std::vector<double> values) {
  if (values.empty()) return {};
  std::sort(values.begin(), values.end());
  const auto at = [&values](double share) {
    const auto rank = static_cast<std::size_t>(share * static_cast<double>(values.size()));
    return values[std::min(rank, values.size() - 1)];
  };
  return {at(0.5), at(0.99), values.back()};
}

}  // namespace

SteadyPair::SteadyPair(std::string address, std::string queue, std::chrono::microseconds pace)
    : address_(std::move(address)), queue_(std::move(queue)), pace_(pace) {}

SteadyPair::~SteadyPair() {
  stopping_ = true;
  if (thread_.joinable()) thread_.join();
  consumer_.reset();
  receiver_.reset();
  publisher_.reset();
}

Status SteadyPair::start() {
  ClientOptions options(address_);
  options.reconnect = false;
  options.client_name = "steady";
  for (std::optional<Client>* client : {&publisher_, &receiver_}) {
    Result<Client> connected = Client::connect(options);
    if (!connected.ok()) return connected.status();
    client->emplace(std::move(*connected));
  }
  const auto created = publisher_->admin().create_queue(queue_, {}, true);
  if (!created.ok()) return created.status();
  ConsumeOptions consume;
  consume.prefetch = 1'000;
  Result<Consumer> consumer = receiver_->consume(
      queue_, consume, [this](Delivery delivery) { received(std::move(delivery)); });
  if (!consumer.ok()) return consumer.status();
  consumer_.emplace(std::move(*consumer));
  thread_ = std::thread([this] { publish_steadily(); });
  return {};
}

void SteadyPair::stop() {
  stopping_ = true;
  if (thread_.joinable()) thread_.join();
  {
    std::unique_lock lock(mutex_);
    changed_.wait_for(lock, kPatience, [this] { return open_.empty(); });
    if (!open_.empty()) {
      const auto& [number, sent] = *open_.begin();
      violate(fmt::format("{} messages of the steady pair are open after {} s, e.g. {}, {}.",
                          open_.size(), kPatience.count(), id_of(number),
                          sent.confirmed ? "confirmed and not acked" : "not confirmed"));
    }
  }
  consumer_->stop();
  const Status status = consumer_->status();
  if (!status.ok() && status.code() != ErrorCode::kCancelled) {
    const std::lock_guard lock(mutex_);
    violate("The steady consumer ended by itself: " + status.to_string());
  }
}

void SteadyPair::publish_steadily() {
  Clock::time_point next = Clock::now();
  while (!stopping_) {
    std::uint64_t number = 0;
    {
      const std::lock_guard lock(mutex_);
      number = ++published_;
      open_[number].at = Clock::now();
    }
    publisher_->publish_async(
        queue_, Message(id_of(number), body_of(number)),
        [this, number](const Result<PublishReceipt>& receipt) { confirmed(number, receipt); });
    next = std::max(next + pace_, Clock::now());
    std::this_thread::sleep_until(next);
  }
}

void SteadyPair::confirmed(std::uint64_t number, const Result<PublishReceipt>& receipt) {
  const std::lock_guard lock(mutex_);
  const auto found = open_.find(number);
  if (found == open_.end()) return violate(id_of(number) + " was confirmed twice.");
  if (!receipt.ok()) {
    violate(fmt::format("{} was not confirmed: {}", id_of(number), receipt.status().to_string()));
    open_.erase(found);
    return;
  }
  if (receipt->duplicate) violate(id_of(number) + " was called a duplicate.");
  if (number >= phase_begins_) confirm_ms_.push_back(milliseconds_since(found->second.at));
  found->second.confirmed = true;
  forget_if_done(number);
}

void SteadyPair::received(Delivery delivery) {
  const StoredMessage& message = delivery.message();
  const std::size_t dash = message.id.find('-');
  const std::uint64_t number =
      dash == std::string::npos ? 0 : std::strtoull(message.id.c_str() + dash + 1, nullptr, 10);
  {
    const std::lock_guard lock(mutex_);
    const auto found = open_.find(number);
    if (found == open_.end()) {
      violate(
          fmt::format("{} came, attempt {}, and is not open: settled before or never published.",
                      message.id, message.attempt));
    } else if (message.body != body_of(number)) {
      violate(message.id + " came with another body.");
    } else if (number >= phase_begins_ && message.attempt == 1) {
      receipt_ms_.push_back(milliseconds_since(found->second.at));
    }
    if (message.attempt == 1 && message.sequence <= last_sequence_) {
      violate(fmt::format("The first delivery of sequence {} came after that of {}.",
                          message.sequence, last_sequence_));
    }
    if (message.attempt == 1) last_sequence_ = message.sequence;
  }
  delivery.ack_async([this, number](const Status& status) { acked(number, status); });
}

void SteadyPair::acked(std::uint64_t number, const Status& status) {
  const std::lock_guard lock(mutex_);
  if (!status.ok()) {
    return violate(fmt::format("The ack of {} failed: {}", id_of(number), status.to_string()));
  }
  const auto found = open_.find(number);
  if (found == open_.end()) return;
  found->second.acked = true;
  forget_if_done(number);
}

void SteadyPair::forget_if_done(std::uint64_t number) {
  const auto found = open_.find(number);
  if (!found->second.confirmed || !found->second.acked) return;
  open_.erase(found);
  if (open_.empty()) changed_.notify_all();
}

void SteadyPair::begin_phase() {
  const std::lock_guard lock(mutex_);
  phase_begins_ = published_ + 1;
  confirm_ms_.clear();
  receipt_ms_.clear();
}

PairPhase SteadyPair::end_phase() {
  const std::lock_guard lock(mutex_);
  PairPhase phase;
  phase.published = published_ + 1 - phase_begins_;
  if (!confirm_ms_.empty()) {
    phase.shortest_confirm_ms = *std::min_element(confirm_ms_.begin(), confirm_ms_.end());
  }
  for (const auto& [number, sent] : open_) {
    if (number >= phase_begins_ && !sent.confirmed) {
      confirm_ms_.push_back(milliseconds_since(sent.at));
    }
  }
  phase.confirm = latency_of(std::move(confirm_ms_));
  phase.receipt = latency_of(std::move(receipt_ms_));
  confirm_ms_.clear();
  receipt_ms_.clear();
  phase_begins_ = UINT64_MAX;
  return phase;
}

std::vector<std::string> SteadyPair::violations() const {
  const std::lock_guard lock(mutex_);
  return violations_;
}

void SteadyPair::violate(std::string sentence) {
  if (violations_.size() < kViolationsMax) violations_.push_back(std::move(sentence));
}

}  // namespace holdfast::hostile
