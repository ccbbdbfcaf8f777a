#include "message_codec.h"

#include <fmt/format.h>

#include <algorithm>

#include "holdfast/text.h"
#include "schema/field_limits.h"

namespace holdfast::client {

namespace {

// What a Message table takes beside its strings and vectors.
constexpr std::size_t kTableBytes = 96;
constexpr std::size_t kStringOverheadBytes = 16;
// Several entries of a list may share one long string, so what is copied is bounded by count.
constexpr flatbuffers::uoffset_t kHistoryMax = 64;

std::string_view cause_name(std::uint8_t cause) {
  switch (cause) {
    case wire::Cause_LeaseExpired:
      return "lease_expired";
    case wire::Cause_Nacked:
      return "nacked";
    case wire::Cause_Rejected:
      return "rejected";
    case wire::Cause_ConnectionLost:
      return "connection_lost";
    case wire::Cause_BrokerRestarted:
      return "broker_restarted";
    case wire::Cause_Corrupt:
      return "corrupt";
    case wire::Cause_RetryLimit:
      return "retry_limit";
    case wire::Cause_Purged:
      return "purged";
    case wire::Cause_SettledElsewhere:
      return "settled_elsewhere";
    default:
      return "unknown";
  }
}

using Strings = flatbuffers::Vector<flatbuffers::Offset<flatbuffers::String>>;

std::string string_at(const Strings* strings, flatbuffers::uoffset_t index) {
  if (strings == nullptr || index >= strings->size()) return {};
  return std::string(view(strings->Get(index)));
}

// The lists are parallel by agreement only; each is read as far as it goes.
template <typename Table>
std::vector<AttemptReport> history_of(const Table& from) {
  std::vector<AttemptReport> history;
  if (from.attempts() == nullptr) return history;
  for (flatbuffers::uoffset_t i = 0; i < std::min(from.attempts()->size(), kHistoryMax); ++i) {
    const wire::Attempt& attempt = *from.attempts()->Get(i);
    AttemptReport report;
    report.number = attempt.number();
    report.cause = cause_name(attempt.cause());
    report.consumer = string_at(from.consumers(), i);
    report.error = string_at(from.errors(), i);
    report.delivered_at = from_wire_time(attempt.delivered_at());
    report.ended_at = from_wire_time(attempt.ended_at());
    history.push_back(std::move(report));
  }
  return history;
}

Provenance decode_provenance(const wire::Provenance& from) {
  Provenance provenance;
  provenance.source = view(from.source());
  provenance.source_sequence = from.source_sequence();
  provenance.subscription = view(from.subscription());
  provenance.reason = cause_name(from.reason());
  provenance.error = view(from.error());
  provenance.attempts = from.attempt_count();
  provenance.dead_at = from_wire_time(from.dead_at());
  provenance.published_at = from_wire_time(from.published_at());
  provenance.history = history_of(from);
  return provenance;
}

std::size_t header_bytes(const Message& message) {
  std::size_t bytes = 0;
  for (const auto& [name, value] : message.headers) bytes += name.size() + value.size();
  return bytes;
}

}  // namespace

std::string_view EncodedMessage::id() const {
  return view(flatbuffers::GetRoot<wire::Message>(bytes.data())->id());
}

Status check_message(const Message& message) {
  if (message.id.size() > kMessageIdBytesMax) {
    return Status(ErrorCode::kMessageIdInvalid,
                  fmt::format("The message id has {} bytes; the limit is {}.", message.id.size(),
                              kMessageIdBytesMax));
  }
  if (!is_valid_utf8(message.id)) {
    return Status(ErrorCode::kMessageIdInvalid, "The message id is not valid UTF-8.");
  }
  if (message.body.size() > kMessageBodyBytesMax) {
    return Status(ErrorCode::kMessageTooLarge,
                  fmt::format("The message body has {} bytes; no queue takes more than {}.",
                              message.body.size(), kMessageBodyBytesMax));
  }
  if (message.headers.empty()) return Status();
  if (message.headers.size() > kHeaderPairsMax) {
    return Status(ErrorCode::kHeadersTooLarge,
                  fmt::format("The message has {} headers; the limit is {}.",
                              message.headers.size(), kHeaderPairsMax));
  }
  if (const std::size_t bytes = header_bytes(message); bytes > kHeaderBytesMax) {
    return Status(ErrorCode::kHeadersTooLarge,
                  fmt::format("The message's headers have {} bytes of names and values; the limit "
                              "is {}.",
                              bytes, kHeaderBytesMax));
  }
  return Status();
}

EncodedMessage encode_message(const Message& message, std::string_view id) {
  const std::size_t size_hint =
      padded(kTableBytes + id.size() + message.body.size() + header_bytes(message) +
                 2 * message.headers.size() * kStringOverheadBytes,
             64);
  flatbuffers::FlatBufferBuilder builder(size_hint);
  flatbuffers::Offset<Strings> headers;
  if (!message.headers.empty()) {
    std::vector<flatbuffers::Offset<flatbuffers::String>> strings;
    strings.reserve(2 * message.headers.size());
    for (const auto& [name, value] : message.headers) {
      strings.push_back(builder.CreateString(name));
      strings.push_back(builder.CreateString(value));
    }
    headers = builder.CreateVector(strings);
  }
  const auto body = builder.CreateVector(reinterpret_cast<const std::uint8_t*>(message.body.data()),
                                         message.body.size());
  const auto id_string = builder.CreateString(id.data(), id.size());
  wire::MessageBuilder table(builder);
  table.add_id(id_string);
  table.add_body(body);
  if (!headers.IsNull()) table.add_headers(headers);
  builder.Finish(table.Finish());

  EncodedMessage encoded;
  encoded.bytes = builder.Release();
  encoded.checksum = checksum(encoded.span());
  return encoded;
}

StoredMessage decode_message(const DeliverFrame& frame, std::string_view queue,
                             std::string_view state) {
  StoredMessage stored;
  stored.queue = queue;
  stored.sequence = frame.envelope.sequence();
  stored.attempt = frame.envelope.attempt();
  stored.id = view(frame.message->id());
  if (const auto* body = frame.message->body(); body != nullptr) {
    stored.body.assign(reinterpret_cast<const char*>(body->data()), body->size());
  }
  if (const auto* headers = frame.message->headers(); headers != nullptr) {
    constexpr flatbuffers::uoffset_t kStringsMax = 2 * kHeaderPairsMax;
    const flatbuffers::uoffset_t strings = std::min(headers->size(), kStringsMax);
    for (flatbuffers::uoffset_t i = 0; i + 1 < strings; i += 2) {
      stored.headers.emplace_back(string_at(headers, i), string_at(headers, i + 1));
    }
  }
  stored.published_at = from_wire_time(frame.envelope.published_at());
  stored.state = state;
  if (frame.provenance != nullptr) {
    stored.is_dead_letter = true;
    stored.provenance = decode_provenance(*frame.provenance);
  }
  return stored;
}

std::vector<AttemptReport> decode_history(const wire::AttemptsInfo& info) {
  return history_of(info);
}

std::string_view message_state_name(std::uint8_t state) {
  switch (state) {
    case wire::MessageState_Ready:
      return "ready";
    case wire::MessageState_InFlight:
      return "in_flight";
    case wire::MessageState_Waiting:
      return "waiting";
    case wire::MessageState_Moving:
      return "moving";
    default:
      return "unknown";
  }
}

std::chrono::system_clock::time_point from_wire_time(std::uint64_t unix_ms) {
  using std::chrono::milliseconds;
  using std::chrono::system_clock;
  constexpr auto kLast =
      std::chrono::floor<milliseconds>(system_clock::time_point::max().time_since_epoch());
  const auto last_ms = static_cast<std::uint64_t>(kLast.count());
  return system_clock::time_point(
      milliseconds(static_cast<std::int64_t>(std::min(unix_ms, last_ms))));
}

}  // namespace holdfast::client
