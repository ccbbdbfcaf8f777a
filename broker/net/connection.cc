#include "net/connection.h"

#include <fmt/format.h>
#include <sys/socket.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "net/listen_address.h"
#include "net/listener.h"

namespace holdfast::broker {

namespace {

// A connection reads with little memory until it shows that it sends much: many that each begin a
// frame and never finish it cost no more than this.
constexpr std::size_t kReadBytesMin = 4 * 1024;
constexpr std::size_t kReadBytesMax = 128 * 1024;

Status socket_error(std::string_view what, int error) {
  return Status(ErrorCode::kConnectionLost, fmt::format("{}: {}.", what, uv_strerror(error)));
}

}  // namespace

Connection::Connection(ConnectionOwner& owner, const ConnectionOptions& options,
                       const DeadlineOptions& deadlines, std::uint64_t id, MonotonicTime now)
    : owner_(owner),
      options_(options),
      id_(id),
      opened_at_(now),
      deadlines_(deadlines, now),
      reader_(options.frame_bytes_max),
      read_size_(kReadBytesMin) {}

Connection::~Connection() {
  CHECK(!initialized_, "connection {} destroyed before its handle was closed", id_);
}

Status Connection::accept(uv_loop_t& loop, const Listener& listener, uv_stream_t& server) {
  if (listener.is_unix()) {
    CHECK(uv_pipe_init(&loop, &socket_.pipe, 0) == 0);
  } else {
    CHECK(uv_tcp_init(&loop, &socket_.tcp) == 0);
  }
  initialized_ = true;
  socket_.handle.data = this;
  write_request_.data = this;
  if (const int error = uv_accept(&server, &socket_.stream); error != 0) {
    state_ = State::kLost;
    return socket_error("Accepting the connection failed", error);
  }
  if (listener.is_unix()) {
    peer_ = listener.address();
  } else {
    uv_tcp_nodelay(&socket_.tcp, 1);
    sockaddr_storage address{};
    int bytes = sizeof(address);
    const bool known =
        uv_tcp_getpeername(&socket_.tcp, reinterpret_cast<sockaddr*>(&address), &bytes) == 0;
    peer_ = known ? format_address(address) : "unknown";
  }
  if (options_.send_buffer_bytes > 0) {
    int bytes = static_cast<int>(options_.send_buffer_bytes);
    uv_send_buffer_size(&socket_.handle, &bytes);
  }
  held_ = true;
  resume(owner_.now());
  return Status();
}

FrameWriter& Connection::output() {
  if (output_.data() == nullptr) output_ = owner_.take_writer();
  return output_;
}

std::size_t Connection::output_bytes() const {
  return output_.size() + (writing_ ? socket_.stream.write_queue_size : 0);
}

void Connection::flush(Now now) {
  if (state_ != State::kOpen && state_ != State::kEnding) return;
  if (writing_ || output_.empty()) {
    close_sending_side_if_sent();
    return;
  }
  // The buffer is only read from; libuv's type has no const.
  uv_buf_t buffer{reinterpret_cast<char*>(const_cast<std::uint8_t*>(output_.data())),
                  output_.size()};
  const int tried = uv_try_write(&socket_.stream, &buffer, 1);
  if (tried < 0 && tried != UV_EAGAIN) {
    lost(socket_error("Sending failed", tried));
    return;
  }
  const std::size_t sent = tried < 0 ? 0 : static_cast<std::size_t>(tried);
  bytes_out_ += sent;
  if (sent == output_.size()) {
    output_.clear();
    owner_.give_writer(std::exchange(output_, FrameWriter()), sent);
  } else {
    auto [bytes, size] = output_.release();
    writing_bytes_ = std::move(bytes);
    writing_size_ = size - sent;
    buffer.base = reinterpret_cast<char*>(writing_bytes_.get() + sent);
    buffer.len = writing_size_;
    const int error =
        uv_write(&write_request_, &socket_.stream, &buffer, 1, [](uv_write_t* request, int status) {
          static_cast<Connection*>(request->data)->on_written(status);
        });
    if (error != 0) {
      lost(socket_error("Sending failed", error));
      return;
    }
    writing_ = true;
  }
  note_output(now);
  close_sending_side_if_sent();
}

void Connection::on_written(int status) {
  writing_ = false;
  writing_bytes_.reset();
  if (state_ == State::kClosed) return;
  if (status != 0) {
    lost(socket_error("Sending failed", status));
  } else {
    bytes_out_ += writing_size_;
    note_output(owner_.now());
  }
  owner_.wants_attention();
}

void Connection::note_output(Now now) {
  const std::size_t waiting = writing_ ? socket_.stream.write_queue_size : 0;
  const std::uint64_t sent = bytes_out_ + (writing_ ? writing_size_ - waiting : 0);
  deadlines_.output(sent, output_bytes() > 0, now.monotonic);
}

void Connection::close_sending_side_if_sent() {
  if (state_ != State::kEnding || output_bytes() > 0) return;
  uv_os_fd_t descriptor = -1;
  if (uv_fileno(&socket_.handle, &descriptor) == 0) ::shutdown(descriptor, SHUT_WR);
  state_ = State::kLingering;
}

std::span<std::uint8_t> Connection::read_room() {
  const std::span<std::uint8_t> room =
      reader_.prepare(owner_.input_is_scarce() ? kReadBytesMin : read_size_);
  room_size_ = room.size();
  return room;
}

void Connection::resume(Now now) {
  if (!held_ || state_ == State::kLost || state_ == State::kClosed) return;
  held_ = false;
  if (state_ == State::kOpen) {
    cut_frames(now);
    if (held_) return;
    deadlines_.received(true, reader_.pending_bytes(), now.monotonic);
  }
  const int error = uv_read_start(
      &socket_.stream,
      [](uv_handle_t* handle, std::size_t, uv_buf_t* buffer) {
        const auto room = static_cast<Connection*>(handle->data)->read_room();
        *buffer =
            uv_buf_init(reinterpret_cast<char*>(room.data()), static_cast<unsigned>(room.size()));
      },
      [](uv_stream_t* stream, ssize_t bytes, const uv_buf_t*) {
        static_cast<Connection*>(stream->data)->on_read(bytes);
      });
  if (error != 0) {
    lost(socket_error("Reading failed", error));
    owner_.wants_attention();
    return;
  }
  deadlines_.reading(true, now.monotonic);
}

void Connection::hold(Now now) {
  if (!held_) {
    held_ = true;
    uv_read_stop(&socket_.stream);
    deadlines_.reading(false, now.monotonic);
    owner_.on_held(now);
  }
  owner_.wants_attention();
}

void Connection::on_read(std::ptrdiff_t bytes) {
  if (bytes <= 0) {
    reader_.shrink();
    if (bytes == 0) return;  // nothing to read after all
    lost(bytes == UV_EOF ? Status() : socket_error("Reading failed", static_cast<int>(bytes)));
    owner_.wants_attention();
    return;
  }
  const auto received = static_cast<std::size_t>(bytes);
  bytes_in_ += received;
  if (state_ != State::kOpen) {
    reader_.shrink();  // ending: what arrives is discarded
    return;
  }
  const Now now = owner_.now();
  reader_.commit(received);
  adapt_read_size(received, room_size_);
  const std::uint64_t frames_before = frames_in_;
  cut_frames(now);
  deadlines_.received(frames_in_ != frames_before, reader_.pending_bytes(), now.monotonic);
  if (reader_.pending_bytes() > 0) owner_.wants_attention();
  if (read_turn_ != owner_.turn()) {
    read_turn_ = owner_.turn();
    read_in_turn_ = 0;
  }
  read_in_turn_ += received;
  const bool enough = read_in_turn_ >= options_.read_bytes_per_turn || owner_.input_is_scarce();
  if (state_ == State::kOpen && enough) hold(now);
}

void Connection::adapt_read_size(std::size_t bytes, std::size_t room) {
  if (bytes == room) {
    read_size_ = std::min(read_size_ * 2, kReadBytesMax);
  } else if (bytes < read_size_ / 4) {
    read_size_ = std::max(read_size_ / 2, kReadBytesMin);
  }
}

void Connection::cut_frames(Now now) {
  while (state_ == State::kOpen) {
    Result<std::optional<Frame>> next = reader_.next();
    if (!next.ok()) {
      owner_.on_broken(next.status(), now);
      break;
    }
    if (!next->has_value()) break;
    ++frames_in_;
    const FrameVerdict verdict = owner_.on_frame(**next, now);
    if (state_ != State::kOpen || verdict == FrameVerdict::kNext) continue;
    if (verdict == FrameVerdict::kAgain) {
      reader_.put_back(**next);
      --frames_in_;
    }
    hold(now);
    break;
  }
  if (state_ == State::kOpen) reader_.shrink();
}

Due Connection::check_deadlines(MonotonicTime now) {
  note_output(Now{now, WallTime()});
  return deadlines_.check(now);
}

void Connection::end_with(Status reason, Now now) {
  if (state_ != State::kOpen) return;
  state_ = State::kEnding;
  end_reason_ = std::move(reason);
  discard_input();
  deadlines_.lingering(now.monotonic);
  if (held_) resume(now);  // to see the peer's end of stream
  owner_.wants_attention();
}

void Connection::abandon(Status reason) {
  lost(std::move(reason));
  owner_.wants_attention();
}

void Connection::lost(Status reason) {
  if (state_ == State::kClosed || state_ == State::kLost) return;
  if (state_ == State::kOpen) end_reason_ = std::move(reason);
  state_ = State::kLost;
  discard_input();
  uv_read_stop(&socket_.stream);
}

void Connection::close() {
  if (state_ == State::kClosed) return;
  state_ = State::kClosed;
  if (!initialized_) return;
  uv_close(&socket_.handle, [](uv_handle_t* handle) {
    auto* const self = static_cast<Connection*>(handle->data);
    self->initialized_ = false;
    self->owner_.on_closed();
  });
}

}  // namespace holdfast::broker
