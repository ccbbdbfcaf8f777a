#include "bench/message_mold.h"

#include <fmt/format.h>

#include <cstring>
#include <random>
#include <string>

#include "bench/plan.h"

namespace holdfast::bench {

namespace {

// As long as the ids that the client library makes: 10 characters of salt, 16 of the number.
constexpr std::size_t kSaltChars = 10;
constexpr std::size_t kNumberChars = 16;

}  // namespace

MessageMold::MessageMold(std::uint64_t body_bytes, std::uint64_t salt) : body_bytes_(body_bytes) {
  // Bytes that do not compress, the same ones in every run.
  std::mt19937_64 random(1);
  std::vector<std::uint8_t> body(body_bytes);
  for (std::uint8_t& byte : body) byte = static_cast<std::uint8_t>(random());
  const std::string id = fmt::format("{:010x}{:016x}", salt & 0xFFFFFFFFFF, 0);

  flatbuffers::FlatBufferBuilder builder(body_bytes + 256);
  const auto body_vector = builder.CreateVector(body);
  const auto id_string = builder.CreateString(id);
  wire::MessageBuilder table(builder);
  table.add_id(id_string);
  table.add_body(body_vector);
  builder.Finish(table.Finish());
  bytes_.assign(builder.GetBufferPointer(), builder.GetBufferPointer() + builder.GetSize());
  const auto* message = flatbuffers::GetRoot<wire::Message>(bytes_.data());
  id_at_ = static_cast<std::size_t>(reinterpret_cast<const std::uint8_t*>(message->id()->c_str()) -
                                    bytes_.data());
  body_at_ = static_cast<std::size_t>(message->body()->data() - bytes_.data());
}

ByteSpan MessageMold::cast(std::uint64_t number, std::uint64_t sent_at_ns) {
  constexpr char kDigits[] = "0123456789abcdef";
  std::uint8_t* const digits = bytes_.data() + id_at_ + kSaltChars;
  std::uint64_t rest = number;
  for (std::size_t i = kNumberChars; i-- > 0; rest >>= 4) {
    digits[i] = static_cast<std::uint8_t>(kDigits[rest & 15]);
  }
  std::memcpy(bytes_.data() + body_at_, &sent_at_ns, sizeof(sent_at_ns));
  std::memcpy(bytes_.data() + body_at_ + sizeof(sent_at_ns), &number, sizeof(number));
  return bytes_;
}

MessageMold::Reading MessageMold::read(ByteSpan body) const {
  Reading reading;
  if (body.size() != body_bytes_) return reading;
  std::memcpy(&reading.sent_at_ns, body.data(), sizeof(reading.sent_at_ns));
  std::memcpy(&reading.number, body.data() + sizeof(reading.sent_at_ns), sizeof(reading.number));
  reading.good = std::memcmp(body.data() + kBodyBytesMin, bytes_.data() + body_at_ + kBodyBytesMin,
                             body.size() - kBodyBytesMin) == 0;
  return reading;
}

}  // namespace holdfast::bench
