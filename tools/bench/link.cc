#include "bench/link.h"

#include <fmt/format.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <utility>

namespace holdfast::bench {

namespace {

constexpr std::size_t kReadBytes = 256 * 1024;

Status unreachable(const Address& address, std::string_view why) {
  return Status(ErrorCode::kUnreachable,
                fmt::format("The broker at {} cannot be reached: {}.", address.to_string(), why));
}

Result<int> connect_unix(const Address& address) {
  sockaddr_un to{};
  to.sun_family = AF_UNIX;
  if (address.unix_path.size() >= sizeof(to.sun_path)) {
    return unreachable(address, "the path is too long for a unix socket");
  }
  std::memcpy(to.sun_path, address.unix_path.data(), address.unix_path.size());
  const int descriptor = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (descriptor >= 0 &&
      ::connect(descriptor, reinterpret_cast<const sockaddr*>(&to), sizeof(to)) == 0) {
    return descriptor;
  }
  const int error = errno;
  if (descriptor >= 0) ::close(descriptor);
  return unreachable(address, std::strerror(error));
}

Result<int> connect_tcp(const Address& address) {
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  addrinfo* found = nullptr;
  const std::string port = fmt::format("{}", address.port);
  if (const int error = ::getaddrinfo(address.host.c_str(), port.c_str(), &hints, &found);
      error != 0) {
    return unreachable(address, ::gai_strerror(error));
  }
  const std::unique_ptr<addrinfo, decltype(&::freeaddrinfo)> list(found, &::freeaddrinfo);
  int error = 0;
  for (const addrinfo* to = found; to != nullptr; to = to->ai_next) {
    const int descriptor = ::socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (descriptor >= 0 && ::connect(descriptor, to->ai_addr, to->ai_addrlen) == 0) {
      const int on = 1;
      ::setsockopt(descriptor, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on));
      return descriptor;
    }
    error = errno;
    if (descriptor >= 0) ::close(descriptor);
  }
  return unreachable(address, std::strerror(error));
}

ByteSpan finished(const flatbuffers::FlatBufferBuilder& builder) {
  return {builder.GetBufferPointer(), builder.GetSize()};
}

bool is_error(const Frame& frame, ErrorCode code) {
  if (frame.type != wire::FrameType_Error) return false;
  const auto* error = read_table<wire::Error>(frame.body);
  return error != nullptr && static_cast<ErrorCode>(error->code()) == code;
}

}  // namespace

// ---- opening ----

Result<std::unique_ptr<Link>> Link::open(const Address& address, std::string name,
                                         std::chrono::milliseconds timeout) {
  Result<int> connected = address.is_unix() ? connect_unix(address) : connect_tcp(address);
  if (!connected.ok()) return connected.status();
  std::unique_ptr<Link> link(new Link(*connected, timeout));
  if (Status status = link->shake_hands(std::move(name)); !status.ok()) return status;
  return link;
}

Link::~Link() { ::close(descriptor_); }

Status Link::shake_hands(std::string name) {
  flatbuffers::FlatBufferBuilder builder(256);
  builder.Finish(wire::CreateHello(builder, kProtocolVersion, kProtocolVersion,
                                   builder.CreateString(name), 0));
  ask(wire::FrameType_Hello, finished(builder), [this](const Frame& frame) {
    const auto* welcome = read_table<wire::Welcome>(frame.body);
    if (frame.type != wire::FrameType_Welcome || welcome == nullptr) return fail_with_answer(frame);
    broker_version_ = view(welcome->broker_version());
  });
  return wait_answered();
}

// ---- waiting for the answer ----

void Link::ask(wire::FrameType type, ByteSpan table, OnAnswer on_answer) {
  const std::uint64_t correlation = ++last_correlation_;
  output_.append(type, correlation, table);
  asked_.emplace(correlation, std::move(on_answer));
}

Status Link::wait_until(const std::function<bool()>& done) {
  using std::chrono::steady_clock;
  const auto answers_left = [this] { return asked_.size() + (acks_sent_ - acked_); };
  auto deadline = steady_clock::now() + timeout_;
  while (status_.ok() && !done()) {
    flush();
    pollfd waiting{descriptor_, static_cast<short>(has_output() ? POLLIN | POLLOUT : POLLIN), 0};
    const auto left = std::chrono::ceil<std::chrono::milliseconds>(deadline - steady_clock::now());
    const int ready =
        ::poll(&waiting, 1, static_cast<int>(std::max<std::int64_t>(0, left.count())));
    if (ready < 0 && errno == EINTR) continue;
    const std::size_t answers_before = answers_left();
    if (ready > 0 && (waiting.revents & ~POLLOUT) != 0) receive();
    if (answers_left() != answers_before) {
      deadline = steady_clock::now() + timeout_;
    } else if (steady_clock::now() >= deadline) {
      fail(Status(ErrorCode::kTimeout,
                  fmt::format("The broker did not answer within {} ms.", timeout_.count())));
    }
  }
  return status_;
}

Result<std::vector<std::uint32_t>> Link::make_queues(std::span<const std::string> names) {
  std::vector<std::uint32_t> ids;
  std::vector<std::string> made;
  std::string existing;
  for (const std::string& name : names) {
    create_queue(name, [&, name](const Frame& frame) {
      if (is_error(frame, ErrorCode::kQueueExists)) {
        if (existing.empty()) existing = name;
        return;
      }
      const auto* info = read_table<wire::QueueInfo>(frame.body);
      if (frame.type != wire::FrameType_QueueInfo || info == nullptr) {
        return fail_with_answer(frame);
      }
      ids.push_back(info->queue());
      made.push_back(name);
    });
  }
  if (Status status = wait_answered(); !status.ok()) return status;
  if (existing.empty()) return ids;
  if (Status status = delete_queues(made); !status.ok()) return status;
  return Status(
      ErrorCode::kQueueExists,
      fmt::format("The queue \"{}\" exists, and the bench makes its queue and deletes it. "
                  "Name another with --queue, or delete this one first.",
                  existing));
}

Status Link::delete_queues(std::span<const std::string> names) {
  for (const std::string& name : names) delete_queue(name);
  return wait_answered();
}

void Link::create_queue(std::string_view name, OnAnswer on_answer) {
  flatbuffers::FlatBufferBuilder builder(256);
  const auto text = builder.CreateString(name.data(), name.size());
  builder.Finish(wire::CreateQueueCreate(builder, text));
  ask(wire::FrameType_QueueCreate, finished(builder), std::move(on_answer));
}

void Link::delete_queue(std::string_view name) {
  flatbuffers::FlatBufferBuilder builder(256);
  const auto text = builder.CreateString(name.data(), name.size());
  builder.Finish(wire::CreateQueueDelete(builder, text));
  ask(wire::FrameType_QueueDelete, finished(builder), [this](const Frame& frame) {
    if (frame.type != wire::FrameType_Ok && !is_error(frame, ErrorCode::kQueueNotFound)) {
      fail_with_answer(frame);
    }
  });
}

Result<QueueFacts> Link::look_at_queue(std::string_view name) {
  flatbuffers::FlatBufferBuilder builder(256);
  const auto text = builder.CreateString(name.data(), name.size());
  builder.Finish(wire::CreateQueueOpen(builder, text));
  QueueFacts facts;
  ask(wire::FrameType_QueueOpen, finished(builder), [this, &facts](const Frame& frame) {
    const auto* info = read_table<wire::QueueInfo>(frame.body);
    if (frame.type != wire::FrameType_QueueInfo || info == nullptr) return fail_with_answer(frame);
    facts = {.id = info->queue(), .messages = info->messages()};
  });
  if (Status status = wait_answered(); !status.ok()) return status;
  return facts;
}

Status Link::wait_acked() {
  return wait_until([this] { return acked_ == acks_sent_; });
}

// ---- filling the output ----

void Link::publish(std::uint32_t queue, ByteSpan message, std::uint64_t message_checksum) {
  const wire::PublishEnvelope envelope(queue, 0, message_checksum);
  output_.append_publish(++last_correlation_, envelope, message);
  ++published_;
}

void Link::subscribe(std::string_view queue, std::uint32_t credit) {
  flatbuffers::FlatBufferBuilder builder(256);
  const auto text = builder.CreateString(queue.data(), queue.size());
  builder.Finish(wire::CreateSubscribe(builder, text, 0, 0, credit, 0, 0));
  ask(wire::FrameType_Subscribe, finished(builder), [this](const Frame& frame) {
    if (frame.type != wire::FrameType_Subscribed) fail_with_answer(frame);
  });
}

void Link::acknowledge() {
  for (const Unacked& unacked : unacked_) send_acks(unacked.consumer, unacked.ranges);
  unacked_.clear();
}

void Link::send_acks(std::uint64_t consumer, const SequenceRanges& ranges) {
  flatbuffers::FlatBufferBuilder builder(128 +
                                         ranges.ranges().size() * sizeof(wire::SequenceRange));
  const auto vector = builder.CreateVectorOfStructs(ranges.ranges());
  builder.Finish(wire::CreateSettle(builder, consumer, wire::SettleKind_Ack, vector));
  output_.append(wire::FrameType_Settle, ++last_correlation_, finished(builder));
  acks_sent_ += ranges.count();
}

// ---- driven by the poller ----

void Link::flush() {
  while (status_.ok() && has_output()) {
    if (sent_ == sending_.size()) {
      sending_.clear();
      sent_ = 0;
      std::swap(sending_, output_);
    }
    const ssize_t bytes = ::send(descriptor_, sending_.data() + sent_, sending_.size() - sent_,
                                 MSG_NOSIGNAL | MSG_DONTWAIT);
    if (bytes >= 0) {
      sent_ += static_cast<std::size_t>(bytes);
    } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
      return;
    } else if (errno != EINTR) {
      return fail(Status(ErrorCode::kConnectionLost,
                         fmt::format("Sending to the broker failed: {}.", std::strerror(errno))));
    }
  }
}

void Link::receive() {
  if (!status_.ok()) return;
  const std::span<std::uint8_t> room = reader_.prepare(kReadBytes);
  const ssize_t bytes = ::recv(descriptor_, room.data(), room.size(), MSG_DONTWAIT);
  if (bytes < 0 && (errno == EAGAIN || errno == EWOULDBLOCK || errno == EINTR)) return;
  if (bytes <= 0) {
    return fail(Status(ErrorCode::kConnectionLost,
                       fmt::format("The broker closed the connection: {}.",
                                   bytes == 0 ? "end of stream" : std::strerror(errno))));
  }
  reader_.commit(static_cast<std::size_t>(bytes));
  while (status_.ok()) {
    const Result<std::optional<Frame>> next = reader_.next();
    if (!next.ok()) return fail(next.status());
    if (!next->has_value()) return;
    take_frame(**next);
  }
}

void Link::take_frame(const Frame& frame) {
  switch (frame.type) {
    case wire::FrameType_Confirm: {
      const auto* confirm = read_table<wire::Confirm>(frame.body);
      if (confirm == nullptr || confirm->duplicate()) return fail_with_answer(frame);
      confirmed_ += confirm->count();
      return;
    }
    case wire::FrameType_Deliver:
      return take_delivery(frame);
    case wire::FrameType_Settled:
      return take_settled(frame);
    case wire::FrameType_Ping:
      return output_.append_empty(wire::FrameType_Pong, frame.correlation);
    case wire::FrameType_Pong:
      return;
    default:
      break;
  }
  const auto asked = asked_.find(frame.correlation);
  if (asked == asked_.end()) return fail_with_answer(frame);
  const OnAnswer on_answer = std::move(asked->second);
  asked_.erase(asked);
  on_answer(frame);
}

void Link::take_delivery(const Frame& frame) {
  const Result<DeliverFrame> delivered = read_deliver(frame);
  if (!delivered.ok()) return fail(delivered.status());
  const std::uint64_t consumer = delivered->envelope.consumer();
  const std::uint64_t sequence = delivered->envelope.sequence();
  if (unacked_.empty() || unacked_.back().consumer != consumer ||
      !unacked_.back().ranges.add(sequence)) {
    unacked_.push_back({consumer, {}});
    unacked_.back().ranges.add(sequence);
  }
  const auto* body = delivered->message->body();
  on_message(body == nullptr ? ByteSpan() : ByteSpan(body->data(), body->size()));
}

void Link::take_settled(const Frame& frame) {
  const auto* settled = read_table<wire::Settled>(frame.body);
  if (settled == nullptr) return fail_with_answer(frame);
  acked_ += settled->settled();
  if (settled->refused() != nullptr && settled->refused()->size() > 0) {
    fail(Status(ErrorCode::kNotHeld, "The broker refused an ack of a message that it delivered."));
  }
}

void Link::fail(Status status) {
  if (status_.ok()) status_ = std::move(status);
}

void Link::fail_with_answer(const Frame& frame) {
  const auto* error =
      frame.type == wire::FrameType_Error ? read_table<wire::Error>(frame.body) : nullptr;
  if (error != nullptr) {
    return fail(Status(static_cast<ErrorCode>(error->code()), std::string(view(error->message()))));
  }
  fail(Status(ErrorCode::kProtocolViolation,
              fmt::format("The broker sent a {} frame that was not expected.",
                          wire::EnumNameFrameType(frame.type))));
}

}  // namespace holdfast::bench
