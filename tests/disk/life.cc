#include "disk/life.h"

#include <algorithm>
#include <chrono>
#include <utility>

#include "base/check.h"
#include "disk/inspection.h"
#include "disk/messages.h"
#include "support/virtual_time.h"

namespace holdfast::disk {

using namespace holdfast::broker;

namespace {

constexpr SessionId kSession{1};
constexpr std::uint64_t kBeginMs = 1'700'000'000'000;
// Every life takes less than this, so that all of them together are within the dedup window.
constexpr std::uint64_t kLifeMs = 40'000;
constexpr std::chrono::seconds kPatience{60};
constexpr std::uint32_t kSlowUs = 1'000'000;
constexpr std::uint32_t kQueuesMax = 4;
constexpr std::uint32_t kCredit = 30;
constexpr std::string_view kDefault = "default";

// Messages of every other queue are tried for ever, and at once.
bool has_no_limit(std::uint32_t queue) { return queue % 2 == 0; }

}  // namespace

Life::Life(LifePlan plan, const Ledger& before, Log& log)
    : plan_(std::move(plan)), log_(log), random_(plan_.seed), ledger_(before) {
  next_message_ = std::max<std::uint32_t>(1, static_cast<std::uint32_t>(ledger_.messages().size()));
  if (!ledger_.queues().empty()) next_queue_ = ledger_.queues().rbegin()->first + 1;
  now_.monotonic = MonotonicTime(Milliseconds(1'000'000));
  now_.wall = from_unix_ms(kBeginMs + ledger_.counts().lives * kLifeMs);
}

Life::~Life() = default;

LifeEnd Life::run() {
  log(EntryKind::kLifeBegins, 0);
  if (open()) {
    for (std::uint32_t i = 0; i < plan_.steps && !ended_; ++i) {
      if (plan_.reopen && i == plan_.steps / 2) {
        close();
        // Between two batches the tables catch up with the journal: that may have failed.
        if (failed_) end(EntryKind::kFailed, *failed_);
        if (ended_ || !open()) break;
      }
      step();
    }
    if (!ended_) settle_down();
  }
  return ended_.value_or(LifeEnd::kDone);
}

void Life::close() {
  core_.reset();
  if (store_ != nullptr) {
    const Watched guard;
    store_->close();
    store_.reset();
  }
  queues_.clear();
  consumers_.clear();
  held_.clear();
  pending_.clear();
}

// ---- the store ----

bool Life::open() {
  std::optional<Status> failure;
  std::optional<StoredState> state;
  {
    const Watched guard;
    StoreOptions options;
    options.directory = plan_.directory;
    options.map_bytes = kMapBytes;
    options.preallocate_bytes = 1 << 20;
    options.journal_bytes = kJournalBytes;
    options.catch_up_interval = plan_.catch_up_interval;
    Result<std::unique_ptr<Store>> store = Store::open(options);
    if (store) {
      store_ = std::move(*store);
      Result<StoredState> loaded = store_->load();
      if (loaded) {
        state = std::move(*loaded);
      } else {
        failure = loaded.status();
      }
    } else {
      failure = store.status();
    }
  }
  if (failure) {
    end(EntryKind::kRefusedToStart, *failure);
    return false;
  }
  disk_is_slow_ = random_.once_in(3);
  CoreOptions core_options;
  if (disk_is_slow_) core_options.batch_bytes_max = 1;
  core_ = std::make_unique<Core>(core_options);
  core_->load(*state, now_);
  const auto load = [this](QueueId queue, std::uint64_t time_ms, Sequence first,
                           std::span<const MessageIdHash> hashes) {
    const NotWatched of_the_core;
    core_->load_dedup(queue, time_ms, first, hashes, now_);
  };
  {
    const Watched guard;
    const Result<std::uint64_t> corrupt = store_->load_dedup(load);
    if (!corrupt) failure = corrupt.status();
  }
  if (failure) {
    end(EntryKind::kRefusedToStart, *failure);
    return false;
  }
  // Each is called on the committer thread.
  const auto committed = [this](CommitResult result) {
    const NotWatched guard;
    log_.append({.kind = EntryKind::kCommitted});
    std::unique_lock lock(mutex_);
    if (failed_) return;  // which must not be: nobody waits for it any more
    committed_ = std::move(result);
    space_.reset();  // of before this commit
    changed_.notify_all();
    changed_.wait(lock, [this] { return !committed_; });
  };
  const auto failed = [this](Status status) {
    const NotWatched guard;
    const std::lock_guard lock(mutex_);
    failed_ = std::move(status);
    changed_.notify_all();
  };
  const auto space = [this](SpaceReport report) {
    const NotWatched guard;
    const std::lock_guard lock(mutex_);
    space_ = std::move(report);
  };
  store_->start(committed, failed, space);
  core_->session_opened(kSession, "client");
  find_queues();
  // Consumers and publishers come in any order.
  const bool publishers_first = random_.once_in(2);
  if (publishers_first) publish_unanswered();
  for (const auto& [number, handle] : queues_) subscribe(number);
  settle_down();
  if (!publishers_first) publish_unanswered();
  return !ended_;
}

void Life::end(EntryKind kind, const Status& why) {
  if (ended_) return;
  ended_ = kind == EntryKind::kFailed ? LifeEnd::kFailed : LifeEnd::kRefused;
  log_.append({.kind = kind}, why.message());
}

void Life::settle_down() {
  while (!ended_) {
    {
      const std::lock_guard lock(mutex_);
      if (space_) core_->space_changed(*std::exchange(space_, std::nullopt), now_);
    }
    take_effects();
    const std::vector<FetchRequest> fetches = std::exchange(core_->effects().fetches, {});
    const std::vector<IdsRequest> ids = std::exchange(core_->effects().ids_requests, {});
    core_->effects().clear();
    for (const FetchRequest& request : fetches) {
      const Result<FetchResult> result = [&] {
        const Watched guard;
        return store_->fetch_blocking(request);
      }();
      if (!result) return end(EntryKind::kFailed, result.status());
      core_->fetched(*result, now_);
    }
    for (const IdsRequest& request : ids) {
      const Result<IdsResult> result = [&] {
        const Watched guard;
        return store_->fetch_ids_blocking(request);
      }();
      if (!result) return end(EntryKind::kFailed, result.status());
      core_->ids_fetched(*result, now_);
    }
    if (!fetches.empty() || !ids.empty()) continue;
    Batches batches = core_->take_batches(now_);
    if (batches.empty()) {
      if (core_->effects().said.empty() && core_->effects().fetches.empty()) return;
      continue;
    }
    commit(std::move(batches));
  }
}

void Life::commit(Batches batches) {
  const std::uint64_t number = batches.front()->number;
  store_->commit(std::move(batches));
  std::unique_lock lock(mutex_);
  const bool answered =
      changed_.wait_for(lock, kPatience, [this] { return committed_ || failed_; });
  CHECK(answered, "the store has not answered a commit for {} s", kPatience.count());
  if (failed_) {
    end(EntryKind::kFailed, *failed_);
    lock.unlock();
    return commit_after_failure(number);
  }
  if (disk_is_slow_) committed_->duration_us = kSlowUs;
  core_->committed(*committed_, now_);
  take_effects();
  committed_.reset();
  changed_.notify_all();
}

void Life::commit_after_failure(std::uint64_t number) {
  auto batch = std::make_unique<Batch>();
  batch->number = number;
  Batches batches;
  batches.push_back(std::move(batch));
  store_->commit(std::move(batches));
  const Watched guard;
  store_->close();
}

void Life::take_effects() {
  for (const Effect& effect : std::exchange(core_->effects().said, {})) take(effect);
}

void Life::take(const Effect& effect) {
  if (const auto* confirm = std::get_if<ConfirmReply>(&effect)) {
    for (std::uint32_t i = 0; i < confirm->count; ++i) {
      const Pending pending = pending_.extract(confirm->to.correlation + i).mapped();
      log(EntryKind::kConfirmed, pending.queue, pending.messages.front().second,
          confirm->sequence + i, confirm->duplicate);
    }
  } else if (const auto* delivery = std::get_if<Delivery>(&effect)) {
    const wire::Message* const message = read_message(delivery->entry.message);
    CHECK(message != nullptr);
    const std::optional<std::uint32_t> number = number_of(message->id()->string_view());
    CHECK(number.has_value());
    held_.push_back(
        {delivery->consumer, delivery->entry.sequence, *number, consumers_.at(delivery->consumer)});
    log(EntryKind::kDelivered, held_.back().queue, *number, delivery->entry.sequence);
  } else if (const auto* subscribed = std::get_if<SubscribedReply>(&effect)) {
    consumers_[subscribed->consumer] = pending_.extract(subscribed->to.correlation).mapped().queue;
  } else if (const auto* queue = std::get_if<QueueReply>(&effect)) {
    const auto found = pending_.find(queue->to.correlation);
    if (const auto number = queue_number(queue->report->name)) {
      queues_[*number] = {queue->report->id, false};
      if (found != pending_.end() && found->second.done == EntryKind::kQueueCreated) {
        log(EntryKind::kQueueCreated, *number);
        pending_.erase(found);
      }
    }
  } else if (const auto* settled = std::get_if<SettledReply>(&effect)) {
    take_settled(*settled);
  } else if (const auto* error = std::get_if<ErrorReply>(&effect)) {
    take_error(*error);
  } else if (const auto* ok = std::get_if<OkReply>(&effect)) {
    const Pending pending = pending_.extract(ok->to.correlation).mapped();
    log(pending.done, pending.queue);
  } else if (const auto* moved = std::get_if<MovedReply>(&effect)) {
    const Pending pending = pending_.extract(moved->to.correlation).mapped();
    if (pending.done != EntryKind::kNothing) log(pending.done, pending.queue);
  } else if (const auto* ended = std::get_if<ConsumerEndedNotice>(&effect)) {
    consumers_.erase(ended->consumer);
  }
}

void Life::take_settled(const SettledReply& reply) {
  const Pending pending = pending_.extract(reply.to.correlation).mapped();
  for (const auto& [sequence, message] : pending.messages) {
    const bool refused = std::any_of(reply.refused.begin(), reply.refused.end(),
                                     [sequence = sequence](const SequenceRange& r) {
                                       return sequence >= r.first && sequence <= r.last;
                                     });
    const EntryKind kind = refused ? pending.refused : pending.done;
    if (kind != EntryKind::kNothing) log(kind, pending.queue, message, sequence);
  }
}

void Life::take_error(const ErrorReply& reply) {
  const auto found = pending_.find(reply.to.correlation);
  if (found == pending_.end()) return;
  const Pending pending = pending_.extract(found).mapped();
  if (pending.refused == EntryKind::kNothing) return;
  for (const auto& [sequence, message] : pending.messages) {
    log(pending.refused, pending.queue, message, sequence);
  }
}

// ---- what clients and people do ----

Asker Life::ask(Pending pending) {
  pending_.emplace(++last_correlation_, std::move(pending));
  return {kSession, last_correlation_};
}

void Life::log(EntryKind kind, std::uint32_t queue, std::uint32_t message, Sequence sequence,
               bool duplicate) {
  log_.append({.kind = kind,
               .duplicate = duplicate,
               .message = message,
               .queue = queue,
               .sequence = sequence});
}

void Life::step() {
  const std::uint64_t choice = random_.below(100);
  if (queues_.empty() || (choice < 5 && queues_.size() < kQueuesMax)) {
    create_queue();
  } else if (choice < 40) {
    publish_new();
  } else if (choice < 48) {
    publish_again();
  } else if (choice < 80) {
    settle_some();
  } else if (choice < 92) {
    pass(Milliseconds(random_.below(1500)));
  } else if (choice < 93) {
    fail_often();
  } else if (choice < 95) {
    redrive();
  } else if (choice < 98) {
    purge();
  } else {
    delete_queue();
  }
  // Otherwise it goes into the same commit as what comes next.
  if (!ended_ && !random_.once_in(3)) settle_down();
}

void Life::find_queues() {
  core_->list_queues({kSession, ++last_correlation_}, false, QueueId(), now_);
  take_effects();
}

void Life::create_queue() {
  const std::uint32_t number = next_queue_++;
  const std::string name = queue_name(number);
  const std::vector<SettingChange> settings = {
      {static_cast<std::uint16_t>(QueueSetting::kMaxAttempts), has_no_limit(number) ? 0u : 5u},
      {static_cast<std::uint16_t>(QueueSetting::kBackoffMin), has_no_limit(number) ? 0u : 100u},
      {static_cast<std::uint16_t>(QueueSetting::kLease), 5'000}};
  log(EntryKind::kQueueAsked, number);
  core_->create_queue(
      {ask({EntryKind::kQueueCreated, EntryKind::kNothing, {}, number}), name, settings, false},
      now_);
  settle_down();
  if (!ended_ && queues_.contains(number)) subscribe(number);
}

std::optional<std::uint32_t> Life::some_queue() {
  if (queues_.empty()) return std::nullopt;
  return std::next(queues_.begin(), static_cast<std::ptrdiff_t>(random_.below(queues_.size())))
      ->first;
}

void Life::publish(std::uint32_t message, std::uint32_t queue) {
  const auto handle = queues_.find(queue);
  if (handle == queues_.end()) return;
  log(EntryKind::kPublishAsked, queue, message);
  queue_of_message_[message] = queue;
  const NumberedMessage& content = message_of(message);
  core_->publish(
      {.asker = ask({EntryKind::kConfirmed, EntryKind::kPublishRefused, {{0, message}}, queue}),
       .queue = handle->second.id,
       .id = content.id,
       .body_bytes = content.body_bytes,
       .message_checksum = content.checksum,
       .message = content.bytes},
      now_);
}

void Life::publish_new() {
  const std::optional<std::uint32_t> queue = some_queue();
  if (!queue) return;
  const std::uint64_t count = 1 + random_.below(4);
  for (std::uint64_t i = 0; i < count; ++i) publish(next_message_++, *queue);
}

void Life::publish_again() {
  if (next_message_ == 1) return;
  const auto message = static_cast<std::uint32_t>(1 + random_.below(next_message_ - 1));
  const auto here = queue_of_message_.find(message);
  if (here != queue_of_message_.end()) return publish(message, here->second);
  if (message >= ledger_.messages().size() || ledger_.messages()[message].asked == 0) return;
  publish(message, ledger_.messages()[message].queue);
}

// As a client does that lost its connection: it does not know whether they are stored.
void Life::publish_unanswered() {
  for (std::uint32_t message = 1; message < ledger_.messages().size(); ++message) {
    const MessageState& one = ledger_.messages()[message];
    if (one.asked > 0 && !one.confirmed && one.refused < one.asked) publish(message, one.queue);
  }
  settle_down();
}

void Life::subscribe(std::uint32_t queue) {
  const std::string name = queue_name(queue);
  core_->subscribe({.asker = ask({EntryKind::kNothing, EntryKind::kNothing, {}, queue}),
                    .queue = name,
                    .subscription = kDefault,
                    .consumer_name = "consumer",
                    .credit_messages = kCredit},
                   now_);
  // The answer comes at once, before the first delivery.
  take_effects();
}

void Life::settle_some() {
  const std::uint64_t count = 1 + random_.below(8);
  for (std::uint64_t i = 0; i < count && !held_.empty(); ++i) {
    const auto at = held_.begin() + static_cast<std::ptrdiff_t>(random_.below(held_.size()));
    const Held held = *at;
    held_.erase(at);
    const std::uint64_t choice = random_.below(100);
    settle(held, choice < 70   ? wire::SettleKind_Ack
                 : choice < 82 ? wire::SettleKind_Nack
                 : choice < 94 ? wire::SettleKind_Reject
                               : wire::SettleKind_Release);
  }
}

void Life::fail_often() {
  const auto keeps_trying = [](const Held& held) { return has_no_limit(held.queue); };
  const auto chosen = std::find_if(held_.begin(), held_.end(), keeps_trying);
  if (chosen == held_.end()) return;
  const Held poison = *chosen;
  for (std::size_t attempt = 1; attempt <= broker::kHistoryMax + 5; ++attempt) {
    const auto again = std::find_if(held_.begin(), held_.end(), [&](const Held& held) {
      return held.queue == poison.queue && held.sequence == poison.sequence;
    });
    if (again == held_.end()) return;
    const Held held = *again;
    held_.erase(again);
    const bool is_long = attempt <= broker::kHistoryMax;
    settle(held, wire::SettleKind_Nack, std::string(is_long ? 1'000 : 0, 'r'));
    settle_down();
    pass(Milliseconds(1));
    settle_down();
    if (ended_) return;
  }
}

void Life::settle(const Held& held, wire::SettleKind kind, const std::string& reason) {
  Pending pending{
      EntryKind::kNothing, EntryKind::kNothing, {{held.sequence, held.message}}, held.queue};
  if (kind == wire::SettleKind_Ack) {
    log(EntryKind::kAckAsked, held.queue, held.message, held.sequence);
    pending.done = EntryKind::kAckDone;
    pending.refused = EntryKind::kAckRefused;
  } else if (kind == wire::SettleKind_Reject) {
    log(EntryKind::kRejectAsked, held.queue, held.message, held.sequence);
    pending.done = EntryKind::kRejectDone;
  }
  const SequenceRange range{held.sequence, held.sequence};
  core_->settle({.asker = ask(std::move(pending)),
                 .consumer = held.consumer,
                 .kind = kind,
                 .ranges = {&range, 1},
                 .reason = reason,
                 .delay = std::nullopt},
                now_);
}

void Life::purge() {
  const std::optional<std::uint32_t> queue = some_queue();
  if (!queue) return;
  log(EntryKind::kPurgeAsked, *queue);
  core_->purge_queue(ask({EntryKind::kPurgeDone, EntryKind::kNothing, {}, *queue}),
                     queue_name(*queue), now_);
}

void Life::delete_queue() {
  const std::optional<std::uint32_t> queue = some_queue();
  if (!queue) return;
  log(EntryKind::kDeleteAsked, *queue);
  core_->delete_queue(ask({EntryKind::kDeleteDone, EntryKind::kNothing, {}, *queue}),
                      queue_name(*queue), now_);
  queues_.erase(*queue);
}

void Life::redrive() {
  const std::optional<std::uint32_t> queue = some_queue();
  if (!queue) return;
  log(EntryKind::kRedriveAsked, *queue);
  const std::string name = queue_name(*queue);
  core_->redrive({.asker = ask({EntryKind::kRedriveDone, EntryKind::kNothing, {}, *queue}),
                  .queue = name,
                  .sequences = {},
                  .all = true,
                  .limit = 256},
                 now_);
}

void Life::pass(Milliseconds duration) {
  const MonotonicTime end = now_.monotonic + duration;
  while (!ended_ && now_.monotonic < end) {
    test::set_clock(test::next_stop(*core_, now_, end), &now_);
    core_->advance(now_);
    if (now_.monotonic < end) settle_down();
  }
}

}  // namespace holdfast::disk
