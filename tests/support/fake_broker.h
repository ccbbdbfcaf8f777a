// A broker that a test plays by hand: it accepts connections on loopback and says what it is told.
// Calls wait at most ten seconds and then throw std::runtime_error, which fails the test.

#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "holdfast/error_code.h"
#include "schema/frame.h"

namespace holdfast::test {

struct ReceivedFrame {
  wire::FrameType type = wire::FrameType_None;
  std::uint64_t correlation = 0;
  std::vector<std::uint8_t> body;

  Frame frame() const { return {type, correlation, body}; }
  template <typename Table>
  const Table& table() const {
    const Table* table = read_table<Table>(body);
    if (table == nullptr) throw_malformed();
    return *table;
  }
  PublishFrame publish() const;

 private:
  [[noreturn]] static void throw_malformed();
};

using Ranges = std::vector<std::pair<std::uint64_t, std::uint64_t>>;
Ranges ranges_of(const flatbuffers::Vector<const wire::SequenceRange*>* ranges);

// What a broker says, to whoever hears it.
class BrokerVoice {
 public:
  virtual void send(const FrameWriter& frames) = 0;
  void send(wire::FrameType type, std::uint64_t correlation,
            const flatbuffers::FlatBufferBuilder& builder);

  void ok(std::uint64_t correlation);
  void error(std::uint64_t correlation, ErrorCode code, std::string_view message,
             bool fatal = false);
  void confirm(std::uint64_t correlation, std::uint64_t sequence, std::uint32_t count = 1,
               bool duplicate = false);
  void queue_info(std::uint64_t correlation, std::uint32_t id, std::string_view name,
                  std::uint64_t dedup_window_ms = 600'000, std::uint64_t ready = 0,
                  bool stalled = false);
  void subscribed(std::uint64_t correlation, std::uint64_t consumer,
                  std::uint32_t lease_ms = 30'000);
  void deliver(std::uint64_t consumer, std::uint64_t sequence, std::string_view body,
               std::uint32_t attempt = 1, std::uint32_t lease_ms = 30'000);
  void settled(std::uint64_t correlation, std::uint32_t count, const Ranges& refused = {},
               std::uint32_t late = 0);
  void extended(std::uint64_t correlation, std::uint32_t count, const Ranges& refused = {});
  void lease_lost(std::uint64_t consumer, wire::Cause cause, const Ranges& ranges);
  void consumer_ended(std::uint64_t consumer, ErrorCode code, const std::string& message);
  void goodbye(std::uint32_t deadline_ms);
  void consumer_info(std::uint64_t correlation, std::uint64_t consumer, std::uint32_t in_flight);
  void list_end(std::uint64_t correlation, std::uint32_t count, std::uint64_t next = 0);

 protected:
  ~BrokerVoice() = default;
};

// One accepted connection.
class FakePeer final : public BrokerVoice {
 public:
  explicit FakePeer(int descriptor) : descriptor_(descriptor) {}
  FakePeer(FakePeer&& other) noexcept;
  FakePeer& operator=(FakePeer&&) = delete;
  ~FakePeer() { close(); }

  // The next frame; Pings are answered and skipped.
  ReceivedFrame next();
  // Skips everything else.
  void expect_ping();
  ReceivedFrame expect(wire::FrameType type);
  // Whether nothing but Pings arrives for so long.
  bool is_quiet_for(std::chrono::milliseconds duration);
  // Reads until the client closes.
  void expect_close();
  void close();

  using BrokerVoice::send;
  void send(const FrameWriter& frames) override;
  void send_bytes(const void* bytes, std::size_t count);

  void handshake(std::uint32_t heartbeat_ms = 10'000, std::uint32_t frame_bytes_max = 1 << 20,
                 std::uint64_t unconfirmed_bytes_max = 16u << 20);
  // Expects a QueueOpen for this queue and answers it.
  void open_queue(std::string_view name, std::uint32_t id, std::uint64_t dedup_window_ms = 600'000);
  // Expects a Subscribe and answers it.
  ReceivedFrame subscribe(std::uint64_t consumer, std::uint32_t lease_ms = 30'000);
  // Expects what a receive() asks before it ends with nothing, and says that nothing is coming.
  void nothing_is_coming(std::uint64_t consumer = 5);

 private:
  bool wait_readable(std::chrono::milliseconds duration);
  bool take_frame(ReceivedFrame* frame);
  // The next frame, whatever it is.
  ReceivedFrame next_of_all(std::chrono::steady_clock::time_point deadline);
  bool read_some();  // false: the client closed

  int descriptor_ = -1;
  FrameReader reader_{kFrameBytesMax};
};

class FakeBroker {
 public:
  FakeBroker();
  ~FakeBroker();
  FakeBroker(const FakeBroker&) = delete;
  FakeBroker& operator=(const FakeBroker&) = delete;

  std::string address() const;
  FakePeer accept();
  // From now on nobody listens here.
  void stop_listening();

 private:
  int descriptor_ = -1;
  std::uint16_t port_ = 0;
};

// What was written, cut into frames.
std::vector<ReceivedFrame> frames_in(const FrameWriter& written);

// A Message table as a publisher makes it, and its Deliver or PeekItem frame.
std::vector<std::uint8_t> message_bytes(std::string_view id, std::string_view body);
void append_message(FrameWriter& frames, wire::FrameType type, std::uint64_t correlation,
                    std::uint64_t consumer, std::uint64_t sequence, std::uint32_t attempt,
                    const std::vector<std::uint8_t>& message, std::uint32_t lease_ms = 30'000);

}  // namespace holdfast::test
