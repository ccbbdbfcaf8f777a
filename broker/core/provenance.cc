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

std::vector<std::uint8_t> encode_provenance(const DeadLetter& letter) {
  flatbuffers::FlatBufferBuilder builder(1024);
  std::vector<wire::Attempt> attempts;
  std::vector<flatbuffers::Offset<flatbuffers::String>> consumers;
  std::vector<flatbuffers::Offset<flatbuffers::String>> errors;
  if (letter.history != nullptr) {
    for (const AttemptRecord& attempt : *letter.history) {
      attempts.emplace_back(to_unix_ms(attempt.delivered_at), to_unix_ms(attempt.ended_at),
                            attempt.number, attempt.cause, std::uint8_t{0}, std::uint16_t{0});
      consumers.push_back(text(builder, attempt.consumer));
      errors.push_back(text(builder, attempt.error));
    }
  }
  const auto source = text(builder, letter.source);
  const auto subscription = text(builder, letter.subscription);
  const auto error = text(builder, letter.error);
  const auto attempts_vector = builder.CreateVectorOfStructs(attempts);
  const auto consumers_vector = builder.CreateVector(consumers);
  const auto errors_vector = builder.CreateVector(errors);
  wire::ProvenanceBuilder table(builder);
  table.add_source(source);
  table.add_source_sequence(letter.source_sequence);
  table.add_subscription(subscription);
  table.add_reason(letter.reason);
  table.add_error(error);
  table.add_dead_at(to_unix_ms(letter.dead_at));
  table.add_published_at(to_unix_ms(letter.published_at));
  table.add_attempt_count(letter.attempts);
  table.add_attempts(attempts_vector);
  table.add_consumers(consumers_vector);
  table.add_errors(errors_vector);
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
