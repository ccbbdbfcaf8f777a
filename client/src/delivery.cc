#include "delivery.h"

#include <fmt/format.h>

#include <utility>

#include "call.h"
#include "client_impl.h"
#include "holdfast/text.h"
#include "schema/field_limits.h"

namespace holdfast {

namespace {

// What of a text can travel: a message is not to be kept from failing by the text that says why.
std::string as_reason(std::string_view text) {
  if (is_valid_utf8(text)) return std::string(cut_utf8(text, kReasonBytesMax));
  return std::string(cut_utf8(printable(text), kReasonBytesMax));
}

}  // namespace

DeliveryImpl::DeliveryImpl(std::shared_ptr<ClientImpl> client, const DeliveryOrigin& origin,
                           StoredMessage message)
    : client_(std::move(client)), origin_(origin), message_(std::move(message)) {}

Delivery DeliveryImpl::make_handle(std::shared_ptr<DeliveryImpl> impl) {
  impl->flags_.fetch_or(kHandedOut);
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
    case Stage::kOutcomeUnknown:
      break;
  }
  return DeliveryState::kLost;
}

Status DeliveryImpl::begin_settling(wire::SettleKind kind,
                                    std::optional<std::chrono::milliseconds> delay) {
  if (delay.has_value() && (delay->count() < 0 || delay->count() > kNackDelayMsMax)) {
    flags_.fetch_or(kFailed);
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
  return refusal_in(stage);
}

Status DeliveryImpl::check_held() const {
  const Stage stage = stage_.load();
  return stage == Stage::kHeld ? Status() : refusal_in(stage);
}

// What a call is told that cannot be done in this stage.
Status DeliveryImpl::refusal_in(Stage stage) const {
  const auto not_held = [this](ErrorCode code, std::string_view why) {
    return Status(code, fmt::format("Message {} of queue \"{}\" is no longer held: {}",
                                    message_.sequence, message_.queue, why));
  };
  switch (stage) {
    case Stage::kSettled:
      return not_held(ErrorCode::kNotHeld, "it has been settled already.");
    case Stage::kLeaseLost:
      return not_held(ErrorCode::kNotHeld, "its lease has ended, or its queue is gone.");
    case Stage::kConnectionLost:
      return not_held(ErrorCode::kConnectionLost,
                      "the connection it came on has ended. It may come again.");
    case Stage::kOutcomeUnknown:
      return Status(
          ErrorCode::kConnectionLost,
          fmt::format("Whether message {} of queue \"{}\" was settled is not known: the connection "
                      "ended before the broker answered. If it was not, it may come again.",
                      message_.sequence, message_.queue));
    case Stage::kHeld:  // again, because the earlier call was refused in this moment
    case Stage::kSettling:
      break;
  }
  return Status(ErrorCode::kOperationRefused,
                fmt::format("Message {} of queue \"{}\" is being settled: an earlier call has not "
                            "been answered yet.",
                            message_.sequence, message_.queue));
}

Status DeliveryImpl::why_lease_lost() const { return refusal_in(Stage::kLeaseLost); }
Status DeliveryImpl::why_connection_lost() const { return refusal_in(Stage::kConnectionLost); }

void DeliveryImpl::settle(wire::SettleKind kind, std::string_view reason,
                          std::optional<std::chrono::milliseconds> delay,
                          Delivery::SettleDone done) {
  if (Status checked = client_->check_process(); !checked.ok()) {
    if (done) done(std::move(checked));
    return;
  }
  Status begun = begin_settling(kind, delay);
  if (!begun.ok()) {
    if (done) client_->call_back([done = std::move(done), begun](const Status&) { done(begun); });
    return;
  }
  client_->settle({shared_from_this(), kind, as_reason(reason),
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

// What the program wanted to fail does: given back it would come again at once, for ever.
void DeliveryImpl::let_go() {
  if ((flags_.load() & kFailed) == 0) return release();
  if (is_held()) {
    settle(wire::SettleKind_Nack, "A nack with a delay that is out of bounds was refused.",
           std::nullopt, {});
  }
}

void DeliveryImpl::handle_dropped() {
  if ((flags_.fetch_or(kDropped) & kInHandler) == 0) let_go();
  if (stage_.load() != Stage::kLeaseLost) return;
  client_->run_on_io([client = client_, key = origin_.subscription](const Status& status) {
    if (status.ok()) client->subscriptions().late_ack_given_up(key);
  });
}

void DeliveryImpl::handler_begins() { flags_.fetch_or(kInHandler); }

void DeliveryImpl::handler_ended(const std::optional<std::string>& failure) {
  const bool dropped = (flags_.fetch_and(static_cast<std::uint8_t>(~kInHandler)) & kDropped) != 0;
  if (failure.has_value()) {
    if (is_held()) settle(wire::SettleKind_Nack, *failure, std::nullopt, {});
  } else if (dropped) {
    let_go();
  }
}

void DeliveryImpl::settle_answered(wire::SettleKind kind, const Status& status) {
  const bool dropped = (flags_.load() & (kDropped | kInHandler)) == kDropped;
  if (status.ok()) {
    stage_.store(Stage::kSettled);
  } else if (status.code() == ErrorCode::kConnectionLost ||
             status.code() == ErrorCode::kCancelled) {
    stage_.store(Stage::kOutcomeUnknown);
  } else if (status.code() == ErrorCode::kNotHeld ||
             (dropped && kind == wire::SettleKind_Release)) {
    // What cannot even be given back is left to its lease.
    stage_.store(Stage::kLeaseLost);
  } else {
    stage_.store(Stage::kHeld);
    // Dropped before or since: either this or handle_dropped() gives it back.
    if ((flags_.load() & (kDropped | kInHandler)) == kDropped) let_go();
  }
}

void DeliveryImpl::settle_not_sent(const Status& why) {
  stage_.store(why.code() == ErrorCode::kNotHeld ? Stage::kLeaseLost : Stage::kConnectionLost);
}

void DeliveryImpl::lease_lost() {
  Stage held = Stage::kHeld;
  stage_.compare_exchange_strong(held, Stage::kLeaseLost);
}

bool DeliveryImpl::may_be_acked_late() const {
  const Stage stage = stage_.load();
  const bool in_hand = (flags_.load() & (kHandedOut | kDropped)) == kHandedOut;
  return stage == Stage::kSettling || (stage == Stage::kLeaseLost && in_hand);
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
