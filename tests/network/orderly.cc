#include "network/orderly.h"

#include <fmt/format.h>

#include <utility>

#include "crash/settler.h"

namespace holdfast::network {

OrderlyConsumer::OrderlyConsumer(ClientOptions options, crash::Ledger& ledger, std::string queue,
                                 crash::Life life)
    : options_(std::move(options)), ledger_(ledger), queue_(std::move(queue)), life_(life) {}

Status OrderlyConsumer::start() {
  Result<Client> client = Client::connect(options_);
  if (!client.ok()) return client.status();
  client_.emplace(std::move(*client));
  ConsumeOptions consume;
  consume.prefetch = 64;
  Result<Consumer> consumer =
      client_->consume(queue_, consume, [this](Delivery delivery) { handle(std::move(delivery)); });
  if (!consumer.ok()) return consumer.status();
  consumer_.emplace(std::move(*consumer));
  return {};
}

void OrderlyConsumer::stop() {
  if (consumer_) {
    consumer_->stop();
    const Status why = consumer_->status();
    if (!why.ok() && why.code() != ErrorCode::kCancelled) {
      ledger_.add_violation(
          fmt::format("The consumer of queue {} ended by itself: {}", queue_, why.to_string()));
    }
  }
  consumer_.reset();
  client_.reset();
}

std::uint64_t OrderlyConsumer::firsts() const {
  const std::lock_guard lock(mutex_);
  return firsts_;
}

void OrderlyConsumer::handle(Delivery delivery) {
  // Lost with its connection before its turn came: it was never begun.
  if (delivery.state() != DeliveryState::kHeld) return;
  const StoredMessage& message = delivery.message();
  crash::Ticket ticket = ledger_.delivered(message, life_);
  if (ticket.id.empty()) return;
  if (message.attempt == 1) {
    const std::lock_guard lock(mutex_);
    if (message.sequence <= last_first_) {
      ledger_.add_violation(fmt::format(
          "The first delivery of sequence {} of queue {} came after that of sequence {}.\n{}",
          message.sequence, queue_, last_first_, ledger_.story_of(message.id)));
    }
    last_first_ = message.sequence;
    ++firsts_;
  }
  const bool fails = crash::Settler::always_fails(ticket.id);
  const crash::Settlement settlement = fails ? crash::Settlement::kNack : crash::Settlement::kAck;
  ledger_.settle_asked(ticket, settlement);
  auto done = [this, ticket = std::move(ticket), settlement](const Status& status) {
    ledger_.settle_ended(ticket, settlement, status);
  };
  if (fails) {
    delivery.nack_async("always fails", std::nullopt, std::move(done));
  } else {
    delivery.ack_async(std::move(done));
  }
}

}  // namespace holdfast::network
