#include "crash/ledger.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <functional>

#include "crash/random.h"

namespace holdfast::crash {

namespace {

// The last events of a story that a violation shows.
constexpr std::size_t kEventsShown = 40;

}  // namespace

std::string_view settlement_name(Settlement settlement) {
  switch (settlement) {
    case Settlement::kAck:
      return "ack";
    case Settlement::kNack:
      return "nack";
    case Settlement::kReject:
      return "reject";
    case Settlement::kRelease:
      return "release";
  }
  return "settle";
}

Ledger::Ledger(std::uint64_t seed, std::uint32_t attempts_max)
    : seed_(seed), attempts_max_(attempts_max) {}

std::string Ledger::body_of(std::string_view id) const {
  Random random(seed_ ^ hash_text(id));
  // Mostly small, some empty, a few that fill blocks of their own.
  const std::uint64_t kind = random.below(100);
  std::size_t size = random.below(1'000);
  if (kind < 3) size = 0;
  if (kind == 99) size = 20'000 + random.below(80'000);
  std::string body(size, '\0');
  for (std::size_t at = 0; at < size; at += sizeof(std::uint64_t)) {
    const std::uint64_t bits = random.next();
    std::memcpy(body.data() + at, &bits, std::min(sizeof bits, size - at));
  }
  return body;
}

Headers Ledger::headers_of(std::string_view id) {
  return {{"id", std::string(id)}, {"length", std::to_string(id.size())}};
}

// ---- publishing ----

void Ledger::publish_asked(std::string_view queue, const std::string& id) {
  const std::lock_guard lock(mutex_);
  ++counts_.asked;
  auto [at, is_new] = stories_.try_emplace(id);
  if (is_new) {
    at->second.queue = queue;
    open_.insert(id);
  }
  tell(at->second, "publish asked");
}

void Ledger::publish_confirmed(const std::string& id, const PublishReceipt& receipt) {
  const std::lock_guard lock(mutex_);
  Story* story = find(id);
  if (story == nullptr) return;
  tell(*story, fmt::format("publish confirmed: sequence {}{}", receipt.sequence,
                           receipt.duplicate ? ", duplicate" : ""));
  if (receipt.duplicate) ++counts_.duplicates;
  if (receipt.id != id) {
    violate(id, *story, fmt::format("was confirmed under another id, {}", receipt.id));
  }
  if (receipt.sequence == 0) violate(id, *story, "was confirmed with sequence 0");
  if (story->confirmed && !receipt.duplicate) {
    violate(id, *story, "was confirmed before, and again without saying duplicate: stored twice");
  }
  if (story->first_sequence != 0 && story->first_sequence != receipt.sequence) {
    violate(id, *story,
            fmt::format("has sequence {} and was now confirmed with {}", story->first_sequence,
                        receipt.sequence));
  }
  if (!story->confirmed) {
    story->confirmed = true;
    ++counts_.confirmed;
    confirmed_ids_[story->queue].push_back(id);
  }
  if (story->first_sequence == 0) learn_sequence(id, *story, receipt.sequence);
}

void Ledger::publish_unanswered(const std::string& id, const Status& status) {
  const std::lock_guard lock(mutex_);
  Story* story = find(id);
  if (story == nullptr) return;
  tell(*story, "publish without an answer: " + status.to_string());
  const ErrorCode code = status.code();
  if (code != ErrorCode::kCancelled && code != ErrorCode::kConnectionLost &&
      code != ErrorCode::kTimeout) {
    violate(id, *story, "was refused: " + status.to_string());
  }
}

std::string Ledger::confirmed_id(std::string_view queue, std::uint64_t choice) const {
  const std::lock_guard lock(mutex_);
  const auto ids = confirmed_ids_.find(queue);
  if (ids == confirmed_ids_.end()) return {};
  return ids->second[choice % ids->second.size()];
}

// ---- consuming ----

Ticket Ledger::delivered(const StoredMessage& message, Life client_since) {
  const std::lock_guard lock(mutex_);
  ++counts_.delivered;
  Story* story = find(message.id);
  if (story == nullptr) return {};
  tell(*story, fmt::format("delivered: sequence {}, attempt {}, to a client of life {}",
                           message.sequence, message.attempt, client_since));
  story->was_delivered = true;
  if (message.queue != story->queue) {
    violate(message.id, *story, "was delivered from queue " + message.queue);
  }
  if (message.body != body_of(message.id) || message.headers != headers_of(message.id)) {
    violate(message.id, *story, "was delivered with another body or other headers");
  }
  if (story->current_sequence == 0) {
    learn_sequence(message.id, *story, message.sequence);
  } else if (story->current_sequence != message.sequence) {
    violate(message.id, *story,
            fmt::format("has sequence {} and was delivered with {}: stored twice",
                        story->current_sequence, message.sequence));
  }
  if (message.attempt == 0 || message.attempt > attempts_max_) {
    violate(message.id, *story,
            fmt::format("was delivered as attempt {} of {}", message.attempt, attempts_max_));
  }
  if (!story->attempts_seen.insert(message.attempt).second &&
      ++story->attempts_repeated > story->given_back) {
    violate(message.id, *story,
            fmt::format("was delivered twice as attempt {}: an attempt was not counted",
                        message.attempt));
  }
  if (story->is_final() && story->final_life < client_since) {
    violate(message.id, *story,
            fmt::format("was settled for good in life {} and came again in life {}",
                        story->final_life, client_since));
  } else if (story->closed && story->final_life < client_since) {
    violate(message.id, *story, "was accounted for by an earlier drain and came again");
  }
  return Ticket{message.id, message.attempt, 0};
}

void Ledger::settle_asked(Ticket& ticket, Settlement settlement) {
  const std::lock_guard lock(mutex_);
  Story* story = find(ticket.id);
  if (story == nullptr) return;
  tell(*story, fmt::format("{} of attempt {} asked", settlement_name(settlement), ticket.attempt));
  ticket.asked_at = event_count_;
  // From here on it may happen; the answer says whether it did.
  if (settlement == Settlement::kAck) ++story->acks_open;
  if (settlement == Settlement::kReject) story->reject_asked = true;
  if (settlement == Settlement::kRelease) ++story->given_back;
}

void Ledger::settle_ended(const Ticket& ticket, Settlement settlement, const Status& status) {
  const std::lock_guard lock(mutex_);
  Story* story = find(ticket.id);
  if (story == nullptr) return;
  tell(*story, fmt::format("{} of attempt {}: {}", settlement_name(settlement), ticket.attempt,
                           status.to_string()));
  const bool is_ack = settlement == Settlement::kAck;
  const bool is_answered = status.ok() || status.code() == ErrorCode::kNotHeld;
  if (is_ack && is_answered) --story->acks_open;
  if (!is_answered) ++counts_.unanswered_settles;
  if (!status.ok()) return;
  if (story->is_final() && story->final_at <= ticket.asked_at) {
    violate(ticket.id, *story,
            fmt::format("was settled for good, and then its {} of attempt {} was confirmed too",
                        settlement_name(settlement), ticket.attempt));
  }
  const bool is_dead = settlement == Settlement::kReject ||
                       (settlement == Settlement::kNack && ticket.attempt >= attempts_max_);
  if (is_ack) ++counts_.acked;
  if (settlement == Settlement::kNack) ++counts_.nacked;
  if (settlement == Settlement::kReject) ++counts_.rejected;
  if (!is_ack && !is_dead) return;
  if (story->is_final() && is_ack != story->acked) {
    violate(ticket.id, *story, "was both acked and dead-lettered");
  }
  story->acked = story->acked || is_ack;
  story->must_be_dead = story->must_be_dead || is_dead;
  story->final_at = event_count_;
  story->final_life = life_;
}

void Ledger::given_back(const Ticket& ticket) {
  const std::lock_guard lock(mutex_);
  Story* story = find(ticket.id);
  if (story == nullptr) return;
  tell(*story, fmt::format("attempt {} given back unsettled", ticket.attempt));
  ++story->given_back;
}

void Ledger::broker_started(Life life) {
  const std::lock_guard lock(mutex_);
  life_ = life;
}

// ---- after a drain ----

void Ledger::check_drained(std::string_view queue, const std::vector<StoredMessage>& dead_letters) {
  const std::lock_guard lock(mutex_);
  std::set<std::string> letters_seen;
  for (const StoredMessage& letter : dead_letters) {
    Story* story = find(letter.id);
    if (story == nullptr) continue;
    if (!letters_seen.insert(letter.id).second) {
      violate(letter.id, *story, "is in the dead-letter queue twice");
    }
    check_dead_letter(letter.id, *story, letter);
  }
  for (auto at = open_.begin(); at != open_.end();) {
    Story& story = stories_.at(*at);
    if (story.queue != queue) {
      ++at;
      continue;
    }
    story.dead = letters_seen.contains(*at);
    check_owed(*at, story);
    story.closed = true;
    if (!story.is_final()) story.final_life = life_;
    // Hundreds of thousands of stories end well; of those only the end is kept.
    story.events.clear();
    story.attempts_seen.clear();
    tell(story, story.dead ? "a drain found it among the dead letters" : "a drain missed nothing");
    story.events.shrink_to_fit();
    at = open_.erase(at);
  }
}

void Ledger::check_dead_letter(const std::string& id, Story& story, const StoredMessage& letter) {
  const Provenance& from = letter.provenance;
  if (dead_ids_[story.queue].insert(id).second) ++counts_.dead;
  if (letter.body != body_of(id) || letter.headers != headers_of(id)) {
    violate(id, story, "is a dead letter with another body or other headers");
  }
  if (!letter.is_dead_letter || from.source != story.queue) {
    violate(id, story, fmt::format("is a dead letter whose source is '{}'", from.source));
  }
  if (story.current_sequence == 0) learn_sequence(id, story, from.source_sequence);
  if (from.source_sequence != story.current_sequence) {
    violate(id, story,
            fmt::format("has sequence {} and is a dead letter of sequence {}",
                        story.current_sequence, from.source_sequence));
  }
  if (from.attempts < story.attempts_seen.size()) {
    violate(id, story,
            fmt::format("was delivered {} times, its dead letter says {}",
                        story.attempts_seen.size(), from.attempts));
  }
  if (from.reason == "retry_limit") {
    if (from.attempts != attempts_max_) {
      violate(id, story,
              fmt::format("is dead by the retry limit after {} attempts of {}", from.attempts,
                          attempts_max_));
    }
  } else if (from.reason == "rejected") {
    if (!story.reject_asked) violate(id, story, "is dead as rejected; nobody rejected it");
  } else {
    violate(id, story, fmt::format("is dead for the reason '{}'", from.reason));
  }
}

void Ledger::check_owed(const std::string& id, Story& story) {
  if (story.acked && story.dead) violate(id, story, "was acked and is a dead letter too");
  if (story.must_be_dead && !story.dead) {
    violate(id, story,
            "was dead-lettered with a confirmation, and is not in the dead-letter queue");
  }
  if (story.acked || story.acks_open != 0 || story.dead || story.must_be_dead) return;
  if (story.confirmed) {
    violate(id, story, "was confirmed and is lost");
  } else if (story.was_delivered) {
    violate(id, story, "was delivered, so it was durable, and is lost");
  } else if (story.redrives != 0) {
    violate(id, story, "was redriven and is lost");
  }
}

void Ledger::dead_letters_discarded(std::string_view queue) {
  const std::lock_guard lock(mutex_);
  const auto ids = dead_ids_.find(queue);
  if (ids == dead_ids_.end()) return;
  for (const std::string& id : ids->second) {
    Story& story = stories_.at(id);
    story.dead = false;
    story.final_life = life_;
  }
  ids->second.clear();
}

void Ledger::dead_letters_redriven(std::string_view queue, const std::vector<StoredMessage>& left) {
  const std::lock_guard lock(mutex_);
  std::set<std::string_view> ids_left;
  for (const StoredMessage& letter : left) ids_left.insert(letter.id);
  const auto ids = dead_ids_.find(queue);
  if (ids == dead_ids_.end()) return;
  std::erase_if(ids->second, [&](const std::string& id) {
    if (ids_left.contains(id)) return false;
    // It begins anew in its queue: with another sequence, and with its attempts before it.
    Story& story = stories_.at(id);
    ++counts_.redriven;
    ++story.redrives;
    story.current_sequence = 0;
    story.acks_open = 0;
    story.dead = story.closed = story.acked = story.must_be_dead = false;
    story.reject_asked = story.was_delivered = false;
    story.final_at = 0;
    story.final_life = 0;
    story.attempts_seen.clear();
    story.given_back = story.attempts_repeated = 0;
    open_.insert(id);
    tell(story, "redriven");
    return true;
  });
}

// ---- looking ----

void Ledger::add_violation(const std::string& sentence) {
  const std::lock_guard lock(mutex_);
  violations_.push_back(sentence);
}

std::vector<std::string> Ledger::violations() const {
  const std::lock_guard lock(mutex_);
  return violations_;
}

LedgerCounts Ledger::counts() const {
  const std::lock_guard lock(mutex_);
  return counts_;
}

std::string Ledger::story_of(const std::string& id) const {
  const std::lock_guard lock(mutex_);
  const auto at = stories_.find(id);
  return at == stories_.end() ? std::string() : story_text(id, at->second);
}

std::string Ledger::story_of_waiting() const {
  const std::lock_guard lock(mutex_);
  for (const std::string& id : open_) {
    const Story& story = stories_.at(id);
    if (!story.is_final() && (story.confirmed || story.was_delivered)) return story_text(id, story);
  }
  return "No message of the ledger is waiting.\n";
}

Ledger::Story* Ledger::find(const std::string& id) {
  const auto at = stories_.find(id);
  if (at != stories_.end()) return &at->second;
  violations_.push_back(fmt::format("Message '{}' appeared, and nobody published it.", id));
  return nullptr;
}

void Ledger::tell(Story& story, std::string text) {
  ++event_count_;
  const auto passed = std::chrono::steady_clock::now() - begin_;
  const auto micros = std::chrono::duration_cast<std::chrono::microseconds>(passed).count();
  story.events.push_back({static_cast<std::uint64_t>(micros), life_, std::move(text)});
}

void Ledger::violate(const std::string& id, const Story& story, const std::string& sentence) {
  violations_.push_back(fmt::format("Message '{}' {}.\n{}", id, sentence, story_text(id, story)));
}

std::string Ledger::story_text(const std::string& id, const Story& story) const {
  std::string text = fmt::format("  the story of '{}' in queue '{}':\n", id, story.queue);
  const std::size_t skipped =
      story.events.size() > kEventsShown ? story.events.size() - kEventsShown : 0;
  if (skipped != 0) text += fmt::format("    ({} earlier events)\n", skipped);
  for (std::size_t i = skipped; i < story.events.size(); ++i) {
    const Event& event = story.events[i];
    text += fmt::format("    {:>12.6f} s  life {:>3}  {}\n",
                        static_cast<double>(event.microseconds) / 1e6, event.life, event.text);
  }
  return text;
}

void Ledger::learn_sequence(const std::string& id, Story& story, std::uint64_t sequence) {
  if (story.redrives == 0) story.first_sequence = sequence;
  story.current_sequence = sequence;
  const auto [at, is_new] = sequences_[story.queue].try_emplace(sequence, id);
  if (!is_new && at->second != id) {
    violate(id, story, fmt::format("has sequence {}, which is that of '{}'", sequence, at->second));
  }
}

}  // namespace holdfast::crash
