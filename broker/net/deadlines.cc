#include "net/deadlines.h"

#include <algorithm>

#include "schema/field_limits.h"

namespace holdfast::broker {

Deadlines::Deadlines(const DeadlineOptions& options, MonotonicTime now)
    : options_(options),
      phase_began_(now),
      frame_began_(now),
      last_received_(now),
      last_progress_(now) {}

void Deadlines::established(Milliseconds heartbeat, MonotonicTime now) {
  phase_ = Phase::kEstablished;
  phase_began_ = now;
  heartbeat_ = heartbeat;
  last_received_ = now;
  if (!output_pending_) last_progress_ = now;
}

void Deadlines::lingering(MonotonicTime now) {
  if (phase_ == Phase::kLingering) return;
  phase_ = Phase::kLingering;
  phase_began_ = now;
}

void Deadlines::received(bool frame_completed, std::size_t pending_bytes, MonotonicTime now) {
  last_received_ = now;
  if (frame_completed || !frame_begun_ || pending_bytes >= frame_bytes_ + kFrameStepBytes) {
    frame_began_ = now;
    frame_bytes_ = pending_bytes;
  }
  frame_begun_ = pending_bytes > 0;
}

void Deadlines::reading(bool on, MonotonicTime now) {
  if (on == reading_) return;
  reading_ = on;
  if (on) {
    last_received_ = now;
    frame_began_ = now;
  }
}

void Deadlines::output(std::uint64_t sent_bytes, bool pending, MonotonicTime now) {
  if (sent_bytes != sent_bytes_ || (pending && !output_pending_)) last_progress_ = now;
  sent_bytes_ = sent_bytes;
  output_pending_ = pending;
}

Due Deadlines::check(MonotonicTime now) const {
  switch (phase_) {
    case Phase::kLingering:
      return now >= phase_began_ + options_.linger ? Due::kLingerOver : Due::kNothing;
    case Phase::kHandshake:
      return now >= phase_began_ + options_.handshake ? Due::kHandshakeMissed : Due::kNothing;
    case Phase::kEstablished:
      break;
  }
  if (output_pending_ && now >= last_progress_ + options_.stall) return Due::kPeerNotReading;
  if (reading_ && frame_begun_ && now >= frame_began_ + options_.frame) {
    return Due::kFrameUnfinished;
  }
  if (reading_ && now >= last_received_ + kHeartbeatsMissedMax * heartbeat_) {
    return Due::kPeerSilent;
  }
  if (!output_pending_ && now >= last_progress_ + heartbeat_) return Due::kHeartbeat;
  return Due::kNothing;
}

MonotonicTime Deadlines::next() const {
  if (phase_ == Phase::kLingering) return phase_began_ + options_.linger;
  if (phase_ == Phase::kHandshake) return phase_began_ + options_.handshake;
  MonotonicTime next = last_progress_ + (output_pending_ ? options_.stall : heartbeat_);
  if (reading_) {
    next = std::min(next, last_received_ + kHeartbeatsMissedMax * heartbeat_);
    if (frame_begun_) next = std::min(next, frame_began_ + options_.frame);
  }
  return next;
}

}  // namespace holdfast::broker
