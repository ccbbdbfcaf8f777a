// A conversation: valid frames in any order from several sessions, over queues that come and go,
// with commits, reads, time, crashes and damage between them; and what an onlooker who sees the
// frames and what became durable may expect. In the end everything is drained.
//
// The checks, by the promises that they are about:
//   lost     what is durable is delivered until it is acked, or someone asked to purge, discard or
//            delete (I1)
//   bytes    nothing is delivered that was not published, byte for byte; a damaged message is a
//   dead
//            letter that says so (I2, I9)
//   final    what was answered as acked does not come again (I3)
//   early    a confirm names a message that is durable, and that is the one published (I4)
//   dedup    one id is confirmed as new once for each queue (I5)
//   answers  every request is answered, and nothing else is
//   drain    in the end the store is empty (I11)
//
// Smaller than the model of the simulation (tests/sim/model.h): that one is told each request
// before the core, as the core will take it; here frames may be refused on their way, and name
// consumers that are somebody else's or nobody's.

#pragma once

#include <map>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "fuzz/fuzz.h"
#include "fuzz/memory_broker.h"

namespace holdfast::fuzz {

class Conversation {
 public:
  Conversation();
  // One step, as the input says.
  void step(Input& input);
  void drain();

 private:
  struct Published {
    std::string id;
    bool acked = false;
    // Damaged, or in a queue that was purged, deleted, discarded, or acked without an answer.
    bool may_be_gone = false;
  };
  struct Asked {
    wire::FrameType type = wire::FrameType_None;
    std::uint64_t publish = 0;  // checksum
    QueueId queue;
    ConsumerId consumer;
    std::vector<wire::SequenceRange> ranges;  // of a settle
    bool acks = false;
  };
  struct Client {
    SessionId session;
    std::map<std::uint64_t, Asked> asked;  // by correlation
    std::uint64_t last_correlation = 0;
  };
  struct Consumer {
    QueueId queue;
    std::set<Sequence> held;
  };
  using Place = std::pair<QueueId, Sequence>;

  // ---- conversation.cc: what is said ----
  void send_frame(Input& input, Client& client);
  void send_publish(Input& input, Client& client);
  void send_settle(Input& input, Client& client);
  void send_about_queue(Input& input, Client& client);
  void send_about_consumer(Input& input, Client& client);
  void send_stray(Input& input, Client& client);
  void send(Client& client, wire::FrameType type, Asked asked);
  void hello(Client& client);
  void subscribe(Client& client, const std::string& queue, std::uint32_t credit);
  void world_step(Input& input);
  void damage(Input& input);
  Client& some_client(Input& input) { return clients_[input.below(clients_.size())]; }
  ConsumerId some_consumer(Input& input);

  // ---- onlooker.cc: what is seen ----
  void see(SessionId session, const Frame& frame);
  void see_durable(const broker::Batch& batch);
  void see_confirm(Client& client, const Frame& frame);
  void see_delivery(Client& client, const Frame& frame);
  void see_settled(Client& client, const Frame& frame);
  void see_subscribed(Client& client, const Frame& frame);
  void see_lease_lost(const Frame& frame);
  Asked answered(Client& client, std::uint64_t correlation, bool last = true);
  void expect_vanishing(const std::string& queue);
  void expect_all_vanishing_in(QueueId queue);
  void forget_requests(Client& client);
  void forget(Client& client);
  void forget_sessions();
  void check_drained();

  MemoryBroker broker_;
  std::vector<Client> clients_;
  flatbuffers::FlatBufferBuilder builder_;
  std::uint64_t last_body_ = 0;
  std::unordered_map<std::uint64_t, Published> published_;  // by checksum of the message
  std::set<std::uint64_t> not_durable_;                     // of those, as far as is known
  std::map<Place, std::uint64_t> durable_;                  // checksum
  std::set<Place> ended_;
  std::map<std::pair<QueueId, std::string>, Sequence> confirmed_new_;
  std::map<ConsumerId, Consumer> consumers_;  // of this run of the broker
  std::map<std::string, std::set<QueueId>> queues_;
  std::map<QueueId, std::string> names_;
};

}  // namespace holdfast::fuzz
