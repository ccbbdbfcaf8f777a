// What was asked, and what follows from it for what may be expected.

#include "sim/model.h"

#include <fmt/format.h>

#include <algorithm>

namespace holdfast::broker::sim {

void QueueModel::set(QueueSetting setting, std::uint64_t value) {
  settings[setting] = value;
  if (setting == QueueSetting::kMaxAttempts) {
    if (value == 0) {
      unlimited_ever = true;
    } else {
      max_attempts_most = std::max(max_attempts_most, value);
      max_attempts_least = std::min(max_attempts_least, value);
    }
  }
  if (setting == QueueSetting::kOutstandingMax) {
    outstanding_most = std::max(outstanding_most, value);
  }
  const std::uint64_t bound = value == 0 ? ~std::uint64_t{0} : value;
  if (setting == QueueSetting::kMaxMessages) max_messages_most = std::max(max_messages_most, bound);
  if (setting == QueueSetting::kMaxBytes) max_bytes_most = std::max(max_bytes_most, bound);
  if (setting == QueueSetting::kDedupWindow) {
    dedup_window_least = std::min(dedup_window_least, value);
    dedup_window_most = std::max(dedup_window_most, value);
  }
}

void Model::find(std::string promise, std::string what) {
  if (!finding_) finding_ = promise + ": " + what;
}

QueueModel* Model::queue(QueueId id) {
  const auto found = queues_.find(id);
  return found == queues_.end() ? nullptr : &found->second;
}

Message* Model::message(QueueId id, Sequence sequence) {
  QueueModel* const known = queue(id);
  if (known == nullptr) return nullptr;
  const auto found = known->messages.find(sequence);
  return found == known->messages.end() ? nullptr : &found->second;
}

std::size_t Model::held_count() const {
  std::size_t count = 0;
  for (const auto& [id, consumer] : consumers_) count += consumer.held.size();
  return count;
}

std::size_t Model::held_count(QueueId id) const {
  std::size_t count = 0;
  for (const auto& [consumer_id, consumer] : consumers_) {
    if (consumer.queue == id) count += consumer.held.size();
  }
  return count;
}

std::uint64_t Model::held_bytes(const ConsumerModel& consumer) const {
  const QueueModel& of = queues_.at(consumer.queue);
  std::uint64_t bytes = 0;
  for (const Sequence sequence : consumer.held) bytes += of.messages.at(sequence).stored_bytes;
  return bytes;
}

std::uint64_t Model::add_publish(Publish publish) {
  publish.jumps_ms = jumps_ms_;
  const std::uint64_t number = publishes_.size();
  publish_by_checksum_.emplace(publish.checksum, number);
  publishes_.push_back(std::move(publish));
  return number;
}

void Model::end(QueueModel& queue, Sequence sequence, End how) {
  queue.messages.at(sequence).end = how;
  queue.live.erase(sequence);
}

// The message has no holder any more. It is not sent again before the shortest wait that its
// queue's backoff allows, or the one that the nack named.
void Model::let_go(QueueModel& queue, Message& message, Now now,
                   std::optional<Milliseconds> delay) {
  message.holder = ConsumerId();
  std::uint64_t wait = queue.settings[QueueSetting::kBackoffMin];
  const std::uint64_t longest = queue.settings[QueueSetting::kBackoffMax];
  for (std::uint32_t i = 1; i < message.attempts && wait < longest; ++i) wait *= 2;
  wait = std::min(wait, longest) * 8 / 10;
  message.not_before =
      now.monotonic + delay.value_or(Milliseconds(static_cast<std::int64_t>(wait)));
}

void Model::ask_settle(std::uint64_t correlation, Pending pending,
                       std::optional<Milliseconds> delay, Now now) {
  ConsumerModel& consumer = consumers_.at(pending.consumer);
  pending.queue = consumer.queue;
  QueueModel& of = queues_.at(consumer.queue);
  for (const Sequence sequence : pending.sequences) {
    const auto found = of.messages.find(sequence);
    if (found == of.messages.end()) continue;
    Message& message = found->second;
    if (pending.settle == wire::SettleKind_Ack) ++message.acks_pending;
    if (may_ack_late(consumer, sequence, message)) pending.late_acks.insert(sequence);
    if (consumer.held.erase(sequence) == 0) continue;
    pending.held.insert(sequence);
    consumer.past.insert(sequence);
    if (pending.settle == wire::SettleKind_Nack) consumer.failed[sequence] = message.attempts;
    let_go(of, message, now, delay);
    if (pending.settle == wire::SettleKind_Release) {
      message.not_before = MonotonicTime::min();
      --message.attempts;
    } else if (pending.settle == wire::SettleKind_Reject) {
      message.reject_asked = message.rejected_in_run = true;
    }
  }
  ask(correlation, std::move(pending));
}

void Model::knows(const SpaceReport& space) {
  retries_are_counted_ = space.retries_allowed;
  const bool is_ample = space.publishes_allowed && space.room_bytes == MemoryStore::kRoomBytes;
  was_short_of_room_ = was_short_of_room_ || !is_ample;
  was_full_ever_ = was_full_ever_ || !space.publishes_allowed;
}

void Model::ask_purge(std::uint64_t correlation, SessionId session, QueueId id, Sequence to) {
  QueueModel& of = queues_.at(id);
  of.purges_asked.insert(to);
  Pending pending;
  pending.kind = Kind::kPurge;
  pending.session = session;
  pending.queue = id;
  pending.purge_to = to;
  ask(correlation, std::move(pending));
}

void Model::ask_delete(std::uint64_t correlation, SessionId session, QueueId id, Now now) {
  for (auto& [other_id, other] : queues_) {
    if (other_id == id || other.source == id) other.delete_asked = true;
  }
  std::vector<ConsumerId> ended;
  for (const auto& [consumer_id, consumer] : consumers_) {
    if (queues_.at(consumer.queue).delete_asked) ended.push_back(consumer_id);
  }
  for (const ConsumerId consumer : ended) {
    ending_.emplace(consumer, consumers_.at(consumer));
    end_consumer(consumer, now);
  }
  Pending pending;
  pending.kind = Kind::kDelete;
  pending.session = session;
  pending.queue = id;
  ask(correlation, std::move(pending));
}

// The answer tells how it is now, and comes later.
void Model::ask_attempts(std::uint64_t correlation, Pending pending, Sequence sequence, Now now) {
  pending.sequences = {sequence};
  if (const Message* const known = message(pending.queue, sequence)) {
    pending.asked_about = *known;
    pending.lease_end = now.wall + (known->lease_end - now.monotonic);
  }
  ask(correlation, std::move(pending));
}

void Model::ask_move(std::uint64_t correlation, Pending pending, bool all, bool dry_run) {
  QueueModel& dead = queues_.at(pending.queue);
  const auto mark = [&](Sequence sequence) {
    const auto found = dead.messages.find(sequence);
    if (found == dead.messages.end() || dry_run) return;
    found->second.move_asked = found->second.move_asked || pending.redrive;
    found->second.discard_asked = found->second.discard_asked || !pending.redrive;
  };
  if (all) {
    for (const Sequence sequence : dead.live) mark(sequence);
  } else {
    for (const Sequence sequence : pending.sequences) mark(sequence);
  }
  ask(correlation, std::move(pending));
}

void Model::ask_edit(QueueId id, const std::vector<SettingChange>& settings) {
  QueueModel& of = queues_.at(id);
  for (const SettingChange& change : settings) {
    of.set(static_cast<QueueSetting>(change.setting), change.value);
  }
  for (auto& [consumer_id, consumer] : consumers_) {
    if (consumer.queue != id || !consumer.lease_is_the_queues) continue;
    consumer.lease_ms = static_cast<std::uint32_t>(of.settings[QueueSetting::kLease]);
  }
}

void Model::set_credit(ConsumerId consumer, std::uint32_t credit) {
  consumers_.at(consumer).credit = credit;
  consumers_.at(consumer).credit_bytes = 0;
}

void Model::set_room(SessionId session, std::uint64_t bytes) { rooms_[session] = bytes; }

void Model::set_unread(SessionId session, bool unread, Now now) {
  if (unread) {
    unread_since_[session] = now.monotonic;
    return;
  }
  const MonotonicTime since = unread_since_.extract(session).mapped();
  const MonotonicTime until =
      std::min(now.monotonic + (now.monotonic - since), now.monotonic + Milliseconds(1'000));
  Spared& spared = spared_.try_emplace(session).first->second;
  if (spared.until < until) spared = {since, until, spared.until};
}

bool Model::is_spared(SessionId session, MonotonicTime lease_end, Now now) const {
  const auto unread = unread_since_.find(session);
  if (unread != unread_since_.end() && unread->second <= lease_end) return true;
  const auto spared = spared_.find(session);
  return spared != spared_.end() && spared->second.since <= lease_end &&
         now.monotonic < spared->second.until;
}

bool Model::may_be_spared(SessionId session, MonotonicTime lease_end, Now now) const {
  const auto spared = spared_.find(session);
  return is_spared(session, lease_end, now) ||
         (spared != spared_.end() && now.monotonic < spared->second.until_before);
}

void Model::end_consumer(ConsumerId id, Now now) {
  const auto found = consumers_.find(id);
  if (found == consumers_.end()) return;
  QueueModel& of = queues_.at(found->second.queue);
  for (const Sequence sequence : found->second.held) {
    Message& message = of.messages.at(sequence);
    let_go(of, message, now, std::nullopt);
    if (leeway_.ends_wait) message.not_before = now.monotonic;
  }
  consumers_.erase(found);
}

void Model::end_session(SessionId session, Now now) {
  std::vector<ConsumerId> ended;
  for (const auto& [id, consumer] : consumers_) {
    if (consumer.session == session) ended.push_back(id);
  }
  for (const ConsumerId id : ended) end_consumer(id, now);
  rooms_.erase(session);
  unread_since_.erase(session);
  spared_.erase(session);
  ended_sessions_.insert(session);
  std::erase_if(pending_, [session](const auto& entry) {
    const Kind kind = entry.second.kind;
    return entry.second.session == session && (kind == Kind::kPeek || kind == Kind::kMove);
  });
}

void Model::crashed(bool gracefully) {
  ++counts_.crashes;
  jumps_ms_ += jumps_unseen_ms_;
  jumps_unseen_ms_ = 0;
  for (const auto& [correlation, lost] : pending_) {
    if (lost.kind != Kind::kSettle || lost.settle != wire::SettleKind_Ack) continue;
    for (const Sequence sequence : lost.sequences) {
      if (Message* const asked = message(lost.queue, sequence)) asked->ack_perhaps = true;
    }
  }
  pending_.clear();
  consumers_.clear();
  ending_.clear();
  ended_sessions_.clear();
  draining_ = false;
  for (auto& [id, of] : queues_) {
    of.last_first_delivery = 0;
    for (const Sequence sequence : of.live) {
      Message& message = of.messages.at(sequence);
      message.holder = ConsumerId();
      message.acks_pending = 0;
      message.rejected_in_run = message.move_asked = false;
      message.discard_perhaps = message.discard_perhaps || message.discard_asked;
      message.discard_asked = false;
      message.not_before = MonotonicTime::min();
      if (!gracefully) ++message.crashes;
      if (was_short_of_room_) {
        ++message.restarts_without_room;
      } else if (!message.restarted) {
        message.retries_uncounted = 0;
      }
      message.restarted = true;
    }
  }
  was_short_of_room_ = false;
}

bool Model::may_ack_late(const ConsumerModel& consumer, Sequence sequence, const Message& message) {
  const auto failed = consumer.failed.find(sequence);
  return failed != consumer.failed.end() && message.attempts < failed->second + kHistoryMax &&
         !message.rejected_in_run;
}

bool Model::perhaps_gone(const QueueModel& of, Sequence sequence, const Message& message) const {
  return message.acks_pending > 0 || message.ack_perhaps || message.discard_asked ||
         message.discard_perhaps || of.delete_asked ||
         (!of.purges_asked.empty() && sequence <= *of.purges_asked.rbegin());
}

void Model::check_counts(const QueueReport& report) {
  QueueModel* const of = queue(report.id);
  if (of == nullptr) {
    find("lost", fmt::format("queue {} was never stored", report.name));
    return;
  }
  of->delete_asked = false;  // it was not done
  for (const QueueSettingInfo& info : queue_setting_table()) {
    of->set(info.setting, report.settings.get(info.setting));
  }
  of->messages_at_start = report.messages;
  std::uint64_t surely = 0;
  for (const Sequence sequence : of->live) {
    if (!perhaps_gone(*of, sequence, of->messages.at(sequence))) ++surely;
  }
  if (report.messages < surely || report.messages > of->live.size()) {
    find("lost", fmt::format("queue {} restarts with {} messages; {} to {} are expected",
                             report.name, report.messages, surely, of->live.size()));
  }
}

void Model::check_bounds(const QueueReport& report) {
  QueueModel* const of = queue(report.id);
  if (of == nullptr) return;
  // On a full disk as many again may wait to be dead letters, and be forgotten as such by a
  // restart.
  const std::uint64_t most = of->outstanding_most * (was_full_ever_ ? 2 : 1);
  if (report.in_flight + report.waiting > most) {
    find("bounds",
         fmt::format("queue {} has {} in flight and {} waiting; outstanding-max was "
                     "never above {}",
                     report.name, report.in_flight, report.waiting, of->outstanding_most));
  }
  if (report.messages > of->max_messages_most || report.bytes > of->max_bytes_most) {
    find("bounds",
         fmt::format("queue {} has {} messages of {} and {} bytes of {}", report.name,
                     report.messages, of->max_messages_most, report.bytes, of->max_bytes_most));
  }
  const std::size_t held = held_count(report.id);
  if (report.in_flight < held) {
    find("held", fmt::format("queue {} reports {} in flight; consumers hold {}", report.name,
                             report.in_flight, held));
  }
}

void Model::check_drained() {
  for (const auto& [correlation, left] : pending_) {
    find("answers", fmt::format("request {} was never answered", correlation));
  }
  for (auto& [id, of] : queues_) {
    for (const Sequence sequence : of.live) {
      if (perhaps_gone(of, sequence, of.messages.at(sequence))) continue;
      find("lost", fmt::format("message {} of queue {} is nowhere", sequence, of.name));
    }
  }
}

}  // namespace holdfast::broker::sim
