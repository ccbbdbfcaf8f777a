// One connection of the bench to the broker.
//
// Publishing and acknowledging only fill the output buffer; flush() and receive() move bytes when
// the poller says that the socket is ready, without ever blocking. Opening and the calls about
// queues wait for their answer.
//
// It speaks the wire itself, without the client library: all connections of a run are driven by one
// thread, so that what is measured is the broker and not the threads of its load.
//
// Failures: the first one is kept in status(); from then on the link does nothing.

#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "holdfast/status.h"
#include "schema/address.h"
#include "schema/frame.h"
#include "schema/sequence_ranges.h"

namespace holdfast::bench {

struct QueueFacts {
  std::uint32_t id = 0;
  std::uint64_t messages = 0;
};

class Link {
 public:
  // Connects and shakes hands. kUnreachable, or what the broker answers. Whenever it waits for
  // answers and for so long none comes, whatever else does, that is a kTimeout.
  static constexpr std::chrono::seconds kAnswerTimeout{60};
  static Result<std::unique_ptr<Link>> open(const Address& address, std::string name,
                                            std::chrono::milliseconds timeout = kAnswerTimeout);
  ~Link();
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  // ---- waiting for the answer ----
  // Makes these queues with the default settings; returns their ids. kQueueExists if one of them is
  // there: then none was made.
  Result<std::vector<std::uint32_t>> make_queues(std::span<const std::string> names);
  Status delete_queues(std::span<const std::string> names);
  Result<QueueFacts> look_at_queue(std::string_view name);
  // Until every ack that was sent is confirmed; sends no others.
  Status wait_acked();

  // ---- filling the output ----
  void publish(std::uint32_t queue, ByteSpan message, std::uint64_t message_checksum);
  // Deliveries begin when the output is sent.
  void subscribe(std::string_view queue, std::uint32_t credit);
  // Acks whatever was delivered since the last call.
  void acknowledge();

  // ---- driven by the poller ----
  int descriptor() const { return descriptor_; }
  bool has_output() const { return !output_.empty() || sent_ < sending_.size(); }
  void flush();
  // One read, and all that is complete in it.
  void receive();

  const Status& status() const { return status_; }
  const std::string& broker_version() const { return broker_version_; }
  std::uint64_t published() const { return published_; }
  std::uint64_t confirmed() const { return confirmed_; }
  std::uint64_t acked() const { return acked_; }

  // Called for each delivery; the body is valid during the call.
  std::function<void(ByteSpan body)> on_message;

 private:
  using OnAnswer = std::function<void(const Frame&)>;

  Link(int descriptor, std::chrono::milliseconds timeout)
      : descriptor_(descriptor), timeout_(timeout), reader_(kFrameBytesMax) {}
  Status shake_hands(std::string name);
  // Sends a request; `on_answer` gets its answer.
  void ask(wire::FrameType type, ByteSpan table, OnAnswer on_answer);
  // Until every request is answered.
  Status wait_answered() {
    return wait_until([this] { return asked_.empty(); });
  }
  Status wait_until(const std::function<bool()>& done);
  void create_queue(std::string_view name, OnAnswer on_answer);
  void delete_queue(std::string_view name);
  void take_frame(const Frame& frame);
  void take_delivery(const Frame& frame);
  void take_settled(const Frame& frame);
  void send_acks(std::uint64_t consumer, const SequenceRanges& ranges);
  void fail(Status status);
  void fail_with_answer(const Frame& frame);

  int descriptor_;
  const std::chrono::milliseconds timeout_;
  Status status_;
  FrameReader reader_;
  FrameWriter output_;
  FrameWriter sending_;   // what was output when the one before was sent
  std::size_t sent_ = 0;  // of that
  std::uint64_t last_correlation_ = 0;
  std::unordered_map<std::uint64_t, OnAnswer> asked_;  // by correlation
  std::string broker_version_;

  std::uint64_t published_ = 0;
  std::uint64_t confirmed_ = 0;
  std::uint64_t acks_sent_ = 0;
  std::uint64_t acked_ = 0;
  struct Unacked {
    std::uint64_t consumer = 0;
    SequenceRanges ranges;
  };
  std::vector<Unacked> unacked_;  // of the consumers that were delivered to, grouped as they came
};

}  // namespace holdfast::bench
