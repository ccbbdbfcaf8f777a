#include "cli/json_message.h"

#include <fmt/format.h>

#include <algorithm>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>

#include "cli/base64.h"
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

Result<json> parse(std::string_view text) {
  try {
    return json::parse(text);
  } catch (const json::parse_error& error) {
    if (error.byte > text.size()) return wrong("It is not JSON: it ends too early.");
    return wrong(fmt::format("It is not JSON: it breaks at byte {}.", error.byte));
  } catch (const json::out_of_range&) {
    return wrong("A number in it is too large.");
  }
}

// A dead letter whose body is what was left of a message that the broker could no longer read,
// whichever of its keys somebody has kept.
bool is_damaged(const json& object) {
  const auto reason = object.find("reason");
  return reason != object.end() && *reason == "corrupt";
}

}  // namespace

Result<Message> parse_message_json(std::string_view text) {
  const Result<json> parsed = parse(text);
  if (!parsed.ok()) return parsed.status();
  const json& object = *parsed;
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

}  // namespace holdfast::cli
