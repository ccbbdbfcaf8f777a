#include "core/provenance.h"

#include <fmt/format.h>

namespace holdfast::broker {

namespace {
std::vector<std::uint8_t> finished(flatbuffers::FlatBufferBuilder& builder) {
  return {builder.GetBufferPointer(), builder.GetBufferPointer() + builder.GetSize()};
}
flatbuffers::Offset<flatbuffers::String> text(flatbuffers::FlatBufferBuilder& builder,
                                              std::string_view value) {
  return builder.CreateString(value.data(), value.size());
}
}  // namespace

EncodedAttempts encode_attempts(std::span<const AttemptRecord> history,
                                flatbuffers::FlatBufferBuilder& builder) {
  std::vector<wire::Attempt> attempts;
  std::vector<flatbuffers::Offset<flatbuffers::String>> consumers;
  std::vector<flatbuffers::Offset<flatbuffers::String>> errors;
  for (const AttemptRecord& attempt : history) {
    attempts.emplace_back(to_unix_ms(attempt.delivered_at), to_unix_ms(attempt.ended_at),
                          attempt.number, attempt.cause, std::uint8_t{0}, std::uint16_t{0});
    consumers.push_back(text(builder, attempt.consumer));
    errors.push_back(text(builder, attempt.error));
  }
  return {builder.CreateVectorOfStructs(attempts), builder.CreateVector(consumers),
          builder.CreateVector(errors)};
}

std::vector<std::uint8_t> encode_provenance(const DeadLetter& letter) {
  flatbuffers::FlatBufferBuilder builder(1024);
  const EncodedAttempts encoded = encode_attempts(letter.history, builder);
  const auto source = text(builder, letter.source);
  const auto subscription = text(builder, letter.subscription);
  const auto error = text(builder, letter.error);
  wire::ProvenanceBuilder table(builder);
  table.add_source(source);
  table.add_source_sequence(letter.source_sequence);
  table.add_subscription(subscription);
  table.add_reason(letter.reason);
  table.add_error(error);
  table.add_dead_at(to_unix_ms(letter.dead_at));
  table.add_published_at(to_unix_ms(letter.published_at));
  table.add_attempt_count(letter.attempts);
  table.add_attempts(encoded.attempts);
  table.add_consumers(encoded.consumers);
  table.add_errors(encoded.errors);
  builder.Finish(table.Finish());
  return finished(builder);
}

std::vector<std::uint8_t> encode_corrupt_wrapper(std::string_view queue, Sequence sequence,
                                                 ByteSpan raw) {
  flatbuffers::FlatBufferBuilder builder(raw.size() + 256);
  const auto id = text(builder, fmt::format("corrupt:{}:{}", queue, sequence));
  const auto body = builder.CreateVector(raw.data(), raw.size());
  wire::MessageBuilder table(builder);
  table.add_id(id);
  table.add_body(body);
  builder.Finish(table.Finish());
  return finished(builder);
}

}  // namespace holdfast::broker
