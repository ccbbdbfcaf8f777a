// One client's conversation: its frames become requests to the core.
//
// Happy path: the first frame is Hello, answered by Welcome; from then on every frame is verified,
// its fields are checked, and the core is asked. What the core says goes to the connection through
// ReplyEncoder, not through here.
//
// Two kinds of mistakes. A wrong value (a name, a range, a limit) is answered with an Error that
// echoes the correlation, and the conversation goes on. A frame that does not verify, or comes when
// it must not, means that both sides no longer understand each other: handle() returns the error
// and the connection ends with it.
//
// Knows no socket and no clock. Belongs to the loop's thread.

#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/clock.h"
#include "base/ids.h"
#include "core/core.h"
#include "net/reply.h"
#include "schema/frame.h"

namespace holdfast::broker {

// Requests of one session that wait for a commit or a read: with more it is not read on.
inline constexpr std::uint32_t kWaitingMax = 16'384;
inline constexpr std::size_t kWaitingPeeksMax = 4;

struct SessionOptions {
  std::string broker_version;
  std::string node_id;
  Milliseconds heartbeat{10'000};  // where the client wants no other
  Milliseconds heartbeat_min{500};
  Milliseconds heartbeat_max{60'000};
  std::uint32_t frame_bytes_max = kFrameBytesMax;
  // Published and not yet answered, of one connection: beyond it the connection is not read.
  std::uint64_t unconfirmed_bytes_max = 4u << 20;
  // For settings that a QueueCreate does not name; each once.
  std::vector<SettingChange> queue_defaults;
};

// What the broker itself knows and the core does not. Each appends the whole answer and returns how
// many frames that was.
class BrokerFacts {
 public:
  virtual ~BrokerFacts() = default;
  virtual std::size_t append_status(std::uint64_t correlation, FrameWriter& out, Now now) = 0;
  virtual std::size_t append_connections(std::uint64_t correlation, FrameWriter& out, Now now) = 0;
};

// What all sessions share; outlives them.
struct SessionContext {
  Core& core;
  ReplyEncoder& encoder;
  BrokerFacts& facts;
  const SessionOptions& options;
  // Room for the parts of one request, used again and again.
  std::vector<SequenceRange> ranges;
  std::vector<SettingChange> settings;
  std::vector<Sequence> sequences;
};

class Session {
 public:
  // `peer` names the client while it has given no name.
  Session(SessionContext& context, SessionId id, std::string_view peer);

  // Not ok: the conversation is broken and ends with this error. Frames that are answered at once
  // are appended to `out`.
  Status handle(const Frame& frame, FrameWriter& out, Now now);

  SessionId id() const { return id_; }
  const std::string& client_name() const { return client_name_; }
  bool established() const { return established_; }
  bool said_goodbye() const { return said_goodbye_; }
  Milliseconds heartbeat() const { return heartbeat_; }
  // Frames that handle() has appended so far.
  std::uint64_t frames_out() const { return frames_out_; }
  // Whether the last frame asked for something long or laborious (a list, a report): the next frame
  // waits until this one has been answered.
  bool asked_for_much() const { return asked_for_much_; }

  // The core has answered a request of this session.
  void answered(const SettledReply&) { count_down(waiting_); }
  void answered(const MovedReply&) { count_down(waiting_); }
  void answered(const ListEndReply& reply) { end_peek(reply.to.correlation); }
  void answered(const ErrorReply& reply) {
    end_peek(reply.to.correlation);
    confirmed(reply.bytes);
  }
  void answered(const ConfirmReply& reply) { confirmed(reply.bytes); }
  template <typename Said>
  void answered(const Said&) {}
  // So many requests wait for their answer that the next one waits as well.
  bool waits_for_much() const {
    return waiting_ >= kWaitingMax || std::ranges::find(peeks_, 0u) == peeks_.end();
  }

  // Bytes of messages published and not yet answered.
  std::uint64_t unconfirmed_bytes() const { return unconfirmed_bytes_; }

 private:
  void confirmed(std::uint64_t bytes) {
    unconfirmed_bytes_ -= bytes < unconfirmed_bytes_ ? bytes : unconfirmed_bytes_;
  }
  static void count_down(std::uint32_t& waiting) { waiting -= waiting > 0 ? 1 : 0; }
  void end_peek(std::uint64_t correlation) {
    if (correlation != 0) std::ranges::replace(peeks_, correlation, std::uint64_t{0});
  }
  // Asks the core by this call, and counts the request as waiting unless it was refused at once.
  template <typename Ask>
  void ask_counted(const Frame& frame, const Ask& ask);
  // Whether the core has just refused this request.
  bool was_refused(const Frame& frame) const;

  Status handshake(const Frame& frame, FrameWriter& out, Now now);
  Status publish(const Frame& frame, FrameWriter& out, Now now);
  Status subscribe(const Frame& frame, FrameWriter& out, Now now);
  Status unsubscribe(const Frame& frame, Now now);
  Status credit(const Frame& frame, Now now);
  Status settle(const Frame& frame, FrameWriter& out, Now now);
  Status extend(const Frame& frame, FrameWriter& out, Now now);
  Status queue_open(const Frame& frame, FrameWriter& out, Now now);
  Status queue_create(const Frame& frame, FrameWriter& out, Now now);
  Status queue_edit(const Frame& frame, FrameWriter& out, Now now);
  Status queue_delete(const Frame& frame, FrameWriter& out, Now now);
  Status queue_purge(const Frame& frame, FrameWriter& out, Now now);
  Status queue_list(const Frame& frame, Now now);
  Status peek(const Frame& frame, FrameWriter& out, Now now);
  template <typename Table>
  Status move(const Frame& frame, FrameWriter& out, Now now);
  Status consumer_list(const Frame& frame, FrameWriter& out, Now now);
  Status bodyless(const Frame& frame, FrameWriter& out, Now now);

  Asker asker(const Frame& frame) const { return {id_, frame.correlation}; }
  // Answers the frame with this error; the conversation goes on.
  Status refuse(const Frame& frame, const Status& error, FrameWriter& out);
  // Fill the context's room, checking the bounds.
  Status take_ranges(const flatbuffers::Vector<const wire::SequenceRange*>* ranges);
  Status take_settings(const flatbuffers::Vector<const wire::SettingValue*>* settings);

  SessionContext& context_;
  const SessionId id_;
  std::string client_name_;
  bool established_ = false;
  bool said_goodbye_ = false;
  bool asked_for_much_ = false;
  Milliseconds heartbeat_{0};
  std::uint64_t frames_out_ = 0;
  std::uint64_t unconfirmed_bytes_ = 0;
  std::uint32_t waiting_ = 0;
  // Correlations of peeks that wait; 0: none. They can be refused late, so they are told apart.
  std::array<std::uint64_t, kWaitingPeeksMax> peeks_{};
};

}  // namespace holdfast::broker
