#include "fuzz/conversation.h"

#include <algorithm>
#include <array>

namespace holdfast::fuzz {

namespace {

constexpr std::size_t kClients = 3;
constexpr std::array<const char*, 6> kQueues{"a", "b", "a.dead", "b.dead", "nowhere", ""};
constexpr std::size_t kIds = 24;
// Correlations of frames that may have no answer.
constexpr std::uint64_t kStrays = std::uint64_t{1} << 40;
// All time that may pass is less than a day, the dedup window of the queues.
constexpr std::int64_t kPassMsMax = 5'000;

std::vector<wire::SettingValue> settings_of(Input& input) {
  std::vector<wire::SettingValue> settings;
  // The dedup window stays as it is, so that an id is new once.
  settings.emplace_back(static_cast<std::uint16_t>(QueueSetting::kDedupWindow), 0, 0, 86'400'000);
  if (input.once_in(2)) {
    settings.emplace_back(static_cast<std::uint16_t>(QueueSetting::kMaxAttempts), 0, 0,
                          input.below(4));
  }
  if (input.once_in(4)) {
    settings.emplace_back(static_cast<std::uint16_t>(QueueSetting::kOutstandingMax), 0, 0,
                          1 + input.below(8));
  }
  if (input.once_in(4)) {
    settings.emplace_back(static_cast<std::uint16_t>(QueueSetting::kMaxMessages), 0, 0,
                          1 + input.below(32));
  }
  // Of a number that is none, or twice the same.
  if (input.once_in(16)) settings.emplace_back(static_cast<std::uint16_t>(input.number()), 0, 0, 1);
  return settings;
}

}  // namespace

Conversation::Conversation() : clients_(kClients) {
  broker_.on_frame = [this](SessionId session, const Frame& frame) { see(session, frame); };
  broker_.on_durable = [this](const broker::Batch& batch) { see_durable(batch); };
}

void Conversation::step(Input& input) {
  if (input.below(4) == 0) return world_step(input);
  Client& client = some_client(input);
  if (!broker_.is_open(client.session)) {
    forget(client);
    client.session = broker_.open_session();
    if (!input.once_in(16)) hello(client);  // else something else comes first
    return;
  }
  send_frame(input, client);
}

void Conversation::world_step(Input& input) {
  switch (input.below(16)) {
    case 0:
      broker_.crash();
      return forget_sessions();
    case 1:
      broker_.close_session(some_client(input).session);
      return;
    case 2:
      return broker_.set_session_room(some_client(input).session,
                                      input.once_in(2) ? ~std::uint64_t{0} : input.number());
    case 3:
      return broker_.set_room(!input.once_in(4));
    case 4:
    case 5:
      return broker_.pass(Milliseconds(input.number<std::uint16_t>() % kPassMsMax));
    case 6:
      return damage(input);
    case 7:
    case 8:
    case 9:
      broker_.read_step();
      return;
    case 10:
      if (!broker_.settle_down()) violation("answers: the broker does not come to rest");
      return;
    default:
      broker_.commit_step();
  }
}

// A bit of a stored message flips, where no block in memory holds it any more the broker sees it.
void Conversation::damage(Input& input) {
  if (durable_.empty()) return;
  auto place = durable_.begin();
  std::advance(place, static_cast<std::ptrdiff_t>(input.number<std::uint16_t>() % durable_.size()));
  const auto [queue, sequence] = place->first;
  const broker::FetchResult found =
      broker_.store().fetch({FetchId(1), queue, sequence, sequence, 1});
  if (found.blocks.empty()) return;
  const std::optional<std::size_t> index = found.blocks.front()->find(sequence);
  if (!index || found.blocks.front()->is_corrupt(*index)) return;
  const auto message = published_.find(place->second);
  if (message == published_.end()) return;
  message->second.may_be_gone = true;
  broker_.store().flip_bit_in_message(queue, sequence);
}

// ---- frames ----

void Conversation::send_frame(Input& input, Client& client) {
  switch (input.below(8)) {
    case 0:
    case 1:
    case 2:
      return send_publish(input, client);
    case 3:
    case 4:
      return send_settle(input, client);
    case 5:
      return send_about_queue(input, client);
    case 6:
      return send_about_consumer(input, client);
    default:
      return send_stray(input, client);
  }
}

// What is in the builder, as a request that has its answer.
void Conversation::send(Client& client, wire::FrameType type, Asked asked) {
  asked.type = type;
  const std::uint64_t correlation = ++client.last_correlation;
  client.asked.emplace(correlation, std::move(asked));
  FrameWriter out;
  const bool has_body = type != wire::FrameType_Status && type != wire::FrameType_ConnectionList;
  out.append(type, correlation,
             has_body ? ByteSpan(builder_.GetBufferPointer(), builder_.GetSize()) : ByteSpan());
  builder_.Clear();
  broker_.receive(client.session, {out.data(), out.size()});
}

void Conversation::hello(Client& client) {
  builder_.Clear();
  builder_.Finish(wire::CreateHello(builder_, 1, 1, builder_.CreateString("someone")));
  send(client, wire::FrameType_Hello, {});
}

void Conversation::send_publish(Input& input, Client& client) {
  const std::string id = fmt::format("id-{}", input.below(kIds));
  // A number of its own makes the bytes those of this publish alone.
  std::string body = fmt::format("{}:", ++last_body_);
  body.resize(body.size() + (input.once_in(8) ? input.number<std::uint16_t>() : input.number()));
  flatbuffers::FlatBufferBuilder message;
  const auto id_offset = message.CreateString(id);
  const auto body_offset =
      message.CreateVector(reinterpret_cast<const std::uint8_t*>(body.data()), body.size());
  message.Finish(wire::CreateMessage(message, id_offset, body_offset));
  const ByteSpan bytes(message.GetBufferPointer(), message.GetSize());
  // A queue that is known, or some number.
  QueueId queue(1 + static_cast<std::uint32_t>(input.below(16)));
  if (!names_.empty() && !input.once_in(8)) {
    queue =
        std::next(names_.begin(), static_cast<std::ptrdiff_t>(input.below(names_.size())))->first;
  }
  const std::uint64_t sum = checksum(bytes);
  published_.emplace(sum, Published{.id = id});
  not_durable_.insert(sum);
  const std::uint64_t correlation = ++client.last_correlation;
  client.asked[correlation] = {
      .type = wire::FrameType_Publish, .publish = sum, .queue = queue, .consumer = {}, .acks = {}};
  FrameWriter out;
  out.append_publish(correlation, wire::PublishEnvelope(queue.value, 0, sum), bytes);
  broker_.receive(client.session, {out.data(), out.size()});
}

ConsumerId Conversation::some_consumer(Input& input) {
  if (consumers_.empty() || input.once_in(16)) return ConsumerId(input.number());
  return std::next(consumers_.begin(), static_cast<std::ptrdiff_t>(input.below(consumers_.size())))
      ->first;
}

void Conversation::send_settle(Input& input, Client& client) {
  const ConsumerId consumer = some_consumer(input);
  const auto known = consumers_.find(consumer);
  const auto kind =
      static_cast<std::uint8_t>(input.once_in(32) ? input.number() : 1 + input.below(4));
  std::vector<wire::SequenceRange> ranges;
  if (known != consumers_.end() && !input.once_in(8)) {
    for (const Sequence sequence : known->second.held) {
      if (input.below(4) > 0) ranges.emplace_back(sequence, sequence);
    }
  } else {
    const Sequence first = input.below(64);
    ranges.emplace_back(first, first + input.below(8));
  }
  builder_.Clear();
  const auto offset = builder_.CreateVectorOfStructs(ranges);
  if (input.once_in(8)) {
    const std::uint32_t lease_ms = input.once_in(2) ? 1'000 : 0;
    builder_.Finish(wire::CreateExtend(builder_, consumer.value, offset, lease_ms));
    return send(client, wire::FrameType_Extend, {});
  }
  const auto reason = builder_.CreateString("because");
  const std::int64_t delay =
      kind == wire::SettleKind_Nack && input.once_in(2) ? input.number() : -1;
  builder_.Finish(wire::CreateSettle(builder_, consumer.value, kind, offset, reason, delay));
  Asked asked;
  asked.consumer = consumer;
  if (known != consumers_.end()) {
    asked.queue = known->second.queue;
    asked.ranges = ranges;
    asked.acks = kind == wire::SettleKind_Ack;
  }
  send(client, wire::FrameType_Settle, std::move(asked));
}

void Conversation::subscribe(Client& client, const std::string& queue, std::uint32_t credit) {
  builder_.Clear();
  const auto name = builder_.CreateString(queue);
  builder_.Finish(wire::CreateSubscribe(builder_, name, 0, 0, credit, 0, 0));
  send(client, wire::FrameType_Subscribe, {});
}

void Conversation::send_about_queue(Input& input, Client& client) {
  const std::string queue = kQueues[input.below(kQueues.size())];
  const std::size_t choice = input.below(12);
  builder_.Clear();
  const auto name = builder_.CreateString(queue);
  if (choice < 3) {
    const auto settings = builder_.CreateVectorOfStructs(settings_of(input));
    builder_.Finish(wire::CreateQueueCreate(builder_, name, settings, input.once_in(2)));
    return send(client, wire::FrameType_QueueCreate, {});
  }
  switch (choice) {
    case 3: {
      const auto settings = builder_.CreateVectorOfStructs(settings_of(input));
      builder_.Finish(wire::CreateQueueEdit(builder_, name, settings));
      return send(client, wire::FrameType_QueueEdit, {});
    }
    case 4:
      if (!input.once_in(4)) break;
      expect_vanishing(queue);
      builder_.Finish(wire::CreateQueueDelete(builder_, name));
      return send(client, wire::FrameType_QueueDelete, {});
    case 5:
      if (!input.once_in(2)) break;
      expect_vanishing(queue);
      builder_.Finish(wire::CreateQueuePurge(builder_, name));
      return send(client, wire::FrameType_QueuePurge, {});
    case 6:
      if (input.once_in(2)) {
        builder_.Finish(wire::CreateAttempts(builder_, name, input.below(16)));
        return send(client, wire::FrameType_Attempts, {});
      }
      builder_.Finish(wire::CreatePeek(builder_, name, input.below(16), 1 + input.number()));
      return send(client, wire::FrameType_Peek, {});
    case 7:
    case 8: {
      const bool all = input.once_in(2);
      std::vector<std::uint64_t> numbers;
      for (std::size_t i = input.below(4); i > 0 && !all; --i) numbers.push_back(input.below(32));
      const auto sequences = builder_.CreateVector(numbers);
      const std::uint32_t limit = all ? static_cast<std::uint32_t>(input.number()) : 0;
      if (choice == 7) {
        builder_.Finish(wire::CreateRedrive(builder_, name, sequences, all, 0, limit));
        return send(client, wire::FrameType_Redrive, {});
      }
      expect_vanishing(queue);
      builder_.Finish(wire::CreateDiscard(builder_, name, sequences, all, 0, limit));
      return send(client, wire::FrameType_Discard, {});
    }
    case 9:
      builder_.Finish(wire::CreateQueueList(builder_, input.once_in(2),
                                            static_cast<std::uint32_t>(input.number())));
      return send(client, wire::FrameType_QueueList, {});
    default:
      break;
  }
  builder_.Finish(wire::CreateQueueOpen(builder_, name));
  send(client, wire::FrameType_QueueOpen, {});
}

void Conversation::send_about_consumer(Input& input, Client& client) {
  switch (input.below(8)) {
    case 0:
      builder_.Finish(wire::CreateUnsubscribe(builder_, some_consumer(input).value));
      return send(client, wire::FrameType_Unsubscribe, {});
    case 1: {
      const ConsumerId consumer = some_consumer(input);
      builder_.Finish(wire::CreateCredit(builder_, consumer.value, input.number(), input.number()));
      return send(client, wire::FrameType_Credit, {});
    }
    case 2: {
      const auto name = builder_.CreateString(kQueues[input.below(kQueues.size())]);
      builder_.Finish(wire::CreateConsumerList(builder_, name, input.number()));
      return send(client, wire::FrameType_ConsumerList, {});
    }
    default: {
      // Most want to consume what there is.
      const std::size_t queue = input.below(input.once_in(8) ? kQueues.size() : 4);
      return subscribe(client, kQueues[queue], static_cast<std::uint32_t>(input.below(20)));
    }
  }
}

// What ends a conversation, what has no answer, and what is asked in passing.
void Conversation::send_stray(Input& input, Client& client) {
  const std::size_t choice = input.below(16);
  if (choice < 2) return send(client, wire::FrameType_Status, {});
  if (choice < 4) return send(client, wire::FrameType_ConnectionList, {});
  if (choice > 5) return;
  FrameWriter out;
  if (choice == 4) {
    out.append_empty(wire::FrameType_Ping, 0);
  } else {
    // Without a body nearly every type is malformed or a violation; the others are answered.
    const std::uint64_t correlation = kStrays + client.asked.size();
    out.append_empty(static_cast<wire::FrameType>(input.number()), correlation);
    client.asked[correlation].type = wire::FrameType_Ping;
  }
  broker_.receive(client.session, {out.data(), out.size()});
}

// ---- the end ----

void Conversation::drain() {
  broker_.set_room(true);
  if (!broker_.settle_down()) violation("answers: the broker does not come to rest");
  for (Client& client : clients_) {
    if (broker_.is_open(client.session) && !client.asked.empty() &&
        std::any_of(client.asked.begin(), client.asked.end(),
                    [](const auto& entry) { return entry.first < kStrays; })) {
      violation(fmt::format("answers: request {} of type {} was never answered",
                            client.asked.rbegin()->first,
                            wire::EnumNameFrameType(client.asked.rbegin()->second.type)));
    }
    broker_.close_session(client.session);
  }
  forget_sessions();
  Client& client = clients_.front();
  client.session = broker_.open_session();
  hello(client);
  for (const auto& [name, ids] : queues_) subscribe(client, name, 200);
  // Longer than every lease, wait and backoff with at most a few attempts.
  constexpr int kRoundsMax = 400;
  for (int round = 0; round < kRoundsMax; ++round) {
    if (!broker_.settle_down()) violation("answers: the broker does not come to rest");
    bool acked = false;
    for (auto& [id, consumer] : consumers_) {
      if (consumer.held.empty()) continue;
      acked = true;
      std::vector<wire::SequenceRange> ranges;
      for (const Sequence sequence : consumer.held) ranges.emplace_back(sequence, sequence);
      builder_.Clear();
      const auto offset = builder_.CreateVectorOfStructs(ranges);
      builder_.Finish(wire::CreateSettle(builder_, id.value, wire::SettleKind_Ack, offset));
      Asked asked;
      asked.consumer = id;
      asked.queue = consumer.queue;
      asked.ranges = ranges;
      asked.acks = true;
      send(client, wire::FrameType_Settle, std::move(asked));
    }
    if (acked) continue;
    if (broker_.store().block_count() == 0) break;
    broker_.jump(Milliseconds(30'000));
  }
  check_drained();
}

}  // namespace holdfast::fuzz
