// Messages between their public form and the tables of the wire.

#pragma once

#include <flatbuffers/flatbuffers.h>

#include <cstdint>
#include <string>
#include <string_view>

#include "holdfast/message.h"
#include "holdfast/status.h"
#include "schema/frame.h"

namespace holdfast::client {

// A wire.Message as it travels and is stored, with the checksum that stays with it.
struct EncodedMessage {
  flatbuffers::DetachedBuffer bytes;
  std::uint64_t checksum = 0;

  ByteSpan span() const { return {bytes.data(), bytes.size()}; }
  // Lives in `bytes`.
  std::string_view id() const;
};

// Whether the message is within the bounds that no queue can lift: kMessageIdInvalid,
// kMessageTooLarge, kHeadersTooLarge. An empty id is in order.
Status check_message(const Message& message);
// The message must have passed check_message(); `id` is used in place of its own.
EncodedMessage encode_message(const Message& message, std::string_view id);

// `queue` is the name of the queue it was delivered or peeked from.
StoredMessage decode_message(const DeliverFrame& frame, std::string_view queue,
                             std::string_view state);
// "ready", "in_flight", "waiting", "moving"; "unknown" for a number that is new to this version.
std::string_view message_state_name(std::uint8_t state);
std::vector<AttemptReport> decode_history(const wire::AttemptsInfo& info);

std::chrono::system_clock::time_point from_wire_time(std::uint64_t unix_ms);

}  // namespace holdfast::client
