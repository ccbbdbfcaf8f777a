#include "disk/messages.h"

#include <fmt/format.h>

#include <charconv>
#include <deque>
#include <memory>

#include "crash/random.h"
#include "support/core_fixture.h"

namespace holdfast::disk {

namespace {

constexpr std::string_view kIdPrefix = "message-";
constexpr std::string_view kQueuePrefix = "queue-";

std::optional<std::uint32_t> number_after(std::string_view prefix, std::string_view text) {
  if (!text.starts_with(prefix)) return std::nullopt;
  text.remove_prefix(prefix.size());
  std::uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return number;
}

// Most fit many to a page; some take several pages, which LMDB stores side by side.
std::size_t body_bytes_of(crash::Random& random) {
  if (random.once_in(24)) return 8'000 + random.below(16'000);
  if (random.once_in(6)) return 1'000 + random.below(4'000);
  return random.below(300);
}

NumberedMessage make_message(std::uint32_t number) {
  crash::Random random(number);
  NumberedMessage message;
  message.id = fmt::format("{}{}", kIdPrefix, number);
  std::string body(body_bytes_of(random), '\0');
  for (char& byte : body) byte = static_cast<char>(random.next());
  message.body_bytes = body.size();
  message.bytes = broker::encode_test_message(message.id, body);
  message.checksum = checksum(message.bytes);
  return message;
}

}  // namespace

const NumberedMessage& message_of(std::uint32_t number) {
  static std::deque<std::unique_ptr<NumberedMessage>> made;
  if (number >= made.size()) made.resize(number + 1);
  if (made[number] == nullptr) {
    made[number] = std::make_unique<NumberedMessage>(make_message(number));
  }
  return *made[number];
}

std::optional<std::uint32_t> number_of(std::string_view id) { return number_after(kIdPrefix, id); }

std::string queue_name(std::uint32_t number) { return fmt::format("{}{}", kQueuePrefix, number); }

std::optional<std::uint32_t> queue_number(std::string_view name) {
  return number_after(kQueuePrefix, name);
}

}  // namespace holdfast::disk
