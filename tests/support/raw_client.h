// A client that speaks frames and nothing more: a blocking socket on loopback. It does only what a
// test tells it to, so it can also misbehave. Calls wait at most ten seconds and then throw
// std::runtime_error, which fails the test.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "holdfast/error_code.h"
#include "schema/frame.h"
#include "schema/queue_settings.h"

namespace holdfast::test {

struct RawFrame {
  wire::FrameType type = wire::FrameType_None;
  std::uint64_t correlation = 0;
  std::vector<std::uint8_t> body;

  Frame frame() const { return {type, correlation, body}; }
  template <typename Table>
  const Table& table() const {
    const Table* const table = read_table<Table>(body);
    if (table == nullptr) throw_malformed();
    return *table;
  }
  // Of an Error frame.
  ErrorCode error() const { return static_cast<ErrorCode>(table<wire::Error>().code()); }
  std::string error_text() const { return std::string(view(table<wire::Error>().message())); }

 private:
  [[noreturn]] void throw_malformed() const;
};

class RawClient {
 public:
  // "127.0.0.1:7411" or "unix:/path". `receive_buffer_bytes` > 0 keeps the system's buffer small.
  explicit RawClient(const std::string& address, int receive_buffer_bytes = 0);
  RawClient(RawClient&& other) noexcept;
  RawClient& operator=(RawClient&&) = delete;
  ~RawClient();

  // ---- bytes ----
  void send_bytes(ByteSpan bytes);
  void send_text(std::string_view text);
  void send(const FrameWriter& frames);
  // Sends what the socket takes at once; returns how many bytes that was.
  std::size_t send_some(ByteSpan bytes);
  // How many bytes have come that nobody has read.
  std::size_t bytes_waiting() const;
  // Waits until the broker has closed the connection; frames that still come are dropped.
  void expect_close();

  // ---- frames ----
  // The next frame that is no heartbeat; nullopt when the broker has closed the connection.
  std::optional<RawFrame> receive();
  // Pings included.
  std::optional<RawFrame> receive_any();
  RawFrame expect(wire::FrameType type);
  // An Error that the connection survives, with this code and correlation.
  RawFrame expect_error(ErrorCode code, std::uint64_t correlation);
  // A fatal Error with this code, then the end of the stream.
  RawFrame expect_fatal(ErrorCode code);

  template <typename Table>
  void send_table(wire::FrameType type, std::uint64_t correlation,
                  flatbuffers::Offset<Table> table) {
    builder_.Finish(table);
    FrameWriter out;
    out.append(type, correlation, {builder_.GetBufferPointer(), builder_.GetSize()});
    send(out);
  }
  void send_empty(wire::FrameType type, std::uint64_t correlation);
  // An empty builder for the next send_table().
  flatbuffers::FlatBufferBuilder& builder();

  // ---- requests; each returns the answer's interesting part ----
  // Says Hello and reads the Welcome; returns the heartbeat that was agreed.
  std::uint32_t hello(std::string_view name = "raw", std::uint32_t heartbeat_ms = 0);
  void send_hello(std::uint16_t version_min, std::uint16_t version_max, std::string_view name,
                  std::uint32_t heartbeat_ms);
  // Creates it and returns its number.
  std::uint32_t create_queue(
      std::string_view name,
      const std::vector<std::pair<QueueSetting, std::uint64_t>>& settings = {});
  void send_publish(std::uint64_t correlation, std::uint32_t queue, std::string_view id,
                    std::string_view body);
  // Publishes and returns the sequence.
  std::uint64_t publish(std::uint32_t queue, std::string_view id, std::string_view body);
  std::uint64_t subscribe(std::string_view queue, std::uint32_t credit);
  void send_settle(std::uint64_t correlation, std::uint64_t consumer, wire::SettleKind kind,
                   const std::vector<wire::SequenceRange>& ranges);
  void send_peek(std::uint64_t correlation, std::string_view queue, std::uint64_t from,
                 std::uint32_t count);

 private:
  int descriptor_ = -1;
  FrameReader reader_{kFrameBytesMax};
  flatbuffers::FlatBufferBuilder builder_;
};

// The bytes of a finished Message with this id and body.
std::vector<std::uint8_t> message_bytes(std::string_view id, std::string_view body);
// A Publish frame around these bytes.
FrameWriter publish_frame(std::uint64_t correlation, std::uint32_t queue, ByteSpan message);

}  // namespace holdfast::test
