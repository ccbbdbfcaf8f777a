// The messages that are published: each has an id of its own, and a body that follows from it.

#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "schema/frame.h"

namespace holdfast::corrupt {

// A finished wire.Message.
std::vector<std::uint8_t> encode_message(const std::string& id, std::size_t body_bytes);

}  // namespace holdfast::corrupt
