#include "net/reply.h"

#include <algorithm>

#include "core/provenance.h"
#include "holdfast/text.h"

namespace holdfast::broker {

namespace {

wire::DeliverEnvelope envelope_of(const BlockEntry& entry, ConsumerId consumer, QueueId queue,
                                  std::uint32_t attempt, std::uint32_t lease_ms,
                                  wire::MessageState state) {
  return wire::DeliverEnvelope(consumer.value, entry.sequence, entry.message_checksum,
                               to_unix_ms(entry.published_at),
                               entry.provenance.empty() ? 0 : entry.provenance_checksum,
                               static_cast<std::uint32_t>(entry.message.size()),
                               static_cast<std::uint32_t>(entry.provenance.size()), attempt,
                               lease_ms, queue.value, static_cast<std::uint8_t>(state), 0, 0);
}

}  // namespace

flatbuffers::FlatBufferBuilder& ReplyEncoder::begin() {
  builder_.Clear();
  return builder_;
}

flatbuffers::Offset<flatbuffers::Vector<const wire::SequenceRange*>> ReplyEncoder::fitted_ranges(
    std::span<const SequenceRange> ranges) {
  ranges_.clear();
  for (const SequenceRange& range : ranges.first(std::min(ranges.size(), kRangesMax))) {
    ranges_.emplace_back(range.first, range.last);
  }
  if (ranges.size() > kRangesMax) {
    ranges_.back() = wire::SequenceRange(ranges_.back().first(), ranges.back().last);
  }
  return builder_.CreateVectorOfStructs(ranges_);
}

std::size_t ReplyEncoder::append(const ConfirmReply& reply, FrameWriter& out) {
  auto& builder = begin();
  return finish(wire::FrameType_Confirm, reply.to.correlation,
                wire::CreateConfirm(builder, reply.sequence, reply.count, reply.duplicate), out);
}

std::size_t ReplyEncoder::append(const Delivery& delivery, FrameWriter& out) {
  out.append_deliver(wire::FrameType_Deliver, 0,
                     envelope_of(delivery.entry, delivery.consumer, delivery.queue,
                                 delivery.attempt, delivery.lease_ms, wire::MessageState_InFlight),
                     delivery.entry.message, delivery.entry.provenance);
  return 1;
}

std::size_t ReplyEncoder::append(const SettledReply& reply, FrameWriter& out) {
  auto& builder = begin();
  const auto refused = reply.refused.empty() ? 0 : fitted_ranges(reply.refused);
  return finish(wire::FrameType_Settled, reply.to.correlation,
                wire::CreateSettled(builder, reply.settled, reply.late, refused), out);
}

std::size_t ReplyEncoder::append(const ExtendedReply& reply, FrameWriter& out) {
  auto& builder = begin();
  const auto refused = reply.refused.empty() ? 0 : fitted_ranges(reply.refused);
  return finish(wire::FrameType_Extended, reply.to.correlation,
                wire::CreateExtended(builder, reply.extended, refused), out);
}

std::size_t ReplyEncoder::append(const LeaseLostNotice& notice, FrameWriter& out) {
  std::size_t frames = 0;
  std::span<const SequenceRange> rest = notice.ranges;
  while (!rest.empty()) {
    auto& builder = begin();
    const auto part = rest.first(std::min(rest.size(), kRangesMax));
    rest = rest.subspan(part.size());
    const auto ranges = fitted_ranges(part);
    frames += finish(wire::FrameType_LeaseLost, 0,
                     wire::CreateLeaseLost(builder, notice.consumer.value,
                                           static_cast<std::uint8_t>(notice.cause), ranges),
                     out);
  }
  return frames;
}

std::size_t ReplyEncoder::append(const ErrorReply& reply, FrameWriter& out) {
  return append_error(reply.to.correlation, reply.error, false, out);
}

std::size_t ReplyEncoder::append(const OkReply& reply, FrameWriter& out) {
  out.append_empty(wire::FrameType_Ok, reply.to.correlation);
  return 1;
}

std::size_t ReplyEncoder::append(const SubscribedReply& reply, FrameWriter& out) {
  auto& builder = begin();
  return finish(
      wire::FrameType_Subscribed, reply.to.correlation,
      wire::CreateSubscribed(builder, reply.consumer.value, reply.queue.value, reply.lease_ms),
      out);
}

std::size_t ReplyEncoder::append(const QueueReply& reply, FrameWriter& out) {
  const QueueReport& report = *reply.report;
  const QueueCounters& counters = report.counters;
  auto& builder = begin();
  settings_.clear();
  for (const QueueSettingInfo& info : queue_setting_table()) {
    settings_.emplace_back(static_cast<std::uint16_t>(info.setting), 0, 0,
                           report.settings.get(info.setting));
  }
  const auto settings = builder.CreateVectorOfStructs(settings_);
  const auto name = builder.CreateString(report.name);
  const auto dead_queue = builder.CreateString(report.dead_queue);
  const auto source_queue = builder.CreateString(report.source_queue);
  wire::QueueInfoBuilder info(builder);
  info.add_queue(report.id.value);
  info.add_name(name);
  info.add_settings(settings);
  info.add_dead_queue(dead_queue);
  info.add_source_queue(source_queue);
  info.add_next_sequence(report.next_sequence);
  info.add_floor(report.floor);
  info.add_messages(report.messages);
  info.add_bytes(report.bytes);
  info.add_ready(report.ready);
  info.add_in_flight(report.in_flight);
  info.add_waiting(report.waiting);
  info.add_moving(report.moving);
  info.add_stalled(report.stalled);
  info.add_dead(report.dead);
  info.add_consumers(report.consumers);
  info.add_published(counters.published);
  info.add_duplicates(counters.duplicates);
  info.add_delivered(counters.delivered);
  info.add_redelivered(counters.redelivered);
  info.add_acked(counters.acked);
  info.add_late_acks(counters.late_acks);
  info.add_nacked(counters.nacked);
  info.add_rejected(counters.rejected);
  info.add_released(counters.released);
  info.add_leases_expired(counters.leases_expired);
  info.add_deliveries_lost(counters.deliveries_lost);
  info.add_dead_lettered(counters.dead_lettered);
  info.add_redriven(counters.redriven);
  info.add_discarded(counters.discarded);
  info.add_purged(counters.purged);
  info.add_corrupt(counters.corrupt);
  info.add_refused(counters.refused);
  info.add_dedup_ids(report.dedup_ids);
  info.add_dedup_cut_short(report.dedup_cut_short);
  info.add_publish_rate(report.rates.publish);
  info.add_deliver_rate(report.rates.deliver);
  info.add_ack_rate(report.rates.ack);
  info.add_created_at(to_unix_ms(report.created_at));
  return finish(wire::FrameType_QueueInfo, reply.to.correlation, info.Finish(), out);
}

std::size_t ReplyEncoder::append(const PeekReply& reply, FrameWriter& out) {
  out.append_deliver(
      wire::FrameType_PeekItem, reply.to.correlation,
      envelope_of(reply.entry, ConsumerId(), reply.queue, reply.attempts, 0, reply.state),
      reply.entry.message, reply.entry.provenance);
  return 1;
}

std::size_t ReplyEncoder::append(const AttemptsReply& reply, FrameWriter& out) {
  const AttemptsReport& report = *reply.report;
  auto& builder = begin();
  const EncodedAttempts encoded = encode_attempts(report.history, builder);
  const auto consumer = builder.CreateString(report.consumer);
  wire::AttemptsInfoBuilder info(builder);
  info.add_sequence(report.sequence);
  info.add_state(report.state);
  info.add_attempt_count(report.attempts);
  info.add_consumer(consumer);
  info.add_due_at(to_unix_ms(report.due_at));
  info.add_attempts(encoded.attempts);
  info.add_consumers(encoded.consumers);
  info.add_errors(encoded.errors);
  return finish(wire::FrameType_AttemptsInfo, reply.to.correlation, info.Finish(), out);
}

std::size_t ReplyEncoder::append(const ListEndReply& reply, FrameWriter& out) {
  auto& builder = begin();
  return finish(wire::FrameType_ListEnd, reply.to.correlation,
                wire::CreateListEnd(builder, reply.count, reply.next), out);
}

std::size_t ReplyEncoder::append(const MovedReply& reply, FrameWriter& out) {
  auto& builder = begin();
  const auto message =
      builder.CreateString(cut_utf8(reply.first_refusal.message(), kErrorTextBytesMax));
  return finish(wire::FrameType_Moved, reply.to.correlation,
                wire::CreateMoved(builder, reply.moved, reply.skipped_in_flight, reply.not_found,
                                  reply.refused, reply.next,
                                  static_cast<std::uint16_t>(reply.first_refusal.code()), message,
                                  reply.not_found_first),
                out);
}

std::size_t ReplyEncoder::append(const ConsumerReply& reply, FrameWriter& out) {
  const ConsumerReport& report = *reply.report;
  auto& builder = begin();
  const auto queue = builder.CreateString(report.queue);
  const auto subscription = builder.CreateString(report.subscription);
  const auto name = builder.CreateString(report.name);
  return finish(
      wire::FrameType_ConsumerInfo, reply.to.correlation,
      wire::CreateConsumerInfo(builder, report.id.value, report.session.value, queue, subscription,
                               name, report.credit_messages, report.credit_bytes, report.in_flight,
                               report.in_flight_bytes, report.lease_ms, report.delivered,
                               report.acked, report.oldest_lease_ms),
      out);
}

std::size_t ReplyEncoder::append(const ConsumerEndedNotice& notice, FrameWriter& out) {
  auto& builder = begin();
  const auto message = builder.CreateString(cut_utf8(notice.why.message(), kErrorTextBytesMax));
  return finish(wire::FrameType_ConsumerEnded, 0,
                wire::CreateConsumerEnded(builder, notice.consumer.value,
                                          static_cast<std::uint16_t>(notice.why.code()), message),
                out);
}

std::size_t ReplyEncoder::append_error(std::uint64_t correlation, const Status& error, bool fatal,
                                       FrameWriter& out) {
  auto& builder = begin();
  const auto message = builder.CreateString(cut_utf8(error.message(), kErrorTextBytesMax));
  return finish(wire::FrameType_Error, correlation,
                wire::CreateError(builder, static_cast<std::uint16_t>(error.code()),
                                  error.retryable(), message, fatal),
                out);
}

std::size_t ReplyEncoder::append_goodbye(const Status& reason, Milliseconds deadline,
                                         FrameWriter& out) {
  auto& builder = begin();
  const auto message = builder.CreateString(reason.message());
  return finish(wire::FrameType_Goodbye, 0,
                wire::CreateGoodbye(builder, static_cast<std::uint16_t>(reason.code()), message,
                                    static_cast<std::uint32_t>(deadline.count())),
                out);
}

std::size_t ReplyEncoder::append_welcome(std::uint64_t correlation, const WelcomeFields& fields,
                                         FrameWriter& out) {
  auto& builder = begin();
  const auto version = builder.CreateString(fields.broker_version);
  const auto node = builder.CreateString(fields.node_id);
  return finish(wire::FrameType_Welcome, correlation,
                wire::CreateWelcome(builder, kProtocolVersion, version, node, fields.heartbeat_ms,
                                    fields.frame_bytes_max, fields.unconfirmed_bytes_max),
                out);
}

}  // namespace holdfast::broker
