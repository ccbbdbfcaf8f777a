// All peers of the broker: every connection with its session, and what bounds them together.
//
// Happy path: accept() makes a peer; its frames become requests to the core; say() appends what the
// core answers to the connections concerned; attend(), at the end of a turn, sends once per
// connection and lets those read on that were held back.
//
// What bounds memory, for one peer and for the sum over all:
// - output: below a low mark the core is told how much may be delivered until the next time: up to
//   twice a high mark. Above that mark, or when as much was delivered, the peer is not read until
//   it is below the low one. If it takes nothing for the stall deadline it is closed.
// - published and not answered: a peer above its bound is not read until confirms have left. The
//   sum counts what peers have left behind that have gone.
// - answers that wait for a commit: a peer for which many wait is not read. Beyond the sum, which
//   counts those for peers that have gone, whoever asks for what may have to wait is put off.
// - parts of frames received: their deadline ends them. Beyond the sum each reads little in a turn,
//   and those with the most are closed.
// - long answers: a few laborious requests are dealt with in a turn; who asks for more waits in
//   line, and is not read meanwhile. So does who has named many sequences, afterwards.
// - answers not yet appended: of all frames together so many are dealt with before attend(), so
//   that a flood is answered in pieces, and what the pieces leave behind is bounded as above.
//
// Of a peer that is left unread though little output waits the core is told: its leases last.
//
// Belongs to the loop's thread.

#pragma once

#include <uv.h>

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <unordered_map>
#include <vector>

#include "core/core.h"
#include "net/connection.h"
#include "net/deadlines.h"
#include "net/log.h"
#include "net/session.h"

namespace holdfast::broker {

struct PeerLimits {
  std::size_t connections_max = 10'000;
  // So many more are taken through the unix socket, for whoever looks after the broker.
  std::size_t unix_connections_more = 8;
  // One over that is told why, so many at a time; more are closed at once, which the log tells.
  std::size_t refused_max = 24;
  std::size_t output_bytes_high = 1u << 20;
  std::size_t output_bytes_low = 256u << 10;
  // Over all peers. From half of it on a peer with more than kCrowdedOutputBytes counts as above
  // its high mark; beyond it the peer with the most output is closed.
  std::size_t output_bytes_total_max = 256u << 20;
  // Over all peers: beyond it whoever has published waits for the answer, and beyond twice as much
  // the core refuses what others publish.
  std::uint64_t unconfirmed_bytes_total_max = 256u << 20;
  // Over all peers, as the core counts answers that wait: beyond it no request is taken up of which
  // the answer may have to wait as well.
  std::uint64_t answers_bytes_total_max = 256u << 20;
  // Over all peers, of their buffers: beyond it the one with the largest part of a frame is closed.
  std::size_t input_bytes_total_max = 256u << 20;
};

class Peers {
 public:
  // All outlive the object; `context` is completed by its owner.
  Peers(uv_loop_t& loop, Log& log, SessionContext& context, const PeerLimits& limits,
        const ConnectionOptions& connection_options, const DeadlineOptions& deadline_options);
  // close_all() was called and empty() is true.
  ~Peers();
  Peers(const Peers&) = delete;
  Peers& operator=(const Peers&) = delete;

  // Takes the connection that waits at `listener`. One over the cap is told so and closed.
  void accept(const Listener& listener, uv_stream_t& server);
  // Appends what was said to the connections that are still open.
  void say(const std::vector<Effect>& said);
  // Looks at every peer about which something changed. False if there was none.
  bool attend(Now now);
  // Begins a turn: does what the clock asks for.
  void begin_turn(Now now);
  std::optional<MonotonicTime> next_deadline() const;

  // Says Goodbye to all, and to whoever still completes a handshake. They have until `deadline`.
  void say_goodbye(MonotonicTime deadline, Now now);
  // Ends every session and closes every connection at once.
  void close_all(Now now);

  // Connections open or being closed.
  bool empty() const { return peers_.empty(); }
  // Connections served, those ending included, those over the cap not.
  std::size_t count() const { return serving_; }
  // Turned away since the start, because connections_max were served.
  std::uint64_t turned_away() const { return turned_away_; }
  // Not yet taken by the operating system, as of the last attend().
  std::size_t output_bytes() const { return output_bytes_; }
  // Peers that have published and not been answered, as of the last attend().
  std::size_t unconfirmed() const { return unconfirmed_; }
  // A page of them from a connection id on; the answer tells whether to go on.
  std::size_t append_list(std::uint64_t correlation, std::uint64_t from, FrameWriter& out, Now now);

  static constexpr std::size_t kCrowdedOutputBytes = 64u << 10;

 private:
  class Peer;
  using Schedule = std::multimap<MonotonicTime, Peer*>;

  FrameVerdict on_frame(Peer& peer, const Frame& frame, Now now);
  void on_closed(Peer& peer);
  void wants_attention(Peer& peer);
  FrameWriter take_writer();
  void give_writer(FrameWriter writer, std::size_t used_bytes);

  template <typename Said>
  void say_one(const Said& said);
  Peer* find(SessionId session);

  // Whether it may be dealt with now; if not, the peer stands in line.
  bool take_labor(Peer& peer);
  void put_off(Peer& peer);
  void go_on_with_put_off();
  void serve_line(Now now);
  void attend_one(Peer& peer, Now now);
  void update_room(Peer& peer, Now now);
  void tell_room(Peer& peer, std::size_t room, Now now);
  void tell_unread(Peer& peer, bool unread, Now now);
  void update_sums(Peer& peer);
  void end_session(Peer& peer, Now now);
  void end_with_error(Peer& peer, const Status& error, Now now);
  void close(Peer& peer);
  bool takes_output(const Peer& peer) const;
  bool may_read(const Peer& peer) const;
  bool sums_hold(const Peer& peer) const;
  std::size_t output_high() const;
  void wake_starved();
  void close_longest_output(Now now);
  bool input_is_scarce() const { return input_bytes_ > limits_.input_bytes_total_max; }
  void relieve_input(Now now);
  void close_largest_input(Now now);
  void append_goodbye(Peer& peer, Now now);
  void append_info(const Peer& peer, std::uint64_t correlation, FrameWriter& out, Now now) const;
  void schedule(Peer& peer);
  void act_on_deadline(Peer& peer, Due due, Now now);

  uv_loop_t& loop_;
  Log& log_;
  SessionContext& context_;
  const PeerLimits& limits_;
  const ConnectionOptions& connection_options_;
  const DeadlineOptions& deadline_options_;

  std::unordered_map<std::uint64_t, std::unique_ptr<Peer>> peers_;  // by connection id
  std::set<std::uint64_t> ids_;                                     // theirs
  Schedule schedule_;
  std::vector<Peer*> attention_;
  std::deque<Peer*> line_;            // of those that wait to have a laborious request dealt with
  int labors_left_ = 0;               // in this turn
  int frames_left_ = 0;               // until the next attend()
  std::vector<FrameWriter> writers_;  // with memory, unused
  Peer* last_found_ = nullptr;
  std::uint64_t next_id_ = 1;
  std::uint64_t turn_ = 0;
  std::size_t serving_ = 0;
  std::size_t refused_ = 0;  // over the cap, not yet closed
  std::uint64_t turned_away_ = 0;
  std::size_t output_bytes_ = 0;
  std::size_t input_bytes_ = 0;
  std::uint64_t unconfirmed_bytes_ = 0;  // of those that have gone as well
  std::size_t unconfirmed_ = 0;          // peers that have some
  bool starved_ = false;      // some peer waits because of what was published or is to be sent
  bool has_put_off_ = false;  // some peer is put off
  std::optional<MonotonicTime> goodbye_deadline_;
};

}  // namespace holdfast::broker
