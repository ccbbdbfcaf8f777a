#include "support/core_fixture.h"

#include <numeric>
#include <utility>

#include "base/check.h"
#include "support/virtual_time.h"

namespace holdfast::broker {

std::vector<Sequence> range(Sequence first, Sequence last) {
  std::vector<Sequence> all(last - first + 1);
  std::iota(all.begin(), all.end(), first);
  return all;
}

std::vector<std::uint8_t> encode_test_message(const std::string& id, const std::string& body) {
  flatbuffers::FlatBufferBuilder builder;
  const auto id_at = builder.CreateString(id);
  const auto body_at =
      builder.CreateVector(reinterpret_cast<const std::uint8_t*>(body.data()), body.size());
  wire::MessageBuilder table(builder);
  table.add_id(id_at);
  table.add_body(body_at);
  builder.Finish(table.Finish());
  return {builder.GetBufferPointer(), builder.GetBufferPointer() + builder.GetSize()};
}

CoreFixture::CoreFixture(CoreOptions core_options) : options_(core_options) {
  now_.monotonic = MonotonicTime(Milliseconds(1'000'000));
  now_.wall = from_unix_ms(1'700'000'000'000);
  start();
}

void CoreFixture::start() {
  core_ = std::make_unique<Core>(options_);
  core_->load(store.load(), now_);
  store.load_dedup(*core_, now_);
  run();
}

void CoreFixture::crash() {
  core_.reset();
  held_.clear();
  holding_commits_ = holding_reads_ = false;
  ids_waiting_.clear();
  open_sessions_.clear();
  deliveries_.clear();
  lost_leases_.clear();
  ended_consumers_.clear();
  start();
}

void CoreFixture::run() {
  for (;;) {
    take_effects();
    const std::vector<FetchRequest>& asked = core_->effects().fetches;
    fetches_waiting_.insert(fetches_waiting_.end(), asked.begin(), asked.end());
    fetches_ += asked.size();
    for (const IdsRequest& request : core_->effects().ids_requests) {
      ids_waiting_.push_back(request);
      ++ids_requests_;
    }
    core_->effects().clear();
    const std::vector<FetchRequest> fetches =
        holding_fetches_ ? std::vector<FetchRequest>() : std::exchange(fetches_waiting_, {});
    const std::vector<IdsRequest> ids_requests =
        holding_reads_ ? std::vector<IdsRequest>() : std::exchange(ids_waiting_, {});
    for (const FetchRequest& request : fetches) core_->fetched(store.fetch(request), now_);
    for (const IdsRequest& request : ids_requests) {
      core_->ids_fetched(store.fetch_ids(request), now_);
    }
    if (!fetches.empty() || !ids_requests.empty()) continue;
    take_batches();
    if (held_.empty() || holding_commits_) {
      take_effects();
      core_->effects().clear();
      return;
    }
    commit_one();
  }
}

void CoreFixture::take_batches() {
  if (held_.empty()) held_ = core_->take_batches(now_);
}

void CoreFixture::commit_one() {
  take_batches();
  CHECK(!held_.empty(), "nothing to commit");
  const Batches batches = std::exchange(held_, {});
  core_->committed(store.apply(batches), now_);
  if (holding_commits_) run();
}

void CoreFixture::release_commits() {
  holding_commits_ = false;
  run();
}

void CoreFixture::release_fetches() {
  holding_fetches_ = false;
  run();
}

void CoreFixture::release_reads() {
  holding_reads_ = false;
  run();
}

void CoreFixture::pass(Milliseconds duration) {
  const MonotonicTime end = now_.monotonic + duration;
  while (now_.monotonic < end) {
    test::set_clock(test::next_stop(*core_, now_, end), &now_);
    core_->advance(now_);
    run();
  }
}

void CoreFixture::take_effects() {
  for (Effect& effect : core_->effects().said) {
    if (auto* confirm = std::get_if<ConfirmReply>(&effect)) {
      confirms_.push_back(*confirm);
    } else if (auto* delivery = std::get_if<Delivery>(&effect)) {
      CHECK(checksum(delivery->entry.message) == delivery->entry.message_checksum);
      const wire::Message* const message = read_message(delivery->entry.message);
      CHECK(message != nullptr);
      deliveries_.push_back({delivery->consumer, delivery->entry.sequence, delivery->attempt,
                             message->id()->str(),
                             std::string(message->body()->begin(), message->body()->end()),
                             !delivery->entry.provenance.empty()});
    } else if (auto* lost = std::get_if<LeaseLostNotice>(&effect)) {
      lost_leases_.push_back(*lost);
    } else if (auto* ended = std::get_if<ConsumerEndedNotice>(&effect)) {
      ended_consumers_.push_back(*ended);
    } else if (auto* error = std::get_if<ErrorReply>(&effect)) {
      errors_[error->to.correlation] = error->error;
      last_error_ = error->error;
    } else if (auto* ok = std::get_if<OkReply>(&effect)) {
      oks_.insert(ok->to.correlation);
    } else if (auto* settled = std::get_if<SettledReply>(&effect)) {
      last_settled_ = *settled;
    } else if (auto* queue = std::get_if<QueueReply>(&effect)) {
      last_report_ = queue->report;
    } else if (auto* moved = std::get_if<MovedReply>(&effect)) {
      last_moved_ = *moved;
    } else if (auto* attempts = std::get_if<AttemptsReply>(&effect)) {
      last_attempts_ = attempts->report;
    } else if (auto* peeked = std::get_if<PeekReply>(&effect)) {
      PeekReply copy = *peeked;
      kept_.emplace_back(copy.entry.message.begin(), copy.entry.message.end());
      copy.entry.message = kept_.back();
      kept_.emplace_back(copy.entry.provenance.begin(), copy.entry.provenance.end());
      copy.entry.provenance = kept_.back();
      peeked_.push_back(copy);
    }
  }
  core_->effects().said.clear();
}

void CoreFixture::open(SessionId session) {
  if (open_sessions_[session]) return;
  open_sessions_[session] = true;
  core_->session_opened(session, "client-" + std::to_string(session.value));
}

Asker CoreFixture::ask(SessionId session) {
  open(session);
  return {session, ++last_correlation_};
}

namespace {
std::vector<SettingChange> changes(const std::vector<CoreFixture::Setting>& settings) {
  std::vector<SettingChange> list;
  for (const auto& [setting, value] : settings) {
    list.push_back({static_cast<std::uint16_t>(setting), value});
  }
  return list;
}
}  // namespace

void CoreFixture::create_queue(const std::string& name, const std::vector<Setting>& settings) {
  const std::vector<SettingChange> list = changes(settings);
  core_->create_queue({ask(), name, list, false}, now_);
  run();
}

void CoreFixture::edit_queue(const std::string& name, const std::vector<Setting>& settings) {
  const std::vector<SettingChange> list = changes(settings);
  core_->edit_queue({ask(), name, list}, now_);
  run();
}

void CoreFixture::delete_queue(const std::string& name) {
  core_->delete_queue(ask(), name, now_);
  run();
}

std::uint64_t CoreFixture::purge(const std::string& name) {
  last_moved_.reset();
  core_->purge_queue(ask(), name, now_);
  run();
  return last_moved_ ? last_moved_->moved : 0;
}

std::uint64_t CoreFixture::publish(const std::string& queue, const std::string& id,
                                   const std::string& body) {
  const QueueId queue_id = id_of(queue);
  const std::vector<std::uint8_t> message = encode_test_message(id, body);
  const Asker asker = ask();
  PublishRequest request;
  request.asker = asker;
  request.queue = queue_id;
  request.id = id;
  request.body_bytes = body.size();
  request.message_checksum = checksum(message);
  request.message = message;
  core_->publish(request, now_);
  run();
  return asker.correlation;
}

ConsumerId CoreFixture::subscribe(const std::string& queue, std::uint32_t credit,
                                  std::uint32_t lease_ms, SessionId session) {
  SubscribeRequest request;
  request.asker = ask(session);
  request.queue = queue;
  request.credit_messages = credit;
  request.lease_ms = lease_ms;
  core_->subscribe(request, now_);
  ConsumerId consumer;
  for (const Effect& effect : core_->effects().said) {
    if (const auto* subscribed = std::get_if<SubscribedReply>(&effect)) {
      consumer = subscribed->consumer;
    }
  }
  run();
  return consumer;
}

void CoreFixture::settle(ConsumerId consumer, wire::SettleKind kind,
                         std::vector<SequenceRange> ranges, std::string reason,
                         std::optional<Milliseconds> delay, SessionId session) {
  last_settled_ = SettledReply();
  SettleRequest request;
  request.asker = ask(session);
  request.consumer = consumer;
  request.kind = kind;
  request.ranges = ranges;
  request.reason = reason;
  request.delay = delay;
  core_->settle(request, now_);
  run();
}

void CoreFixture::extend(ConsumerId consumer, Sequence sequence, std::uint32_t lease_ms) {
  const SequenceRange range{sequence, sequence};
  core_->extend({ask(SessionId(2)), consumer, {&range, 1}, lease_ms}, now_);
  run();
}

void CoreFixture::set_credit(ConsumerId consumer, std::uint32_t messages, std::uint64_t bytes) {
  core_->set_credit(ask(SessionId(2)), consumer, messages, bytes, now_);
  run();
}

std::uint64_t CoreFixture::unsubscribe(ConsumerId consumer, SessionId session) {
  core_->unsubscribe(ask(session), consumer, now_);
  run();
  return last_correlation_;
}

void CoreFixture::disconnect(SessionId session) {
  core_->session_closed(session, now_);
  open_sessions_[session] = false;
  run();
}

MovedReply CoreFixture::move(const std::string& queue, std::vector<Sequence> sequences, bool all,
                             std::uint32_t limit, bool redrive, Sequence to, bool dry_run) {
  last_moved_.reset();
  LettersRequest request;
  request.asker = ask();
  request.queue = queue;
  request.sequences = sequences;
  request.all = all;
  request.limit = limit;
  request.to = to;
  request.dry_run = dry_run;
  if (redrive) {
    core_->redrive(request, now_);
  } else {
    core_->discard(request, now_);
  }
  run();
  return last_moved_.value_or(MovedReply());
}

MovedReply CoreFixture::redrive(const std::string& queue, std::vector<Sequence> sequences) {
  return move(queue, std::move(sequences), false, 0, true);
}
MovedReply CoreFixture::redrive_all(const std::string& queue, std::uint32_t limit, Sequence to,
                                    bool dry_run) {
  return move(queue, {}, true, limit, true, to, dry_run);
}
MovedReply CoreFixture::discard(const std::string& queue, std::vector<Sequence> sequences) {
  return move(queue, std::move(sequences), false, 0, false);
}

std::vector<PeekReply> CoreFixture::peek(const std::string& queue, std::uint32_t limit,
                                         Sequence from) {
  peeked_.clear();
  core_->peek({ask(), queue, from, limit}, now_);
  run();
  return peeked_;
}

std::shared_ptr<const AttemptsReport> CoreFixture::attempts(const std::string& queue,
                                                            Sequence sequence) {
  last_attempts_ = nullptr;
  core_->tell_attempts({ask(), queue, sequence}, now_);
  run();
  return last_attempts_;
}

std::vector<DeadLetterSeen> CoreFixture::dead_letters(const std::string& queue) {
  std::vector<DeadLetterSeen> letters;
  for (const PeekReply& reply : peek(queue + ".dead", 1000)) {
    const wire::Message* const message = read_message(reply.entry.message);
    const wire::Provenance* const provenance = read_provenance(reply.entry.provenance);
    CHECK(message != nullptr && provenance != nullptr);
    DeadLetterSeen letter;
    letter.sequence = reply.entry.sequence;
    letter.id = message->id()->str();
    letter.body.assign(message->body()->begin(), message->body()->end());
    letter.source = provenance->source()->str();
    letter.source_sequence = provenance->source_sequence();
    letter.reason = static_cast<wire::Cause>(provenance->reason());
    letter.error = provenance->error()->str();
    letter.attempts = provenance->attempt_count();
    for (const wire::Attempt* attempt : *provenance->attempts()) {
      letter.history.push_back(static_cast<wire::Cause>(attempt->cause()));
    }
    for (const flatbuffers::String* error : *provenance->errors()) {
      letter.history_errors.push_back(error->str());
    }
    letters.push_back(std::move(letter));
  }
  return letters;
}

std::vector<Received> CoreFixture::deliveries() { return std::exchange(deliveries_, {}); }

std::vector<Sequence> CoreFixture::delivered() {
  std::vector<Sequence> sequences;
  for (const Received& received : deliveries()) sequences.push_back(received.sequence);
  return sequences;
}

std::optional<ConfirmReply> CoreFixture::confirm_of(std::uint64_t correlation) const {
  for (const ConfirmReply& confirm : confirms_) {
    if (correlation < confirm.to.correlation ||
        correlation >= confirm.to.correlation + confirm.count) {
      continue;
    }
    ConfirmReply one = confirm;
    one.sequence += correlation - confirm.to.correlation;
    return one;
  }
  return std::nullopt;
}

std::optional<Status> CoreFixture::error_of(std::uint64_t correlation) const {
  const auto found = errors_.find(correlation);
  if (found == errors_.end()) return std::nullopt;
  return found->second;
}

std::vector<LeaseLostNotice> CoreFixture::lost_leases() { return std::exchange(lost_leases_, {}); }

std::vector<ConsumerEndedNotice> CoreFixture::ended_consumers() {
  return std::exchange(ended_consumers_, {});
}

QueueReport CoreFixture::report(const std::string& queue) {
  const Asker asker = ask();
  // A list is answered at once, an open waits for the commit: tests that hold commits need the
  // first.
  core_->list_queues(asker, false, QueueId(), now_);
  std::optional<QueueReport> found;
  for (const Effect& effect : core_->effects().said) {
    const auto* reply = std::get_if<QueueReply>(&effect);
    if (reply != nullptr && reply->report->name == queue) found = *reply->report;
  }
  CHECK(found.has_value(), "no queue {}", queue);
  take_effects();
  return *found;
}

}  // namespace holdfast::broker
