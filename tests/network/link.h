// One connection through the proxy: two sockets and what is between them; see proxy.h.

#pragma once

#include <poll.h>

#include <chrono>
#include <cstdint>
#include <deque>
#include <string>
#include <vector>

#include "crash/random.h"
#include "schema/frame.h"

namespace holdfast::network {

class Proxy;

using Clock = std::chrono::steady_clock;

enum class Fate : std::uint8_t {
  kReplyLost,   // after some replies the later ones are dropped, then both sides are cut
  kMidFrame,    // both sides are cut after so many bytes
  kOldLingers,  // after some requests the later ones are held, the client is cut, the broker is not
};

struct LinkPlan {
  Fate fate = Fate::kReplyLost;
  std::uint64_t count = 1;                // of replies, bytes or requests until then
  std::chrono::milliseconds last_for{0};  // how long replies are dropped, or requests held
  std::chrono::milliseconds linger{0};    // kOldLingers: from the client's cut to the late delivery
  bool reset = false;                     // the client sees a reset, else the end of the stream
  std::chrono::microseconds delay_max{0};
  std::size_t segment_bytes_max = 65'536;
};

class Link {
 public:
  Link(Proxy& proxy, const LinkPlan& plan, std::uint64_t seed, int client, int broker);
  ~Link();
  Link(const Link&) = delete;
  Link& operator=(const Link&) = delete;

  // What it waits for: an entry for the client's side, then one for the broker's.
  void append_polls(std::vector<pollfd>& polls) const;
  // When it has something to do without that.
  Clock::time_point next_due() const;
  // Reads where poll() said that there is something, decides, writes.
  void work(bool client_readable, bool broker_readable, Clock::time_point now);
  bool over() const { return client_ < 0 && broker_ < 0; }

 private:
  enum class Stage : std::uint8_t { kOpen, kLosing, kLingering, kDelivering };

  // Bytes on their way to one side.
  struct Stream {
    FrameReader reader{kFrameBytesMax};
    struct Chunk {
      Clock::time_point due;
      std::string bytes;
      std::size_t sent = 0;
    };
    std::deque<Chunk> chunks;
    std::size_t waiting_bytes = 0;
    bool blocked = false;  // its sink takes nothing now
    bool ended = false;    // its source has closed
  };

  void read(int side, Stream& stream, Clock::time_point now);
  void pass(const Frame& frame, Stream& stream, Clock::time_point now);
  // Whether this frame is the one after which the link begins to lose.
  bool is_the_last(const Frame& frame, std::size_t bytes, bool is_request);
  void drop(const Frame& frame);
  void enqueue(Stream& stream, std::string bytes, Clock::time_point now);
  void write(int side, Stream& stream, Clock::time_point now);
  void decide(Clock::time_point now);
  void cut(int& side) const;
  void close_both();
  void deliver_late(Clock::time_point now);

  Proxy& proxy_;
  const LinkPlan plan_;
  crash::Random random_;
  int client_ = -1;
  int broker_ = -1;
  Stage stage_ = Stage::kOpen;
  Clock::time_point stage_ends_{};
  std::uint64_t counted_ = 0;
  Stream up_;                      // to the broker
  Stream down_;                    // to the client
  std::vector<std::string> held_;  // requests that are delivered late
  std::uint64_t publishes_held_ = 0;
};

}  // namespace holdfast::network
