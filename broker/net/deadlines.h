// The deadlines of one connection: handshake, a frame that was begun, a silent peer, a peer that
// does not read, and when it is time for a heartbeat of our own.
//
// It is told what happens and the time, and says what is due and when to ask again. It reads no
// clock and owns no timer.
//
// What is waited for must be in the peer's hands: while the broker itself does not read (flow
// control), silence and an unfinished frame do not count; while output is pending the broker adds
// no heartbeat, because the bytes on their way are one.

#pragma once

#include <cstdint>

#include "base/clock.h"

namespace holdfast::broker {

struct DeadlineOptions {
  Milliseconds handshake{5'000};  // from the connection to a valid Hello
  // From the first byte of a frame to its last, or to so many more of a large one.
  Milliseconds frame{10'000};
  Milliseconds stall{30'000};  // without progress of pending output
  Milliseconds linger{1'000};  // to send a last Error frame and see the peer's end of stream
};

// A frame of 16 MiB takes as long as a slow line needs for it, but a peer that trickles bytes of it
// does not hold its memory for ever.
inline constexpr std::size_t kFrameStepBytes = 64 * 1024;

enum class Due : std::uint8_t {
  kNothing,
  kHeartbeat,  // send something
  kHandshakeMissed,
  kFrameUnfinished,
  kPeerSilent,
  kPeerNotReading,
  kLingerOver,
};

class Deadlines {
 public:
  // `options` outlives the object. Begins with waiting for the handshake.
  Deadlines(const DeadlineOptions& options, MonotonicTime now);

  // The handshake is done; each side sends something at least every `heartbeat`.
  void established(Milliseconds heartbeat, MonotonicTime now);
  // The connection is ending: from now on only the linger deadline counts.
  void lingering(MonotonicTime now);
  // Bytes came. `frame_completed`: they ended a frame. `pending_bytes` of one are left over.
  void received(bool frame_completed, std::size_t pending_bytes, MonotonicTime now);
  // Whether the broker reads from this connection. It does in the beginning.
  void reading(bool on, MonotonicTime now);
  // How many bytes the operating system has taken in all, and whether more are waiting.
  void output(std::uint64_t sent_bytes, bool pending, MonotonicTime now);

  // What is due, the gravest first. kHeartbeat is due again until output() reports new bytes.
  Due check(MonotonicTime now) const;
  // When check() is next to be asked. Later events may put it off, never bring it forward, except
  // received() with a begun frame, output() that becomes pending, established() and lingering().
  MonotonicTime next() const;

 private:
  enum class Phase : std::uint8_t { kHandshake, kEstablished, kLingering };

  const DeadlineOptions& options_;
  Phase phase_ = Phase::kHandshake;
  bool reading_ = true;
  bool frame_begun_ = false;
  bool output_pending_ = false;
  Milliseconds heartbeat_{0};
  std::uint64_t sent_bytes_ = 0;
  MonotonicTime phase_began_;
  std::size_t frame_bytes_ = 0;  // of it, when its time last began
  MonotonicTime frame_began_;
  MonotonicTime last_received_;
  MonotonicTime last_progress_;  // of the output
};

}  // namespace holdfast::broker
