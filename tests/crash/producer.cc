#include "crash/producer.h"

#include <fmt/format.h>

#include <utility>

namespace holdfast::crash {

Producer::Producer(ClientOptions options, Ledger& ledger, ProducerPlan plan)
    : options_(std::move(options)), ledger_(ledger), plan_(std::move(plan)), random_(plan_.seed) {}

Producer::~Producer() {
  stop();
  // Closing answers what is left with kCancelled, by callbacks that still need the members.
  client_.reset();
}

Status Producer::start() {
  Result<Client> client = Client::connect(options_);
  if (!client.ok()) return client.status();
  client_.emplace(std::move(client).value());
  thread_ = std::thread([this] { run(); });
  return {};
}

void Producer::stop() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  if (thread_.joinable()) thread_.join();
}

std::string Producer::wait_answered(std::chrono::milliseconds timeout) {
  std::unique_lock lock(mutex_);
  changed_.wait_for(lock, timeout, [this] { return unanswered_.empty(); });
  return unanswered_.empty() ? std::string() : *unanswered_.begin();
}

void Producer::run() {
  while (wait_for_room()) {
    const std::string& queue = plan_.queues[random_.below(plan_.queues.size())];
    publish(queue, choose_id(queue));
  }
}

bool Producer::wait_for_room() {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] {
    return stopping_ || (unanswered_.size() < plan_.window && published_ < plan_.messages_max);
  });
  return !stopping_;
}

std::string Producer::choose_id(const std::string& queue) {
  if (random_.once_in(25)) {
    std::string again = ledger_.confirmed_id(queue, random_.next());
    if (!again.empty()) return again;
  }
  return fmt::format("{}-{}-{}", queue, plan_.name, published_);
}

void Producer::publish(const std::string& queue, const std::string& id) {
  ++published_;
  Message message(id, ledger_.body_of(id));
  message.headers = Ledger::headers_of(id);
  ledger_.publish_asked(queue, id);
  {
    const std::lock_guard lock(mutex_);
    unanswered_.insert(id);
  }
  if (plan_.synchronous) {
    answered(id, client_->publish(queue, message));
  } else {
    client_->publish_async(
        queue, message, [this, id](const Result<PublishReceipt>& result) { answered(id, result); });
  }
}

void Producer::answered(const std::string& id, const Result<PublishReceipt>& result) {
  if (result.ok()) {
    ledger_.publish_confirmed(id, result.value());
  } else {
    ledger_.publish_unanswered(id, result.status());
  }
  {
    const std::lock_guard lock(mutex_);
    unanswered_.erase(unanswered_.find(id));
  }
  changed_.notify_all();
}

}  // namespace holdfast::crash
