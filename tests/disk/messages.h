// The messages of a run. Their number says all about them: id, size and bytes.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "schema/frame.h"

namespace holdfast::disk {

struct NumberedMessage {
  std::string id;
  std::size_t body_bytes = 0;
  std::vector<std::uint8_t> bytes;  // a wire.Message
  std::uint64_t checksum = 0;
};

// Made when it is asked for first, and kept. One thread.
const NumberedMessage& message_of(std::uint32_t number);
// The number of the message with this id.
std::optional<std::uint32_t> number_of(std::string_view id);

std::string queue_name(std::uint32_t number);
std::optional<std::uint32_t> queue_number(std::string_view name);

}  // namespace holdfast::disk
