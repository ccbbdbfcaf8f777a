#include "support/fake_broker.h"

#include <arpa/inet.h>
#include <fmt/format.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>

#include "schema/queue_settings.h"

namespace holdfast::test {

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::chrono::milliseconds kPatience{10'000};

[[noreturn]] void fail(const std::string& what) {
  throw std::runtime_error("fake broker: " + what);
}

bool poll_for_input(int descriptor, std::chrono::milliseconds duration) {
  pollfd poll_descriptor{descriptor, POLLIN, 0};
  return poll(&poll_descriptor, 1, static_cast<int>(duration.count())) > 0;
}

std::vector<wire::SequenceRange> wire_ranges(const Ranges& ranges) {
  std::vector<wire::SequenceRange> result;
  for (const auto& [first, last] : ranges) result.emplace_back(first, last);
  return result;
}

}  // namespace

void ReceivedFrame::throw_malformed() { fail("the client sent a malformed table"); }

PublishFrame ReceivedFrame::publish() const {
  const Result<PublishFrame> read = read_publish(frame());
  if (!read.ok()) fail(read.status().to_string());
  return *read;
}

Ranges ranges_of(const flatbuffers::Vector<const wire::SequenceRange*>* ranges) {
  Ranges result;
  if (ranges == nullptr) return result;
  for (const wire::SequenceRange* range : *ranges)
    result.emplace_back(range->first(), range->last());
  return result;
}

// ---- a connection ----

FakePeer::FakePeer(FakePeer&& other) noexcept
    : descriptor_(std::exchange(other.descriptor_, -1)), reader_(std::move(other.reader_)) {}

void FakePeer::close() {
  if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
}

bool FakePeer::wait_readable(std::chrono::milliseconds duration) {
  return poll_for_input(descriptor_, duration);
}

bool FakePeer::read_some() {
  const auto room = reader_.prepare(64 * 1024);
  const ssize_t got = recv(descriptor_, room.data(), room.size(), 0);
  if (got <= 0) return false;
  reader_.commit(static_cast<std::size_t>(got));
  return true;
}

bool FakePeer::take_frame(ReceivedFrame* frame) {
  for (;;) {
    const Result<std::optional<Frame>> next = reader_.next();
    if (!next.ok()) fail(next.status().to_string());
    if (!next->has_value()) return false;
    const Frame& got = **next;
    *frame = {got.type, got.correlation, {got.body.begin(), got.body.end()}};
    return true;
  }
}

ReceivedFrame FakePeer::next_of_all(Clock::time_point deadline) {
  ReceivedFrame frame;
  while (!take_frame(&frame)) {
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
    if (left.count() <= 0 || !wait_readable(left)) fail("the client sent nothing");
    if (!read_some()) fail("the client closed the connection");
  }
  return frame;
}

ReceivedFrame FakePeer::next() {
  const auto deadline = Clock::now() + kPatience;
  for (;;) {
    ReceivedFrame frame = next_of_all(deadline);
    if (frame.type != wire::FrameType_Ping) return frame;
    FrameWriter pong;
    pong.append_empty(wire::FrameType_Pong, frame.correlation);
    send(pong);
  }
}

void FakePeer::expect_ping() {
  const auto deadline = Clock::now() + kPatience;
  while (next_of_all(deadline).type != wire::FrameType_Ping) continue;
}

ReceivedFrame FakePeer::expect(wire::FrameType type) {
  ReceivedFrame frame = next();
  if (frame.type != type) {
    fail(fmt::format("expected {}, got {}", wire::EnumNameFrameType(type),
                     wire::EnumNameFrameType(frame.type)));
  }
  return frame;
}

bool FakePeer::is_quiet_for(std::chrono::milliseconds duration) {
  const auto deadline = Clock::now() + duration;
  ReceivedFrame frame;
  for (;;) {
    while (take_frame(&frame)) {
      if (frame.type != wire::FrameType_Ping) return false;
    }
    const auto left =
        std::chrono::duration_cast<std::chrono::milliseconds>(deadline - Clock::now());
    if (left.count() <= 0 || !wait_readable(left)) return true;
    if (!read_some()) return false;
  }
}

void FakePeer::expect_close() {
  const auto deadline = Clock::now() + kPatience;
  while (Clock::now() < deadline) {
    if (wait_readable(std::chrono::milliseconds(100)) && !read_some()) return;
  }
  fail("the client did not close the connection");
}

void FakePeer::send_bytes(const void* bytes, std::size_t count) {
  const char* at = static_cast<const char*>(bytes);
  while (count > 0) {
    const ssize_t sent = ::send(descriptor_, at, count, MSG_NOSIGNAL);
    if (sent <= 0) fail("the client does not read");
    at += sent;
    count -= static_cast<std::size_t>(sent);
  }
}

void FakePeer::send(const FrameWriter& frames) { send_bytes(frames.data(), frames.size()); }

void BrokerVoice::send(wire::FrameType type, std::uint64_t correlation,
                       const flatbuffers::FlatBufferBuilder& builder) {
  FrameWriter frames;
  frames.append(type, correlation, {builder.GetBufferPointer(), builder.GetSize()});
  send(frames);
}

// ---- what a broker says ----

void FakePeer::handshake(std::uint32_t heartbeat_ms, std::uint32_t frame_bytes_max,
                         std::uint64_t unconfirmed_bytes_max) {
  const ReceivedFrame hello = expect(wire::FrameType_Hello);
  flatbuffers::FlatBufferBuilder builder;
  const auto version = builder.CreateString("fake");
  builder.Finish(wire::CreateWelcome(builder, kProtocolVersion, version, version, heartbeat_ms,
                                     frame_bytes_max, unconfirmed_bytes_max));
  send(wire::FrameType_Welcome, hello.correlation, builder);
}

void BrokerVoice::ok(std::uint64_t correlation) {
  FrameWriter frames;
  frames.append_empty(wire::FrameType_Ok, correlation);
  send(frames);
}

void BrokerVoice::error(std::uint64_t correlation, ErrorCode code, std::string_view message,
                        bool fatal) {
  flatbuffers::FlatBufferBuilder builder;
  const auto text = builder.CreateString(message.data(), message.size());
  builder.Finish(wire::CreateError(builder, static_cast<std::uint16_t>(code),
                                   error_is_retryable(code), text, fatal));
  send(wire::FrameType_Error, correlation, builder);
}

void BrokerVoice::confirm(std::uint64_t correlation, std::uint64_t sequence, std::uint32_t count,
                          bool duplicate) {
  flatbuffers::FlatBufferBuilder builder;
  builder.Finish(wire::CreateConfirm(builder, sequence, count, duplicate));
  send(wire::FrameType_Confirm, correlation, builder);
}

void BrokerVoice::queue_info(std::uint64_t correlation, std::uint32_t id, std::string_view name,
                             std::uint64_t dedup_window_ms, std::uint64_t ready, bool stalled) {
  flatbuffers::FlatBufferBuilder builder;
  const auto text = builder.CreateString(name.data(), name.size());
  const std::vector<wire::SettingValue> settings{
      {static_cast<std::uint16_t>(QueueSetting::kDedupWindow), 0, 0, dedup_window_ms}};
  const auto list = builder.CreateVectorOfStructs(settings);
  wire::QueueInfoBuilder info(builder);
  info.add_queue(id);
  info.add_name(text);
  info.add_settings(list);
  info.add_ready(ready);
  info.add_stalled(stalled);
  builder.Finish(info.Finish());
  send(wire::FrameType_QueueInfo, correlation, builder);
}

void FakePeer::open_queue(std::string_view name, std::uint32_t id, std::uint64_t dedup_window_ms) {
  const ReceivedFrame open = expect(wire::FrameType_QueueOpen);
  if (view(open.table<wire::QueueOpen>().name()) != name) fail("another queue was opened");
  queue_info(open.correlation, id, name, dedup_window_ms);
}

ReceivedFrame FakePeer::subscribe(std::uint64_t consumer, std::uint32_t lease_ms) {
  ReceivedFrame subscribe = expect(wire::FrameType_Subscribe);
  subscribed(subscribe.correlation, consumer, lease_ms);
  return subscribe;
}

void BrokerVoice::subscribed(std::uint64_t correlation, std::uint64_t consumer,
                             std::uint32_t lease_ms) {
  flatbuffers::FlatBufferBuilder builder;
  builder.Finish(wire::CreateSubscribed(builder, consumer, 1, lease_ms));
  send(wire::FrameType_Subscribed, correlation, builder);
}

void BrokerVoice::deliver(std::uint64_t consumer, std::uint64_t sequence, std::string_view body,
                          std::uint32_t attempt, std::uint32_t lease_ms) {
  FrameWriter frames;
  append_message(frames, wire::FrameType_Deliver, 0, consumer, sequence, attempt,
                 message_bytes(fmt::format("m{}", sequence), body), lease_ms);
  send(frames);
}

void BrokerVoice::settled(std::uint64_t correlation, std::uint32_t count, const Ranges& refused,
                          std::uint32_t late) {
  flatbuffers::FlatBufferBuilder builder;
  const auto list = builder.CreateVectorOfStructs(wire_ranges(refused));
  builder.Finish(wire::CreateSettled(builder, count, late, list));
  send(wire::FrameType_Settled, correlation, builder);
}

void BrokerVoice::extended(std::uint64_t correlation, std::uint32_t count, const Ranges& refused) {
  flatbuffers::FlatBufferBuilder builder;
  const auto list = builder.CreateVectorOfStructs(wire_ranges(refused));
  builder.Finish(wire::CreateExtended(builder, count, list));
  send(wire::FrameType_Extended, correlation, builder);
}

void BrokerVoice::lease_lost(std::uint64_t consumer, wire::Cause cause, const Ranges& ranges) {
  flatbuffers::FlatBufferBuilder builder;
  const auto list = builder.CreateVectorOfStructs(wire_ranges(ranges));
  builder.Finish(wire::CreateLeaseLost(builder, consumer, static_cast<std::uint8_t>(cause), list));
  send(wire::FrameType_LeaseLost, 0, builder);
}

void BrokerVoice::consumer_ended(std::uint64_t consumer, ErrorCode code,
                                 const std::string& message) {
  flatbuffers::FlatBufferBuilder builder;
  const auto text = builder.CreateString(message);
  builder.Finish(
      wire::CreateConsumerEnded(builder, consumer, static_cast<std::uint16_t>(code), text));
  send(wire::FrameType_ConsumerEnded, 0, builder);
}

void BrokerVoice::goodbye(std::uint32_t deadline_ms) {
  flatbuffers::FlatBufferBuilder builder;
  const auto text = builder.CreateString("The broker is shutting down.");
  builder.Finish(wire::CreateGoodbye(builder, static_cast<std::uint16_t>(ErrorCode::kDraining),
                                     text, deadline_ms));
  send(wire::FrameType_Goodbye, 0, builder);
}

void BrokerVoice::consumer_info(std::uint64_t correlation, std::uint64_t consumer,
                                std::uint32_t in_flight) {
  flatbuffers::FlatBufferBuilder builder;
  wire::ConsumerInfoBuilder info(builder);
  info.add_consumer(consumer);
  info.add_in_flight(in_flight);
  builder.Finish(info.Finish());
  send(wire::FrameType_ConsumerInfo, correlation, builder);
}

void FakePeer::nothing_is_coming(std::uint64_t consumer) {
  const ReceivedFrame open = expect(wire::FrameType_QueueOpen);
  queue_info(open.correlation, 1, view(open.table<wire::QueueOpen>().name()));
  const ReceivedFrame list = expect(wire::FrameType_ConsumerList);
  consumer_info(list.correlation, consumer, 0);
  list_end(list.correlation, 1);
}

void BrokerVoice::list_end(std::uint64_t correlation, std::uint32_t count, std::uint64_t next) {
  flatbuffers::FlatBufferBuilder builder;
  builder.Finish(wire::CreateListEnd(builder, count, next));
  send(wire::FrameType_ListEnd, correlation, builder);
}

// ---- the listener ----

FakeBroker::FakeBroker() {
  descriptor_ = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t bytes = sizeof(address);
  if (bind(descriptor_, reinterpret_cast<sockaddr*>(&address), bytes) != 0 ||
      listen(descriptor_, 16) != 0 ||
      getsockname(descriptor_, reinterpret_cast<sockaddr*>(&address), &bytes) != 0) {
    fail("cannot listen on loopback");
  }
  port_ = ntohs(address.sin_port);
}

FakeBroker::~FakeBroker() { stop_listening(); }

void FakeBroker::stop_listening() {
  if (descriptor_ >= 0) ::close(std::exchange(descriptor_, -1));
}

std::string FakeBroker::address() const { return fmt::format("127.0.0.1:{}", port_); }

FakePeer FakeBroker::accept() {
  if (!poll_for_input(descriptor_, kPatience)) fail("no client connected");
  const int accepted = ::accept(descriptor_, nullptr, nullptr);
  if (accepted < 0) fail("accept failed");
  return FakePeer(accepted);
}

// ---- frames and messages ----

std::vector<ReceivedFrame> frames_in(const FrameWriter& written) {
  FrameReader reader(kFrameBytesMax);
  std::copy_n(written.data(), written.size(), reader.prepare(written.size()).begin());
  reader.commit(written.size());
  std::vector<ReceivedFrame> frames;
  for (auto next = reader.next(); next.ok() && next->has_value(); next = reader.next()) {
    const Frame& frame = **next;
    frames.push_back({frame.type, frame.correlation, {frame.body.begin(), frame.body.end()}});
  }
  return frames;
}

std::vector<std::uint8_t> message_bytes(std::string_view id, std::string_view body) {
  flatbuffers::FlatBufferBuilder builder;
  const auto id_string = builder.CreateString(id.data(), id.size());
  const auto body_vector =
      builder.CreateVector(reinterpret_cast<const std::uint8_t*>(body.data()), body.size());
  builder.Finish(wire::CreateMessage(builder, id_string, body_vector));
  return {builder.GetBufferPointer(), builder.GetBufferPointer() + builder.GetSize()};
}

void append_message(FrameWriter& frames, wire::FrameType type, std::uint64_t correlation,
                    std::uint64_t consumer, std::uint64_t sequence, std::uint32_t attempt,
                    const std::vector<std::uint8_t>& message, std::uint32_t lease_ms) {
  const wire::DeliverEnvelope envelope(consumer, sequence, checksum(message), 1'700'000'000'000, 0,
                                       static_cast<std::uint32_t>(message.size()), 0, attempt,
                                       lease_ms, 1, wire::MessageState_Ready, 0, 0);
  frames.append_deliver(type, correlation, envelope, message, {});
}

}  // namespace holdfast::test
