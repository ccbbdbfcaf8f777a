// The connection of one client: it resolves, connects, shakes hands, cuts what it receives into
// frames, sends what is written, and begins again when the connection is lost.
//
// Happy path: start() → resolve → connect → Hello, Welcome → connected() → frame() for each frame.
// Both sides say something at least once an interval; a broker that is silent for three is lost.
//
// Failures: an attempt that fails, or a connection that is lost, is followed by another attempt
// after a pause that doubles from reconnect_min to reconnect_max, with jitter, and begins small
// again once the broker has said anything after its Welcome, a heartbeat included. What no
// repetition mends (the broker speaks another version) or what may not be repeated (`reconnect` is
// off) ends the connection: ended().
//
// Everything here belongs to the I/O thread.

#pragma once

#include <cstdint>
#include <memory>
#include <random>
#include <string>

#include "heartbeat.h"
#include "holdfast/status.h"
#include "io_loop.h"
#include "schema/address.h"
#include "schema/frame.h"

struct addrinfo;

namespace holdfast::client {

struct ConnectionOptions {
  Address address;
  std::string client_name;
  std::uint64_t reconnect_min_ms = 50;
  std::uint64_t reconnect_max_ms = 5'000;
  bool reconnect = true;
  std::uint32_t heartbeat_ms = 0;       // wanted interval; 0: the broker's
  std::uint64_t handshake_ms = 10'000;  // from the start of an attempt to the Welcome
};

// What is wrong while something accepts the connection, and no Welcome comes.
inline constexpr std::string_view kNoWelcome =
    "Something accepts connections there and does not answer: the broker hangs, or another program "
    "listens.";

class ConnectionEvents {
 public:
  // An attempt has been accepted; the Welcome is still to come.
  virtual void accepted() = 0;
  virtual void connected() = 0;
  virtual void frame(const Frame& frame) = 0;
  // The frames of one read have been handed over.
  virtual void read_done() = 0;
  // A connection that stood is lost; another attempt follows, or ended().
  virtual void disconnected(const Status& why) = 0;
  // An attempt came to nothing; likewise.
  virtual void attempt_failed(const Status& why) = 0;
  // There will be no further attempt.
  virtual void ended(const Status& why) = 0;

 protected:
  ~ConnectionEvents() = default;
};

class Connection {
 public:
  Connection(IoLoop& loop, ConnectionOptions options, ConnectionEvents& events);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  void start();
  bool ready() const;
  // Where frames for the broker are written, while ready(). Sent by flush().
  FrameWriter& output() { return output_; }
  void flush();
  // Bytes that the socket has not yet taken, those in output() included.
  std::size_t unsent_bytes() const;
  // Gives the connection up; another attempt follows.
  void drop(const Status& why);
  // Likewise, but only if it still stands at that time.
  void drop_after(std::uint64_t delay_ms, const Status& why);
  // For good: closes every handle, calls no event any more.
  void shutdown();
  // A look-up of a name is under way that cannot be called off: the loop runs until it is done.
  bool looks_up() const { return lookups_ > 0; }

  // The largest frame body that the broker accepts; while ready().
  std::size_t frame_bytes_max() const { return frame_bytes_max_; }
  // With so much published and not confirmed the broker reads no further; while ready(). 0: it has
  // not said.
  std::uint64_t unconfirmed_bytes_max() const { return unconfirmed_bytes_max_; }

  // Defined beside the implementation, for its callbacks.
  struct Socket;
  struct Timers;
  struct Resolving;

 private:
  enum class Stage { kIdle, kConnecting, kShakingHands, kReady, kWaiting, kEnded };

  void attempt();
  Status overdue_attempt() const;
  void resolve();
  void resolved(int failure, const addrinfo* found);
  void connect_to(const void* socket_address);
  void try_next_address();
  void connect_finished(int failure);
  void read_finished(std::int64_t bytes);
  void write_finished(int failure);
  void receive(const Frame& frame);
  void welcome(const Frame& frame);
  void broker_error(const Frame& frame);
  void look_at_heartbeat();
  void lose(const Status& why, bool final);
  void abandon_attempt();
  void abandon_socket();
  std::uint64_t next_pause_ms();

  IoLoop& loop_;
  ConnectionOptions options_;
  ConnectionEvents& events_;
  Stage stage_ = Stage::kIdle;
  FrameWriter output_;
  Socket* socket_ = nullptr;        // owns itself: freed in its close callback
  Resolving* resolving_ = nullptr;  // owns itself: freed in its callback
  Timers* timers_;                  // likewise
  std::size_t lookups_ = 0;         // under way, those included that nobody waits for
  // Addresses of the name that came to nothing so far: the next attempt begins behind them, because
  // one that does not answer takes a whole attempt.
  std::size_t addresses_failed_ = 0;
  std::size_t frame_bytes_max_ = 0;
  std::uint64_t unconfirmed_bytes_max_ = 0;
  Heartbeat heartbeat_;
  std::uint64_t pause_ms_ = 0;
  std::minstd_rand jitter_;
};

}  // namespace holdfast::client
