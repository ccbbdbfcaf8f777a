#include "corrupt/messages.h"

#include "crash/random.h"

namespace holdfast::corrupt {

std::vector<std::uint8_t> encode_message(const std::string& id, std::size_t body_bytes) {
  crash::Random random(crash::hash_text(id));
  std::vector<std::uint8_t> body(body_bytes);
  for (std::uint8_t& byte : body) byte = static_cast<std::uint8_t>(random.next());
  flatbuffers::FlatBufferBuilder builder;
  const auto id_offset = builder.CreateString(id);
  const auto body_offset = builder.CreateVector(body);
  wire::MessageBuilder message(builder);
  message.add_id(id_offset);
  message.add_body(body_offset);
  builder.Finish(message.Finish());
  return {builder.GetBufferPointer(), builder.GetBufferPointer() + builder.GetSize()};
}

}  // namespace holdfast::corrupt
