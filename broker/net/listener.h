// A listening socket: TCP or unix. It hands every connection that waits to its owner, who must
// accept it at once (and may close it then).
//
// Accepting can fail when the process runs out of descriptors. libuv would then call back without
// pause; so the socket is closed and opened again after kReopenPause. Peers that connect meanwhile
// are refused by the operating system and try again.
//
// A unix socket's file that nobody listens on any more is replaced; one with a live listener is
// refused with kAddressInUse. The file is removed at close.
//
// Belongs to the loop's thread.

#pragma once

#include <sys/socket.h>
#include <uv.h>

#include <functional>
#include <memory>
#include <string>
#include <string_view>

#include "base/clock.h"
#include "holdfast/status.h"

namespace holdfast::broker {

class Log;

class Listener {
 public:
  // A connection is waiting; uv_accept() it from `server` into a handle of the same kind.
  using OnConnection = std::function<void(const Listener& listener, uv_stream_t& server)>;

  // `loop` and `log` outlive the listener. kAddressInUse, kInvalidArgument (the address cannot be
  // bound on this machine), kInternal.
  static Result<std::unique_ptr<Listener>> open_tcp(uv_loop_t& loop, Log& log,
                                                    const sockaddr_storage& address,
                                                    OnConnection on_connection);
  static Result<std::unique_ptr<Listener>> open_unix(uv_loop_t& loop, Log& log,
                                                     const std::string& path,
                                                     OnConnection on_connection);
  // close() has been called and `closed` has been heard.
  ~Listener();
  Listener(const Listener&) = delete;
  Listener& operator=(const Listener&) = delete;

  // Where it really listens: "127.0.0.1:7411" (never port 0), "unix:/run/holdfast.sock".
  const std::string& address() const { return address_text_; }
  bool is_unix() const { return is_unix_; }
  // Stops listening. `closed` is called from the loop when the object may be destroyed.
  void close(std::function<void()> closed);

  static constexpr Milliseconds kReopenPause{500};

 private:
  Listener(uv_loop_t& loop, Log& log, OnConnection on_connection);
  Status listen();
  Status bind_socket();
  // `why`: a sentence for the log.
  void reopen_later(std::string_view why);
  void handle_closed();

  uv_loop_t& loop_;
  Log& log_;
  OnConnection on_connection_;
  bool is_unix_ = false;
  sockaddr_storage address_{};
  std::string path_;
  std::string address_text_;
  union {
    uv_handle_t handle;
    uv_stream_t stream;
    uv_tcp_t tcp;
    uv_pipe_t pipe;
  } socket_;
  uv_timer_t reopen_timer_;
  bool socket_open_ = false;
  bool reopening_ = false;
  int handles_open_ = 0;
  bool closing_ = false;
  std::function<void()> closed_;
};

}  // namespace holdfast::broker
