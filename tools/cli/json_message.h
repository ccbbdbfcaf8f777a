// Messages to be sent, read from JSON: what message_json() (json_form.h) prints is taken back.

#pragma once

#include <cstddef>
#include <string_view>

#include "holdfast/message.h"
#include "holdfast/status.h"
#include "schema/field_limits.h"

namespace holdfast::cli {

// More than a message of the largest size takes with its history, however much of it is escaped: a
// byte is six characters then.
inline constexpr std::size_t kJsonMessageBytesMax = 6 * kMessageBodyBytesMax + (1u << 20);

// Its "id", "headers", and "body" or "body_base64"; other keys are left alone. Without an id the
// client chooses one. kInvalidArgument if it is no such object, kMessageCorrupt if it is the
// dead letter of a damaged message.
Result<Message> parse_message_json(std::string_view text);

}  // namespace holdfast::cli
