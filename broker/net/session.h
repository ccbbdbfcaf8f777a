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

// Requests of one session that wait for a commit or a read: with more it is not read on. One that
// names many sequences, each of which its answer may have to name, counts as one more for every 16
// of them; one for a message's attempts, whose answer has some 8 KB of them, as 64. One that waits
// for messages to be moved does not count if its answer is short, or a consumer that rejects on a
// full disk could not ack, either.
inline constexpr std::uint32_t kWaitingMax = 16'384;
inline constexpr std::uint32_t kSequencesPerWaiting = 16;
inline constexpr std::uint32_t kAttemptsWeight = 64;
inline constexpr std::uint32_t kWaitingPeeksMax = 4;
inline constexpr std::uint32_t kWaitingBulkMax = 4;  // redrives, discards, purges

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
  // A page of them, by number.
  virtual std::size_t append_connections(std::uint64_t correlation, std::uint64_t from,
                                         FrameWriter& out, Now now) = 0;
};

// What all sessions share; outlives them.
struct SessionContext {
  Core& core;
  ReplyEncoder& encoder;
  BrokerFacts& facts;
  const SessionOptions& options;
  // Room for the parts of one request, used again and again.
  std::vector<SequenceRange> ranges;
  std::uint32_t sequences_in_ranges = 0;
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
  // Whether a frame of this type asks for something long or laborious: a list, many dead letters,
  // the attempts of a message.
  static bool is_laborious(wire::FrameType type);
  // Whether the answer to a frame of this type never waits for a commit.
  static bool is_answered_at_once(wire::FrameType type);
  // Whether the last frame was one, asked for a report, or looked up much: the next frame waits
  // until this one has been answered.
  bool asked_for_much() const { return asked_for_much_; }
  // Whether the last frame named so many sequences, or so many have been named by now, that it was
  // as laborious.
  bool looked_up_much() const { return looked_up_much_; }

  // The core has answered a request of this session, or told it something.
  template <typename Said>
  void answered(const Said& said) {
    if constexpr (requires { said.to; }) no_longer_waits(said.to);
    if constexpr (requires { said.bytes; }) unconfirmed_bytes_ -= said.bytes;
  }
  void answered(const PeekReply&) {}  // more follow
  void answered(const ConsumerReply&) {}
  // So many requests wait for their answer that the next one waits as well.
  bool waits_for_much() const {
    return waiting(Waits::kRequest) >= kWaitingMax || waiting(Waits::kPeek) >= kWaitingPeeksMax ||
           waiting(Waits::kBulk) >= kWaitingBulkMax;
  }

  // Bytes of messages published and not yet answered.
  std::uint64_t unconfirmed_bytes() const { return unconfirmed_bytes_; }

 private:
  std::uint32_t waiting(Waits what) const { return waiting_[static_cast<std::size_t>(what)]; }
  void no_longer_waits(const Asker& asker) {
    waiting_[static_cast<std::size_t>(asker.waits)] -= asker.weight;
  }

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
  Status attempts(const Frame& frame, FrameWriter& out, Now now);
  template <typename Table>
  Status take_letters(const Frame& frame, FrameWriter& out, Now now);
  Status consumer_list(const Frame& frame, FrameWriter& out, Now now);
  Status connection_list(const Frame& frame, FrameWriter& out, Now now);
  Status bodyless(const Frame& frame, FrameWriter& out, Now now);

  // Whoever asks so gets one last answer, which counts down again.
  Asker asker(const Frame& frame, Waits waits = Waits::kNothing, std::uint32_t weight = 1) {
    waiting_[static_cast<std::size_t>(waits)] += weight;
    return {id_, frame.correlation, waits, weight};
  }
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
  bool looked_up_much_ = false;
  Milliseconds heartbeat_{0};
  std::uint64_t frames_out_ = 0;
  std::uint64_t unconfirmed_bytes_ = 0;
  std::array<std::uint32_t, 4> waiting_{};  // by Waits; that of kNothing says nothing
  std::uint64_t looked_up_ = 0;             // sequences, since the last time that was much
};

}  // namespace holdfast::broker
