#include "connection.h"

#include <fmt/format.h>
#include <uv.h>

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "base/check.h"

namespace holdfast::client {

namespace {

constexpr std::size_t kReadBytesMin = 64 * 1024;
constexpr std::uint64_t kHeartbeatMsDefault = 10'000;
// After a message larger than this the output buffer is given back.
constexpr std::size_t kOutputBytesKept = 4u << 20;

sockaddr_storage copy_of(const sockaddr* address) {
  sockaddr_storage storage{};
  const std::size_t bytes =
      address->sa_family == AF_INET6 ? sizeof(sockaddr_in6) : sizeof(sockaddr_in);
  std::memcpy(&storage, address, bytes);
  return storage;
}

// Of a host that is written as a number; nullopt: it is a name, to be looked up.
std::optional<sockaddr_storage> numeric_address(const Address& address) {
  sockaddr_in v4{};
  if (uv_ip4_addr(address.host.c_str(), address.port, &v4) == 0) {
    return copy_of(reinterpret_cast<const sockaddr*>(&v4));
  }
  sockaddr_in6 v6{};
  if (uv_ip6_addr(address.host.c_str(), address.port, &v6) == 0) {
    return copy_of(reinterpret_cast<const sockaddr*>(&v6));
  }
  return std::nullopt;
}

}  // namespace

struct Connection::Socket {
  Connection* owner = nullptr;  // null: given up, only waiting to be closed
  union {
    uv_handle_t handle;
    uv_stream_t stream;
    uv_tcp_t tcp;
    uv_pipe_t pipe;
  };
  uv_connect_t connecting{};
  uv_write_t write{};
  std::unique_ptr<std::uint8_t[]> write_memory;
  std::size_t write_bytes = 0;  // under way
  FrameReader reader{kFrameBytesMax};

  Socket() : handle{} {}
};

struct Connection::Timers {
  Connection* owner = nullptr;
  uv_timer_t pace{};       // the attempt's deadline, the pause, or the heartbeat, by the stage
  uv_timer_t departure{};  // of drop_after()
  Status departure_reason;
  int open = 2;
};

struct Connection::Resolving {
  Connection* owner = nullptr;
  bool abandoned = false;  // nobody waits for it any more
  uv_getaddrinfo_t request{};
  std::vector<sockaddr_storage> addresses;  // those not yet tried, in reverse
  bool running = false;
};

Connection::Connection(IoLoop& loop, ConnectionOptions options, ConnectionEvents& events)
    : loop_(loop),
      options_(std::move(options)),
      events_(events),
      timers_(new Timers),
      jitter_(std::random_device()()) {
  timers_->owner = this;
}

Connection::~Connection() {
  // Without a start there was no handle to close.
  if (stage_ == Stage::kIdle) delete timers_;
}

void Connection::start() {
  CHECK(stage_ == Stage::kIdle);
  uv_timer_init(loop_.raw(), &timers_->pace);
  uv_timer_init(loop_.raw(), &timers_->departure);
  timers_->pace.data = timers_->departure.data = timers_;
  attempt();
}

bool Connection::ready() const { return stage_ == Stage::kReady; }

std::size_t Connection::unsent_bytes() const {
  return output_.size() + (socket_ == nullptr ? 0 : socket_->write_bytes);
}

// ---- attempts ----

void Connection::attempt() {
  stage_ = Stage::kConnecting;
  uv_timer_start(
      &timers_->pace,
      [](uv_timer_t* timer) {
        Connection* self = static_cast<Timers*>(timer->data)->owner;
        self->lose(self->overdue_attempt(), false);
      },
      options_.handshake_ms, 0);

  if (options_.address.is_unix()) return connect_to(nullptr);
  resolve();
}

Status Connection::overdue_attempt() const {
  const std::string address = options_.address.to_string();
  return Status(ErrorCode::kUnreachable,
                stage_ == Stage::kConnecting
                    ? fmt::format("The broker at {} could not be connected to within {} ms.",
                                  address, options_.handshake_ms)
                    : fmt::format("The broker at {} did not answer within {} ms. {}", address,
                                  options_.handshake_ms, kNoWelcome));
}

void Connection::resolve() {
  resolving_ = new Resolving;
  resolving_->owner = this;
  resolving_->request.data = resolving_;
  if (const auto address = numeric_address(options_.address)) {
    resolving_->addresses.push_back(*address);
    return try_next_address();
  }
  addrinfo hints{};
  hints.ai_socktype = SOCK_STREAM;
  const std::string port = std::to_string(options_.address.port);
  resolving_->running = true;
  const int failure = uv_getaddrinfo(
      loop_.raw(), &resolving_->request,
      [](uv_getaddrinfo_t* request, int result, addrinfo* found) {
        auto* resolving = static_cast<Resolving*>(request->data);
        resolving->running = false;
        if (result != UV_EAI_CANCELED) --resolving->owner->lookups_;
        if (resolving->abandoned) {
          delete resolving;
        } else {
          resolving->owner->resolved(result, found);
        }
        uv_freeaddrinfo(found);
      },
      options_.address.host.c_str(), port.c_str(), &hints);
  if (failure == 0) {
    ++lookups_;
  } else {
    resolving_->running = false;
    lose(Status(ErrorCode::kUnreachable, fmt::format("The host \"{}\" cannot be looked up: {}.",
                                                     options_.address.host, uv_strerror(failure))),
         false);
  }
}

void Connection::resolved(int failure, const addrinfo* found) {
  if (failure != 0) {
    return lose(
        Status(ErrorCode::kUnreachable, fmt::format("The host \"{}\" cannot be found: {}.",
                                                    options_.address.host, uv_strerror(failure))),
        false);
  }
  for (; found != nullptr; found = found->ai_next) {
    resolving_->addresses.push_back(copy_of(found->ai_addr));
  }
  auto& addresses = resolving_->addresses;
  CHECK(!addresses.empty());
  const auto first = addresses_failed_ % addresses.size();
  std::rotate(addresses.begin(), addresses.begin() + static_cast<std::ptrdiff_t>(first),
              addresses.end());
  std::reverse(addresses.begin(), addresses.end());
  try_next_address();
}

void Connection::try_next_address() {
  CHECK(!resolving_->addresses.empty());
  const sockaddr_storage address = resolving_->addresses.back();
  resolving_->addresses.pop_back();
  connect_to(&address);
}

// `socket_address` is a sockaddr, or null for the unix socket.
void Connection::connect_to(const void* socket_address) {
  abandon_socket();
  auto socket = std::make_unique<Socket>();
  socket->owner = this;
  const auto finished = [](uv_connect_t* connecting, int failure) {
    auto* of = static_cast<Socket*>(connecting->data);
    if (of->owner != nullptr) of->owner->connect_finished(failure);
  };
  socket->connecting.data = socket.get();
  int failure = 0;
  if (socket_address == nullptr) {
    uv_pipe_init(loop_.raw(), &socket->pipe, 0);
  } else {
    uv_tcp_init(loop_.raw(), &socket->tcp);
  }
  socket_ = socket.release();  // from here on its close callback frees it
  socket_->handle.data = socket_;
  if (socket_address == nullptr) {
    uv_pipe_connect(&socket_->connecting, &socket_->pipe, options_.address.unix_path.c_str(),
                    finished);
  } else {
    failure = uv_tcp_connect(&socket_->connecting, &socket_->tcp,
                             static_cast<const sockaddr*>(socket_address), finished);
  }
  if (failure != 0) connect_finished(failure);
}

void Connection::connect_finished(int failure) {
  if (failure != 0) {
    if (resolving_ != nullptr && !resolving_->addresses.empty()) {
      ++addresses_failed_;
      return try_next_address();
    }
    return lose(Status(ErrorCode::kUnreachable,
                       fmt::format("The broker at {} cannot be reached: {}.",
                                   options_.address.to_string(), uv_strerror(failure))),
                false);
  }
  delete std::exchange(resolving_, nullptr);
  stage_ = Stage::kShakingHands;
  events_.accepted();
  if (!options_.address.is_unix()) uv_tcp_nodelay(&socket_->tcp, 1);
  uv_read_start(
      &socket_->stream,
      [](uv_handle_t* handle, std::size_t, uv_buf_t* buffer) {
        const auto room = static_cast<Socket*>(handle->data)->reader.prepare(kReadBytesMin);
        *buffer =
            uv_buf_init(reinterpret_cast<char*>(room.data()), static_cast<unsigned>(room.size()));
      },
      [](uv_stream_t* stream, ssize_t bytes, const uv_buf_t*) {
        auto* socket = static_cast<Socket*>(stream->data);
        if (socket->owner != nullptr) socket->owner->read_finished(bytes);
      });
  flatbuffers::FlatBufferBuilder builder(256);
  const auto name = builder.CreateString(options_.client_name);
  builder.Finish(
      wire::CreateHello(builder, kProtocolVersion, kProtocolVersion, name, options_.heartbeat_ms));
  output_.clear();
  output_.append(wire::FrameType_Hello, 1, {builder.GetBufferPointer(), builder.GetSize()});
  flush();
}

// ---- bytes ----

void Connection::flush() {
  if (socket_ == nullptr || socket_->write_bytes > 0 || output_.empty()) return;
  uv_buf_t buffer = uv_buf_init(reinterpret_cast<char*>(const_cast<std::uint8_t*>(output_.data())),
                                static_cast<unsigned>(output_.size()));
  int sent = uv_try_write(&socket_->stream, &buffer, 1);
  if (sent == UV_EAGAIN) sent = 0;
  if (sent < 0) {
    return lose(Status(ErrorCode::kConnectionLost,
                       fmt::format("Writing to the broker failed: {}.", uv_strerror(sent))),
                false);
  }
  heartbeat_.said(loop_.now_ms());
  if (static_cast<std::size_t>(sent) == output_.size()) {
    if (output_.size() > kOutputBytesKept) {
      output_.release();
    } else {
      output_.clear();
    }
    return;
  }
  auto [memory, bytes] = output_.release();
  socket_->write_memory = std::move(memory);
  socket_->write_bytes = bytes;
  buffer = uv_buf_init(reinterpret_cast<char*>(socket_->write_memory.get()) + sent,
                       static_cast<unsigned>(bytes - static_cast<std::size_t>(sent)));
  socket_->write.data = socket_;
  const int failure =
      uv_write(&socket_->write, &socket_->stream, &buffer, 1, [](uv_write_t* write, int result) {
        auto* socket = static_cast<Socket*>(write->data);
        if (socket->owner != nullptr) socket->owner->write_finished(result);
      });
  if (failure != 0) write_finished(failure);
}

void Connection::write_finished(int failure) {
  socket_->write_memory.reset();
  socket_->write_bytes = 0;
  heartbeat_.said(loop_.now_ms());
  if (failure == 0) return;
  lose(Status(ErrorCode::kConnectionLost,
              fmt::format("Writing to the broker failed: {}.", uv_strerror(failure))),
       false);
}

void Connection::read_finished(std::int64_t bytes) {
  if (bytes == 0) return;
  if (bytes < 0) {
    const std::string why =
        bytes == UV_EOF ? "the broker closed it" : uv_strerror(static_cast<int>(bytes));
    return lose(Status(ErrorCode::kConnectionLost, fmt::format("The connection to {} was lost: {}.",
                                                               options_.address.to_string(), why)),
                false);
  }
  heartbeat_.heard(loop_.now_ms());
  Socket* const socket = socket_;  // lives at least until the next turn, even if it is given up
  socket->reader.commit(static_cast<std::size_t>(bytes));
  while (socket->owner != nullptr) {
    Result<std::optional<Frame>> next = socket->reader.next();
    if (!next.ok()) return lose(next.status(), false);
    if (!next->has_value()) break;
    receive(**next);
  }
  if (socket->owner != nullptr && stage_ == Stage::kReady) events_.read_done();
}

void Connection::receive(const Frame& frame) {
  switch (frame.type) {
    case wire::FrameType_Ping:
      output_.append_empty(wire::FrameType_Pong, frame.correlation);
      [[fallthrough]];
    case wire::FrameType_Pong:
      if (stage_ == Stage::kReady) pause_ms_ = 0;
      return;
    case wire::FrameType_Error:
      if (frame.correlation == 0 || stage_ == Stage::kShakingHands) return broker_error(frame);
      break;
    case wire::FrameType_Welcome:
      if (stage_ == Stage::kShakingHands) return welcome(frame);
      break;
    default:
      break;
  }
  if (stage_ != Stage::kReady) {
    return lose(Status(ErrorCode::kProtocolViolation,
                       fmt::format("The broker sent a frame of type {} before its Welcome.",
                                   static_cast<int>(frame.type))),
                false);
  }
  pause_ms_ = 0;
  events_.frame(frame);
}

void Connection::welcome(const Frame& frame) {
  const auto* welcome = read_table<wire::Welcome>(frame.body);
  if (welcome == nullptr) {
    return lose(Status(ErrorCode::kFrameMalformed, "The broker's Welcome is malformed."), false);
  }
  if (welcome->version() != kProtocolVersion) {
    return lose(Status(ErrorCode::kVersionUnsupported,
                       fmt::format("The broker wants to speak protocol version {}; this client "
                                   "speaks {}.",
                                   welcome->version(), kProtocolVersion)),
                true);
  }
  frame_bytes_max_ = welcome->frame_bytes_max() == 0 ? kFrameBytesMax : welcome->frame_bytes_max();
  unconfirmed_bytes_max_ = welcome->unconfirmed_bytes_max();
  heartbeat_.set_interval(welcome->heartbeat_ms() == 0 ? kHeartbeatMsDefault
                                                       : welcome->heartbeat_ms());
  stage_ = Stage::kReady;
  uv_timer_start(
      &timers_->pace,
      [](uv_timer_t* timer) { static_cast<Timers*>(timer->data)->owner->look_at_heartbeat(); },
      heartbeat_.look_ms(), heartbeat_.look_ms());
  events_.connected();
}

// An Error about the connection itself: the broker closes it.
void Connection::broker_error(const Frame& frame) {
  const auto* error = read_table<wire::Error>(frame.body);
  if (error == nullptr) {
    return lose(Status(ErrorCode::kFrameMalformed, "The broker's Error is malformed."), false);
  }
  const Status why(static_cast<ErrorCode>(error->code()), std::string(view(error->message())));
  if (stage_ == Stage::kShakingHands || error->fatal()) {
    lose(why, why.code() == ErrorCode::kVersionUnsupported);
  }
}

void Connection::look_at_heartbeat() {
  const std::uint64_t now = loop_.now_ms();
  switch (heartbeat_.look(now)) {
    case Heartbeat::Due::kNothing:
      break;
    case Heartbeat::Due::kPing:
      if (unsent_bytes() == 0) output_.append_empty(wire::FrameType_Ping, 0);
      break;
    case Heartbeat::Due::kSilent:
      lose(Status(ErrorCode::kConnectionLost,
                  fmt::format("The broker at {} has been silent for {} ms.",
                              options_.address.to_string(), heartbeat_.silent_ms(now))),
           false);
      break;
  }
}

// ---- the end of a connection ----

void Connection::drop(const Status& why) { lose(why, false); }

void Connection::drop_after(std::uint64_t delay_ms, const Status& why) {
  timers_->departure_reason = why;
  uv_timer_start(
      &timers_->departure,
      [](uv_timer_t* timer) {
        auto* timers = static_cast<Timers*>(timer->data);
        timers->owner->drop(timers->departure_reason);
      },
      delay_ms, 0);
}

void Connection::lose(const Status& why, bool final) {
  if (stage_ == Stage::kEnded || stage_ == Stage::kWaiting) return;
  const bool stood = stage_ == Stage::kReady;
  abandon_attempt();
  output_.clear();
  uv_timer_stop(&timers_->departure);
  uv_timer_stop(&timers_->pace);
  const bool over = final || !options_.reconnect;
  stage_ = over ? Stage::kEnded : Stage::kWaiting;
  if (!over) {
    uv_timer_start(
        &timers_->pace,
        [](uv_timer_t* timer) { static_cast<Timers*>(timer->data)->owner->attempt(); },
        next_pause_ms(), 0);
  }
  if (stood) {
    events_.disconnected(why);
  } else {
    ++addresses_failed_;
    events_.attempt_failed(why);
  }
  if (over) events_.ended(why);
}

void Connection::abandon_attempt() {
  abandon_socket();
  if (resolving_ == nullptr) return;
  resolving_->abandoned = true;
  if (resolving_->running) {
    // Refused when the look-up has begun.
    if (uv_cancel(reinterpret_cast<uv_req_t*>(&resolving_->request)) == 0) --lookups_;
  } else {
    delete resolving_;
  }
  resolving_ = nullptr;
}

void Connection::abandon_socket() {
  if (socket_ == nullptr) return;
  socket_->owner = nullptr;
  uv_close(&socket_->handle,
           [](uv_handle_t* handle) { delete static_cast<Socket*>(handle->data); });
  socket_ = nullptr;
}

// Doubles from the smallest to the largest pause; what is waited is between half of it and all of
// it, so that the clients of a broker that restarted do not come back together.
std::uint64_t Connection::next_pause_ms() {
  pause_ms_ = pause_ms_ == 0 ? options_.reconnect_min_ms : pause_ms_ * 2;
  pause_ms_ = std::min(std::max<std::uint64_t>(pause_ms_, 1), options_.reconnect_max_ms);
  std::uniform_int_distribution<std::uint64_t> wait(pause_ms_ / 2, pause_ms_);
  return wait(jitter_);
}

void Connection::shutdown() {
  if (stage_ == Stage::kIdle) return;
  abandon_attempt();
  stage_ = Stage::kEnded;
  if (timers_ == nullptr) return;
  const auto closed = [](uv_handle_t* handle) {
    auto* timers = static_cast<Timers*>(handle->data);
    if (--timers->open == 0) delete timers;
  };
  uv_close(reinterpret_cast<uv_handle_t*>(&timers_->pace), closed);
  uv_close(reinterpret_cast<uv_handle_t*>(&timers_->departure), closed);
  timers_ = nullptr;
}

}  // namespace holdfast::client
