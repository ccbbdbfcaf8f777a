// One delivery, shared by the program's Delivery and by the subscription that received it.
//
// It is held, then settling, then settled; or its lease or its connection is lost. A settle that
// the broker refused for another reason than "not held" makes it held again, so that the program
// can try again; if the program has dropped it by then, it is given back. Of a settle that the
// connection or the client ended before its answer nobody knows whether it was done.

#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "holdfast/client.h"
#include "protocol_generated.h"

namespace holdfast {

// Where a delivery came from.
struct DeliveryOrigin {
  std::uint64_t connection = 0;    // the client's number for it
  std::uint64_t subscription = 0;  // its key
  std::uint64_t consumer = 0;      // the broker's number for it on that connection
};

// Any thread, unless said otherwise.
class DeliveryImpl : public std::enable_shared_from_this<DeliveryImpl> {
 public:
  DeliveryImpl(std::shared_ptr<ClientImpl> client, const DeliveryOrigin& origin,
               StoredMessage message);

  static Delivery make_handle(std::shared_ptr<DeliveryImpl> impl);

  const StoredMessage& message() const { return message_; }
  std::uint64_t sequence() const { return message_.sequence; }
  std::uint64_t connection() const { return origin_.connection; }
  std::uint64_t subscription() const { return origin_.subscription; }
  std::uint64_t consumer() const { return origin_.consumer; }
  DeliveryState state() const;
  bool is_held() const { return stage_.load() == Stage::kHeld; }
  // Ok while it is; otherwise what a call that needs it to be is told.
  Status check_held() const;
  Status why_lease_lost() const;
  Status why_connection_lost() const;

  // The reason may be any text; what cannot travel of it is escaped or cut.
  void settle(wire::SettleKind kind, std::string_view reason,
              std::optional<std::chrono::milliseconds> delay, Delivery::SettleDone done);
  Status settle_and_wait(wire::SettleKind kind, std::string_view reason,
                         std::optional<std::chrono::milliseconds> delay);
  Status extend(std::chrono::milliseconds lease);
  // Given back, unless it is being settled. Nobody is told.
  void release();

  // The program's object is gone.
  void handle_dropped();
  // Around a handler: a handle dropped in it is judged when it is over.
  void handler_begins();
  // `failure` is the text of the exception that the handler threw.
  void handler_ended(const std::optional<std::string>& failure);

  // The settle that was begun does not reach the broker. kNotHeld: the lease is lost.
  void settle_not_sent(const Status& why);

  // On the I/O thread: what the broker said to a settle that was sent, or what kept it from it.
  void settle_answered(wire::SettleKind kind, const Status& status);
  void lease_lost();
  void connection_lost();
  // Its lease is lost, and the program can still ask for an ack or has asked for one.
  bool may_be_acked_late() const;
  // Likewise there: until when the program asked for its lease, in ms of the I/O thread's clock; 0:
  // it did not, or no longer.
  void lease_asked_for(std::uint64_t until_ms) { lease_asked_until_ms_ = until_ms; }
  std::uint64_t lease_asked_until_ms() const { return lease_asked_until_ms_; }

 private:
  enum class Stage : std::uint8_t {
    kHeld,
    kSettling,
    kSettled,
    kLeaseLost,
    kConnectionLost,
    kOutcomeUnknown,
  };
  static constexpr std::uint8_t kInHandler = 1;
  static constexpr std::uint8_t kDropped = 2;
  static constexpr std::uint8_t kFailed = 4;     // a nack of it was refused before it was sent
  static constexpr std::uint8_t kHandedOut = 8;  // the program has or had its object

  Status begin_settling(wire::SettleKind kind, std::optional<std::chrono::milliseconds> delay);
  Status refusal_in(Stage stage) const;
  // Given back, or nacked if that was asked for in vain.
  void let_go();

  const std::shared_ptr<ClientImpl> client_;
  const DeliveryOrigin origin_;
  const StoredMessage message_;
  std::atomic<Stage> stage_{Stage::kHeld};
  std::atomic<std::uint8_t> flags_{0};
  std::uint64_t lease_asked_until_ms_ = 0;
};

}  // namespace holdfast
