// Bytes as text: Base64 with the standard alphabet and padding. RFC 4648, section 4.

#pragma once

#include <optional>
#include <string>
#include <string_view>

namespace holdfast::cli {

std::string base64(std::string_view bytes);
// What base64() makes, and nothing else; nullopt if it is not that.
std::optional<std::string> decode_base64(std::string_view text);

}  // namespace holdfast::cli
