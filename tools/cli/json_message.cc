#include "cli/json_message.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <utility>

#include "holdfast/text.h"

namespace holdfast::cli {
namespace {

using nlohmann::json;

Status wrong(std::string sentence) {
  return Status(ErrorCode::kInvalidArgument, std::move(sentence));
}

// One value, or an array of the values of a name that occurs several times.
Status take_header(const std::string& name, const json& value, Headers& headers) {
  const auto take = [&](const json& one) {
    if (one.is_string()) headers.emplace_back(name, one.get_ref<const std::string&>());
    return one.is_string();
  };
  const bool is_taken =
      value.is_array() ? std::all_of(value.begin(), value.end(), take) : take(value);
  if (is_taken) return Status();
  return wrong(fmt::format("Header {} is neither a text nor an array of texts.", quoted(name)));
}

Status take_headers(const json& object, Headers& headers) {
  const auto found = object.find("headers");
  if (found == object.end()) return Status();
  if (!found->is_object()) return wrong("\"headers\" is not an object of names and values.");
  for (const auto& [name, value] : found->items()) {
    if (Status status = take_header(name, value, headers); !status.ok()) return status;
  }
  return Status();
}

Status take_id(const json& object, std::string& id) {
  const auto found = object.find("id");
  if (found == object.end()) return Status();
  if (!found->is_string() || found->get_ref<const std::string&>().empty()) {
    return wrong("\"id\" is not a text of at least one byte: leave it out for a new one.");
  }
  id = found->get_ref<const std::string&>();
  return Status();
}

Status take_body(const json& object, std::string& body) {
  const auto as_text = object.find("body");
  const auto as_base64 = object.find("body_base64");
  if ((as_text == object.end()) == (as_base64 == object.end())) {
    return wrong("The object must have \"body\" or \"body_base64\", and one of them only.");
  }
  const bool is_text = as_text != object.end();
  const json& given = is_text ? *as_text : *as_base64;
  if (!given.is_string()) {
    return wrong(fmt::format("{} is not a text.", is_text ? "\"body\"" : "\"body_base64\""));
  }
  if (is_text) {
    body = given.get_ref<const std::string&>();
    return Status();
  }
  std::optional<std::string> decoded = decode_base64(given.get_ref<const std::string&>());
  if (!decoded) {
    return wrong("\"body_base64\" is not Base64: A-Z a-z 0-9 + /, padded with = to groups of 4.");
  }
  body = std::move(*decoded);
  return Status();
}

// A dead letter whose body is what was left of a message that the broker could no longer read.
bool is_damaged(const json& object) {
  const auto reason = object.find("reason");
  return reason != object.end() && *reason == "corrupt" && object.contains("dead_at");
}

// 0 to 63; 64: not in the alphabet.
constexpr std::array<std::uint8_t, 256> kBase64Values = [] {
  std::array<std::uint8_t, 256> values{};
  values.fill(64);
  std::uint8_t next = 0;
  for (char c = 'A'; c <= 'Z'; ++c) values[static_cast<unsigned char>(c)] = next++;
  for (char c = 'a'; c <= 'z'; ++c) values[static_cast<unsigned char>(c)] = next++;
  for (char c = '0'; c <= '9'; ++c) values[static_cast<unsigned char>(c)] = next++;
  values['+'] = next++;
  values['/'] = next++;
  return values;
}();

}  // namespace

Result<Message> parse_message_json(std::string_view text) {
  const json object = json::parse(text, nullptr, false);
  if (object.is_discarded()) return wrong("It is not JSON.");
  if (!object.is_object()) return wrong("It is not a JSON object.");
  if (is_damaged(object)) {
    return Status(ErrorCode::kMessageCorrupt,
                  "It is what was left of a damaged message (reason corrupt), as a dead letter.");
  }
  Message message;
  Status status = take_id(object, message.id);
  if (status.ok()) status = take_headers(object, message.headers);
  if (status.ok()) status = take_body(object, message.body);
  if (!status.ok()) return status;
  return message;
}

std::optional<std::string> decode_base64(std::string_view text) {
  if (text.size() % 4 != 0) return std::nullopt;
  std::size_t padding = 0;
  while (padding < 2 && padding < text.size() && text[text.size() - 1 - padding] == '=') ++padding;
  std::string bytes;
  bytes.reserve(text.size() / 4 * 3);
  for (std::size_t i = 0; i < text.size(); i += 4) {
    const std::size_t given = i + 4 == text.size() ? 4 - padding : 4;
    std::uint32_t bits = 0;
    for (std::size_t j = 0; j < 4; ++j) {
      const std::uint8_t value =
          j < given ? kBase64Values[static_cast<unsigned char>(text[i + j])] : 0;
      if (value == 64) return std::nullopt;
      bits = bits << 6 | value;
    }
    // What the padding leaves over must be nothing.
    if ((bits & ((1u << 8 * (4 - given)) - 1)) != 0) return std::nullopt;
    for (std::size_t j = 0; j + 1 < given; ++j) {
      bytes += static_cast<char>(bits >> (16 - 8 * j) & 0xFF);
    }
  }
  return bytes;
}

}  // namespace holdfast::cli
