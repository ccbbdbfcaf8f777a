#include "crash/settler.h"

#include <fmt/format.h>

#include <utility>

namespace holdfast::crash {

namespace {

// Of the deliveries to a mixed mood, in a hundred.
constexpr std::uint64_t kAckPercent = 76;
constexpr std::uint64_t kNackPercent = 9;
constexpr std::uint64_t kRejectPercent = 4;
constexpr std::uint64_t kReleasePercent = 4;
constexpr std::uint64_t kDropPercent = 4;
// The rest is kept, past its lease.
constexpr std::chrono::milliseconds kMixedLease{250};
constexpr std::chrono::milliseconds kKeepFor{350};
constexpr std::chrono::milliseconds kDrainLease{30'000};

}  // namespace

Settler::Settler(ClientOptions options, Ledger& ledger, SettlerPlan plan)
    : options_(std::move(options)), ledger_(ledger), plan_(std::move(plan)), random_(plan_.seed) {}

Settler::~Settler() { stop(); }

Status Settler::start() {
  Result<Client> client = Client::connect(options_);
  if (!client.ok()) return client.status();
  client_.emplace(std::move(client).value());
  ConsumeOptions consume;
  consume.concurrency = 2;
  consume.prefetch = 64;
  consume.extend_leases = false;
  consume.lease = plan_.mood == Mood::kDrain ? kDrainLease : kMixedLease;
  consume.consumer_name = plan_.name;
  Result<Consumer> consumer = client_->consume(
      plan_.queue, consume, [this](Delivery delivery) { handle(std::move(delivery)); });
  if (!consumer.ok()) return consumer.status();
  consumer_.emplace(std::move(consumer).value());
  return {};
}

void Settler::stop() {
  if (consumer_) {
    consumer_->stop();
    const Status why = consumer_->status();
    if (!why.ok() && why.code() != ErrorCode::kCancelled) {
      ledger_.add_violation(fmt::format("The consumer {} of queue {} ended by itself: {}",
                                        plan_.name, plan_.queue, why.to_string()));
    }
  }
  {
    const std::lock_guard lock(mutex_);
    for (const Kept& kept : kept_) ledger_.given_back(kept.ticket);
    kept_.clear();
  }
  consumer_.reset();
  client_.reset();
}

void Settler::handle(Delivery delivery) {
  // Lost with its connection before its turn came: it was never begun.
  if (delivery.state() != DeliveryState::kHeld) return;
  Ticket ticket = ledger_.delivered(delivery.message(), plan_.life);
  if (ticket.id.empty()) return;
  if (always_fails(ticket.id)) {
    settle(delivery, std::move(ticket), Settlement::kNack);
  } else if (plan_.mood == Mood::kDrain) {
    settle(delivery, std::move(ticket), Settlement::kAck);
  } else {
    handle_mixed(std::move(delivery), std::move(ticket));
  }
  settle_what_was_kept_too_long();
}

void Settler::handle_mixed(Delivery delivery, Ticket ticket) {
  std::uint64_t choice = 0;
  {
    const std::lock_guard lock(mutex_);
    choice = random_.below(100);
  }
  const auto chosen = [&choice](std::uint64_t percent) {
    if (choice < percent) return true;
    choice -= percent;
    return false;
  };
  if (chosen(kAckPercent)) {
    settle(delivery, std::move(ticket), Settlement::kAck);
  } else if (chosen(kNackPercent)) {
    settle(delivery, std::move(ticket), Settlement::kNack);
  } else if (chosen(kRejectPercent)) {
    settle(delivery, std::move(ticket), Settlement::kReject);
  } else if (chosen(kReleasePercent)) {
    settle(delivery, std::move(ticket), Settlement::kRelease);
  } else if (chosen(kDropPercent)) {
    ledger_.given_back(ticket);  // by the destructor
  } else {
    keep(std::move(delivery), std::move(ticket));
  }
}

void Settler::settle(Delivery& delivery, Ticket ticket, Settlement settlement) {
  ledger_.settle_asked(ticket, settlement);
  // One in eight by the blocking call.
  const bool synchronous = mix(hash_text(ticket.id) ^ ticket.attempt) % 8 == 0;
  if (synchronous && settlement == Settlement::kAck) {
    ledger_.settle_ended(ticket, settlement, delivery.ack());
    return;
  }
  const std::string reason =
      fmt::format("{} of attempt {}", settlement_name(settlement), ticket.attempt);
  auto done = [this, ticket = std::move(ticket), settlement](const Status& status) {
    ledger_.settle_ended(ticket, settlement, status);
  };
  switch (settlement) {
    case Settlement::kAck:
      delivery.ack_async(std::move(done));
      break;
    case Settlement::kNack:
      delivery.nack_async(reason, std::nullopt, std::move(done));
      break;
    case Settlement::kReject:
      delivery.reject_async(reason, std::move(done));
      break;
    case Settlement::kRelease:
      delivery.release_async(std::move(done));
      break;
  }
}

void Settler::keep(Delivery delivery, Ticket ticket) {
  const std::lock_guard lock(mutex_);
  kept_.push_back({std::move(delivery), std::move(ticket), std::chrono::steady_clock::now()});
}

void Settler::settle_what_was_kept_too_long() {
  std::deque<Kept> late;
  {
    const std::lock_guard lock(mutex_);
    const auto now = std::chrono::steady_clock::now();
    while (!kept_.empty() && now - kept_.front().since > kKeepFor) {
      late.push_back(std::move(kept_.front()));
      kept_.pop_front();
    }
  }
  // Half of them finish their work late, the others never say anything.
  for (Kept& kept : late) {
    if (hash_text(kept.ticket.id) % 2 == 0) {
      settle(kept.delivery, std::move(kept.ticket), Settlement::kAck);
    } else {
      ledger_.given_back(kept.ticket);
    }
  }
}

}  // namespace holdfast::crash
