#include "sim/world.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <utility>

#include "support/virtual_time.h"

namespace holdfast::broker::sim {

namespace {
constexpr std::size_t kEventsKept = 40;
constexpr std::array<std::pair<std::string_view, Sabotage>, 9> kSabotages{{
    {"nothing", Sabotage::kNothing},
    {"confirm-before-commit", Sabotage::kConfirmBeforeCommit},
    {"drop-acks", Sabotage::kDropAcks},
    {"drop-block", Sabotage::kDropBlock},
    {"forget-attempts", Sabotage::kForgetAttempts},
    {"forget-watermark", Sabotage::kForgetWatermark},
    {"forget-ids", Sabotage::kForgetIds},
    {"keep-blocks", Sabotage::kKeepBlocks},
    {"other-bytes", Sabotage::kOtherBytes},
}};

// The same messages with a byte changed, and checksums that agree with it.
std::shared_ptr<const Block> with_other_bytes(const Block& block) {
  BlockBuilder builder(block.queue());
  for (std::size_t i = 0; i < block.entry_count(); ++i) {
    const BlockEntry entry = block.entry(i);
    std::vector<std::uint8_t> message(entry.message.begin(), entry.message.end());
    message.back() ^= 1;
    builder.append(entry.sequence, entry.published_at, checksum(message), message,
                   entry.provenance);
  }
  return builder.finish();
}
}  // namespace

std::optional<Sabotage> find_sabotage(std::string_view name) {
  for (const auto& [known, sabotage] : kSabotages) {
    if (known == name) return sabotage;
  }
  return std::nullopt;
}

std::vector<std::string> sabotage_names() {
  std::vector<std::string> names;
  for (const auto& [name, sabotage] : kSabotages) names.emplace_back(name);
  return names;
}

World::World(std::uint64_t seed, Sabotage sabotage, bool print_events)
    : sabotage_(sabotage),
      print_events_(print_events),
      script_(seed),
      model_({.ids_are_dropped = script_.few_ids,
              .ids_are_read = script_.reads_ids,
              .ends_wait = script_.few_ends}) {
  now_.monotonic = MonotonicTime(Milliseconds(1'000'000));
  now_.wall = from_unix_ms(1'700'000'000'000);
  start();
}

void World::note_text(std::string text) {
  text = fmt::format("{:>9} ms  {}", now_.monotonic.time_since_epoch().count() - 1'000'000, text);
  if (print_events_) {
    std::printf("%s\n", text.c_str());
    std::fflush(stdout);
  }
  events_.push_back(std::move(text));
  if (events_.size() > kEventsKept) events_.pop_front();
}

std::optional<std::string> World::run(std::uint64_t steps) {
  for (std::uint64_t step = 0; step < steps && !model_.finding(); ++step) {
    act(script_.next());
    take_effects();
    if (script_.random.below(100) < script_.prompt_percent) settle_down();
    if (step % 64 == 0) look();
  }
  if (!model_.finding()) drain();
  return model_.finding();
}

// ---- start and crash ----

void World::start() {
  core_ = std::make_unique<Core>(script_.core_options());
  core_->load(store_.load(), now_);
  store_.load_dedup(*core_, now_);
  take_effects();
  // Only what is durable has happened so far.
  listed_ = list_queues();
  for (const QueueReport& report : listed_) model_.check_counts(report);
  take_effects();
}

void World::crash(bool gracefully) {
  if (!batches_.empty() && sabotage_ != Sabotage::kConfirmBeforeCommit && !commit_done_ &&
      script_.random.once_in(2)) {
    commit_done_ = apply(batches_);  // on disk, and nobody was told
  }
  note("{}", gracefully ? "the broker stops" : "the broker crashes");
  core_.reset();
  batches_.clear();
  commit_done_.reset();
  readings_.clear();
  ids_readings_.clear();
  sessions_.clear();
  for (const auto& [correlation, asked] : unanswered_) retries_.push_back(asked);
  unanswered_.clear();
  publisher_broken_ = false;
  model_.crashed(gracefully);
  start();
}

// As SIGTERM does: what is held is given back, what is gathered is committed.
void World::shut_down() {
  core_->begin_drain();
  model_.begin_drain();
  for (const auto& [id, consumer] : std::map(model_.consumers())) {
    if (consumer.held.empty() || !model_.consumers().contains(id)) continue;
    settle(id, wire::SettleKind_Release, {consumer.held.begin(), consumer.held.end()},
           std::nullopt);
    take_effects();
  }
  if (script_.random.once_in(3)) {  // killed while it drains
    for (std::uint64_t steps = script_.random.below(20); steps > 0; --steps) {
      if (!fetch_step()) commit_step();
    }
    return crash(false);
  }
  for (int i = 0; i < 1000 && !core_->drained(); ++i) settle_down();
  if (!core_->drained()) model_.find("drain", "a broker that drains does not come to its end");
  crash(true);
}

// Nobody is told anything; the batch is on disk or is not.
void World::fail_commit() {
  if (batches_.empty()) take_batches();
  if (batches_.empty() || commit_done_) return;
  ++faults_.commits_failed;
  note("the commit of batch {} fails", batches_.back()->number);
  crash(false);
}

// ---- time ----

void World::pass(Milliseconds duration) {
  const MonotonicTime end = now_.monotonic + duration;
  do {
    const bool late = script_.random.once_in(4);  // as a busy loop comes
    test::set_clock(late ? end : test::next_stop(*core_, now_, end), &now_);
    core_->advance(now_);
    take_effects();
    if (!script_.few_ends) model_.advanced(now_);
  } while (now_.monotonic < end && !model_.finding());
}

// ---- the disk ----

void World::take_effects() {
  Effects& effects = core_->effects();
  model_.knows(core_->report(now_).space);
  for (const Effect& effect : effects.said) {
    tell(effect);
    model_.said(effect, now_);
    hear(effect);
  }
  for (FetchRequest& request : effects.fetches) readings_.push_back({request, std::nullopt});
  for (const IdsRequest& request : effects.ids_requests) ids_readings_.push_back(request);
  effects.clear();
  if (publisher_broken_) {
    disconnect(kPublisher);
    take_effects();
  }
}

void World::tell(const Effect& effect) {
  if (const auto* delivery = std::get_if<Delivery>(&effect)) {
    note("queue {} delivers {} to consumer {}, attempt {}", delivery->queue.value,
         delivery->entry.sequence, delivery->consumer.value, delivery->attempt);
  } else if (const auto* confirm = std::get_if<ConfirmReply>(&effect)) {
    note("confirms {} from request {} as {}{}", confirm->count, confirm->to.correlation,
         confirm->sequence, confirm->duplicate ? ", duplicate" : "");
  } else if (const auto* lost = std::get_if<LeaseLostNotice>(&effect)) {
    note("takes {} to {} from consumer {} ({})", lost->ranges.front().first,
         lost->ranges.back().last, lost->consumer.value, wire::EnumNameCause(lost->cause));
  } else if (const auto* error = std::get_if<ErrorReply>(&effect)) {
    note("refuses request {}: {}", error->to.correlation, error->error.message().substr(0, 60));
  } else if (const auto* settled = std::get_if<SettledReply>(&effect)) {
    note("request {}: {} settled, {} late", settled->to.correlation, settled->settled,
         settled->late);
  } else if (const auto* moved = std::get_if<MovedReply>(&effect)) {
    note("request {}: {} moved", moved->to.correlation, moved->moved);
  } else if (const auto* listed = std::get_if<QueueReply>(&effect)) {
    const QueueModel* const known = model_.queue(listed->report->id);
    std::erase_if(listed_, [&](const auto& one) { return one.id == listed->report->id; });
    if (known != nullptr && !known->delete_asked) listed_.push_back(*listed->report);
  }
}

void World::take_batches() {
  batches_ = core_->take_batches(now_);
  if (batches_.size() > 1) ++faults_.commits_joint;
  take_effects();  // what nothing needs to be stored for is said at once
}

bool World::commit_step() {
  if (batches_.empty()) {
    take_batches();
    return !batches_.empty();
  }
  if (sabotage_ == Sabotage::kConfirmBeforeCommit) {
    // What the store would say is true; that it lasts is not.
    MemoryStore copy = store_;
    const CommitResult result = copy.apply(batches_);
    for (const std::unique_ptr<Batch>& batch : batches_) model_.applied(*batch);
    const Batches batches = std::exchange(batches_, {});
    core_->committed(result, now_);
    take_effects();
    if (script_.random.once_in(20)) {
      crash(false);
    } else {
      store_.apply(batches);
    }
    return true;
  }
  if (!commit_done_) {
    if (attempts_without_room_ > 0) {
      --attempts_without_room_;
      ++faults_.commits_without_room;
      return true;
    }
    commit_done_ = apply(batches_);
    return true;
  }
  const CommitResult result = *std::exchange(commit_done_, std::nullopt);
  batches_.clear();
  note("batch {} is committed", result.number);
  core_->committed(result, now_);
  take_effects();
  return true;
}

CommitResult World::apply(const Batches& batches) {
  Batches stored;
  for (const std::unique_ptr<Batch>& batch : batches) {
    stored.push_back(std::make_unique<Batch>(as_stored(*batch)));
    note("batch {} is durable", batch->number);
    for (const DedupTrim& trim : batch->dedup_trims) {
      note("  ids of queue {} before {} ms, {} are forgotten", trim.queue.value, trim.time_ms,
           trim.first);
    }
    for (const DedupRecord& record : batch->dedup) {
      note("  ids of queue {} at {} ms: {} from {} on", record.queue.value, record.time_ms,
           record.hashes.size(), record.first);
    }
    model_.applied(*batch);
  }
  const bool slow = script_.disk_is_slow();
  if (slow) ++faults_.commits_slow;
  store_.batch_us = slow ? 100'000 : 1;
  return store_.apply(stored);
}

Batch World::as_stored(const Batch& batch) {
  Batch stored = batch;
  // Small enough that a trim takes several commits.
  const auto trim_limit = static_cast<std::uint32_t>(script_.random.between(1, 5));
  for (BlockTrim& trim : stored.block_trims) trim.limit = std::min(trim.limit, trim_limit);
  for (DedupTrim& trim : stored.dedup_trims) trim.limit = std::min(trim.limit, trim_limit);
  switch (sabotage_) {
    case Sabotage::kDropAcks:
      stored.acks.clear();
      break;
    case Sabotage::kDropBlock:
      if (!stored.blocks.empty() && script_.random.once_in(30)) stored.blocks.pop_back();
      break;
    case Sabotage::kForgetAttempts:
      stored.retries.clear();
      break;
    case Sabotage::kForgetWatermark:
      for (SubscriptionRecord& record : stored.subscriptions) record.delivered_to = record.floor;
      break;
    case Sabotage::kForgetIds:
      stored.dedup.clear();
      break;
    case Sabotage::kKeepBlocks:
      stored.blocks_removed.clear();
      break;
    default:
      break;
  }
  return stored;
}

bool World::fetch_step() {
  if (readings_.empty() || (!ids_readings_.empty() && script_.random.once_in(2))) {
    return read_ids_step();
  }
  const auto at =
      readings_.begin() + static_cast<std::ptrdiff_t>(script_.random.below(readings_.size()));
  if (!at->result) {
    at->result = read(at->request);
    return true;
  }
  const Reading done = std::move(*at);
  readings_.erase(at);
  note("queue {} was read from {} to {}: {} blocks", done.request.queue.value, done.request.from,
       done.request.to, done.result->blocks.size());
  core_->fetched(*done.result, now_);
  take_effects();
  return true;
}

bool World::read_ids_step() {
  if (ids_readings_.empty()) return false;
  const auto at = ids_readings_.begin() +
                  static_cast<std::ptrdiff_t>(script_.random.below(ids_readings_.size()));
  const IdsResult result = store_.fetch_ids(*at);
  ids_readings_.erase(at);
  note("{} records of ids of queue {} were read", result.records.size(), result.queue.value);
  core_->ids_fetched(result, now_);
  take_effects();
  return true;
}

FetchResult World::read(const FetchRequest& request) {
  FetchResult result = store_.fetch(request);
  if (sabotage_ == Sabotage::kOtherBytes) {
    for (auto& block : result.blocks) block = with_other_bytes(*block);
  }
  return result;
}

void World::settle_down() {
  // Between two faults a broker comes to rest; if it does not, it asks for something for ever.
  // Reads may be many for each commit: with few bits to tell ids by, a publish looks at most of
  // their chunks.
  constexpr int kStepsMax = 100'000;
  int reads = 0;
  for (int commits = 0; commits < kStepsMax && reads < kStepsMax && !model_.finding();) {
    const bool read = fetch_step();
    const bool committed = commit_step();
    const std::optional<MonotonicTime> wake = core_->next_wake();
    if (wake && *wake <= now_.monotonic) {
      core_->advance(now_);
      take_effects();
    } else if (!read && !committed && readings_.empty() && ids_readings_.empty()) {
      model_.advanced(now_);
      return rest();
    }
    reads = committed ? 0 : reads + 1;
    commits += committed ? 1 : 0;
  }
  model_.find("drain", "the broker does not come to rest");
}

// Bounds that the broker's own reports show.
void World::look() {
  for (const QueueReport& report : list_queues()) {
    // A queue is listed as soon as it is created, before that is stored.
    if (model_.queue(report.id) != nullptr) model_.check_bounds(report);
  }
}

void World::rest() {
  const SpaceReport space = core_->report(now_).space;
  model_.check_rest(list_queues(),
                    space.publishes_allowed && space.room_bytes == MemoryStore::kRoomBytes);
}

std::vector<QueueReport> World::list_queues() {
  take_effects();
  core_->list_queues(ask(session(0)), false, QueueId(), now_);
  std::vector<QueueReport> reports;
  for (const Effect& effect : core_->effects().said) {
    if (const auto* reply = std::get_if<QueueReply>(&effect)) reports.push_back(*reply->report);
  }
  core_->effects().clear();
  return reports;
}

// ---- the end ----

void World::ack_everything() {
  for (const auto& [id, consumer] : std::map(model_.consumers())) {
    if (consumer.held.empty()) continue;
    settle(id, wire::SettleKind_Ack, {consumer.held.begin(), consumer.held.end()}, std::nullopt);
    take_effects();
  }
}

bool World::drained() {
  bool empty = store_.block_count() == 0;
  messages_left_.clear();
  for (const QueueReport& report : list_queues()) {
    if (report.messages == 0) continue;
    empty = false;
    messages_left_ += fmt::format("{}: {} ready, {} in flight, {} waiting; ", report.name,
                                  report.ready, report.in_flight, report.waiting);
  }
  return empty;
}

void World::drain() {
  note("the faults stop");
  faults_stopped_ = true;
  store_.space = MemoryStore().space;
  // A commit that is durable already still tells of no room: a store then looks again.
  settle_down();
  core_->space_changed(store_.space, now_);
  settle_down();
  for (const auto& [which, id] : std::map(sessions_)) {
    if (which == 0) continue;
    disconnect(which);
    take_effects();
  }
  settle_down();
  while (retry_one()) settle_down();
  for (const auto& [id, name] : queues_known()) {
    subscribe(id, 100, 30'000, session(1));
    take_effects();
  }
  // All goes through one narrow session: for each round of deliveries it is told a little room.
  const std::uint64_t room = script_.random.between(1, 20'000);
  // Twenty minutes: longer than any delay or backoff, shorter than the jumps of the wall clock.
  constexpr int kRoundsMax = 120;
  constexpr int kDeliveryRoundsMax = 2'000;
  // A message whose watermark is not durable yet comes a round later.
  constexpr int kIdleRounds = 3;
  for (int round = 0; round < kRoundsMax && !model_.finding() && !drained(); ++round) {
    int idle = 0;
    for (int i = 0; i < kDeliveryRoundsMax && idle < kIdleRounds; ++i) {
      give_room(session(1), room);
      settle_down();
      idle = model_.held_count() == 0 ? idle + 1 : 0;
      ack_everything();
    }
    pass(Milliseconds(10'000));
  }
  settle_down();
  if (model_.finding()) return;
  if (!drained()) {
    return model_.find("drain", fmt::format("{} blocks are left in the store; {}",
                                            store_.block_count(), messages_left_));
  }
  pass(Milliseconds(120'000));  // the dedup windows
  settle_down();
  if (store_.ack_record_count() + store_.retry_count() + store_.dedup_record_count() > 0) {
    model_.find("drain", fmt::format("{} records of acks, {} of retries and {} of ids are left",
                                     store_.ack_record_count(), store_.retry_count(),
                                     store_.dedup_record_count()));
  }
  model_.check_drained();
  crash(true);
  for (const QueueReport& report : listed_) {
    if (report.messages + report.bytes + report.in_flight + report.waiting > 0) {
      model_.find("drain", fmt::format("queue {} is empty and reports {} messages, {} bytes",
                                       report.name, report.messages, report.bytes));
    }
  }
}

}  // namespace holdfast::broker::sim
