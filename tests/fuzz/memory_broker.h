// A broker without sockets and files: sessions, the core and a store in memory. Bytes go in, frames
// come out; commits, reads and time go on as they are told to.

#pragma once

#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "net/session.h"
#include "support/memory_store.h"

namespace holdfast::fuzz {

class MemoryBroker : public broker::BrokerFacts {
 public:
  MemoryBroker();

  // Hears every frame that is said to a session, in order. An unreadable one is a violation.
  std::function<void(SessionId, const Frame&)> on_frame;
  // Hears of every batch that became durable.
  std::function<void(const broker::Batch&)> on_durable;

  // ---- sessions ----
  SessionId open_session();
  bool is_open(SessionId session) const { return sessions_.contains(session); }
  // As many frames as the bytes hold. A broken conversation ends the session.
  void receive(SessionId session, ByteSpan bytes);
  void close_session(SessionId session);
  void set_session_room(SessionId session, std::uint64_t bytes);

  // ---- disk and time ----
  // Each returns whether there was something to do.
  bool commit_step();
  bool read_step();
  // Until there is nothing to do; false if it never ends.
  bool settle_down();
  void pass(Milliseconds duration);
  // All at once, as it is for a broker that was held up.
  void jump(Milliseconds duration);
  // Loses what is not durable, and all sessions.
  void crash();
  void set_room(bool publishes_allowed);

  broker::MemoryStore& store() { return store_; }
  broker::Core& core() { return *core_; }
  Now now() const { return now_; }

 private:
  struct Peer {
    Peer(broker::SessionContext& context, SessionId id) : session(context, id, "fuzz") {}
    broker::Session session;
    FrameReader reader{kFrameBytesMax};
  };

  void start();
  bool waits(const Peer& peer) const;
  void handle(Peer& peer, const Frame& frame);
  void take_effects();
  void say(SessionId session, FrameWriter& out);
  std::size_t append_status(std::uint64_t correlation, FrameWriter& out, Now now) override;
  std::size_t append_connections(std::uint64_t correlation, std::uint64_t from, FrameWriter& out,
                                 Now now) override;

  broker::MemoryStore store_;
  Now now_;
  broker::SessionOptions options_;
  broker::ReplyEncoder encoder_;
  std::unique_ptr<broker::Core> core_;
  std::unique_ptr<broker::SessionContext> context_;
  std::map<SessionId, std::unique_ptr<Peer>> sessions_;
  std::uint64_t last_session_ = 0;
  std::unique_ptr<broker::Batch> batch_;
  std::optional<broker::CommitResult> applied_;  // what the batch under way became
  std::deque<broker::FetchRequest> fetches_;
  std::deque<broker::IdsRequest> ids_requests_;
};

}  // namespace holdfast::fuzz
