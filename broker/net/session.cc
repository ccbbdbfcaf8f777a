#include "net/session.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "base/check.h"
#include "holdfast/text.h"
#include "schema/field_limits.h"

namespace holdfast::broker {

namespace {

// A settle or extension of more is not followed by the next frame at once.
constexpr std::uint64_t kSequencesAtOnceMax = 4'096;

Status malformed(const Frame& frame) {
  return Status(ErrorCode::kFrameMalformed,
                fmt::format("The body of a {} frame of {} bytes is not well-formed.",
                            wire::EnumNameFrameType(frame.type), frame.body.size()));
}

Status invalid(std::string message) {
  return Status(ErrorCode::kInvalidArgument, std::move(message));
}

// Names that the core compares or keeps: bounded here, their form is the core's business.
Status check_name(std::string_view what, std::string_view name) {
  if (name.size() <= kNameBytesMax && is_valid_utf8(name)) return Status();
  return Status(ErrorCode::kNameInvalid,
                fmt::format("The {} {} has {} bytes; a name is UTF-8 of at most {} bytes.", what,
                            quoted(name), name.size(), kNameBytesMax));
}

Status check_message_id(std::string_view id) {
  if (!id.empty() && id.size() <= kMessageIdBytesMax && is_valid_utf8(id)) return Status();
  return Status(ErrorCode::kMessageIdInvalid,
                fmt::format("The message id {} has {} bytes; an id is UTF-8 of 1 to {} bytes.",
                            quoted(id), id.size(), kMessageIdBytesMax));
}

Status check_headers(const flatbuffers::Vector<flatbuffers::Offset<flatbuffers::String>>* headers) {
  if (headers == nullptr) return Status();
  if (headers->size() % 2 != 0) {
    return invalid(fmt::format("The headers are {} strings; they come in pairs of name and value.",
                               headers->size()));
  }
  if (headers->size() / 2 > kHeaderPairsMax) {
    return Status(ErrorCode::kHeadersTooLarge,
                  fmt::format("The message has {} headers; the limit is {}.", headers->size() / 2,
                              kHeaderPairsMax));
  }
  std::size_t bytes = 0;
  for (const flatbuffers::String* text : *headers) bytes += text->size();
  if (bytes > kHeaderBytesMax) {
    return Status(ErrorCode::kHeadersTooLarge,
                  fmt::format("The headers of the message have {} bytes; the limit is {}.", bytes,
                              kHeaderBytesMax));
  }
  for (flatbuffers::uoffset_t index = 0; index < headers->size(); ++index) {
    const std::string_view text = view(headers->Get(index));
    if (!is_valid_utf8(text)) {
      return invalid(fmt::format("The {} of header {} is not well-formed UTF-8: {}.",
                                 index % 2 == 0 ? "name" : "value", index / 2 + 1, quoted(text)));
    }
    if (index % 2 == 0 && text.empty()) {
      return invalid(fmt::format("The name of header {} is empty.", index / 2 + 1));
    }
  }
  return Status();
}

// Bytes around a body that no field of it accounts for would make a message that can be stored and
// not delivered, because its delivery is longer than a frame.
Status check_overhead(const wire::Message& message, std::size_t message_bytes) {
  const std::size_t body_bytes = message.body() == nullptr ? 0 : message.body()->size();
  if (message_bytes <= body_bytes + kMessageOverheadBytesMax) return Status();
  return Status(ErrorCode::kMessageTooLarge,
                fmt::format("The message has {} bytes around its body of {}; the limit is {}.",
                            message_bytes - body_bytes, body_bytes, kMessageOverheadBytesMax));
}

// What the core takes for granted about a message.
Status check_message(const wire::Message& message, std::size_t message_bytes) {
  if (Status status = check_overhead(message, message_bytes); !status.ok()) return status;
  if (Status status = check_message_id(view(message.id())); !status.ok()) return status;
  if (message.key() != nullptr || message.deliver_at() != 0 || message.expires_at() != 0) {
    return Status(ErrorCode::kNotSupported,
                  "The message carries a key, deliver_at or expires_at; this broker does not act "
                  "upon them. Publish it without.");
  }
  return check_headers(message.headers());
}

bool is_answered(wire::FrameType type) {
  switch (type) {
    case wire::FrameType_Ping:
    case wire::FrameType_Pong:
    case wire::FrameType_Hello:
    case wire::FrameType_Goodbye:
      return false;
    default:
      return true;
  }
}

}  // namespace

Session::Session(SessionContext& context, SessionId id, std::string_view peer)
    : context_(context), id_(id), client_name_(peer) {}

bool Session::is_laborious(wire::FrameType type) {
  switch (type) {
    case wire::FrameType_QueueEdit:  // each consumer of the queue takes note
    case wire::FrameType_QueueDelete:
    case wire::FrameType_QueuePurge:
    case wire::FrameType_QueueList:
    case wire::FrameType_Peek:
    case wire::FrameType_Attempts:  // its answer has kilobytes
    case wire::FrameType_Redrive:
    case wire::FrameType_Discard:
    case wire::FrameType_ConsumerList:
    case wire::FrameType_ConnectionList:
      return true;
    default:
      return false;
  }
}

bool Session::is_answered_at_once(wire::FrameType type) {
  switch (type) {
    case wire::FrameType_Ping:
    case wire::FrameType_Pong:
    case wire::FrameType_Goodbye:
    case wire::FrameType_Credit:
    case wire::FrameType_Extend:
    case wire::FrameType_QueueList:
    case wire::FrameType_ConnectionList:
    case wire::FrameType_Status:
      return true;
    default:
      return false;
  }
}

Status Session::handle(const Frame& frame, FrameWriter& out, Now now) {
  asked_for_much_ = is_laborious(frame.type);
  looked_up_much_ = false;
  if (!established_) return handshake(frame, out, now);
  if (frame.correlation == 0 && is_answered(frame.type)) {
    return Status(ErrorCode::kProtocolViolation,
                  fmt::format("A frame of type {} has correlation 0: a request needs one that its "
                              "answer can echo.",
                              static_cast<int>(frame.type)));
  }
  switch (frame.type) {
    case wire::FrameType_Publish:
      return publish(frame, out, now);
    case wire::FrameType_Settle:
      return settle(frame, out, now);
    case wire::FrameType_Extend:
      return extend(frame, out, now);
    case wire::FrameType_Subscribe:
      return subscribe(frame, out, now);
    case wire::FrameType_Unsubscribe:
      return unsubscribe(frame, now);
    case wire::FrameType_Credit:
      return credit(frame, now);
    case wire::FrameType_QueueOpen:
      return queue_open(frame, out, now);
    case wire::FrameType_QueueCreate:
      return queue_create(frame, out, now);
    case wire::FrameType_QueueEdit:
      return queue_edit(frame, out, now);
    case wire::FrameType_QueueDelete:
      return queue_delete(frame, out, now);
    case wire::FrameType_QueuePurge:
      return queue_purge(frame, out, now);
    case wire::FrameType_QueueList:
      return queue_list(frame, now);
    case wire::FrameType_Peek:
      return peek(frame, out, now);
    case wire::FrameType_Attempts:
      return attempts(frame, out, now);
    case wire::FrameType_Redrive:
      return take_letters<wire::Redrive>(frame, out, now);
    case wire::FrameType_Discard:
      return take_letters<wire::Discard>(frame, out, now);
    case wire::FrameType_ConsumerList:
      return consumer_list(frame, out, now);
    case wire::FrameType_ConnectionList:
      return connection_list(frame, out, now);
    case wire::FrameType_Ping:
    case wire::FrameType_Pong:
    case wire::FrameType_Status:
      return bodyless(frame, out, now);
    case wire::FrameType_Goodbye:
      if (!frame.body.empty() && read_table<wire::Goodbye>(frame.body) == nullptr) {
        return malformed(frame);
      }
      said_goodbye_ = true;
      return Status();
    default:
      return Status(ErrorCode::kProtocolViolation,
                    fmt::format("A client must not send a frame of type {} ({}) here.",
                                static_cast<int>(frame.type),
                                *wire::EnumNameFrameType(frame.type) == '\0'
                                    ? "unknown"
                                    : wire::EnumNameFrameType(frame.type)));
  }
}

Status Session::refuse(const Frame& frame, const Status& error, FrameWriter& out) {
  frames_out_ += context_.encoder.append_error(frame.correlation, error, false, out);
  return Status();
}

Status Session::handshake(const Frame& frame, FrameWriter& out, Now) {
  if (frame.type != wire::FrameType_Hello) {
    return Status(ErrorCode::kProtocolViolation,
                  fmt::format("The first frame of a connection must be Hello, not type {}.",
                              static_cast<int>(frame.type)));
  }
  const auto* const hello = read_table<wire::Hello>(frame.body);
  if (hello == nullptr) return malformed(frame);
  if (hello->version_min() > kProtocolVersion || hello->version_max() < kProtocolVersion) {
    return Status(
        ErrorCode::kVersionUnsupported,
        fmt::format("The client speaks protocol versions {} to {}; this broker ({}) speaks "
                    "{}.",
                    hello->version_min(), hello->version_max(), context_.options.broker_version,
                    kProtocolVersion));
  }
  const std::string_view name = view(hello->client_name());
  if (Status status = check_name("client name", name); !status.ok()) return status;
  if (!name.empty()) client_name_ = name;
  const SessionOptions& options = context_.options;
  heartbeat_ = hello->heartbeat_ms() == 0
                   ? options.heartbeat
                   : std::clamp(Milliseconds(hello->heartbeat_ms()), options.heartbeat_min,
                                options.heartbeat_max);
  established_ = true;
  context_.core.session_opened(id_, client_name_);
  ReplyEncoder::WelcomeFields welcome;
  welcome.broker_version = options.broker_version;
  welcome.node_id = options.node_id;
  welcome.heartbeat_ms = static_cast<std::uint32_t>(heartbeat_.count());
  welcome.frame_bytes_max = options.frame_bytes_max;
  welcome.unconfirmed_bytes_max = options.unconfirmed_bytes_max;
  frames_out_ += context_.encoder.append_welcome(frame.correlation, welcome, out);
  return Status();
}

Status Session::publish(const Frame& frame, FrameWriter& out, Now now) {
  const Result<PublishFrame> publish = read_publish(frame);
  if (!publish.ok()) {
    // A damaged message leaves the framing whole; anything else does not.
    if (publish.status().code() != ErrorCode::kMessageCorrupt) return publish.status();
    return refuse(frame, publish.status(), out);
  }
  const wire::Message& message = *publish->message;
  if (Status status = check_message(message, publish->message_bytes.size()); !status.ok()) {
    return refuse(frame, status, out);
  }
  PublishRequest request;
  request.asker = asker(frame);
  request.queue = QueueId(publish->queue);
  request.id = view(message.id());
  request.body_bytes = message.body() == nullptr ? 0 : message.body()->size();
  request.message_checksum = publish->message_checksum;
  request.message = publish->message_bytes;
  unconfirmed_bytes_ += request.message.size();
  context_.core.publish(request, now);
  return Status();
}

Status Session::subscribe(const Frame& frame, FrameWriter& out, Now now) {
  const auto* const table = read_table<wire::Subscribe>(frame.body);
  if (table == nullptr) return malformed(frame);
  SubscribeRequest request;
  request.queue = view(table->queue());
  request.subscription = view(table->subscription());
  request.consumer_name = view(table->consumer_name());
  request.credit_messages = table->credit_messages();
  request.credit_bytes = table->credit_bytes();
  request.lease_ms = table->lease_ms();
  Status status = check_name("queue name", request.queue);
  if (status.ok()) status = check_name("subscription name", request.subscription);
  if (status.ok()) status = check_name("consumer name", request.consumer_name);
  if (!status.ok()) return refuse(frame, status, out);
  request.asker = asker(frame, Waits::kRequest);
  context_.core.subscribe(request, now);
  return Status();
}

Status Session::unsubscribe(const Frame& frame, Now now) {
  const auto* const table = read_table<wire::Unsubscribe>(frame.body);
  if (table == nullptr) return malformed(frame);
  context_.core.unsubscribe(asker(frame, Waits::kRequest), ConsumerId(table->consumer()), now);
  return Status();
}

Status Session::credit(const Frame& frame, Now now) {
  const auto* const table = read_table<wire::Credit>(frame.body);
  if (table == nullptr) return malformed(frame);
  context_.core.set_credit(asker(frame, Waits::kRequest), ConsumerId(table->consumer()),
                           table->credit_messages(), table->credit_bytes(), now);
  return Status();
}

Status Session::take_ranges(const flatbuffers::Vector<const wire::SequenceRange*>* ranges) {
  if (ranges == nullptr || ranges->size() == 0 || ranges->size() > kRangesMax) {
    return invalid(fmt::format("The frame has {} ranges of sequences; it must have 1 to {}.",
                               ranges == nullptr ? 0 : ranges->size(), kRangesMax));
  }
  context_.ranges.clear();
  std::uint64_t sequences = 0;
  Sequence previous_last = 0;
  for (const wire::SequenceRange* range : *ranges) {
    const Sequence first = range->first();
    const Sequence last = range->last();
    if (first <= previous_last || last < first) {
      return invalid(
          fmt::format("The range {} to {} of sequences follows {}: ranges begin at 1, "
                      "ascend and do not overlap.",
                      first, last, previous_last));
    }
    // The first bound keeps the sum from wrapping around.
    if (last - first >= kRangesSequencesMax ||
        (sequences += last - first + 1) > kRangesSequencesMax) {
      return invalid(
          fmt::format("The ranges up to {} cover more than {} sequences: send several "
                      "frames.",
                      last, kRangesSequencesMax));
    }
    previous_last = last;
    context_.ranges.push_back({first, last});
  }
  // Each is looked up: frames full of them, or many frames, must not keep the others waiting.
  context_.sequences_in_ranges = static_cast<std::uint32_t>(sequences);
  looked_up_ += sequences;
  asked_for_much_ = looked_up_much_ = looked_up_ > kSequencesAtOnceMax;
  if (looked_up_much_) looked_up_ = 0;
  return Status();
}

Status Session::settle(const Frame& frame, FrameWriter& out, Now now) {
  const auto* const table = read_table<wire::Settle>(frame.body);
  if (table == nullptr) return malformed(frame);
  SettleRequest request;
  request.consumer = ConsumerId(table->consumer());
  request.kind = static_cast<wire::SettleKind>(table->kind());
  request.reason = view(table->reason());
  if (table->kind() < wire::SettleKind_Ack || table->kind() > wire::SettleKind_Release) {
    return refuse(frame,
                  invalid(fmt::format("{} is no way to settle: it is 1 (ack), 2 (nack), 3 (reject) "
                                      "or 4 (release).",
                                      table->kind())),
                  out);
  }
  if (request.reason.size() > kReasonBytesMax || !is_valid_utf8(request.reason)) {
    return refuse(frame,
                  invalid(fmt::format("The reason has {} bytes; it is UTF-8 of at most {} bytes.",
                                      request.reason.size(), kReasonBytesMax)),
                  out);
  }
  if (table->delay_ms() != -1) request.delay = Milliseconds(table->delay_ms());
  if (Status status = take_ranges(table->ranges()); !status.ok()) {
    return refuse(frame, status, out);
  }
  request.ranges = context_.ranges;
  request.asker =
      asker(frame, Waits::kRequest, 1 + context_.sequences_in_ranges / kSequencesPerWaiting);
  if (context_.core.settle(request, now)) no_longer_waits(request.asker);
  return Status();
}

Status Session::extend(const Frame& frame, FrameWriter& out, Now now) {
  const auto* const table = read_table<wire::Extend>(frame.body);
  if (table == nullptr) return malformed(frame);
  if (Status status = take_ranges(table->ranges()); !status.ok()) {
    return refuse(frame, status, out);
  }
  ExtendRequest request;
  request.asker = asker(frame);
  request.consumer = ConsumerId(table->consumer());
  request.ranges = context_.ranges;
  request.lease_ms = table->lease_ms();
  context_.core.extend(request, now);
  return Status();
}

Status Session::queue_open(const Frame& frame, FrameWriter& out, Now now) {
  const auto* const table = read_table<wire::QueueOpen>(frame.body);
  if (table == nullptr) return malformed(frame);
  const std::string_view name = view(table->name());
  if (Status status = check_name("queue name", name); !status.ok()) {
    return refuse(frame, status, out);
  }
  context_.core.open_queue(asker(frame, Waits::kRequest), name, now);
  return Status();
}

Status Session::take_settings(const flatbuffers::Vector<const wire::SettingValue*>* settings) {
  context_.settings.clear();
  if (settings == nullptr) return Status();
  for (const wire::SettingValue* setting : *settings) {
    const bool again = std::ranges::any_of(context_.settings, [&](const SettingChange& change) {
      return change.setting == setting->setting();
    });
    if (again) {
      return invalid(fmt::format("Setting number {} is named twice.", setting->setting()));
    }
    if (find_queue_setting(setting->setting()) == nullptr) {
      return invalid(fmt::format("There is no setting number {}.", setting->setting()));
    }
    context_.settings.push_back({setting->setting(), setting->value()});
  }
  return Status();
}

Status Session::queue_create(const Frame& frame, FrameWriter& out, Now now) {
  const auto* const table = read_table<wire::QueueCreate>(frame.body);
  if (table == nullptr) return malformed(frame);
  CreateQueueRequest request;
  request.name = view(table->name());
  request.if_not_exists = table->if_not_exists();
  Status status = check_name("queue name", request.name);
  if (status.ok()) status = take_settings(table->settings());
  if (!status.ok()) return refuse(frame, status, out);
  const std::size_t named = context_.settings.size();
  for (const SettingChange& preset : context_.options.queue_defaults) {
    const bool is_named = std::ranges::any_of(
        std::span(context_.settings).first(named),
        [&](const SettingChange& change) { return change.setting == preset.setting; });
    if (!is_named) context_.settings.push_back(preset);
  }
  request.settings = context_.settings;
  request.asker = asker(frame, Waits::kRequest);
  context_.core.create_queue(request, now);
  return Status();
}

Status Session::queue_edit(const Frame& frame, FrameWriter& out, Now now) {
  const auto* const table = read_table<wire::QueueEdit>(frame.body);
  if (table == nullptr) return malformed(frame);
  EditQueueRequest request;
  request.name = view(table->name());
  Status status = check_name("queue name", request.name);
  if (status.ok()) status = take_settings(table->settings());
  if (!status.ok()) return refuse(frame, status, out);
  request.settings = context_.settings;
  request.asker = asker(frame, Waits::kRequest);
  context_.core.edit_queue(request, now);
  return Status();
}

Status Session::queue_delete(const Frame& frame, FrameWriter& out, Now now) {
  const auto* const table = read_table<wire::QueueDelete>(frame.body);
  if (table == nullptr) return malformed(frame);
  const std::string_view name = view(table->name());
  if (Status status = check_name("queue name", name); !status.ok()) {
    return refuse(frame, status, out);
  }
  context_.core.delete_queue(asker(frame, Waits::kRequest), name, now);
  return Status();
}

Status Session::queue_purge(const Frame& frame, FrameWriter& out, Now now) {
  const auto* const table = read_table<wire::QueuePurge>(frame.body);
  if (table == nullptr) return malformed(frame);
  const std::string_view name = view(table->name());
  if (Status status = check_name("queue name", name); !status.ok()) {
    return refuse(frame, status, out);
  }
  context_.core.purge_queue(asker(frame, Waits::kBulk), name, now);
  return Status();
}

Status Session::queue_list(const Frame& frame, Now now) {
  const auto* const table = read_table<wire::QueueList>(frame.body);
  if (table == nullptr) return malformed(frame);
  context_.core.list_queues(asker(frame), table->dead_only(), QueueId(table->from()), now);
  return Status();
}

Status Session::peek(const Frame& frame, FrameWriter& out, Now now) {
  const auto* const table = read_table<wire::Peek>(frame.body);
  if (table == nullptr) return malformed(frame);
  PeekRequest request;
  request.queue = view(table->queue());
  request.from = table->from();
  request.limit = table->limit();
  if (Status status = check_name("queue name", request.queue); !status.ok()) {
    return refuse(frame, status, out);
  }
  request.asker = asker(frame, Waits::kPeek);
  context_.core.peek(request, now);
  return Status();
}

Status Session::attempts(const Frame& frame, FrameWriter& out, Now now) {
  const auto* const table = read_table<wire::Attempts>(frame.body);
  if (table == nullptr) return malformed(frame);
  const std::string_view queue = view(table->queue());
  if (Status status = check_name("queue name", queue); !status.ok()) {
    return refuse(frame, status, out);
  }
  context_.core.tell_attempts(
      {asker(frame, Waits::kRequest, kAttemptsWeight), queue, table->sequence()}, now);
  return Status();
}

// Redrive and Discard have the same fields.
template <typename Table>
Status Session::take_letters(const Frame& frame, FrameWriter& out, Now now) {
  const auto* const table = read_table<Table>(frame.body);
  if (table == nullptr) return malformed(frame);
  LettersRequest request;
  request.queue = view(table->queue());
  request.all = table->all();
  request.from = table->from();
  request.to = table->to();
  request.limit = table->limit();
  request.dry_run = table->dry_run();
  if (Status status = check_name("queue name", request.queue); !status.ok()) {
    return refuse(frame, status, out);
  }
  context_.sequences.clear();
  if (table->sequences() != nullptr) {
    context_.sequences.assign(table->sequences()->begin(), table->sequences()->end());
  }
  request.sequences = context_.sequences;
  request.asker = asker(frame, Waits::kBulk);
  if constexpr (std::is_same_v<Table, wire::Redrive>) {
    context_.core.redrive(request, now);
  } else {
    context_.core.discard(request, now);
  }
  return Status();
}

Status Session::consumer_list(const Frame& frame, FrameWriter& out, Now now) {
  const auto* const table = read_table<wire::ConsumerList>(frame.body);
  if (table == nullptr) return malformed(frame);
  const std::string_view queue = view(table->queue());
  if (Status status = check_name("queue name", queue); !status.ok()) {
    return refuse(frame, status, out);
  }
  context_.core.list_consumers(asker(frame, Waits::kRequest), queue, ConsumerId(table->from()),
                               now);
  return Status();
}

Status Session::connection_list(const Frame& frame, FrameWriter& out, Now now) {
  std::uint64_t from = 0;
  if (!frame.body.empty()) {
    const auto* const table = read_table<wire::ConnectionList>(frame.body);
    if (table == nullptr) return malformed(frame);
    from = table->from();
  }
  frames_out_ += context_.facts.append_connections(frame.correlation, from, out, now);
  return Status();
}

Status Session::bodyless(const Frame& frame, FrameWriter& out, Now now) {
  if (!frame.body.empty()) return malformed(frame);
  switch (frame.type) {
    case wire::FrameType_Ping:
      out.append_empty(wire::FrameType_Pong, frame.correlation);
      ++frames_out_;
      break;
    case wire::FrameType_Status:
      asked_for_much_ = true;
      frames_out_ += context_.facts.append_status(frame.correlation, out, now);
      break;
    default:
      break;  // Pong: that it came is all it says
  }
  return Status();
}

}  // namespace holdfast::broker
