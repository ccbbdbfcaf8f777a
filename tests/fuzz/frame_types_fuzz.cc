// Frame types: a body of any type and any bytes, as a session of the broker takes it, and as a
// client would read it.
//
// An input is a type, a byte of choices, and the body. A Publish is given the checksum that its
// message has, half of the time; one that has another must not be stored.

#include <vector>

#include "fuzz/fuzz.h"
#include "fuzz/memory_broker.h"
#include "fuzz/wire_tables.h"

namespace holdfast::fuzz {
namespace {

// Frames that tables say nothing of.
void read_as_a_client(const Frame& frame) {
  touch(frame.type, frame.body);
  if (frame.type != wire::FrameType_Deliver && frame.type != wire::FrameType_PeekItem) return;
  const Result<DeliverFrame> deliver = read_deliver(frame);
  if (!deliver.ok()) return;
  if (checksum(deliver->message_bytes) != deliver->envelope.message_checksum()) {
    violation("bytes: a delivery is read whose message does not match its checksum");
  }
  touch(*deliver->message);
  if (deliver->provenance != nullptr) touch(*deliver->provenance);
}

// A broker with a queue, a message in it, and one that consumes.
class Scene {
 public:
  Scene() {
    broker_.on_durable = [this](const broker::Batch& batch) {
      for (const auto& block : batch.blocks) {
        for (std::size_t i = 0; i < block->entry_count(); ++i) look_at(block->entry(i));
      }
    };
    session_ = broker_.open_session();
    flatbuffers::FlatBufferBuilder builder;
    builder.Finish(wire::CreateHello(builder, 1, 1, builder.CreateString("fuzz")));
    send(wire::FrameType_Hello, builder);
    builder.Clear();
    builder.Finish(wire::CreateQueueCreate(builder, builder.CreateString("a")));
    send(wire::FrameType_QueueCreate, builder);
    settle();
    builder.Clear();
    builder.Finish(wire::CreateSubscribe(builder, builder.CreateString("a"), 0, 0, 8));
    send(wire::FrameType_Subscribe, builder);
    settle();
  }

  void receive(wire::FrameType type, ByteSpan body) {
    FrameWriter out;
    if (type == wire::FrameType_Publish && body.size() >= sizeof(wire::PublishEnvelope)) {
      const auto* envelope = reinterpret_cast<const wire::PublishEnvelope*>(body.data());
      out.append_publish(7, *envelope, body.subspan(sizeof(wire::PublishEnvelope)));
    } else if ((type == wire::FrameType_Deliver || type == wire::FrameType_PeekItem) &&
               body.size() >= sizeof(wire::DeliverEnvelope)) {
      const auto* envelope = reinterpret_cast<const wire::DeliverEnvelope*>(body.data());
      out.append_deliver(type, 7, *envelope, body.subspan(sizeof(wire::DeliverEnvelope)), {});
    } else {
      out.append(type, 7, body);
    }
    broker_.receive(session_, {out.data(), out.size()});
    settle();
  }

 private:
  void send(wire::FrameType type, const flatbuffers::FlatBufferBuilder& builder) {
    receive(type, {builder.GetBufferPointer(), builder.GetSize()});
    if (!broker_.is_open(session_)) violation("scene: a plain request ended the session");
  }
  void settle() {
    if (!broker_.settle_down()) violation("answers: the broker does not come to rest");
  }
  void look_at(const broker::BlockEntry& entry) {
    if (checksum(entry.message) != entry.message_checksum) {
      violation("bytes: a message is stored that does not match its checksum");
    }
    if (read_message(entry.message) == nullptr) violation("bytes: what is stored is no message");
  }

  MemoryBroker broker_;
  SessionId session_;
};

}  // namespace
}  // namespace holdfast::fuzz

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace holdfast::fuzz;  // NOLINT(google-build-using-namespace)
  const TimeBound bound(size);
  Input input(data, size);
  const auto type = static_cast<holdfast::wire::FrameType>(input.number());
  const bool put_right = input.once_in(2);
  AlignedCopy body(input.rest());
  const std::size_t envelope = sizeof(holdfast::wire::PublishEnvelope);
  if (put_right && type == holdfast::wire::FrameType_Publish && body.span().size() >= envelope) {
    // Of the first queue, which is the scene's.
    const holdfast::wire::PublishEnvelope sealed(1, 0,
                                                 holdfast::checksum(body.span().subspan(envelope)));
    std::memcpy(body.data(), &sealed, sizeof(sealed));
  }
  const holdfast::Frame frame{type, 7, body.span()};
  read_as_a_client(frame);
  Scene().receive(type, body.span());
  return 0;
}
