#include "fuzz/wire_tables.h"

#include <fmt/format.h>

namespace holdfast::fuzz {

namespace {

// Adds up what a table's fields hold, by the kind of the field.
class Sum {
 public:
  std::uint64_t value() const { return value_; }

  void add(const flatbuffers::String* text) {
    for (const char c : view(text)) value_ += static_cast<unsigned char>(c);
    // The byte behind it, that C strings end with.
    if (text != nullptr) value_ += static_cast<unsigned char>(text->c_str()[text->size()]);
  }
  template <typename Element>
  void add(const flatbuffers::Vector<Element>* elements) {
    if (elements == nullptr) return;
    for (flatbuffers::uoffset_t i = 0; i < elements->size(); ++i) add(elements->Get(i));
  }
  void add(const wire::SequenceRange* range) { value_ += range->first() + range->last(); }
  void add(const wire::SettingValue* setting) { value_ += setting->setting() + setting->value(); }
  void add(const wire::Attempt* attempt) {
    value_ += attempt->number() + attempt->cause() + attempt->ended_at();
  }
  template <typename Number>
  requires std::is_arithmetic_v<Number>
  void add(Number number) { value_ += number != Number{} ? 1 : 0; }

 private:
  std::uint64_t value_ = 0;
};

template <typename... Fields>
std::uint64_t sum_of(Fields... fields) {
  Sum sum;
  (sum.add(fields), ...);
  return sum.value();
}

std::uint64_t fields(const wire::Hello& t) { return sum_of(t.client_name(), t.version_max()); }
std::uint64_t fields(const wire::Welcome& t) { return sum_of(t.broker_version(), t.node_id()); }
std::uint64_t fields(const wire::Goodbye& t) { return sum_of(t.message(), t.deadline_ms()); }
std::uint64_t fields(const wire::Error& t) { return sum_of(t.message(), t.code(), t.fatal()); }
std::uint64_t fields(const wire::Confirm& t) { return sum_of(t.sequence(), t.count()); }
std::uint64_t fields(const wire::Subscribe& t) {
  return sum_of(t.queue(), t.subscription(), t.consumer_name(), t.credit_bytes());
}
std::uint64_t fields(const wire::Subscribed& t) { return sum_of(t.consumer(), t.lease_ms()); }
std::uint64_t fields(const wire::Unsubscribe& t) { return sum_of(t.consumer()); }
std::uint64_t fields(const wire::Credit& t) { return sum_of(t.consumer(), t.credit_bytes()); }
std::uint64_t fields(const wire::Settle& t) { return sum_of(t.ranges(), t.reason(), t.delay_ms()); }
std::uint64_t fields(const wire::Settled& t) { return sum_of(t.refused(), t.settled()); }
std::uint64_t fields(const wire::Extend& t) { return sum_of(t.ranges(), t.lease_ms()); }
std::uint64_t fields(const wire::Extended& t) { return sum_of(t.refused(), t.extended()); }
std::uint64_t fields(const wire::LeaseLost& t) { return sum_of(t.ranges(), t.cause()); }
std::uint64_t fields(const wire::ConsumerEnded& t) { return sum_of(t.message(), t.code()); }
std::uint64_t fields(const wire::QueueOpen& t) { return sum_of(t.name()); }
std::uint64_t fields(const wire::QueueCreate& t) { return sum_of(t.name(), t.settings()); }
std::uint64_t fields(const wire::QueueEdit& t) { return sum_of(t.name(), t.settings()); }
std::uint64_t fields(const wire::QueueDelete& t) { return sum_of(t.name()); }
std::uint64_t fields(const wire::QueuePurge& t) { return sum_of(t.name()); }
std::uint64_t fields(const wire::QueueList& t) { return sum_of(t.dead_only(), t.from()); }
std::uint64_t fields(const wire::QueueInfo& t) {
  return sum_of(t.name(), t.settings(), t.dead_queue(), t.source_queue(), t.publish_rate());
}
std::uint64_t fields(const wire::Peek& t) { return sum_of(t.queue(), t.from()); }
std::uint64_t fields(const wire::ListEnd& t) { return sum_of(t.count(), t.next()); }
std::uint64_t fields(const wire::Redrive& t) { return sum_of(t.queue(), t.sequences(), t.from()); }
std::uint64_t fields(const wire::Discard& t) { return sum_of(t.queue(), t.sequences(), t.from()); }
std::uint64_t fields(const wire::Moved& t) { return sum_of(t.refused_message(), t.moved()); }
std::uint64_t fields(const wire::Attempts& t) { return sum_of(t.queue(), t.sequence()); }
std::uint64_t fields(const wire::AttemptsInfo& t) {
  return sum_of(t.consumer(), t.attempts(), t.consumers(), t.errors());
}
std::uint64_t fields(const wire::StatusInfo& t) {
  return sum_of(t.broker_version(), t.node_id(), t.data_directory(), t.publish_rate());
}
std::uint64_t fields(const wire::ConsumerList& t) { return sum_of(t.queue(), t.from()); }
std::uint64_t fields(const wire::ConsumerInfo& t) {
  return sum_of(t.queue(), t.subscription(), t.name(), t.acked());
}
std::uint64_t fields(const wire::ConnectionInfo& t) { return sum_of(t.peer(), t.client_name()); }

}  // namespace

std::uint64_t touch(const wire::Message& message) {
  return sum_of(message.id(), message.body(), message.headers(), message.key(),
                message.deliver_at(), message.expires_at());
}

std::uint64_t touch(const wire::Provenance& provenance) {
  return sum_of(provenance.source(), provenance.subscription(), provenance.error(),
                provenance.attempts(), provenance.consumers(), provenance.errors());
}

std::uint64_t touch(wire::FrameType type, ByteSpan body) {
  std::uint64_t sum = 0;
  with_table_of(type, [&]<typename Table>(const Table*) {
    const Table* const table = read_table<Table>(body);
    if (table != nullptr) sum = fields(*table);
  });
  return sum;
}

Status check_readable(const Frame& frame) {
  bool readable = false;
  switch (frame.type) {
    case wire::FrameType_Ping:
    case wire::FrameType_Pong:
    case wire::FrameType_Ok:
      readable = frame.body.empty();
      break;
    case wire::FrameType_Deliver:
    case wire::FrameType_PeekItem:
      return read_deliver(frame).status();
    default:
      with_table_of(frame.type, [&]<typename Table>(const Table*) {
        readable = read_table<Table>(frame.body) != nullptr;
      });
  }
  if (readable) return Status();
  return Status(ErrorCode::kFrameMalformed,
                fmt::format("A {} frame is malformed.", wire::EnumNameFrameType(frame.type)));
}

}  // namespace holdfast::fuzz
