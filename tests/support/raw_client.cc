#include "support/raw_client.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <stdexcept>

namespace holdfast::test {

namespace {

[[noreturn]] void fail(const std::string& what) { throw std::runtime_error(what); }

int connect_to(const std::string& address, int receive_buffer_bytes) {
  const bool is_unix = address.starts_with("unix:");
  const int descriptor = socket(is_unix ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (receive_buffer_bytes > 0) {
    setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes,
               sizeof(receive_buffer_bytes));
  }
  const timeval patience{10, 0};
  setsockopt(descriptor, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
  setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
  int result = -1;
  if (is_unix) {
    sockaddr_un to{};
    to.sun_family = AF_UNIX;
    address.copy(to.sun_path, sizeof(to.sun_path) - 1, 5);
    result = connect(descriptor, reinterpret_cast<const sockaddr*>(&to), sizeof(to));
  } else {
    const std::size_t colon = address.rfind(':');
    sockaddr_in to{};
    to.sin_family = AF_INET;
    to.sin_port = htons(static_cast<std::uint16_t>(std::stoi(address.substr(colon + 1))));
    inet_pton(AF_INET, address.substr(0, colon).c_str(), &to.sin_addr);
    result = connect(descriptor, reinterpret_cast<const sockaddr*>(&to), sizeof(to));
  }
  if (result != 0) {
    const std::string why = std::strerror(errno);
    close(descriptor);
    fail(fmt::format("cannot connect to {}: {}", address, why));
  }
  return descriptor;
}

// With a deadline of the socket, a call ends early when the process is stopped and goes on.
template <typename Call>
ssize_t uninterrupted(const Call& call) {
  ssize_t result = 0;
  do result = call();
  while (result < 0 && errno == EINTR);
  return result;
}

}  // namespace

void RawFrame::throw_malformed() const {
  fail(fmt::format("the {} frame does not verify", wire::EnumNameFrameType(type)));
}

RawClient::RawClient(const std::string& address, int receive_buffer_bytes)
    : descriptor_(connect_to(address, receive_buffer_bytes)) {}

RawClient::RawClient(RawClient&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)), reader_(std::move(other.reader_)) {}

RawClient::~RawClient() {
  if (descriptor_ >= 0) close(descriptor_);
}

void RawClient::send_bytes(ByteSpan bytes) {
  while (!bytes.empty()) {
    const ssize_t sent = uninterrupted(
        [&] { return ::send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL); });
    if (sent <= 0) fail(fmt::format("sending failed: {}", std::strerror(errno)));
    bytes = bytes.subspan(static_cast<std::size_t>(sent));
  }
}

void RawClient::send_text(std::string_view text) {
  send_bytes({reinterpret_cast<const std::uint8_t*>(text.data()), text.size()});
}

void RawClient::send(const FrameWriter& frames) { send_bytes({frames.data(), frames.size()}); }

std::size_t RawClient::send_some(ByteSpan bytes) {
  const ssize_t sent = ::send(descriptor_, bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
  return sent < 0 ? 0 : static_cast<std::size_t>(sent);
}

std::size_t RawClient::bytes_waiting() const {
  int bytes = 0;
  if (ioctl(descriptor_, FIONREAD, &bytes) != 0) fail("cannot look at what has come");
  return static_cast<std::size_t>(bytes);
}

void RawClient::expect_close() {
  while (receive_any()) {
  }
}

std::optional<RawFrame> RawClient::receive_any() {
  while (true) {
    Result<std::optional<Frame>> next = reader_.next();
    if (!next.ok()) fail(next.status().to_string());
    if (next->has_value()) {
      const Frame& frame = **next;
      return RawFrame{frame.type, frame.correlation, {frame.body.begin(), frame.body.end()}};
    }
    const std::span<std::uint8_t> room = reader_.prepare(16 * 1024);
    const ssize_t received =
        uninterrupted([&] { return recv(descriptor_, room.data(), room.size(), 0); });
    if (received == 0 || (received < 0 && errno == ECONNRESET)) return std::nullopt;
    if (received < 0) fail(fmt::format("receiving failed: {}", std::strerror(errno)));
    reader_.commit(static_cast<std::size_t>(received));
  }
}

std::optional<RawFrame> RawClient::receive() {
  while (true) {
    std::optional<RawFrame> frame = receive_any();
    if (!frame || frame->type != wire::FrameType_Ping) return frame;
  }
}

RawFrame RawClient::expect(wire::FrameType type) {
  std::optional<RawFrame> frame = receive();
  if (!frame)
    fail(fmt::format("the connection ended instead of {}", wire::EnumNameFrameType(type)));
  if (frame->type != type) {
    fail(fmt::format("{} came instead of {}{}", wire::EnumNameFrameType(frame->type),
                     wire::EnumNameFrameType(type),
                     frame->type == wire::FrameType_Error ? ": " + frame->error_text() : ""));
  }
  return std::move(*frame);
}

RawFrame RawClient::expect_error(ErrorCode code, std::uint64_t correlation) {
  RawFrame frame = expect(wire::FrameType_Error);
  if (frame.error() != code || frame.correlation != correlation ||
      frame.table<wire::Error>().fatal() || frame.error_text().empty()) {
    fail(fmt::format("expected {} for {}, got {} for {}{}: {}", error_name(code), correlation,
                     error_name(frame.error()), frame.correlation,
                     frame.table<wire::Error>().fatal() ? ", fatal" : "", frame.error_text()));
  }
  return frame;
}

RawFrame RawClient::expect_fatal(ErrorCode code) {
  RawFrame frame = expect(wire::FrameType_Error);
  if (frame.error() != code || !frame.table<wire::Error>().fatal() || frame.error_text().empty()) {
    fail(fmt::format("expected a fatal {}, got {}: {}", error_name(code), error_name(frame.error()),
                     frame.error_text()));
  }
  if (receive_any()) fail("a frame came after the fatal error");
  return frame;
}

void RawClient::send_empty(wire::FrameType type, std::uint64_t correlation) {
  FrameWriter out;
  out.append_empty(type, correlation);
  send(out);
}

flatbuffers::FlatBufferBuilder& RawClient::builder() {
  builder_.Clear();
  return builder_;
}

void RawClient::send_hello(std::uint16_t version_min, std::uint16_t version_max,
                           std::string_view name, std::uint32_t heartbeat_ms) {
  auto& to = builder();
  const auto text = to.CreateString(name);
  send_table(wire::FrameType_Hello, 1,
             wire::CreateHello(to, version_min, version_max, text, heartbeat_ms));
}

std::uint32_t RawClient::hello(std::string_view name, std::uint32_t heartbeat_ms) {
  send_hello(1, 1, name, heartbeat_ms);
  return expect(wire::FrameType_Welcome).table<wire::Welcome>().heartbeat_ms();
}

std::uint32_t RawClient::create_queue(
    std::string_view name, const std::vector<std::pair<QueueSetting, std::uint64_t>>& settings) {
  auto& to = builder();
  std::vector<wire::SettingValue> values;
  for (const auto& [setting, value] : settings) {
    values.emplace_back(static_cast<std::uint16_t>(setting), 0, 0, value);
  }
  const auto text = to.CreateString(name);
  const auto vector = to.CreateVectorOfStructs(values);
  send_table(wire::FrameType_QueueCreate, 900'001, wire::CreateQueueCreate(to, text, vector));
  return expect(wire::FrameType_QueueInfo).table<wire::QueueInfo>().queue();
}

void RawClient::send_publish(std::uint64_t correlation, std::uint32_t queue, std::string_view id,
                             std::string_view body) {
  send(publish_frame(correlation, queue, message_bytes(id, body)));
}

std::uint64_t RawClient::publish(std::uint32_t queue, std::string_view id, std::string_view body) {
  send_publish(900'002, queue, id, body);
  return expect(wire::FrameType_Confirm).table<wire::Confirm>().sequence();
}

std::uint64_t RawClient::subscribe(std::string_view queue, std::uint32_t credit) {
  auto& to = builder();
  const auto name = to.CreateString(queue);
  send_table(wire::FrameType_Subscribe, 900'003, wire::CreateSubscribe(to, name, 0, 0, credit));
  return expect(wire::FrameType_Subscribed).table<wire::Subscribed>().consumer();
}

void RawClient::send_settle(std::uint64_t correlation, std::uint64_t consumer,
                            wire::SettleKind kind, const std::vector<wire::SequenceRange>& ranges) {
  auto& to = builder();
  const auto vector = to.CreateVectorOfStructs(ranges);
  send_table(wire::FrameType_Settle, correlation,
             wire::CreateSettle(to, consumer, static_cast<std::uint8_t>(kind), vector));
}

void RawClient::send_peek(std::uint64_t correlation, std::string_view queue, std::uint64_t from,
                          std::uint32_t count) {
  auto& to = builder();
  const auto name = to.CreateString(queue);
  send_table(wire::FrameType_Peek, correlation, wire::CreatePeek(to, name, from, count));
}

std::vector<std::uint8_t> message_bytes(std::string_view id, std::string_view body) {
  flatbuffers::FlatBufferBuilder builder;
  const auto text = builder.CreateString(id);
  const auto bytes =
      builder.CreateVector(reinterpret_cast<const std::uint8_t*>(body.data()), body.size());
  builder.Finish(wire::CreateMessage(builder, text, bytes));
  return {builder.GetBufferPointer(), builder.GetBufferPointer() + builder.GetSize()};
}

FrameWriter publish_frame(std::uint64_t correlation, std::uint32_t queue, ByteSpan message) {
  FrameWriter out;
  out.append_publish(correlation, wire::PublishEnvelope(queue, 0, checksum(message)), message);
  return out;
}

}  // namespace holdfast::test
