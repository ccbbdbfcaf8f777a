// What may be said.

#include <fmt/format.h>

#include <algorithm>

#include "sim/model.h"

namespace holdfast::broker::sim {

void Model::said(const Effect& effect, Now now) {
  if (const auto* confirm = std::get_if<ConfirmReply>(&effect)) {
    on(*confirm);
  } else if (const auto* delivery = std::get_if<Delivery>(&effect)) {
    on(*delivery, now);
  } else if (const auto* settled = std::get_if<SettledReply>(&effect)) {
    on(*settled);
  } else if (const auto* extended = std::get_if<ExtendedReply>(&effect)) {
    on(*extended);
  } else if (const auto* lost = std::get_if<LeaseLostNotice>(&effect)) {
    on(*lost, now);
  } else if (const auto* error = std::get_if<ErrorReply>(&effect)) {
    on(*error);
  } else if (const auto* subscribed = std::get_if<SubscribedReply>(&effect)) {
    on(*subscribed);
  } else if (const auto* peeked = std::get_if<PeekReply>(&effect)) {
    on(*peeked);
  } else if (const auto* attempts = std::get_if<AttemptsReply>(&effect)) {
    on(*attempts);
  } else if (const auto* moved = std::get_if<MovedReply>(&effect)) {
    on(*moved);
  } else if (const auto* ended = std::get_if<ConsumerEndedNotice>(&effect)) {
    on(*ended);
  } else if (const auto* listed = std::get_if<ListEndReply>(&effect)) {
    answered(listed->to, true);
  } else if (const auto* queue_reply = std::get_if<QueueReply>(&effect)) {
    // Before it is stored, a queue's number must not be known outside.
    if (queue(queue_reply->report->id) == nullptr) {
      find("early",
           fmt::format("queue {} is shown before it is stored", queue_reply->report->name));
    }
    answered(queue_reply->to, true);
  } else if (const auto* ok = std::get_if<OkReply>(&effect)) {
    const std::optional<Pending> pending = answered(ok->to, true);
    if (!pending || pending->kind != Kind::kDelete) return;
    check_all_told(pending->queue);
    for (auto& [id, of] : queues_) {
      if (id != pending->queue && of.source != pending->queue) continue;
      of.deleted = true;
      while (!of.live.empty()) end(of, *of.live.begin(), End::kPurged);
    }
  }
}

std::optional<Pending> Model::answered(Asker to, bool last) {
  const auto found = pending_.find(to.correlation);
  if (found == pending_.end() && ended_sessions_.contains(to.session)) return std::nullopt;
  if (found == pending_.end() || found->second.session != to.session) {
    find("answers", fmt::format("an answer to request {} that nobody waits for", to.correlation));
    return std::nullopt;
  }
  Pending pending = found->second;
  if (last) pending_.erase(found);
  return pending;
}

void Model::on(const ConfirmReply& reply) {
  for (std::uint32_t i = 0; i < reply.count; ++i) {
    const Sequence sequence = reply.sequence + i;
    const std::optional<Pending> pending =
        answered({reply.to.session, reply.to.correlation + i}, true);
    if (!pending) return;
    const Publish& publish = publishes_[pending->publish];
    const Message* const stored = message(publish.queue, sequence);
    if (stored == nullptr) {
      return find("early",
                  fmt::format("'{}' is confirmed as {} and is not stored", publish.id, sequence));
    }
    if (reply.duplicate) {
      ++counts_.duplicates;
      check_duplicate(publish, pending->publish, sequence);
    } else if (stored->publish != pending->publish) {
      find("bytes",
           fmt::format("'{}' is confirmed as {}, which is another message", publish.id, sequence));
    }
    ++counts_.confirmed;
  }
}

void Model::check_duplicate(const Publish& publish, std::uint64_t number, Sequence sequence) {
  QueueModel& of = queues_.at(publish.queue);
  const Publish& first = publishes_[of.messages.at(sequence).publish];
  // The newest of its id; or, where that was asked for later, the one before. Of ids that were
  // dropped early, an older one may be back after a crash that came before its removal.
  const Sequence newest = of.newest_of_id[publish.id];
  const bool is_newest = newest == sequence || of.messages.at(newest).publish >= number;
  if (first.id != publish.id || (!is_newest && !leeway_.ids_are_dropped)) {
    find("dedup", fmt::format("'{}' is called a duplicate of {}, which is another message",
                              publish.id, sequence));
  }
  if (publish.stored != 0) {
    find("dedup", fmt::format("'{}' is stored and called a duplicate", publish.id));
  }
  // Ids leave a second late with those that came after them within a second, when the broker looks
  // at them, once a second.
  constexpr std::uint64_t kLaterMs = 3000;
  const auto age_ms = static_cast<std::uint64_t>((publish.at - first.at).count());
  if (age_ms > of.dedup_window_most + kLaterMs && !leeway_.ids_are_read && !jumped_back_) {
    find("dedup", fmt::format("'{}' is called a duplicate after {} ms; the window is {} ms",
                              publish.id, age_ms, of.dedup_window_most));
  }
}

void Model::on(const Delivery& delivery, Now now) {
  const Sequence sequence = delivery.entry.sequence;
  const auto consumer_at = consumers_.find(delivery.consumer);
  if (consumer_at == consumers_.end() || consumer_at->second.session != delivery.session) {
    return find("held", fmt::format("message {} goes to a consumer that is no more", sequence));
  }
  ConsumerModel& consumer = consumer_at->second;
  Message* const known = message(delivery.queue, sequence);
  if (consumer.queue != delivery.queue || known == nullptr) {
    return find("early", fmt::format("message {} is delivered and is not stored", sequence));
  }
  QueueModel& of = queues_.at(delivery.queue);
  Message& message = *known;
  std::uint64_t& room = rooms_.try_emplace(delivery.session, ~std::uint64_t{0}).first->second;
  const std::string where = fmt::format("message {} of {}", sequence, of.name);
  if (publish_of(delivery.entry) != message.publish)
    find("bytes", where + " came with other bytes");
  if (message.end != End::kNone) find("final", where + " is delivered after its end");
  if (message.rejected_in_run) find("final", where + " is delivered after it was rejected");
  if (message.holder) find("held", where + " is delivered while a consumer holds it");
  if (draining_) find("held", where + " is delivered by a broker that drains");
  if (message.not_before > now.monotonic) find("bounds", where + " is delivered again too early");
  check_attempt(of, message, delivery);
  if (!message.delivered_ever && delivery.attempt == 1) {
    if (sequence <= of.last_first_delivery) find("order", where + " comes too late");
    of.last_first_delivery = std::max(of.last_first_delivery, sequence);
    // A retry that was chosen before may still be sent.
    if (room == 0) find("bounds", where + " goes to a session that has no room");
  }
  room -= std::min(room, room_of(delivery.entry.stored_bytes()));
  check_credit(consumer, message, where);
  ++counts_.delivered;
  if (message.restarted) message.retries_uncounted = 0;
  if (message.delivered_ever) ++counts_.redelivered;
  const bool is_retry = message.delivered_ever || delivery.attempt > 1;
  if (is_retry && !retries_are_counted_) ++message.retries_uncounted;
  // It is still there: what a crash left open did not happen.
  message.ack_perhaps = message.discard_perhaps = false;
  of.purges_asked.erase(of.purges_asked.lower_bound(sequence), of.purges_asked.end());
  message.delivered_ever = true;
  message.attempts = delivery.attempt;
  message.crashes = 0;
  message.restarts_without_room = 0;
  message.restarted = false;
  message.holder = delivery.consumer;
  message.lease_end = now.monotonic + Milliseconds(delivery.lease_ms);
  consumer.held.insert(sequence);
}

// Whichever came last was chosen while the others had not used up the bytes.
void Model::check_credit(const ConsumerModel& consumer, const Message& message,
                         const std::string& where) {
  if (consumer.held.size() >= consumer.credit) {
    find("bounds", where + " is delivered without credit");
  }
  if (consumer.credit_bytes == 0) return;
  std::uint64_t largest = message.stored_bytes;
  for (const Sequence sequence : consumer.held) {
    largest = std::max(largest, queues_.at(consumer.queue).messages.at(sequence).stored_bytes);
  }
  const std::uint64_t others = held_bytes(consumer) + message.stored_bytes - largest;
  if (others > 0 && others >= consumer.credit_bytes) {
    find("bounds",
         fmt::format("{} is delivered beyond a credit of {} bytes", where, consumer.credit_bytes));
  }
}

void Model::check_attempt(QueueModel& of, const Message& message, const Delivery& delivery) {
  const std::uint32_t least = message.attempts_least() + 1;
  const std::uint32_t most = message.attempts_most() + 1;
  if (delivery.attempt < least || delivery.attempt > most) {
    find("attempts", fmt::format("message {} of {} comes as attempt {}, not {} to {}",
                                 delivery.entry.sequence, of.name, delivery.attempt, least, most));
  }
  if (!of.unlimited_ever && delivery.attempt > of.max_attempts_most) {
    find("attempts",
         fmt::format("message {} of {} comes as attempt {} of {}", delivery.entry.sequence, of.name,
                     delivery.attempt, of.max_attempts_most));
  }
}

void Model::on(const SettledReply& reply) {
  const std::optional<Pending> pending = answered(reply.to, true);
  if (!pending) return;
  QueueModel& of = queues_.at(pending->queue);
  std::uint32_t settled = 0;
  std::uint32_t late = 0;
  for (const Sequence sequence : pending->sequences) {
    const bool refused =
        std::any_of(reply.refused.begin(), reply.refused.end(), [&](const SequenceRange& range) {
          return sequence >= range.first && sequence <= range.last;
        });
    const bool held = pending->held.contains(sequence);
    const bool ack = pending->settle == wire::SettleKind_Ack;
    const std::string where = fmt::format("message {} of {}", sequence, of.name);
    Message* const known = message(pending->queue, sequence);
    if (ack && known != nullptr && known->acks_pending > 0) --known->acks_pending;
    if (refused) {
      if (held) find("held", where + " was held and may not be settled");
      // What came before, the move that made it a dead letter perhaps, is durable by now.
      if (ack && pending->late_acks.contains(sequence) && known->end == End::kNone &&
          !perhaps_gone(of, sequence, *known)) {
        find("held", where + " was held once, is still there and may not be acked");
      }
      continue;
    }
    ++settled;
    if (!held) ++late;
    if (known == nullptr || (!held && !ack)) {
      find("held", where + " was settled by one that did not hold it");
    } else if (ack) {
      if (known->end != End::kNone) find("final", where + " was acked after its end");
      if (known->rejected_in_run) find("final", where + " was acked after it was rejected");
      end(of, sequence, End::kAcked);
      ++counts_.acked;
    } else if (pending->settle == wire::SettleKind_Reject && known->end == End::kNone &&
               !perhaps_gone(of, sequence, *known)) {
      find("early", where + " is said to be rejected and was not moved");
    }
  }
  if (settled != reply.settled || late != reply.late) {
    find("answers", fmt::format("{} settled, {} late were counted as {} and {}", settled, late,
                                reply.settled, reply.late));
  }
}

void Model::on(const ExtendedReply& reply) {
  const std::optional<Pending> pending = answered(reply.to, true);
  if (!pending) return;
  ConsumerModel& consumer = consumers_.at(pending->consumer);
  std::uint32_t extended = 0;
  for (const Sequence sequence : pending->sequences) {
    if (!consumer.held.contains(sequence)) continue;
    ++extended;
    const std::uint32_t lease = pending->lease_ms == 0 ? consumer.lease_ms : pending->lease_ms;
    message(consumer.queue, sequence)->lease_end = pending->at + Milliseconds(lease);
  }
  if (extended != reply.extended) {
    find("held", fmt::format("{} of {} held leases were extended", reply.extended, extended));
  }
}

void Model::on(const LeaseLostNotice& notice, Now now) {
  const auto found = consumers_.find(notice.consumer);
  const auto ending = ending_.find(notice.consumer);
  if (found == consumers_.end() && ending == ending_.end()) {
    return find("held", "a lease of no consumer was lost");
  }
  ConsumerModel& consumer = found == consumers_.end() ? ending->second : found->second;
  for (const SequenceRange& range : notice.ranges) {
    for (Sequence sequence = range.first; sequence <= range.last; ++sequence) {
      if (consumer.held.erase(sequence) == 0) {
        find("held", fmt::format("message {} was taken from one that did not hold it", sequence));
        continue;
      }
      consumer.past.insert(sequence);
      Message& lost = *message(consumer.queue, sequence);
      consumer.failed[sequence] = lost.attempts;
      if (notice.cause == wire::Cause_LeaseExpired && lost.lease_end > now.monotonic) {
        find("held", fmt::format("the lease of message {} ended early", sequence));
      }
      if (notice.cause == wire::Cause_LeaseExpired &&
          is_spared(consumer.session, lost.lease_end, now)) {
        find("held", fmt::format("the lease of message {} ended, and what its consumer has sent "
                                 "was left unread",
                                 sequence));
      }
      let_go(queues_.at(consumer.queue), lost, now, std::nullopt);
    }
  }
}

void Model::on(const ErrorReply& reply) {
  const std::optional<Pending> pending = answered(reply.to, true);
  if (!pending) return;
  if (pending->kind == Kind::kPublish) publishes_[pending->publish].refused = true;
  if (pending->kind == Kind::kAttempts) check_not_told(*pending, reply.error);
  if (pending->kind != Kind::kSettle || pending->settle != wire::SettleKind_Ack) return;
  for (const Sequence sequence : pending->sequences) {
    Message* const known = message(pending->queue, sequence);
    if (known != nullptr && known->acks_pending > 0) --known->acks_pending;
  }
}

void Model::on(const SubscribedReply& reply) {
  const std::optional<Pending> pending = answered(reply.to, true);
  if (!pending) return;
  ConsumerModel& consumer = consumers_[reply.consumer];
  consumer.session = pending->session;
  consumer.queue = reply.queue;
  consumer.lease_ms = reply.lease_ms;
  consumer.lease_is_the_queues = pending->lease_ms == 0;
  consumer.credit = pending->credit;
  consumer.credit_bytes = pending->credit_bytes;
}

void Model::on(const PeekReply& reply) {
  if (!answered(reply.to, false)) return;
  const Message* const known = message(reply.queue, reply.entry.sequence);
  if (known == nullptr) {
    return find("early",
                fmt::format("message {} is shown and is not stored", reply.entry.sequence));
  }
  if (publish_of(reply.entry) != known->publish) {
    find("bytes", fmt::format("message {} is shown with other bytes", reply.entry.sequence));
  }
  if (known->end != End::kNone) {
    find("final", fmt::format("message {} is shown after its end", reply.entry.sequence));
  }
  if (known->holder && reply.state != wire::MessageState_InFlight) {
    find("held", fmt::format("message {} is held and shown otherwise", reply.entry.sequence));
  }
}

void Model::on(const AttemptsReply& reply) {
  const std::optional<Pending> pending = answered(reply.to, true);
  if (!pending) return;
  const AttemptsReport& report = *reply.report;
  const std::string where =
      fmt::format("message {} of {}", report.sequence, queues_.at(pending->queue).name);
  if (pending->sequences != std::vector{report.sequence}) {
    return find("answers", where + " is told of, which was not asked for");
  }
  if (!pending->asked_about) return find("early", where + " is told of and is not stored");
  const Message& message = *pending->asked_about;
  if (message.end != End::kNone) find("final", where + " is told of after its end");
  const bool in_flight = report.state == wire::MessageState_InFlight;
  if (message.holder) {
    if (!in_flight || report.attempts != message.attempts || report.due_at != pending->lease_end) {
      find("held", where + " is held and told of otherwise");
    }
  } else if (in_flight && report.due_at != WallTime()) {
    find("held", where + " is told of with a lease that nobody has");
  } else if (report.attempts < message.attempts_least() ||
             report.attempts > message.attempts_most() + (in_flight ? 1 : 0)) {
    find("attempts",
         fmt::format("{} is told of with {} attempts, not {} to {}", where, report.attempts,
                     message.attempts_least(), message.attempts_most()));
  }
  if (report.state == wire::MessageState_Waiting && report.history.empty()) {
    find("attempts", where + " waits, and no attempt of it is told of");
  }
  std::uint32_t last = 0;
  for (const AttemptRecord& attempt : report.history) {
    if (attempt.number <= last || attempt.number > report.attempts) {
      find("attempts", fmt::format("{} is told of with an attempt {} after {}, of {}", where,
                                   attempt.number, last, report.attempts));
    }
    last = attempt.number;
  }
}

// The broker knew it when it was asked, since it had delivered it. By now all that was asked before
// has happened.
void Model::check_not_told(const Pending& pending, const Status& error) {
  const QueueModel& of = queues_.at(pending.queue);
  if (error.code() != ErrorCode::kMessageNotFound) {
    if (of.delete_asked || of.deleted) return;
    return find("answers",
                fmt::format("what is asked of {} is refused: {}", of.name, error.message()));
  }
  if (!pending.asked_about || !pending.asked_about->delivered_ever) return;
  const Sequence sequence = pending.sequences.front();
  const bool has_ended = of.messages.at(sequence).end != End::kNone;
  if (has_ended || perhaps_gone(of, sequence, *pending.asked_about)) return;
  find("lost", fmt::format("message {} of {} is said not to be there", sequence, of.name));
}

void Model::on(const MovedReply& reply) {
  const std::optional<Pending> pending = answered(reply.to, true);
  if (!pending) return;
  QueueModel& of = queues_.at(pending->queue);
  if (pending->kind == Kind::kPurge) {
    while (!of.live.empty() && *of.live.begin() <= pending->purge_to) {
      end(of, *of.live.begin(), End::kPurged);
    }
    return;
  }
  if (reply.moved != pending->sequences.size() || pending->kind != Kind::kMove) return;
  for (const Sequence sequence : pending->sequences) {
    const Message* const known = message(pending->queue, sequence);
    if (known == nullptr || (pending->redrive && known->end != End::kRedriven)) {
      find("early", fmt::format("dead letter {} is said to be redriven and is not", sequence));
    } else if (known->end == End::kNone) {
      end(of, sequence, End::kDiscarded);
    }
  }
}

void Model::on(const ConsumerEndedNotice& notice) {
  const auto found = ending_.find(notice.consumer);
  if (found == ending_.end()) return find("held", "a consumer ended twice");
  const QueueModel& of = queues_.at(found->second.queue);
  if (!of.delete_stored) {
    find("early",
         fmt::format("a consumer is told that {} was deleted before that is stored", of.name));
  }
  ending_.erase(found);
}

void Model::check_all_told(QueueId id) {
  for (const auto& [consumer_id, consumer] : ending_) {
    const QueueModel& of = queues_.at(consumer.queue);
    if (consumer.queue != id && of.source != id) continue;
    if (ended_sessions_.contains(consumer.session)) continue;
    find("answers", fmt::format("{} was deleted, and its consumer {} is not told", of.name,
                                consumer_id.value));
  }
}

void Model::advanced(Now now) {
  for (const auto& [id, consumer] : consumers_) {
    for (const Sequence sequence : consumer.held) {
      const MonotonicTime end = message(consumer.queue, sequence)->lease_end;
      if (end <= now.monotonic && !may_be_spared(consumer.session, end, now)) {
        find("held", fmt::format("the lease of message {} of {} does not end", sequence,
                                 queues_.at(consumer.queue).name));
      }
    }
  }
}

}  // namespace holdfast::broker::sim
