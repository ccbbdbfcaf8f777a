#include "delivery.h"

#include <fmt/format.h>

#include <utility>

#include "call.h"
#include "client_impl.h"
#include "holdfast/text.h"
#include "schema/field_limits.h"

namespace holdfast {

namespace {

Status check_reason(std::string_view reason) {
  if (reason.size() > kReasonBytesMax) {
    return Status(
        ErrorCode::kInvalidArgument,
        fmt::format("The reason has {} bytes; the limit is {}.", reason.size(), kReasonBytesMax));
  }
  if (!is_valid_utf8(reason)) {
    return Status(ErrorCode::kInvalidArgument, "The reason is not valid UTF-8.");
  }
  return Status();
}

// What of an exception's text can travel.
std::string as_reason(std::string_view text) {
  const std::string_view reason = cut_utf8(text, kReasonBytesMax);
  if (is_valid_utf8(reason)) return std::string(reason);
  return "The handler threw an exception whose text is not UTF-8.";
}

}  // namespace

DeliveryImpl::DeliveryImpl(std::shared_ptr<ClientImpl> client, const DeliveryOrigin& origin,
                           StoredMessage message)
    : client_(std::move(client)), origin_(origin), message_(std::move(message)) {}

Delivery DeliveryImpl::make_handle(std::shared_ptr<DeliveryImpl> impl) {
  return Delivery(std::move(impl));
}

DeliveryState DeliveryImpl::state() const {
  switch (stage_.load()) {
    case Stage::kHeld:
    case Stage::kSettling:
      return DeliveryState::kHeld;
    case Stage::kSettled:
      return DeliveryState::kSettled;
    case Stage::kLeaseLost:
    case Stage::kConnectionLost:
      break;
  }
  return DeliveryState::kLost;
}

Status DeliveryImpl::begin_settling(wire::SettleKind kind, std::string_view reason,
                                    std::optional<std::chrono::milliseconds> delay) {
  if (Status checked = check_reason(reason); !checked.ok()) return checked;
  if (delay.has_value() && (delay->count() < 0 || delay->count() > kNackDelayMsMax)) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("The delay of a nack is {} ms; it can be 0 to {} ms (7 days).",
                              delay->count(), kNackDelayMsMax));
  }
  Stage stage = Stage::kHeld;
  if (stage_.compare_exchange_strong(stage, Stage::kSettling)) return Status();
  // The work of a lost lease may be done all the same: the broker decides whether the ack is too
  // late.
  if (stage == Stage::kLeaseLost && kind == wire::SettleKind_Ack &&
      stage_.compare_exchange_strong(stage, Stage::kSettling)) {
    return Status();
  }
  if (stage == Stage::kConnectionLost) {
    return Status(
        ErrorCode::kConnectionLost,
        fmt::format("Message {} of queue \"{}\" is no longer held: the connection it came "
                    "on was lost. It will be delivered again.",
                    message_.sequence, message_.queue));
  }
  return Status(
      ErrorCode::kNotHeld,
      fmt::format(
          "Message {} of queue \"{}\" is no longer held: {}.", message_.sequence, message_.queue,
          stage == Stage::kLeaseLost ? "its lease has ended" : "it has been settled already"));
}

void DeliveryImpl::settle(wire::SettleKind kind, std::string_view reason,
                          std::optional<std::chrono::milliseconds> delay,
                          Delivery::SettleDone done) {
  Status begun = begin_settling(kind, reason, delay);
  if (!begun.ok()) {
    if (done) client_->run_on_io([done = std::move(done), begun](const Status&) { done(begun); });
    return;
  }
  client_->settle({shared_from_this(), kind, std::string(reason),
                   delay.has_value() ? delay->count() : -1, std::move(done)});
}

Status DeliveryImpl::settle_and_wait(wire::SettleKind kind, std::string_view reason,
                                     std::optional<std::chrono::milliseconds> delay) {
  if (Status allowed = client_->check_may_wait(); !allowed.ok()) return allowed;
  const auto call = std::make_shared<client::Call<Status>>();
  settle(kind, reason, delay, [call](Status status) { call->finish(std::move(status)); });
  std::optional<Status> answer = call->wait_until(client_->deadline());
  if (answer.has_value()) return *std::move(answer);
  return client_->timed_out(
      fmt::format("Settling message {} of queue \"{}\"", message_.sequence, message_.queue));
}

void DeliveryImpl::release() {
  if (is_held()) settle(wire::SettleKind_Release, {}, std::nullopt, {});
}

void DeliveryImpl::handle_dropped() {
  if ((flags_.fetch_or(kDropped) & kInHandler) == 0) release();
}

void DeliveryImpl::handler_begins() { flags_.fetch_or(kInHandler); }

void DeliveryImpl::handler_ended(const std::optional<std::string>& failure) {
  const bool dropped = (flags_.fetch_and(static_cast<std::uint8_t>(~kInHandler)) & kDropped) != 0;
  if (failure.has_value()) {
    if (is_held()) settle(wire::SettleKind_Nack, as_reason(*failure), std::nullopt, {});
  } else if (dropped) {
    release();
  }
}

void DeliveryImpl::settle_answered(wire::SettleKind kind, const Status& status) {
  const bool dropped = (flags_.load() & (kDropped | kInHandler)) == kDropped;
  if (status.ok()) {
    stage_.store(Stage::kSettled);
  } else if (status.code() == ErrorCode::kConnectionLost ||
             status.code() == ErrorCode::kCancelled) {
    stage_.store(Stage::kConnectionLost);
  } else if (status.code() == ErrorCode::kNotHeld ||
             (dropped && kind == wire::SettleKind_Release)) {
    // What cannot even be given back is left to its lease.
    stage_.store(Stage::kLeaseLost);
  } else {
    stage_.store(Stage::kHeld);
    // Dropped before or since: either this or handle_dropped() gives it back.
    if ((flags_.load() & (kDropped | kInHandler)) == kDropped) release();
  }
}

void DeliveryImpl::lease_lost() {
  Stage held = Stage::kHeld;
  stage_.compare_exchange_strong(held, Stage::kLeaseLost);
}

// What is settling hears of it from its own answer.
void DeliveryImpl::connection_lost() {
  Stage stage = Stage::kHeld;
  if (stage_.compare_exchange_strong(stage, Stage::kConnectionLost)) return;
  if (stage == Stage::kLeaseLost) {
    stage_.compare_exchange_strong(stage, Stage::kConnectionLost);
  }
}

Status DeliveryImpl::extend(std::chrono::milliseconds lease) {
  return client_->extend(shared_from_this(), lease);
}

// ---- the public object ----

Delivery::Delivery(std::shared_ptr<DeliveryImpl> impl) : impl_(std::move(impl)) {}
Delivery::Delivery(Delivery&&) noexcept = default;

Delivery& Delivery::operator=(Delivery&& other) noexcept {
  if (this == &other) return *this;
  if (impl_ != nullptr) impl_->handle_dropped();
  impl_ = std::move(other.impl_);
  return *this;
}

Delivery::~Delivery() {
  if (impl_ != nullptr) impl_->handle_dropped();
}

const StoredMessage& Delivery::message() const { return impl_->message(); }
DeliveryState Delivery::state() const { return impl_->state(); }

Status Delivery::ack() { return impl_->settle_and_wait(wire::SettleKind_Ack, {}, std::nullopt); }
Status Delivery::nack(std::string_view reason, std::optional<std::chrono::milliseconds> delay) {
  return impl_->settle_and_wait(wire::SettleKind_Nack, reason, delay);
}
Status Delivery::reject(std::string_view reason) {
  return impl_->settle_and_wait(wire::SettleKind_Reject, reason, std::nullopt);
}
Status Delivery::release() {
  return impl_->settle_and_wait(wire::SettleKind_Release, {}, std::nullopt);
}

void Delivery::ack_async(SettleDone done) {
  impl_->settle(wire::SettleKind_Ack, {}, std::nullopt, std::move(done));
}
void Delivery::nack_async(std::string_view reason, std::optional<std::chrono::milliseconds> delay,
                          SettleDone done) {
  impl_->settle(wire::SettleKind_Nack, reason, delay, std::move(done));
}
void Delivery::reject_async(std::string_view reason, SettleDone done) {
  impl_->settle(wire::SettleKind_Reject, reason, std::nullopt, std::move(done));
}
void Delivery::release_async(SettleDone done) {
  impl_->settle(wire::SettleKind_Release, {}, std::nullopt, std::move(done));
}

Status Delivery::extend(std::chrono::milliseconds lease) { return impl_->extend(lease); }

}  // namespace holdfast
