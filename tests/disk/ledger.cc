#include "disk/ledger.h"

#include <fmt/format.h>

#include "disk/messages.h"

namespace holdfast::disk {

MessageState& Ledger::message(const Entry& entry) {
  if (entry.message >= messages_.size()) messages_.resize(entry.message + 1);
  return messages_[entry.message];
}

void Ledger::tell(const Entry& entry) {
  switch (entry.kind) {
    case EntryKind::kLifeBegins:
      ++counts_.lives;
      for (auto& [number, queue] : queues_) queue.redrives_open = 0;
      break;
    case EntryKind::kQueueAsked:
      queues_[entry.queue];
      break;
    case EntryKind::kQueueCreated:
      queues_[entry.queue].created = true;
      break;
    case EntryKind::kDeleteAsked:
      queues_[entry.queue].delete_asked = true;
      break;
    case EntryKind::kDeleteDone:
      queues_[entry.queue].deleted = true;
      ++counts_.deleted;
      break;
    case EntryKind::kPurgeAsked: {
      // What a redrive still looks for comes into the queue before or after it is purged.
      const bool is_certain = queues_[entry.queue].redrives_open == 0;
      for (MessageState& one : messages_) {
        if (one.queue != entry.queue || one.asked == 0) continue;
        one.perhaps_gone = true;
        one.purge_asked = one.confirmed && is_certain;
      }
      break;
    }
    case EntryKind::kPurgeDone:
      for (MessageState& one : messages_) {
        if (one.queue == entry.queue && one.purge_asked) one.purged = true;
      }
      break;
    case EntryKind::kRedriveAsked:
      ++queues_[entry.queue].redrives_open;
      for (MessageState& one : messages_) {
        if (one.queue != entry.queue) continue;
        one.rejected = one.purge_asked = one.purged = false;
        one.redriven_meanwhile = one.rejects_open > 0;
      }
      break;
    case EntryKind::kRedriveDone:
      --queues_[entry.queue].redrives_open;
      break;
    case EntryKind::kPublishAsked:
      message(entry).queue = entry.queue;
      ++message(entry).asked;
      break;
    case EntryKind::kPublishRefused:
      ++message(entry).refused;
      break;
    case EntryKind::kConfirmed:
      confirm(entry);
      break;
    case EntryKind::kAckAsked:
      ++message(entry).acks_open;
      break;
    case EntryKind::kAckRefused:
      --message(entry).acks_open;
      break;
    case EntryKind::kAckDone:
      message(entry).acked = true;
      ++counts_.acked;
      break;
    case EntryKind::kRejectAsked:
      ++message(entry).rejects_open;
      break;
    case EntryKind::kRejectDone: {
      MessageState& one = message(entry);
      ++counts_.rejected;
      --one.rejects_open;
      // A purge takes what is on its way to the dead-letter queue, too.
      if (!one.perhaps_gone) one.must_exist = true;
      if (!one.perhaps_gone && !one.redriven_meanwhile) one.rejected = true;
      one.redriven_meanwhile = false;
      break;
    }
    case EntryKind::kDelivered:
    default:
      break;
  }
}

void Ledger::confirm(const Entry& entry) {
  MessageState& one = message(entry);
  ++counts_.confirmed;
  if (entry.duplicate) ++counts_.duplicates;
  if (one.confirmed && (!entry.duplicate || one.sequence != entry.sequence) && !finding_) {
    finding_ = fmt::format("{} was confirmed with sequence {}, and then {} with sequence {}",
                           message_of(entry.message).id, one.sequence,
                           entry.duplicate ? "as a duplicate" : "as new", entry.sequence);
  }
  one.confirmed = one.must_exist = true;
  one.sequence = entry.sequence;
}

std::optional<std::string> Ledger::check(const Found& found) const {
  if (finding_) return finding_;
  if (std::optional<std::string> finding = check_queues(found)) return finding;
  std::vector<std::pair<std::uint32_t, std::uint32_t>> copies(messages_.size());
  for (const Found::Stored& stored : found.stored) {
    if (stored.message >= messages_.size() || messages_[stored.message].asked == 0 ||
        messages_[stored.message].queue != stored.queue) {
      return fmt::format("{} is in queue {} and was never published there",
                         message_of(stored.message).id, stored.queue);
    }
    auto& [main, dead] = copies[stored.message];
    ++(stored.dead ? dead : main);
  }
  for (std::uint32_t number = 0; number < messages_.size(); ++number) {
    const auto [main, dead] = copies[number];
    if (std::optional<std::string> finding = check_message(number, main, dead)) return finding;
  }
  return std::nullopt;
}

std::optional<std::string> Ledger::check_queues(const Found& found) const {
  for (const auto& [number, queue] : queues_) {
    const bool there = found.queues.contains(number);
    if (queue.created && !queue.delete_asked && !there) {
      return fmt::format("queue {} was created and is not there", number);
    }
    if (queue.deleted && there) return fmt::format("queue {} was deleted and is there", number);
  }
  return std::nullopt;
}

std::optional<std::string> Ledger::check_message(std::uint32_t number, std::uint32_t main,
                                                 std::uint32_t dead) const {
  const MessageState& one = messages_[number];
  if (one.asked == 0) return std::nullopt;
  const std::uint32_t copies = main + dead;
  const auto says = [&](std::string_view what) {
    return fmt::format("{} of queue {} {}; it is stored {} times, {} times as a dead letter",
                       message_of(number).id, one.queue, what, main, dead);
  };
  if (copies > 1) return says("is there more than once");
  if (copies > 0 && one.asked == one.refused) return says("was refused and is stored");
  if (queues_.at(one.queue).delete_asked) return std::nullopt;
  if (one.acked) return copies > 0 ? std::optional(says("was acked and is back")) : std::nullopt;
  if (one.rejected && one.acks_open == 0) {
    if (dead == 0) return says("was rejected and is no dead letter");
    return std::nullopt;
  }
  if (one.purged && main > 0) return says("was purged and is back");
  if (one.must_exist && !one.perhaps_gone && one.acks_open == 0 && copies == 0) {
    return says("was confirmed and is lost");
  }
  return std::nullopt;
}

}  // namespace holdfast::disk
