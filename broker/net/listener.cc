#include "net/listener.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "base/check.h"
#include "net/listen_address.h"
#include "net/log.h"

namespace holdfast::broker {

namespace {

constexpr int kBacklog = 1024;

// Removes the file of a unix socket that nobody listens on. kAddressInUse if somebody does or if it
// is no socket.
Status remove_stale_socket(const std::string& path) {
  struct stat found {};
  if (lstat(path.c_str(), &found) != 0) return Status();  // nothing there, or bind() will say why
  if (!S_ISSOCK(found.st_mode)) {
    return Status(ErrorCode::kAddressInUse,
                  fmt::format("\"{}\" exists and is not a socket: choose another path for the unix "
                              "socket or remove it.",
                              path));
  }
  const int probe = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (probe < 0) {
    return Status(ErrorCode::kInternal,
                  fmt::format("No socket can be made: {}.", std::strerror(errno)));
  }
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof(address.sun_path) - 1);
  const bool refused =
      connect(probe, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) != 0 &&
      errno == ECONNREFUSED;
  ::close(probe);
  if (!refused) {
    return Status(ErrorCode::kAddressInUse,
                  fmt::format("Another process listens on the unix socket \"{}\".", path));
  }
  unlink(path.c_str());
  return Status();
}

}  // namespace

Listener::Listener(uv_loop_t& loop, Log& log, OnConnection on_connection)
    : loop_(loop), log_(log), on_connection_(std::move(on_connection)) {
  CHECK(uv_timer_init(&loop_, &reopen_timer_) == 0);
  reopen_timer_.data = this;
  handles_open_ = 1;
}

Listener::~Listener() { CHECK(handles_open_ == 0, "handles open: {}", handles_open_); }

Result<std::unique_ptr<Listener>> Listener::open_tcp(uv_loop_t& loop, Log& log,
                                                     const sockaddr_storage& address,
                                                     OnConnection on_connection) {
  std::unique_ptr<Listener> listener(new Listener(loop, log, std::move(on_connection)));
  listener->address_ = address;
  listener->address_text_ = format_address(address);
  const Status status = listener->listen();
  if (status.ok()) return listener;
  // The handles must be closed by the loop before their memory goes.
  Listener* const failed = listener.release();
  failed->close([failed] { delete failed; });
  return status;
}

Result<std::unique_ptr<Listener>> Listener::open_unix(uv_loop_t& loop, Log& log,
                                                      const std::string& path,
                                                      OnConnection on_connection) {
  if (Status status = check_unix_path(path); !status.ok()) return status;
  if (Status status = remove_stale_socket(path); !status.ok()) return status;
  std::unique_ptr<Listener> listener(new Listener(loop, log, std::move(on_connection)));
  listener->is_unix_ = true;
  listener->path_ = path;
  listener->address_text_ = "unix:" + path;
  const Status status = listener->listen();
  if (status.ok()) return listener;
  Listener* const failed = listener.release();
  failed->close([failed] { delete failed; });
  return status;
}

Status Listener::bind_socket() {
  int error = 0;
  if (is_unix_) {
    CHECK(uv_pipe_init(&loop_, &socket_.pipe, 0) == 0);
  } else {
    CHECK(uv_tcp_init(&loop_, &socket_.tcp) == 0);
  }
  socket_.handle.data = this;
  socket_open_ = true;
  ++handles_open_;
  if (is_unix_) {
    error = uv_pipe_bind(&socket_.pipe, path_.c_str());
  } else {
    error = uv_tcp_bind(&socket_.tcp, reinterpret_cast<const sockaddr*>(&address_), 0);
  }
  if (error == 0) {
    error = uv_listen(&socket_.stream, kBacklog, [](uv_stream_t* stream, int status) {
      auto* const self = static_cast<Listener*>(stream->data);
      if (status < 0) {
        self->reopen_later(fmt::format("Accepting a connection on {} failed: {}.",
                                       self->address_text_, uv_strerror(status)));
      } else {
        self->on_connection_(*self, *stream);
      }
    });
  }
  if (error == 0) return Status();
  // libuv tells a directory that is not there as one that may not be written.
  if (is_unix_ && error == UV_EACCES) {
    const std::size_t slash = path_.rfind('/');
    const std::string directory = slash == std::string::npos ? "." : path_.substr(0, slash + 1);
    if (::access(directory.c_str(), F_OK) != 0) error = UV_ENOENT;
  }
  if (error == UV_EADDRINUSE) {
    return Status(ErrorCode::kAddressInUse,
                  fmt::format("The address {} is in use: another process listens on it. Choose "
                              "another with --listen or stop that process.",
                              address_text_));
  }
  return Status(ErrorCode::kInvalidArgument,
                fmt::format("Cannot listen on {}: {}.", address_text_, uv_strerror(error)));
}

Status Listener::listen() {
  if (Status status = bind_socket(); !status.ok()) return status;
  if (is_unix_) return Status();
  // With port 0 the system has chosen one: name it, and keep it when listening again.
  sockaddr_storage bound{};
  int bytes = sizeof(bound);
  if (uv_tcp_getsockname(&socket_.tcp, reinterpret_cast<sockaddr*>(&bound), &bytes) == 0) {
    address_ = bound;
    address_text_ = format_address(bound);
  }
  return Status();
}

void Listener::reopen_later(std::string_view why) {
  if (closing_ || reopening_) return;
  log_.warning("{} Listening again in {} ms.", why, kReopenPause.count());
  reopening_ = true;
  uv_close(&socket_.handle, [](uv_handle_t* handle) {
    auto* const self = static_cast<Listener*>(handle->data);
    self->socket_open_ = false;
    const bool closing = self->closing_;
    self->handle_closed();
    if (closing) return;
    uv_timer_start(
        &self->reopen_timer_,
        [](uv_timer_t* timer) {
          auto* const listener = static_cast<Listener*>(timer->data);
          listener->reopening_ = false;
          const Status status = listener->listen();
          if (!status.ok()) listener->reopen_later(status.message());
        },
        static_cast<std::uint64_t>(kReopenPause.count()), 0);
  });
}

void Listener::close(std::function<void()> closed) {
  CHECK(!closing_);
  closing_ = true;
  closed_ = std::move(closed);
  const auto on_closed = [](uv_handle_t* handle) {
    static_cast<Listener*>(handle->data)->handle_closed();
  };
  // A socket that is being reopened is closing already and counts itself out.
  if (socket_open_ && !reopening_) uv_close(&socket_.handle, on_closed);
  uv_close(reinterpret_cast<uv_handle_t*>(&reopen_timer_), on_closed);
}

void Listener::handle_closed() {
  if (--handles_open_ == 0 && closed_) {
    const std::function<void()> closed = std::move(closed_);
    closed();  // may destroy this object
  }
}

}  // namespace holdfast::broker
