// One connection: a socket, the frames cut from what it receives, the bytes waiting to be sent.
//
// Happy path: the owner accept()s it, the loop reads into the FrameReader, every whole frame goes
// to the owner's on_frame(). The owner appends frames to output() while a turn lasts and calls
// flush() once at its end: one write. An idle connection holds no buffers.
//
// Flow control: reading stops when the owner says so for a frame (FrameVerdict::kHold), and by
// itself when the connection has used up its read budget of the turn; either way the owner gets it
// back with wants_attention() and calls resume() when it may go on. Frames already received are
// then looked at first, beginning with the one that the owner put off (FrameVerdict::kAgain).
//
// Failures: end_with() sends a last frame, closes the sending side, discards what still arrives (so
// that the peer reads the last frame before a reset could destroy it), and is over when the peer
// has closed or the linger deadline has passed. A socket error or the peer's end of stream makes
// the connection kLost. In both cases the owner calls close() and, once on_closed() was called, may
// destroy it.
//
// From within calls that the owner makes it is called back by resume() (on_frame(),
// on_broken(), wants_attention(), on_held()) and end_with() (wants_attention()) alone. Belongs to
// the loop's thread.

#pragma once

#include <uv.h>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

#include "base/clock.h"
#include "holdfast/status.h"
#include "net/deadlines.h"
#include "schema/frame.h"

namespace holdfast::broker {

class Connection;
class Listener;

enum class FrameVerdict : std::uint8_t {
  kNext,   // go on with the next frame
  kHold,   // no further frame until resume()
  kAgain,  // likewise, and this one once more then
};

class ConnectionOwner {
 public:
  virtual ~ConnectionOwner() = default;
  // A whole frame; valid during the call.
  virtual FrameVerdict on_frame(const Frame& frame, Now now) = 0;
  // The stream has lost its framing: the owner ends the connection with this error.
  virtual void on_broken(const Status& error, Now now) = 0;
  // Something changed that the end of the turn must look at.
  virtual void wants_attention() = 0;
  // It is not read on, and wants attention as well.
  virtual void on_held(Now now) = 0;
  // So much is buffered of all connections' input that each reads little, and once in a turn.
  virtual bool input_is_scarce() const = 0;
  // After close(): the connection may be destroyed, also from here.
  virtual void on_closed() = 0;
  virtual Now now() const = 0;
  // Counts the turns of the loop: the read budget is per turn.
  virtual std::uint64_t turn() const = 0;
  // Writers that have memory and no connection: an idle connection keeps none. `used_bytes` is what
  // the writer last held.
  virtual FrameWriter take_writer() = 0;
  virtual void give_writer(FrameWriter writer, std::size_t used_bytes) = 0;
};

struct ConnectionOptions {
  std::size_t frame_bytes_max = kFrameBytesMax;
  std::size_t read_bytes_per_turn = 512 * 1024;
  std::size_t send_buffer_bytes = 0;  // of the socket; 0: the system's choice
};

class Connection {
 public:
  enum class State : std::uint8_t {
    kOpen,
    kEnding,     // the last frame is being sent
    kLingering,  // it was sent; waiting for the peer's end of stream
    kLost,       // nothing more can be sent or received
    kClosed,     // close() was called
  };

  // `owner` and both options outlive the object.
  Connection(ConnectionOwner& owner, const ConnectionOptions& options,
             const DeadlineOptions& deadlines, std::uint64_t id, MonotonicTime now);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  // Takes the connection that waits at `listener` and begins to read. Whatever it returns, close()
  // must be called at the end.
  Status accept(uv_loop_t& loop, const Listener& listener, uv_stream_t& server);

  std::uint64_t id() const { return id_; }
  State state() const { return state_; }
  bool is_open() const { return state_ == State::kOpen; }
  // Why it is ending or lost; ok if the peer just closed it.
  const Status& end_reason() const { return end_reason_; }
  const std::string& peer() const { return peer_; }
  MonotonicTime opened_at() const { return opened_at_; }

  // Frames appended here leave with the next flush(). Only while is_open().
  FrameWriter& output();
  void count_frames_out(std::size_t frames) { frames_out_ += frames; }
  // Sends what it can; the rest waits for the socket.
  void flush(Now now);
  // Bytes not yet taken by the operating system.
  std::size_t output_bytes() const;

  // Frames held back are handed out again, then the socket is read again.
  void resume(Now now);
  bool reading() const { return !held_; }
  // Of the buffer for what was received of frames that are not complete, or not handed out yet.
  std::size_t input_bytes() const { return reader_.buffer_bytes(); }
  // Gives back what is not needed of it.
  void fit_input() { reader_.fit(); }

  // The handshake is done.
  void established(Milliseconds heartbeat, MonotonicTime now) {
    deadlines_.established(heartbeat, now);
  }
  // What is due by the clock.
  Due check_deadlines(MonotonicTime now);
  MonotonicTime next_deadline() const { return deadlines_.next(); }

  // Ends the conversation once the output has been sent. `reason` is for the log.
  void end_with(Status reason, Now now);
  // Gives the connection up: it is kLost.
  void abandon(Status reason);
  // Closes the socket at once; what was not sent is lost. on_closed() follows from the loop.
  void close();

  std::uint64_t frames_in() const { return frames_in_; }
  std::uint64_t frames_out() const { return frames_out_; }
  std::uint64_t bytes_in() const { return bytes_in_; }
  std::uint64_t bytes_out() const { return bytes_out_; }

 private:
  std::span<std::uint8_t> read_room();
  void on_read(std::ptrdiff_t bytes);
  void on_written(int status);
  void cut_frames(Now now);
  // What is not handed out any more.
  void discard_input() { reader_ = FrameReader(options_.frame_bytes_max); }
  void adapt_read_size(std::size_t bytes, std::size_t room);
  void hold(Now now);
  void lost(Status reason);
  void note_output(Now now);
  void close_sending_side_if_sent();

  ConnectionOwner& owner_;
  const ConnectionOptions& options_;
  const std::uint64_t id_;
  const MonotonicTime opened_at_;
  State state_ = State::kOpen;
  bool held_ = false;
  bool writing_ = false;
  bool initialized_ = false;
  Status end_reason_;
  std::string peer_;
  Deadlines deadlines_;

  union {
    uv_handle_t handle;
    uv_stream_t stream;
    uv_tcp_t tcp;
    uv_pipe_t pipe;
  } socket_;
  uv_write_t write_request_;
  std::unique_ptr<std::uint8_t[]> writing_bytes_;
  std::size_t writing_size_ = 0;

  FrameReader reader_;
  FrameWriter output_;
  std::size_t read_size_;
  std::size_t room_size_ = 0;  // of the room last given to the loop
  std::uint64_t read_turn_ = 0;
  std::size_t read_in_turn_ = 0;
  std::uint64_t frames_in_ = 0;
  std::uint64_t frames_out_ = 0;
  std::uint64_t bytes_in_ = 0;
  std::uint64_t bytes_out_ = 0;  // taken by the operating system, without the write under way
};

}  // namespace holdfast::broker
