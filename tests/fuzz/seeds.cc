// seeds: writes inputs to begin with into DIR/TARGET/, one directory for each fuzz target.
//
//   seeds DIR
//
// They are made by the schema's builders and the store's encoder, so that they follow what the
// formats become.

#include <fmt/format.h>

#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

#include "core/block.h"
#include "schema/frame.h"
#include "store/record.h"

namespace holdfast::fuzz {
namespace {

using namespace holdfast::broker;  // NOLINT(google-build-using-namespace)
using Bytes = std::vector<std::uint8_t>;

class Corpus {
 public:
  Corpus(const std::filesystem::path& parent, const std::string& target) : path_(parent / target) {
    std::filesystem::create_directories(path_);
  }
  void add(const Bytes& prefix, ByteSpan bytes) {
    std::ofstream file(path_ / fmt::format("seed-{:03}", ++count_), std::ios::binary);
    file.write(reinterpret_cast<const char*>(prefix.data()),
               static_cast<std::streamsize>(prefix.size()));
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
  }

 private:
  std::filesystem::path path_;
  int count_ = 0;
};

struct Body {
  wire::FrameType type;
  Bytes bytes;
};

class Bodies {
 public:
  Bodies() {
    add_handshake();
    add_consuming();
    add_queues();
    add_lists();
    add_messages();
  }
  const std::vector<Body>& all() const { return all_; }
  const Bytes& message() const { return message_; }
  const Bytes& provenance() const { return provenance_; }

 private:
  template <typename Offset>
  Bytes finish(Offset offset) {
    builder_.Finish(offset);
    const Bytes bytes(builder_.GetBufferPointer(),
                      builder_.GetBufferPointer() + builder_.GetSize());
    builder_.Clear();
    return bytes;
  }
  template <typename Offset>
  void add(wire::FrameType type, Offset offset) {
    all_.push_back({type, finish(offset)});
  }
  auto text(const char* words) { return builder_.CreateString(words); }
  auto ranges() {
    return builder_.CreateVectorOfStructs(
        std::vector<wire::SequenceRange>{{1, 1}, {3, 9}, {100, 163}});
  }
  auto settings() {
    return builder_.CreateVectorOfStructs(
        std::vector<wire::SettingValue>{{1, 0, 0, 30'000}, {2, 0, 0, 3}, {5, 0, 0, 600'000}});
  }

  void add_handshake() {
    add(wire::FrameType_Hello, wire::CreateHello(builder_, 1, 1, text("fuzz"), 10'000));
    add(wire::FrameType_Welcome, wire::CreateWelcome(builder_, 1, text("0.1.0"), text("node")));
    add(wire::FrameType_Goodbye, wire::CreateGoodbye(builder_, 7, text("It drains."), 4'000));
    add(wire::FrameType_Error, wire::CreateError(builder_, 7, true, text("No such queue."), false));
    add(wire::FrameType_Confirm, wire::CreateConfirm(builder_, 12, 3, false));
    for (const auto type : {wire::FrameType_Ping, wire::FrameType_Status, wire::FrameType_Ok,
                            wire::FrameType_ConnectionList}) {
      all_.push_back({type, {}});
    }
  }
  void add_consuming() {
    add(wire::FrameType_Subscribe,
        wire::CreateSubscribe(builder_, text("a"), text("default"), text("me"), 10, 4'096, 1'000));
    add(wire::FrameType_Subscribed, wire::CreateSubscribed(builder_, 1, 1, 30'000));
    add(wire::FrameType_Unsubscribe, wire::CreateUnsubscribe(builder_, 1));
    add(wire::FrameType_Credit, wire::CreateCredit(builder_, 1, 5, 0));
    for (const auto kind : {wire::SettleKind_Ack, wire::SettleKind_Nack, wire::SettleKind_Reject,
                            wire::SettleKind_Release}) {
      const auto offset = ranges();
      const auto reason = text("because");
      add(wire::FrameType_Settle, wire::CreateSettle(builder_, 1, kind, offset, reason));
    }
    auto offset = ranges();
    add(wire::FrameType_Settled, wire::CreateSettled(builder_, 5, 1, offset));
    offset = ranges();
    add(wire::FrameType_Extend, wire::CreateExtend(builder_, 1, offset, 1'000));
    offset = ranges();
    add(wire::FrameType_Extended, wire::CreateExtended(builder_, 5, offset));
    offset = ranges();
    add(wire::FrameType_LeaseLost, wire::CreateLeaseLost(builder_, 1, 2, offset));
    add(wire::FrameType_ConsumerEnded, wire::CreateConsumerEnded(builder_, 1, 9, text("Gone.")));
  }
  void add_queues() {
    add(wire::FrameType_QueueOpen, wire::CreateQueueOpen(builder_, text("a")));
    add(wire::FrameType_QueueDelete, wire::CreateQueueDelete(builder_, text("a")));
    add(wire::FrameType_QueuePurge, wire::CreateQueuePurge(builder_, text("a")));
    add(wire::FrameType_QueueList, wire::CreateQueueList(builder_, false, 7));
    auto name = text("b");
    add(wire::FrameType_QueueCreate, wire::CreateQueueCreate(builder_, name, settings(), true));
    name = text("a");
    add(wire::FrameType_QueueEdit, wire::CreateQueueEdit(builder_, name, settings()));
    name = text("a");
    add(wire::FrameType_QueueInfo, wire::CreateQueueInfo(builder_, 1, name, settings()));
    add(wire::FrameType_Peek, wire::CreatePeek(builder_, text("a"), 1, 100));
    for (const bool all : {false, true}) {
      name = text("a");
      auto sequences = builder_.CreateVector(std::vector<std::uint64_t>{1, 2, 5});
      if (all) sequences = builder_.CreateVector(std::vector<std::uint64_t>{});
      const std::uint32_t limit = all ? 100 : 0;
      add(wire::FrameType_Redrive,
          wire::CreateRedrive(builder_, name, sequences, all, 0, limit, false));
      name = text("a");
      sequences = builder_.CreateVector(std::vector<std::uint64_t>{7});
      add(wire::FrameType_Discard,
          wire::CreateDiscard(builder_, name, sequences, false, 0, 0, true));
    }
    add(wire::FrameType_Moved, wire::CreateMoved(builder_, 3, 1, 1, 0, 9, 0, text("")));
    add(wire::FrameType_Attempts, wire::CreateAttempts(builder_, text("a"), 1));
    const auto consumer = text("worker");
    const auto attempts = builder_.CreateVectorOfStructs(
        std::vector{wire::Attempt(1, 2, 1, wire::Cause_Nacked, 0, 0)});
    const auto consumers = builder_.CreateVectorOfStrings({"worker"});
    const auto errors = builder_.CreateVectorOfStrings({"no route"});
    add(wire::FrameType_AttemptsInfo,
        wire::CreateAttemptsInfo(builder_, 1, wire::MessageState_Waiting, 1, consumer, 3, attempts,
                                 consumers, errors));
  }
  void add_lists() {
    add(wire::FrameType_ListEnd, wire::CreateListEnd(builder_, 3, 9));
    add(wire::FrameType_StatusInfo, wire::CreateStatusInfo(builder_, text("0.1.0"), text("node")));
    add(wire::FrameType_ConsumerList, wire::CreateConsumerList(builder_, text("a"), 7));
    add(wire::FrameType_ConsumerInfo, wire::CreateConsumerInfo(builder_, 1, 2, text("a")));
    add(wire::FrameType_ConnectionInfo, wire::CreateConnectionInfo(builder_, 1, text("peer")));
  }

  Bytes make_message(std::size_t body_bytes, std::size_t headers) {
    std::vector<std::string> words;
    for (std::size_t i = 0; i < 2 * headers; ++i) words.push_back(fmt::format("word-{}", i));
    const auto header_offset = builder_.CreateVectorOfStrings(words);
    const auto id = text("order-1");
    const auto body = builder_.CreateVector(Bytes(body_bytes, 'x'));
    return finish(wire::CreateMessage(builder_, id, body, header_offset));
  }

  void add_messages() {
    message_ = make_message(20, 2);
    const std::vector<wire::Attempt> attempts{{1, 2, 1, 2, 0, 0}, {3, 4, 2, 1, 0, 0}};
    const auto source = text("a");
    const auto error = text("It failed.");
    const auto attempt_offset = builder_.CreateVectorOfStructs(attempts);
    const auto names = builder_.CreateVectorOfStrings({"one", "two"});
    wire::ProvenanceBuilder table(builder_);
    table.add_source(source);
    table.add_error(error);
    table.add_attempts(attempt_offset);
    table.add_consumers(names);
    table.add_errors(names);
    provenance_ = finish(table.Finish());
    for (const std::size_t size : {0u, 20u, 100'000u}) add_envelopes(make_message(size, size % 70));
    // As many strings as there is room for.
    add_envelopes(make_message(10, 20'000));
  }

  void add_envelopes(const Bytes& message) {
    const wire::PublishEnvelope publish(1, 0, checksum(message));
    Bytes body(sizeof(publish));
    std::memcpy(body.data(), &publish, sizeof(publish));
    body.insert(body.end(), message.begin(), message.end());
    all_.push_back({wire::FrameType_Publish, body});
    FrameWriter out;
    out.append_deliver(
        wire::FrameType_Deliver, 1,
        wire::DeliverEnvelope(1, 1, checksum(message), 1, checksum(provenance_),
                              static_cast<std::uint32_t>(message.size()),
                              static_cast<std::uint32_t>(provenance_.size()), 1, 1'000, 1, 0, 0, 0),
        message, provenance_);
    FrameReader reader(kFrameBytesMax);
    std::memcpy(reader.prepare(out.size()).data(), out.data(), out.size());
    reader.commit(out.size());
    const Result<std::optional<Frame>> frame = reader.next();
    all_.push_back({wire::FrameType_Deliver, Bytes((*frame)->body.begin(), (*frame)->body.end())});
  }

  flatbuffers::FlatBufferBuilder builder_;
  std::vector<Body> all_;
  Bytes message_;
  Bytes provenance_;
};

void write_frames(const std::filesystem::path& parent, const Bodies& bodies) {
  Corpus headers(parent, "frame_header_fuzz");
  Corpus types(parent, "frame_types_fuzz");
  for (const Body& body : bodies.all()) {
    FrameWriter out;
    out.append(body.type, 7, body.bytes);
    if (out.size() < 8'000) headers.add({7}, {out.data(), out.size()});
    types.add({static_cast<std::uint8_t>(body.type), 1}, body.bytes);
  }
}

void write_records(const std::filesystem::path& parent, const Bodies& bodies) {
  Corpus corpus(parent, "records_fuzz");
  const auto add = [&](std::uint8_t sort, ByteSpan key, ByteSpan value) {
    Bytes prefix{sort, 1, static_cast<std::uint8_t>(key.size())};
    prefix.insert(prefix.end(), key.begin(), key.end());
    // Sealed anew by the target.
    corpus.add(prefix, value.first(value.size() - sizeof(std::uint64_t)));
  };
  RecordEncoder encoder;
  const ByteSpan node = meta_key(NodeRecord::kName);
  add(0, node, encoder.encode(node, NodeRecord{.format = 1, .node_id = "0123456789abcdef"}));
  const ByteSpan progress = meta_key(ProgressRecord::kName);
  add(1, progress,
      encoder.encode(progress, ProgressRecord{.batch_number = 12, .next_id = 9, .owners_sum = 7}));
  QueueRecord queue;
  queue.id = QueueId(1);
  queue.name = "a";
  add(2, queue_key(queue.id), encoder.encode(queue_key(queue.id), queue));
  SubscriptionRecord subscription;
  subscription.id = SubscriptionId(2);
  subscription.name = "default";
  add(3, subscription_key(subscription.id),
      encoder.encode(subscription_key(subscription.id), subscription));
  AckRecord ack;
  add(4, ack_key(ack.subscription, 0), encoder.encode(ack_key(ack.subscription, 0), ack));
  ack.full_chunks = 3;
  add(4, ack_key(ack.subscription, 0), encoder.encode(ack_key(ack.subscription, 0), ack));
  RetryRecord retry;
  retry.history = {{.number = 1, .consumer = "me", .error = "It failed."}};
  add(5, retry_key(retry.subscription, 3), encoder.encode(retry_key(retry.subscription, 3), retry));
  const DedupRecord dedup{QueueId(1), 12, 1, {{1, 2}, {3, 4}}};
  add(6, dedup_key(dedup.queue, 12, 1),
      encoder.encode(dedup_key(dedup.queue, 12, 1), dedup.hashes));
  for (const Sequence gap : {1u, 5u}) {
    BlockBuilder builder{QueueId(1)};
    for (Sequence sequence = 1; sequence < 1 + 3 * gap; sequence += gap) {
      builder.append(sequence, from_unix_ms(1'700'000'000'000), checksum(bodies.message()),
                     bodies.message(), sequence > 1 ? ByteSpan(bodies.provenance()) : ByteSpan());
    }
    corpus.add({7, 1, 0, 0, 0}, builder.finish()->bytes());
  }
}

// Choices by chance: what they mean is the target's affair.
void write_choices(const std::filesystem::path& parent) {
  std::mt19937_64 engine(1);
  for (const char* target : {"split_reads_fuzz", "conversation_fuzz"}) {
    Corpus corpus(parent, target);
    for (std::size_t size = 16; size <= 2'048; size = size * 3 / 2) {
      Bytes bytes(size);
      for (std::uint8_t& byte : bytes) byte = static_cast<std::uint8_t>(engine());
      corpus.add({}, bytes);
    }
  }
}

}  // namespace
}  // namespace holdfast::fuzz

int main(int argc, char** argv) {
  if (argc != 2) {
    fmt::print(stderr, "usage: seeds DIR\n");
    return 64;
  }
  const holdfast::fuzz::Bodies bodies;
  holdfast::fuzz::write_frames(argv[1], bodies);
  holdfast::fuzz::write_records(argv[1], bodies);
  holdfast::fuzz::write_choices(argv[1]);
  return 0;
}
