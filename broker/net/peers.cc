#include "net/peers.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/check.h"
#include "holdfast/text.h"
#include "net/listener.h"
#include "net/system_clock.h"
#include "schema/field_limits.h"

namespace holdfast::broker {

namespace {

// Writers kept with their memory while no connection needs them, and how much each may have.
constexpr std::size_t kSpareWritersMax = 8;
constexpr std::size_t kSpareWriterBytesMax = 2u << 20;

// Of all peers, between two times that what they have asked for is answered: a flood of small ones
// is answered in pieces, each of which takes about ten milliseconds, and its answers some
// megabytes.
constexpr int kFramesInRound = 4096;

// A laborious request takes a few milliseconds at most and has a mebibyte of answer at most.
constexpr int kLaborsInTurn = 2;

// A loop that was held up (a stopped process, a machine that stood still) may find what the peer
// has sent meanwhile only after it has looked at the clock: so being late counts when it was found
// in two turns, which have a look at the sockets between them.
bool blames_the_peer(Due due) {
  return due == Due::kHandshakeMissed || due == Due::kFrameUnfinished || due == Due::kPeerSilent ||
         due == Due::kPeerNotReading;
}

SessionId session_of(const LeaseLostNotice& notice) { return notice.session; }
SessionId session_of(const Delivery& delivery) { return delivery.session; }
SessionId session_of(const ConsumerEndedNotice& notice) { return notice.session; }
template <typename Reply>
SessionId session_of(const Reply& reply) {
  return reply.to.session;
}

}  // namespace

// A connection and its conversation.
class Peers::Peer final : public ConnectionOwner {
 public:
  Peer(Peers& owner, std::uint64_t id, bool over_cap_, MonotonicTime now)
      : peers(owner),
        connection(*this, owner.connection_options_, owner.deadline_options_, id, now),
        over_cap(over_cap_) {}

  FrameVerdict on_frame(const Frame& frame, Now now) override {
    return peers.on_frame(*this, frame, now);
  }
  void on_broken(const Status& error, Now now) override { peers.end_with_error(*this, error, now); }
  void wants_attention() override {
    peers.update_sums(*this);
    peers.wants_attention(*this);
  }
  void on_held(Now now) override { peers.tell_unread(*this, true, now); }
  bool input_is_scarce() const override { return peers.input_is_scarce(); }
  void on_closed() override { peers.on_closed(*this); }
  Now now() const override { return read_clocks(); }
  std::uint64_t turn() const override { return peers.turn_; }
  FrameWriter take_writer() override { return peers.take_writer(); }
  void give_writer(FrameWriter writer, std::size_t used_bytes) override {
    peers.give_writer(std::move(writer), used_bytes);
  }

  Peers& peers;
  Connection connection;
  std::optional<Session> session;
  const bool over_cap;
  std::uint64_t overdue_in = 0;  // the last turn in which it was late
  bool in_core = false;          // the core knows the session
  bool ended = false;            // end_session() is done
  bool writable = true;          // since the low mark: not above the high one, nor out of room
  std::size_t room_told = 0;     // to the core
  std::size_t room_left = 0;     // of that
  bool unread_told = false;      // to the core
  bool wants_a_look = false;     // is in attention_
  bool is_in_line = false;       // in line_
  bool is_put_off = false;       // until fewer answers wait, over all peers
  bool is_scheduled = false;
  Schedule::iterator scheduled;
  // What it adds to the sums.
  std::size_t output_bytes = 0;
  std::size_t input_bytes = 0;
  bool is_unconfirmed = false;
};

Peers::Peers(uv_loop_t& loop, Log& log, SessionContext& context, const PeerLimits& limits,
             const ConnectionOptions& connection_options, const DeadlineOptions& deadline_options)
    : loop_(loop),
      log_(log),
      context_(context),
      limits_(limits),
      connection_options_(connection_options),
      deadline_options_(deadline_options) {}

Peers::~Peers() { CHECK(peers_.empty(), "{} connections are open", peers_.size()); }

// ---- from the sockets ----

void Peers::accept(const Listener& listener, uv_stream_t& server) {
  const Now now = read_clocks();
  const std::uint64_t id = next_id_++;
#ifdef HOLDFAST_BREAK_FORGET_CONNECTION_LIMIT
  const bool over_cap = false;
#else
  const bool over_cap = serving_ >= limits_.connections_max +
                                        (listener.is_unix() ? limits_.unix_connections_more : 0);
#endif
  Peer& peer =
      *peers_.emplace(id, std::make_unique<Peer>(*this, id, over_cap, now.monotonic)).first->second;
  ids_.insert(id);
  (over_cap ? refused_ : serving_) += 1;
  const Status status = peer.connection.accept(loop_, listener, server);
  peer.session.emplace(context_, SessionId(id), peer.connection.peer());
  if (!status.ok()) {
    log_.peer(now.monotonic, "{}", status.message());
    close(peer);
    return;
  }
  if (over_cap) {
    ++turned_away_;
    const Status error(
        ErrorCode::kTooManyConnections,
        fmt::format("The broker serves {} connections, its limit (connections_max): connect again "
                    "later.",
                    limits_.connections_max));
    if (refused_ > limits_.refused_max) {
      log_.peer(now.monotonic, "Connection {} from {} is closed at once: {}", id,
                peer.connection.peer(), error.to_string());
      close(peer);
      return;
    }
    end_with_error(peer, error, now);
  }
  schedule(peer);
}

FrameVerdict Peers::on_frame(Peer& peer, const Frame& frame, Now now) {
  Session& session = *peer.session;
  Connection& connection = peer.connection;
  if (session.established() && !Session::is_answered_at_once(frame.type) &&
      context_.core.answers_bytes() > limits_.answers_bytes_total_max) {
    put_off(peer);
    return FrameVerdict::kAgain;
  }
  if (session.established() && Session::is_laborious(frame.type) && !take_labor(peer)) {
    return FrameVerdict::kAgain;
  }
  const std::uint64_t frames_out_before = session.frames_out();
  const std::uint64_t unconfirmed_before = session.unconfirmed_bytes();
  const Status status = session.handle(frame, connection.output(), now);
  unconfirmed_bytes_ += session.unconfirmed_bytes() - unconfirmed_before;
  connection.count_frames_out(session.frames_out() - frames_out_before);
  wants_attention(peer);
  if (!status.ok()) {
    end_with_error(peer, status, now);
    return FrameVerdict::kHold;
  }
  if (session.established() && !peer.in_core) {
    peer.in_core = true;
    tell_room(peer, 2 * output_high(), now);
    connection.established(session.heartbeat(), now.monotonic);
    if (goodbye_deadline_) append_goodbye(peer, now);
  }
  if (session.said_goodbye()) {
    connection.end_with(Status(), now);
    return FrameVerdict::kHold;
  }
  // How much it looks up shows only in the frame: it is paid for afterwards.
  if (session.looked_up_much()) static_cast<void>(take_labor(peer));
  --frames_left_;
  const bool go_on = frames_left_ > 0 && !session.asked_for_much() && may_read(peer);
  return go_on ? FrameVerdict::kNext : FrameVerdict::kHold;
}

bool Peers::take_labor(Peer& peer) {
  if (labors_left_ > 0) {
    --labors_left_;
    return true;
  }
  peer.is_in_line = true;
  line_.push_back(&peer);
  return false;
}

void Peers::put_off(Peer& peer) { peer.is_put_off = has_put_off_ = true; }

void Peers::wants_attention(Peer& peer) {
  if (peer.wants_a_look) return;
  peer.wants_a_look = true;
  attention_.push_back(&peer);
}

void Peers::on_closed(Peer& peer) {
  if (peer.wants_a_look) std::erase(attention_, &peer);
  if (last_found_ == &peer) last_found_ = nullptr;
  (peer.over_cap ? refused_ : serving_) -= 1;
  ids_.erase(peer.connection.id());
  peers_.erase(peer.connection.id());
}

FrameWriter Peers::take_writer() {
  if (writers_.empty()) return FrameWriter();
  FrameWriter writer = std::move(writers_.back());
  writers_.pop_back();
  return writer;
}

void Peers::give_writer(FrameWriter writer, std::size_t used_bytes) {
  if (writers_.size() < kSpareWritersMax && used_bytes <= kSpareWriterBytesMax) {
    writers_.push_back(std::move(writer));
  }
}

// ---- from the core ----

Peers::Peer* Peers::find(SessionId session) {
  if (last_found_ != nullptr && last_found_->connection.id() == session.value) return last_found_;
  const auto found = peers_.find(session.value);
  if (found == peers_.end()) return nullptr;
  return last_found_ = found->second.get();
}

template <typename Said>
void Peers::say_one(const Said& said) {
  if constexpr (requires { said.bytes; }) unconfirmed_bytes_ -= said.bytes;
  Peer* const peer = find(session_of(said));
  if (peer == nullptr || !peer->connection.is_open()) return;
  peer->session->answered(said);
  if constexpr (std::is_same_v<Said, Delivery>) {
    peer->room_left -= std::min<std::size_t>(peer->room_left, room_of(said.entry.stored_bytes()));
  }
  Connection& connection = peer->connection;
  connection.count_frames_out(context_.encoder.append(said, connection.output()));
  wants_attention(*peer);
}

void Peers::say(const std::vector<Effect>& said) {
  for (const Effect& effect : said) {
    std::visit([this](const auto& one) { say_one(one); }, effect);
  }
}

// ---- the end of a turn ----

bool Peers::attend(Now now) {
  frames_left_ = kFramesInRound;
  if (starved_) wake_starved();
  if (has_put_off_) go_on_with_put_off();
  if (input_is_scarce()) relieve_input(now);
  serve_line(now);
  if (attention_.empty()) return !line_.empty();
  // Looking at one may put others, or itself, on the list again: those are for the next call.
  std::vector<Peer*> attended;
  attended.swap(attention_);
  for (Peer* peer : attended) {
    peer->wants_a_look = false;
    attend_one(*peer, now);
  }
  while (output_bytes_ > limits_.output_bytes_total_max) close_longest_output(now);
  if (attention_.empty()) {
    attended.clear();
    attention_.swap(attended);  // keeps its memory
  }
  return true;
}

// Each goes on with its request, or to the end of the line.
void Peers::serve_line(Now now) {
  for (std::size_t left = line_.size(); left > 0 && labors_left_ > 0; --left) {
    Peer& peer = *line_.front();
    line_.pop_front();
    peer.is_in_line = false;
    attend_one(peer, now);
  }
}

void Peers::attend_one(Peer& peer, Now now) {
  Connection& connection = peer.connection;
  if (connection.state() == Connection::State::kClosed) return;
  connection.flush(now);
  if (!connection.is_open()) end_session(peer, now);
  if (connection.state() == Connection::State::kLost) {
    close(peer);
    return;
  }
  update_sums(peer);
  if (connection.is_open()) {
    update_room(peer, now);
    if (!connection.reading()) {
      if (may_read(peer)) {
        tell_unread(peer, false, now);
        connection.resume(now);
      } else if (sums_hold(peer)) {
        starved_ = true;
      }
    }
    tell_unread(peer, !connection.reading(), now);
  }
  schedule(peer);
}

std::size_t Peers::output_high() const {
  const bool crowded = output_bytes_ > limits_.output_bytes_total_max / 2;
  return crowded ? std::min(limits_.output_bytes_high, kCrowdedOutputBytes)
                 : limits_.output_bytes_high;
}

// In between, what it was told at the low mark goes on: a slow peer is not topped up message by
// message. There is room for twice the mark, because the socket takes much at once: with room for
// the mark alone a drain of 16 KiB messages took a fourth longer.
void Peers::update_room(Peer& peer, Now now) {
  const std::size_t high = output_high();
  const std::size_t low = std::min(limits_.output_bytes_low, high / 2);
  if (peer.output_bytes <= low) {
    peer.writable = true;
  } else if (peer.output_bytes > high || peer.room_left == 0) {
    peer.writable = false;  // what is not delivered to is not read, either
  } else {
    return;
  }
  tell_room(peer, peer.writable ? 2 * high - peer.output_bytes : 0, now);
}

void Peers::tell_room(Peer& peer, std::size_t room, Now now) {
  const bool is_known = room == peer.room_told && room == peer.room_left;
  if (is_known || !peer.in_core) return;
  peer.room_told = peer.room_left = room;
  context_.core.session_room(peer.session->id(), room, now);
}

// One with much output waiting is not spared: it would keep its messages by not reading.
void Peers::tell_unread(Peer& peer, bool unread, Now now) {
  unread = unread && takes_output(peer);
  if (unread == peer.unread_told || !peer.in_core) return;
  peer.unread_told = unread;
  context_.core.session_unread(peer.session->id(), unread, now);
}

void Peers::update_sums(Peer& peer) {
  const bool closed = peer.connection.state() == Connection::State::kClosed;
  const std::size_t output = closed ? 0 : peer.connection.output_bytes();
  const std::size_t input = closed ? 0 : peer.connection.input_bytes();
  output_bytes_ += output - peer.output_bytes;
  input_bytes_ += input - peer.input_bytes;
  const bool unconfirmed = !closed && peer.session && peer.session->unconfirmed_bytes() > 0;
  unconfirmed_ += unconfirmed;
  unconfirmed_ -= peer.is_unconfirmed;
  peer.output_bytes = output;
  peer.input_bytes = input;
  peer.is_unconfirmed = unconfirmed;
}

bool Peers::takes_output(const Peer& peer) const {
  return peer.writable && peer.connection.output_bytes() <= output_high();
}

bool Peers::may_read(const Peer& peer) const {
  const std::uint64_t unconfirmed = peer.session->unconfirmed_bytes();
  return takes_output(peer) && !peer.is_in_line && !peer.is_put_off &&
         !peer.session->waits_for_much() && unconfirmed < context_.options.unconfirmed_bytes_max &&
         (unconfirmed == 0 || unconfirmed_bytes_ <= limits_.unconfirmed_bytes_total_max);
}

// Whether what all peers have together may be why this one is not read.
bool Peers::sums_hold(const Peer& peer) const {
  const bool waits_for_others = peer.session->unconfirmed_bytes() > 0 &&
                                unconfirmed_bytes_ > limits_.unconfirmed_bytes_total_max;
  return waits_for_others || output_bytes_ > limits_.output_bytes_total_max / 2;
}

// Those who wait for their own answers or for their own output are looked at when these move; those
// who wait because of the sums are not.
void Peers::wake_starved() {
  if (unconfirmed_bytes_ > limits_.unconfirmed_bytes_total_max / 2 ||
      output_bytes_ > limits_.output_bytes_total_max / 2) {
    return;
  }
  starved_ = false;
  for (const auto& [id, peer] : peers_) {
    if (peer->connection.is_open() && !peer->connection.reading()) wants_attention(*peer);
  }
}

// They wait for nothing but that, and nothing of their own would let them go on.
void Peers::go_on_with_put_off() {
  if (context_.core.answers_bytes() > limits_.answers_bytes_total_max / 2) return;
  has_put_off_ = false;
  for (const auto& [id, peer] : peers_) {
    if (std::exchange(peer->is_put_off, false)) wants_attention(*peer);
  }
}

void Peers::close_longest_output(Now now) {
  const auto longest = std::ranges::max_element(
      peers_, {}, [](const auto& entry) { return entry.second->output_bytes; });
  Peer& peer = *longest->second;
  peer.connection.abandon(Status(
      ErrorCode::kSlowReader,
      fmt::format("{} bytes wait to be sent to it, the most of all, and {} bytes to all peers "
                  "together; the limit is {}.",
                  peer.output_bytes, output_bytes_, limits_.output_bytes_total_max)));
  attend_one(peer, now);
}

void Peers::relieve_input(Now now) {
  for (const auto& [id, peer] : peers_) {
    peer->connection.fit_input();
    update_sums(*peer);
  }
  while (input_is_scarce()) close_largest_input(now);
}

void Peers::close_largest_input(Now now) {
  const auto largest = std::ranges::max_element(
      peers_, {}, [](const auto& entry) { return entry.second->input_bytes; });
  Peer& peer = *largest->second;
  end_with_error(peer,
                 Status(ErrorCode::kLimitReached,
                        fmt::format("The broker holds {} bytes of frames that are only partly "
                                    "received, its limit is {}, and this connection has the most "
                                    "of them, {}: connect again later.",
                                    input_bytes_, limits_.input_bytes_total_max, peer.input_bytes)),
                 now);
  update_sums(peer);
}

// The core forgets the session as soon as its connection is no longer open.
void Peers::end_session(Peer& peer, Now now) {
  if (std::exchange(peer.ended, true)) return;
  if (peer.in_core) context_.core.session_closed(peer.session->id(), now);
  peer.in_core = false;
  const Status& reason = peer.connection.end_reason();
  if (!reason.ok()) {
    log_.peer(now.monotonic, "Connection {} from {} ({}) ends: {}", peer.connection.id(),
              peer.connection.peer(), quoted(peer.session->client_name()), reason.to_string());
  }
}

void Peers::end_with_error(Peer& peer, const Status& error, Now now) {
  Connection& connection = peer.connection;
  if (!connection.is_open()) return;
  connection.count_frames_out(context_.encoder.append_error(0, error, true, connection.output()));
  connection.end_with(error, now);
}

void Peers::close(Peer& peer) {
  if (peer.is_scheduled) schedule_.erase(peer.scheduled);
  peer.is_scheduled = false;
  if (std::exchange(peer.is_in_line, false)) std::erase(line_, &peer);
  peer.connection.close();
  update_sums(peer);
}

// ---- by the clock ----

void Peers::schedule(Peer& peer) {
  const MonotonicTime at = peer.connection.next_deadline();
  // One that was put off is looked at when it would have been due.
  if (peer.is_scheduled && peer.scheduled->first <= at) return;
  if (peer.is_scheduled) schedule_.erase(peer.scheduled);
  peer.scheduled = schedule_.emplace(at, &peer);
  peer.is_scheduled = true;
}

void Peers::begin_turn(Now now) {
  ++turn_;
  labors_left_ = kLaborsInTurn;
  std::vector<Peer*> doubted;
  while (!schedule_.empty() && schedule_.begin()->first <= now.monotonic) {
    Peer& peer = *schedule_.begin()->second;
    schedule_.erase(schedule_.begin());
    peer.is_scheduled = false;
    const Due due = peer.connection.check_deadlines(now.monotonic);
    if (blames_the_peer(due) && std::exchange(peer.overdue_in, turn_) + 1 != turn_) {
      doubted.push_back(&peer);
      continue;
    }
    act_on_deadline(peer, due, now);
    // Whoever has something to do now is scheduled again by attend_one().
    if (!peer.wants_a_look) schedule(peer);
  }
  for (Peer* peer : doubted) schedule(*peer);
}

std::optional<MonotonicTime> Peers::next_deadline() const {
  if (schedule_.empty()) return std::nullopt;
  return schedule_.begin()->first;
}

void Peers::act_on_deadline(Peer& peer, Due due, Now now) {
  Connection& connection = peer.connection;
  const auto missed = [&](std::string message) {
    end_with_error(peer, Status(ErrorCode::kDeadlineExceeded, std::move(message)), now);
  };
  switch (due) {
    case Due::kNothing:
      break;
    case Due::kHeartbeat:
      connection.output().append_empty(wire::FrameType_Ping, 0);
      connection.count_frames_out(1);
      wants_attention(peer);
      break;
    case Due::kHandshakeMissed:
      missed(fmt::format("No Hello came within {} ms of connecting.",
                         deadline_options_.handshake.count()));
      break;
    case Due::kFrameUnfinished:
      missed(
          fmt::format("Of a frame that was begun neither the end nor {} KiB more came within {} "
                      "ms.",
                      kFrameStepBytes / 1024, deadline_options_.frame.count()));
      break;
    case Due::kPeerSilent:
      missed(fmt::format("Nothing was received for {} ms, {} heartbeat intervals.",
                         kHeartbeatsMissedMax * peer.session->heartbeat().count(),
                         kHeartbeatsMissedMax));
      break;
    case Due::kPeerNotReading:
      connection.abandon(
          Status(ErrorCode::kSlowReader,
                 fmt::format("It read nothing for {} ms while {} bytes waited to be sent.",
                             deadline_options_.stall.count(), connection.output_bytes())));
      break;
    case Due::kLingerOver:
      connection.abandon(Status());
      break;
  }
}

// ---- the end ----

void Peers::append_goodbye(Peer& peer, Now now) {
  const auto left =
      std::max(Milliseconds(0),
               std::chrono::duration_cast<Milliseconds>(*goodbye_deadline_ - now.monotonic));
  const Status reason(ErrorCode::kDraining,
                      "The broker is stopping: settle or give back what is held, and connect again "
                      "later.");
  peer.connection.count_frames_out(
      context_.encoder.append_goodbye(reason, left, peer.connection.output()));
  wants_attention(peer);
}

void Peers::say_goodbye(MonotonicTime deadline, Now now) {
  goodbye_deadline_ = deadline;
  for (const auto& [id, peer] : peers_) {
    if (peer->in_core && peer->connection.is_open()) append_goodbye(*peer, now);
  }
}

void Peers::close_all(Now now) {
  for (const auto& [id, peer] : peers_) {
    end_session(*peer, now);
    close(*peer);
  }
}

std::size_t Peers::append_list(std::uint64_t correlation, std::uint64_t from, FrameWriter& out,
                               Now now) {
  std::uint32_t count = 0;
  std::uint64_t next = 0;
  for (auto id = ids_.lower_bound(from); id != ids_.end(); ++id) {
    const Peer& peer = *peers_.at(*id);
    if (!peer.in_core) continue;
    if (count == kListPage) {
      next = *id;
      break;
    }
    append_info(peer, correlation, out, now);
    ++count;
  }
  auto& builder = context_.encoder.begin();
  context_.encoder.finish(wire::FrameType_ListEnd, correlation,
                          wire::CreateListEnd(builder, count, next), out);
  return count + 1;
}

void Peers::append_info(const Peer& peer, std::uint64_t correlation, FrameWriter& out,
                        Now now) const {
  const Connection& connection = peer.connection;
  auto& builder = context_.encoder.begin();
  const auto address = builder.CreateString(connection.peer());
  const auto name = builder.CreateString(peer.session->client_name());
  const auto connected = now.monotonic - connection.opened_at();
  context_.encoder.finish(
      wire::FrameType_ConnectionInfo, correlation,
      wire::CreateConnectionInfo(
          builder, connection.id(), address, name, static_cast<std::uint64_t>(connected.count()),
          connection.frames_in(), connection.frames_out(), connection.bytes_in(),
          connection.bytes_out(), connection.output_bytes(), peer.session->unconfirmed_bytes(),
          connection.reading()),
      out);
}

}  // namespace holdfast::broker
