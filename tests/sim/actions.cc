// What clients and people do.

#include <fmt/format.h>

#include <algorithm>

#include "sim/world.h"
#include "support/core_fixture.h"

namespace holdfast::broker::sim {

namespace {
constexpr std::size_t kClients = 5;
constexpr std::string_view kNames[] = {"orders", "mails"};

std::vector<SequenceRange> ranges_of(const std::vector<Sequence>& sequences) {
  std::vector<SequenceRange> ranges;
  for (const Sequence sequence : sequences) add_to_ranges(ranges, sequence);
  return ranges;
}

template <typename Container>
auto some_of(Random& random, const Container& container) {
  auto at = container.begin();
  std::advance(at, static_cast<std::ptrdiff_t>(random.below(container.size())));
  return *at;
}
}  // namespace

void World::act(Action action) {
  switch (action) {
    case Action::kPublish:
      return publish_some();
    case Action::kSubscribe:
      if (const auto queue = some_queue(script_.random.once_in(5))) {
        subscribe(*queue, static_cast<std::uint32_t>(script_.random.between(1, 30)),
                  script_.lease_ms(), session(script_.random.between(1, kClients - 1)));
      }
      return;
    case Action::kUnsubscribe:
      if (const auto consumer = some_consumer()) {
        const Asker asker = ask(model_.consumers().at(*consumer).session);
        model_.ask(asker.correlation, pending(Kind::kOther, asker.session));
        note("consumer {} ends", consumer->value);
        model_.end_consumer(*consumer, now_);
        core_->unsubscribe(asker, *consumer, now_);
      }
      return;
    case Action::kCredit:
      return change_credit();
    case Action::kDisconnect:
      return disconnect(script_.random.below(kClients));
    case Action::kRoom:
      return change_room();
    case Action::kUnread:
      return change_unread();
    case Action::kSettle:
      return settle_some();
    case Action::kExtend:
      return extend_some();
    case Action::kPass:
      return pass(script_.some_time());
    case Action::kJumpWall: {
      const Milliseconds jump(static_cast<std::int64_t>(script_.random.between(1, 3'600'000)));
      const bool forward = script_.random.once_in(2);
      note("the wall clock jumps {} ms {}", jump.count(), forward ? "forward" : "back");
      ++faults_.clock_jumps;
      now_.wall += forward ? jump : -jump;
      model_.wall_jumped(forward ? jump.count() : -jump.count());
      return;
    }
    case Action::kCommit:
      commit_step();
      return;
    case Action::kFetch:
      fetch_step();
      return;
    case Action::kCrash:
      return crash(false);
    case Action::kShutDown:
      return shut_down();
    case Action::kPurge:
      return purge();
    case Action::kEdit:
      return edit();
    case Action::kDelete:
      return delete_queue();
    case Action::kMove:
      return move();
    case Action::kPeek:
      return peek();
    case Action::kAttempts:
      return ask_attempts();
    case Action::kSpace:
      store_.space.publishes_allowed = !store_.space.publishes_allowed;
      store_.space.room_bytes =
          script_.random.once_in(2) ? MemoryStore::kRoomBytes : script_.random.between(1, 1 << 20);
      store_.space.reserve_room_bytes =
          store_.space.publishes_allowed || script_.random.once_in(2) ? store_.space.room_bytes : 0;
      store_.space.retries_allowed =
          store_.space.reserve_room_bytes > 0 || script_.random.once_in(2);
      store_.space.reason = store_.space.publishes_allowed ? "" : "The disk is full.";
      note("{}", store_.space.publishes_allowed ? "the disk has room" : "the disk is full");
      core_->space_changed(store_.space, now_);
      return;
    case Action::kFailCommit:
      return fail_commit();
    case Action::kFullCommit:
      attempts_without_room_ = script_.random.between(1, 30);
      return;
  }
}

Pending World::pending(Kind kind, SessionId session, QueueId queue) {
  Pending made;
  made.kind = kind;
  made.session = session;
  made.queue = queue;
  made.at = now_.monotonic;
  return made;
}

SessionId World::session(std::size_t which) {
  const auto found = sessions_.find(which);
  if (found != sessions_.end()) return found->second;
  const SessionId opened(++last_session_);
  sessions_.emplace(which, opened);
  core_->session_opened(opened, fmt::format("client-{}", which));
  return opened;
}

std::map<QueueId, std::string> World::queues_known() const {
  std::map<QueueId, std::string> known;
  for (const QueueReport& report : listed_) {
    if (!report.source_queue.empty()) continue;  // goes with its source, below
    known.emplace(report.id, report.name);
    for (const auto& [id, queue] : model_.queues()) {
      if (queue.source == report.id) known.emplace(id, queue.name);
    }
  }
  return known;
}

std::optional<QueueId> World::some_queue(bool dead) {
  std::vector<QueueId> ids;
  for (const auto& [id, name] : queues_known()) {
    if (static_cast<bool>(model_.queue(id)->source) == dead) ids.push_back(id);
  }
  if (ids.empty()) {
    create_missing_queues();
    return std::nullopt;
  }
  return some_of(script_.random, ids);
}

std::optional<ConsumerId> World::some_consumer() {
  if (model_.consumers().empty()) return std::nullopt;
  return some_of(script_.random, model_.consumers()).first;
}

void World::create_missing_queues() {
  for (const std::string_view name : kNames) {
    const std::vector<SettingChange> settings = script_.queue_settings();
    const Asker asker = ask(session(0));
    model_.ask(asker.correlation, pending(Kind::kOther, asker.session));
    note("request {} creates queue {}", asker.correlation, name);
    core_->create_queue({asker, name, settings, true}, now_);
    take_effects();
  }
}

// ---- publishing ----

void World::publish_some() {
  const std::optional<QueueId> queue = some_queue(false);
  if (!queue) return;
  for (std::uint64_t left = script_.random.between(1, 20); left > 0; --left) {
    if (script_.random.once_in(2) && retry_one()) continue;
    std::string id = some_id();
    if (frame_is_lost(session(kPublisher))) {
      retries_.push_back({*queue, std::move(id)});
      continue;
    }
    publish_one(*queue, id);
    if (!script_.repeats_frame()) continue;
    ++faults_.frames_repeated;
    publish_one(*queue, std::move(id));
  }
}

// Lately used, or long ago, once in eight.
std::string World::some_id() {
  std::uint64_t number = last_id_;
  if (script_.random.once_in(8)) {
    number -=
        std::min(last_id_, script_.random.below(script_.random.once_in(3) ? last_id_ + 1 : 30));
  } else {
    number = ++last_id_;
  }
  return fmt::format("id-{}", number);
}

// What the publisher has no answer to, with the same id on another connection. False: there is
// none.
bool World::retry_one() {
  if (retries_.empty()) return false;
  Unanswered retry = std::move(retries_.front());
  retries_.pop_front();
  if (!queues_known().contains(retry.queue)) return true;  // deleted since
  ++faults_.retried;
  publish_one(retry.queue, std::move(retry.id));
  return true;
}

// The publisher hears an answer, or it is lost on the way, and its connection with it.
void World::hear(const Effect& effect) {
  if (const auto* error = std::get_if<ErrorReply>(&effect)) {
    unanswered_.erase(error->to.correlation);
  }
  const auto* const confirm = std::get_if<ConfirmReply>(&effect);
  if (confirm == nullptr) return;
  if (!faults_stopped_ && unanswered_.contains(confirm->to.correlation) && script_.loses_frame()) {
    ++faults_.confirms_lost;
    publisher_broken_ = true;
  }
  // What comes behind on this connection is lost, too.
  if (publisher_broken_) return;
  for (std::uint32_t i = 0; i < confirm->count; ++i) unanswered_.erase(confirm->to.correlation + i);
}

void World::publish_one(QueueId queue, std::string id) {
  const SessionId publisher = session(kPublisher);
  const Asker asker = ask(publisher);
  unanswered_.emplace(asker.correlation, Unanswered{queue, id});
  // The correlation makes the bytes those of this request alone, also where an id comes again.
  std::string body = fmt::format("{}:", asker.correlation);
  body.resize(body.size() + script_.body_bytes(), 'x');
  Publish publish;
  publish.queue = queue;
  publish.id = id;
  const std::vector<std::uint8_t> bytes = encode_test_message(publish.id, body);
  publish.checksum = checksum(bytes);
  publish.bytes = bytes.size();
  publish.at = now_.monotonic;
  Pending asked = pending(Kind::kPublish, publisher, queue);
  PublishRequest request;
  request.asker = asker;
  request.queue = queue;
  request.id = id;
  request.body_bytes = body.size();
  request.message_checksum = publish.checksum;
  request.message = bytes;
  asked.publish = model_.add_publish(std::move(publish));
  model_.ask(asker.correlation, std::move(asked));
  note("request {} publishes '{}' ({} bytes) to queue {}", asker.correlation, id, body.size(),
       queue.value);
  core_->publish(request, now_);
  take_effects();
}

// ---- consuming ----

void World::subscribe(QueueId queue, std::uint32_t credit, std::uint32_t lease_ms,
                      SessionId consumer) {
  const std::string name = queues_known().at(queue);
  const Asker asker = ask(consumer);
  Pending asked = pending(Kind::kOther, consumer, queue);
  asked.credit = credit;
  asked.lease_ms = lease_ms;
  const std::uint64_t bytes = script_.random.once_in(4) ? script_.random.between(1, 5000) : 0;
  asked.credit_bytes = bytes;
  model_.ask(asker.correlation, std::move(asked));
  SubscribeRequest request;
  request.asker = asker;
  request.queue = name;
  request.credit_messages = credit;
  request.credit_bytes = bytes;
  request.lease_ms = lease_ms;
  note("request {} subscribes to queue {} with credit {}", asker.correlation, queue.value, credit);
  core_->subscribe(request, now_);
  take_effects();
}

void World::settle_some() {
  const std::optional<ConsumerId> id = some_consumer();
  if (!id) return;
  const ConsumerModel& consumer = model_.consumers().at(*id);
  for (const auto& [client, open] : sessions_) {
    if (open == consumer.session && script_.never_settles(client)) return;
  }
  Random& random = script_.random;
  std::set<Sequence> chosen;
  const std::uint64_t one_in = random.between(1, 4);
  for (const Sequence sequence : consumer.held) {
    if (random.once_in(one_in)) chosen.insert(sequence);
  }
  // Late ones, and what it never held.
  if (!consumer.past.empty() && random.once_in(3)) chosen.insert(some_of(random, consumer.past));
  const auto& live = model_.queues().at(consumer.queue).live;
  if (!live.empty() && random.once_in(10)) chosen.insert(some_of(random, live));
  if (random.once_in(50)) chosen.insert(1'000'000);
  if (chosen.empty()) return;
  if (frame_is_lost(consumer.session)) return;
  std::optional<Milliseconds> delay;
  if (random.once_in(3)) delay = Milliseconds(static_cast<std::int64_t>(random.below(20'000)));
  const wire::SettleKind kind = script_.settle_kind();
  settle(*id, kind, {chosen.begin(), chosen.end()}, delay);
  if (!script_.repeats_frame()) return;
  take_effects();
  if (!model_.consumers().contains(*id)) return;
  ++faults_.frames_repeated;
  settle(*id, kind, {chosen.begin(), chosen.end()}, delay);
}

// A frame that does not come is lost with its connection.
bool World::frame_is_lost(SessionId from) {
  if (!script_.loses_frame()) return false;
  ++faults_.frames_lost;
  for (const auto& [client, open] : sessions_) {
    if (open != from) continue;
    disconnect(client);
    break;
  }
  return true;
}

void World::settle(ConsumerId consumer, wire::SettleKind kind, std::vector<Sequence> sequences,
                   std::optional<Milliseconds> delay) {
  if (kind != wire::SettleKind_Nack) delay = std::nullopt;
  const Asker asker = ask(model_.consumers().at(consumer).session);
  const std::vector<SequenceRange> ranges = ranges_of(sequences);
  note("request {}: consumer {} settles {} from {} to {} ({})", asker.correlation, consumer.value,
       sequences.size(), sequences.front(), sequences.back(), wire::EnumNameSettleKind(kind));
  Pending asked = pending(Kind::kSettle, asker.session);
  asked.consumer = consumer;
  asked.settle = kind;
  asked.sequences = std::move(sequences);
  model_.ask_settle(asker.correlation, std::move(asked), delay, now_);
  SettleRequest request;
  request.asker = asker;
  request.consumer = consumer;
  request.kind = kind;
  request.ranges = ranges;
  request.reason = "because";
  request.delay = delay;
  core_->settle(request, now_);
}

void World::extend_some() {
  const std::optional<ConsumerId> id = some_consumer();
  if (!id || model_.consumers().at(*id).held.empty()) return;
  const ConsumerModel& consumer = model_.consumers().at(*id);
  const Asker asker = ask(consumer.session);
  Pending asked = pending(Kind::kExtend, asker.session, consumer.queue);
  asked.consumer = *id;
  asked.lease_ms = script_.lease_ms();
  asked.sequences = {consumer.held.begin(), consumer.held.end()};
  const std::vector<SequenceRange> ranges = ranges_of(asked.sequences);
  const std::uint32_t lease_ms = asked.lease_ms;
  model_.ask(asker.correlation, std::move(asked));
  note("request {}: consumer {} extends its leases by {} ms", asker.correlation, id->value,
       lease_ms);
  core_->extend({asker, *id, ranges, lease_ms}, now_);
}

void World::change_credit() {
  const std::optional<ConsumerId> id = some_consumer();
  if (!id) return;
  const Asker asker = ask(model_.consumers().at(*id).session);
  const auto credit = static_cast<std::uint32_t>(script_.random.below(30));
  model_.ask(asker.correlation, pending(Kind::kOther, asker.session));
  note("request {}: consumer {} has credit {}", asker.correlation, id->value, credit);
  model_.set_credit(*id, credit);
  core_->set_credit(asker, *id, credit, 0, now_);
}

void World::disconnect(std::size_t which) {
  const auto found = sessions_.find(which);
  if (found == sessions_.end()) return;
  const SessionId id = found->second;
  note("client {} disconnects", which);
  sessions_.erase(found);
  if (which == kPublisher) {
    for (const auto& [correlation, asked] : unanswered_) retries_.push_back(asked);
    unanswered_.clear();
    publisher_broken_ = false;
  }
  model_.end_session(id, now_);
  core_->session_closed(id, now_);
}

void World::change_room() {
  Random& random = script_.random;
  const SessionId id = session(random.between(1, kClients - 1));
  const std::uint64_t room = random.once_in(2)   ? ~std::uint64_t{0}
                             : random.once_in(2) ? 0
                                                 : random.between(1, 5000);
  give_room(id, room);
}

void World::give_room(SessionId id, std::uint64_t bytes) {
  note("session {} has room for {} bytes", id.value, bytes);
  model_.set_room(id, bytes);
  core_->session_room(id, bytes, now_);
}

void World::change_unread() {
  const SessionId id = session(script_.random.between(1, kClients - 1));
  const bool unread = !model_.is_unread(id);
  note("session {} is {}", id.value, unread ? "left unread" : "read again");
  model_.set_unread(id, unread, now_);
  core_->session_unread(id, unread, now_);
}

// ---- managing ----

void World::purge() {
  const std::optional<QueueId> id = some_queue(script_.random.once_in(4));
  if (!id) return;
  const std::string name = queues_known().at(*id);
  Sequence last = 0;
  for (const QueueReport& report : list_queues()) {
    if (report.id == *id) last = report.next_sequence - 1;
  }
  const Asker asker = ask(session(0));
  note("request {} purges queue {} up to {}", asker.correlation, id->value, last);
  model_.ask_purge(asker.correlation, asker.session, *id, last);
  core_->purge_queue(asker, name, now_);
}

void World::edit() {
  const std::optional<QueueId> id = some_queue(false);
  if (!id) return;
  const std::string name = queues_known().at(*id);
  const std::vector<SettingChange> settings = script_.changed_settings();
  const Asker asker = ask(session(0));
  model_.ask(asker.correlation, pending(Kind::kOther, asker.session));
  note("request {} edits queue {}", asker.correlation, id->value);
  model_.ask_edit(*id, settings);
  core_->edit_queue({asker, name, settings}, now_);
}

void World::delete_queue() {
  const std::optional<QueueId> id = some_queue(false);
  if (!id) return;
  const std::string name = queues_known().at(*id);
  const Asker asker = ask(session(0));
  note("request {} deletes queue {}", asker.correlation, id->value);
  model_.ask_delete(asker.correlation, asker.session, *id, now_);
  std::erase_if(listed_, [&](const QueueReport& report) { return report.id == *id; });
  core_->delete_queue(asker, name, now_);
}

void World::move() {
  const std::optional<QueueId> id = some_queue(true);
  if (!id) return;
  const std::string name = queues_known().at(*id);
  Random& random = script_.random;
  Pending asked = pending(Kind::kMove, session(0), *id);
  asked.redrive = !random.once_in(3);
  const bool all = random.once_in(2);
  const bool dry_run = random.once_in(5);
  const std::set<Sequence>& live = model_.queues().at(*id).live;
  if (!all) {
    for (const Sequence sequence : live) {
      if (random.once_in(3)) asked.sequences.push_back(sequence);
    }
    if (asked.sequences.empty()) asked.sequences.push_back(random.between(1, 50));
    if (asked.sequences.size() > 200) asked.sequences.resize(200);
  }
  const bool redrive = asked.redrive;
  const std::vector<Sequence> sequences = asked.sequences;
  const Asker asker = ask(asked.session);
  if (dry_run) asked.sequences.clear();  // nothing of it will move
  note("request {} {} {} of queue {}{}", asker.correlation, redrive ? "redrives" : "discards",
       all ? "all" : fmt::format("{}", sequences.size()), id->value, dry_run ? " (dry)" : "");
  model_.ask_move(asker.correlation, std::move(asked), all, dry_run);
  LettersRequest request;
  request.asker = asker;
  request.queue = name;
  request.sequences = sequences;
  request.all = all;
  request.limit = all ? static_cast<std::uint32_t>(random.between(1, 256)) : 0;
  request.dry_run = dry_run;
  if (redrive) {
    core_->redrive(request, now_);
  } else {
    core_->discard(request, now_);
  }
}

void World::peek() {
  const std::optional<QueueId> id = some_queue(script_.random.once_in(3));
  if (!id) return;
  const std::string name = queues_known().at(*id);
  const Asker asker = ask(session(0));
  model_.ask(asker.correlation, pending(Kind::kPeek, asker.session, *id));
  note("request {} peeks at queue {}", asker.correlation, id->value);
  core_->peek({asker, name, 0, static_cast<std::uint32_t>(script_.random.between(1, 50))}, now_);
}

void World::ask_attempts() {
  const std::optional<QueueId> id = some_queue(script_.random.once_in(3));
  if (!id) return;
  const std::map<Sequence, Message>& messages = model_.queue(*id)->messages;
  const std::set<Sequence>& live = model_.queue(*id)->live;
  Sequence sequence = messages.size() + 1;
  if (!live.empty() && !script_.random.once_in(5)) {
    sequence = some_of(script_.random, live);
  } else if (!messages.empty() && !script_.random.once_in(5)) {
    sequence = some_of(script_.random, messages).first;
  }
  const std::string name = queues_known().at(*id);
  const Asker asker = ask(session(0));
  note("request {} asks for the attempts of message {} of queue {}", asker.correlation, sequence,
       id->value);
  model_.ask_attempts(asker.correlation, pending(Kind::kAttempts, asker.session, *id), sequence,
                      now_);
  core_->tell_attempts({asker, name, sequence}, now_);
}

}  // namespace holdfast::broker::sim
