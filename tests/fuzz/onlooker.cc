// What the onlooker of a conversation makes of the frames that the broker says.

#include "fuzz/conversation.h"

namespace holdfast::fuzz {

namespace {

template <typename Table>
const Table& table_of(const Frame& frame) {
  return *read_table<Table>(frame.body);  // verified by the memory broker
}

}  // namespace

void Conversation::see(SessionId session, const Frame& frame) {
  Client* client = nullptr;
  for (Client& one : clients_) {
    if (one.session == session) client = &one;
  }
  if (client == nullptr) violation("answers: a frame for a session that is nobody's");
  switch (frame.type) {
    case wire::FrameType_Confirm:
      return see_confirm(*client, frame);
    case wire::FrameType_Deliver:
      return see_delivery(*client, frame);
    case wire::FrameType_Settled:
      return see_settled(*client, frame);
    case wire::FrameType_Subscribed:
      return see_subscribed(*client, frame);
    case wire::FrameType_LeaseLost:
      return see_lease_lost(frame);
    case wire::FrameType_ConsumerEnded:
      consumers_.erase(ConsumerId(table_of<wire::ConsumerEnded>(frame).consumer()));
      return;
    case wire::FrameType_QueueInfo: {
      const auto& info = table_of<wire::QueueInfo>(frame);
      const auto type = answered(*client, frame.correlation, false).type;
      names_[QueueId(info.queue())] = info.name()->str();
      queues_[info.name()->str()].insert(QueueId(info.queue()));
      if (type != wire::FrameType_QueueList) answered(*client, frame.correlation);
      return;
    }
    case wire::FrameType_PeekItem:
    case wire::FrameType_ConsumerInfo:
      answered(*client, frame.correlation, false);
      return;
    case wire::FrameType_Error:
      if (table_of<wire::Error>(frame).fatal()) {
        forget_requests(*client);
        return;
      }
      answered(*client, frame.correlation);
      return;
    case wire::FrameType_Pong:
    case wire::FrameType_Goodbye:
      return;
    default:
      answered(*client, frame.correlation);
  }
}

Conversation::Asked Conversation::answered(Client& client, std::uint64_t correlation, bool last) {
  const auto found = client.asked.find(correlation);
  if (found == client.asked.end()) {
    violation(fmt::format("answers: an answer to request {}, which nobody waits for", correlation));
  }
  Asked asked = found->second;
  if (last) client.asked.erase(found);
  return asked;
}

void Conversation::see_durable(const broker::Batch& batch) {
  for (const broker::QueueRecord& queue : batch.queues) {
    names_[queue.id] = queue.name;
    queues_[queue.name].insert(queue.id);
  }
  for (const QueueId queue : batch.queues_removed) names_.erase(queue);
  for (const auto& block : batch.blocks) {
    for (std::size_t i = 0; i < block->entry_count(); ++i) {
      const broker::BlockEntry entry = block->entry(i);
      const std::uint64_t sum = checksum(entry.message);
      not_durable_.erase(sum);
      const auto [at, is_new] = durable_.emplace(Place(block->queue(), entry.sequence), sum);
      if (!is_new && at->second != sum) violation("bytes: a stored message became another");
      if (ended_.contains(at->first)) violation("final: a message is stored after its end");
    }
  }
}

void Conversation::see_confirm(Client& client, const Frame& frame) {
  const auto& confirm = table_of<wire::Confirm>(frame);
  for (std::uint32_t i = 0; i < confirm.count(); ++i) {
    const Asked asked = answered(client, frame.correlation + i);
    if (asked.type != wire::FrameType_Publish) violation("answers: a confirm of no publish");
    const Sequence sequence = confirm.sequence() + i;
    const std::string& id = published_.at(asked.publish).id;
    const auto stored = durable_.find({asked.queue, sequence});
    if (stored == durable_.end()) {
      violation(fmt::format("early: '{}' is confirmed as {} and is not stored", id, sequence));
    }
    const auto first = published_.find(stored->second);
    if (confirm.duplicate()) {
      if (first == published_.end() || first->second.id != id) {
        violation(fmt::format("dedup: '{}' is called a duplicate of another message", id));
      }
      continue;
    }
    if (stored->second != asked.publish) {
      violation(fmt::format("early: '{}' is confirmed as {}, which is another", id, sequence));
    }
    if (!names_[asked.queue].ends_with(".dead") &&
        !confirmed_new_.emplace(std::pair(asked.queue, id), sequence).second) {
      violation(fmt::format("dedup: '{}' is confirmed as new twice", id));
    }
  }
}

void Conversation::see_delivery(Client&, const Frame& frame) {
  const Result<DeliverFrame> deliver = read_deliver(frame);
  const wire::DeliverEnvelope& envelope = deliver->envelope;
  const Place place(QueueId(envelope.queue()), envelope.sequence());
  const std::string what =
      fmt::format("message {} of queue {}", envelope.sequence(), envelope.queue());
  const auto stored = durable_.find(place);
  if (stored == durable_.end()) violation("early: " + what + " is delivered and is not stored");
  const std::uint64_t sum = checksum(deliver->message_bytes);
  if (stored->second != sum) violation("bytes: " + what + " is delivered with other bytes");
  const bool set_aside =
      deliver->provenance != nullptr && deliver->provenance->reason() == wire::Cause_Corrupt;
  if (!set_aside && !published_.contains(sum)) violation("bytes: nobody published " + what);
  if (ended_.contains(place)) violation("final: " + what + " is delivered after its end");
  if (envelope.attempt() == 0) violation("attempts: " + what + " comes as attempt 0");
  const auto consumer = consumers_.find(ConsumerId(envelope.consumer()));
  if (consumer == consumers_.end() || consumer->second.queue != place.first) {
    violation("answers: " + what + " goes to no consumer of that queue");
  }
  consumer->second.held.insert(envelope.sequence());
}

void Conversation::see_settled(Client& client, const Frame& frame) {
  const Asked asked = answered(client, frame.correlation);
  if (asked.type != wire::FrameType_Settle) violation("answers: a settled of no settle");
  const auto& settled = table_of<wire::Settled>(frame);
  const auto refused = [&](Sequence sequence) {
    if (settled.refused() == nullptr) return false;
    for (const wire::SequenceRange* range : *settled.refused()) {
      if (sequence >= range->first() && sequence <= range->last()) return true;
    }
    return false;
  };
  const auto consumer = consumers_.find(asked.consumer);
  for (const wire::SequenceRange& range : asked.ranges) {
    for (Sequence sequence = range.first(); sequence <= range.last(); ++sequence) {
      if (consumer != consumers_.end()) consumer->second.held.erase(sequence);
      if (!asked.acks) continue;
      const auto stored = durable_.find({asked.queue, sequence});
      if (refused(sequence) || stored == durable_.end()) continue;
      ended_.insert(stored->first);
      const auto message = published_.find(stored->second);
      if (message != published_.end()) message->second.acked = true;
    }
  }
}

void Conversation::see_subscribed(Client& client, const Frame& frame) {
  answered(client, frame.correlation);
  const auto& subscribed = table_of<wire::Subscribed>(frame);
  consumers_[ConsumerId(subscribed.consumer())].queue = QueueId(subscribed.queue());
}

void Conversation::see_lease_lost(const Frame& frame) {
  const auto& lost = table_of<wire::LeaseLost>(frame);
  const auto consumer = consumers_.find(ConsumerId(lost.consumer()));
  if (consumer == consumers_.end() || lost.ranges() == nullptr) return;
  for (const wire::SequenceRange* range : *lost.ranges()) {
    for (Sequence sequence = range->first(); sequence <= range->last(); ++sequence) {
      consumer->second.held.erase(sequence);
    }
  }
}

// Someone asks that what is in this queue go away; of a queue, also what is in its dead-letter
// queue.
void Conversation::expect_vanishing(const std::string& queue) {
  for (const std::string& name : {queue, queue + ".dead"}) {
    const auto known = queues_.find(name);
    if (known == queues_.end()) continue;
    for (const QueueId id : known->second) expect_all_vanishing_in(id);
  }
  // What is not durable yet may go as well.
  for (const std::uint64_t sum : not_durable_) published_.at(sum).may_be_gone = true;
}

void Conversation::expect_all_vanishing_in(QueueId queue) {
  for (auto at = durable_.lower_bound({queue, 0}); at != durable_.end() && at->first.first == queue;
       ++at) {
    const auto message = published_.find(at->second);
    if (message != published_.end()) message->second.may_be_gone = true;
  }
}

// Of an ack that is not answered any more nobody knows whether it was done.
void Conversation::forget_requests(Client& client) {
  for (const auto& [correlation, asked] : client.asked) {
    if (!asked.acks) continue;
    for (const wire::SequenceRange& range : asked.ranges) {
      for (Sequence sequence = range.first(); sequence <= range.last(); ++sequence) {
        const auto stored = durable_.find({asked.queue, sequence});
        if (stored == durable_.end()) continue;
        const auto message = published_.find(stored->second);
        if (message != published_.end()) message->second.may_be_gone = true;
      }
    }
  }
  client.asked.clear();
}

void Conversation::forget(Client& client) {
  forget_requests(client);
  client = Client();
}

void Conversation::forget_sessions() {
  consumers_.clear();
  for (Client& client : clients_) forget(client);
}

void Conversation::check_drained() {
  for (const auto& [place, sum] : durable_) {
    const auto message = published_.find(sum);
    if (message == published_.end() || message->second.acked || message->second.may_be_gone) {
      continue;
    }
    violation(fmt::format("lost: '{}', message {} of queue {}, is durable and does not come",
                          message->second.id, place.second, place.first.value));
  }
  if (broker_.store().block_count() + broker_.store().retry_count() > 0) {
    violation(fmt::format("drain: {} blocks and {} retries are left", broker_.store().block_count(),
                          broker_.store().retry_count()));
  }
}

}  // namespace holdfast::fuzz
