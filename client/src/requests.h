// Every request that is not a publish: one table, answered by one frame or by a list of frames with
// the same correlation, or by an Error.
//
// Correlations: publishes count up from 1, everything else counts up from kRequestCorrelation, so
// that the correlations of publishes are consecutive whatever is sent between them.
//
// What becomes of a request when the connection is lost is its own choice, see WhenLost. A request
// that the broker refused because it drains has changed nothing and waits for the next connection,
// unless it belongs to this one.
//
// Belongs to the I/O thread.

#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <unordered_map>
#include <vector>

#include "holdfast/status.h"
#include "schema/frame.h"

namespace holdfast::client {

inline constexpr std::uint64_t kRequestCorrelation = 1ull << 63;

enum class WhenLost {
  kFailIfSent,  // it may have been done, and doing it twice is not the same
  kAskAgain,    // doing it twice is harmless
  kFail,        // it means nothing on another connection
};

struct Request {
  wire::FrameType type = wire::FrameType_None;
  std::vector<std::uint8_t> body;  // a finished table; empty where the type has none
  WhenLost when_lost = WhenLost::kFailIfSent;
  // For each frame of the answer, and free to keep something from one to the next; true: it was the
  // last. An error ends the request likewise.
  std::function<Result<bool>(const Frame&)> on_frame;
  // Called once instead of a last frame. May be empty.
  std::function<void(const Status&)> on_failed;
  // The answer begins anew: what was collected of it is void. May be empty.
  std::function<void()> on_repeat;
};

// The bytes of a table that was finished in `builder`.
std::vector<std::uint8_t> table_bytes(flatbuffers::FlatBufferBuilder& builder);

class Requests {
 public:
  // A token with which the request can be cancelled. It is sent by the next pump().
  std::uint64_t add(Request request);
  // The answer is no longer wanted; nothing is called.
  void cancel(std::uint64_t token);

  void pump(FrameWriter& output);
  // One that answers none of them, as after cancel(), changes nothing.
  void on_frame(const Frame& frame);
  bool owns(std::uint64_t correlation) const { return correlation >= kRequestCorrelation; }

  void connection_lost(const Status& why);
  void fail_all(const Status& why);
  std::size_t under_way() const { return sent_.size(); }

 private:
  void finish(std::uint64_t token, const Status& failure);

  std::uint64_t next_token_ = kRequestCorrelation + 1;
  std::deque<std::uint64_t> unsent_;
  // Shared with the call of its on_frame, which may end the request.
  using ByToken = std::unordered_map<std::uint64_t, std::shared_ptr<const Request>>;
  ByToken waiting_;  // unsent, or refused by a draining broker
  ByToken sent_;
  std::vector<std::uint64_t> refused_;  // by a draining broker
};

}  // namespace holdfast::client
