// Queues as a person manages and sees them.

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <numeric>

#include "base/check.h"
#include "core/state.h"
#include "holdfast/text.h"
#include "schema/field_limits.h"

namespace holdfast::broker {

namespace {
constexpr std::string_view kDefaultSubscription = "default";
// A queue, its dead-letter queue, and the subscription of each.
constexpr std::uint32_t kIdsOfQueue = 4;

Status apply(QueueSettings& settings, std::span<const SettingChange> changes) {
  for (const SettingChange& change : changes) {
    if (Status status = settings.set(change.setting, change.value); !status.ok()) return status;
  }
  return settings.check();
}

// Of changes that apply() accepts. What every dead-letter queue has may be said.
Status check_of_dead_letters(const EditQueueRequest& request) {
  const QueueSettings made_with = QueueSettings::for_dead_letters();
  for (const SettingChange& change : request.settings) {
    const QueueSettingInfo& info = *find_queue_setting(change.setting);
    if (QueueSettings::may_differ_for_dead_letters(info.setting) ||
        change.value == made_with.get(info.setting)) {
      continue;
    }
    return Status(
        ErrorCode::kOperationRefused,
        fmt::format("\"{}\" is a dead-letter queue: its {} is {}. What can be changed are "
                    "lease, backoff-min, backoff-max and outstanding-max.",
                    request.name, info.name,
                    format_setting_value(info, made_with.get(info.setting))));
  }
  return Status();
}
}  // namespace

void Core::State::create_queue(const CreateQueueRequest& request, Now now) {
  const std::string name(request.name);
  const std::string dead_name = name + std::string(kDeadSuffix);
  if (Status status = check_queue_name(name); !status.ok()) {
    return refuse(request.asker, std::move(status));
  }
  if (is_dead_queue_name(name)) {
    refuse(request.asker, ErrorCode::kNameInvalid,
           fmt::format(
               "\"{}\" is the name of a dead-letter queue: it is made together with its queue. "
               "Create \"{}\" instead.",
               name, name.substr(0, name.size() - kDeadSuffix.size())));
    return;
  }
  if (Queue* const existing = find_queue(request.name)) {
    if (request.if_not_exists) {
      say_after_commit(QueueReply{request.asker, report(*existing)});
    } else {
      refuse_when_durable(
          request.asker, ErrorCode::kQueueExists,
          fmt::format("Queue \"{}\" exists already. Use --if-not-exists to accept it as it is.",
                      name));
    }
    return;
  }
  if (Status status = check_new_queue(name, dead_name); !status.ok()) {
    return refuse(request.asker, std::move(status));
  }
  QueueSettings settings;
  if (Status status = apply(settings, request.settings); !status.ok()) {
    refuse(request.asker, std::move(status));
    return;
  }
  Queue& queue = add_queue(name, settings, QueueId(), now);
  Queue& dead =
      add_queue(dead_name, QueueSettings::for_dead_letters(settings), queue.record.id, now);
  queue.record.dead_queue = dead.record.id;
  ++source_queues;
  say_after_commit(QueueReply{request.asker, report(queue)});
  seal_if_full();
}

Status Core::State::check_new_queue(std::string_view name, std::string_view dead_name) const {
  if (draining) return {ErrorCode::kDraining, "The broker is shutting down."};
  if (source_queues >= options.queues_max) {
    return {
        ErrorCode::kLimitReached,
        fmt::format("The broker has {} queues, and its limit is {} (queues_max). Delete one, or "
                    "start the broker with a higher limit.",
                    source_queues, options.queues_max)};
  }
  // They take memory until the commits that remove them are done.
  const std::size_t going = (queues.size() - queues_by_name.size()) / 2;
  if (going >= options.queues_max) {
    return {ErrorCode::kLimitReached,
            fmt::format("The broker still removes {} queues that were deleted, and may have no "
                        "more of them than {} (queues_max). Create \"{}\" again when the disk has "
                        "caught up.",
                        going, options.queues_max, name)};
  }
  if (std::numeric_limits<std::uint32_t>::max() - next_id < kIdsOfQueue) {
    return {ErrorCode::kLimitReached,
            fmt::format("All {} ids have been given to queues, most of them long gone. Begin a new "
                        "data directory for new queues.",
                        next_id - 1)};
  }
  const SpaceReport& space = pipeline.space();
  if (!space.publishes_allowed) return {ErrorCode::kStorageFull, space.reason};
  const std::size_t bytes = created_queue_bytes(name) + created_queue_bytes(dead_name);
  if (!pipeline.has_room_for(bytes)) {
    return {ErrorCode::kStorageFull,
            fmt::format("Queue \"{}\" takes {} bytes with its dead-letter queue, and the store has "
                        "room for {} more, of which {} wait to be stored. Create it again when "
                        "messages are settled or the store is given more room (its disk, or "
                        "disk_bytes_max).",
                        name, bytes, space.room_bytes, pipeline.pending_room_bytes())};
  }
  return {};
}

Queue& Core::State::add_queue(std::string name, const QueueSettings& settings, QueueId source,
                              Now now) {
  QueueRecord record;
  record.id = QueueId(next_id++);
  record.name = std::move(name);
  record.settings = settings;
  record.created_at = now.wall;
  record.source_queue = source;
  SubscriptionRecord subscription;
  subscription.id = SubscriptionId(next_id++);
  subscription.queue = record.id;
  subscription.name = kDefaultSubscription;
  pipeline.gathering().next_id = next_id;
  auto owned = std::make_unique<Queue>(std::move(record), std::move(subscription), options.dedup,
                                       options.hash_key, dedup_totals);
  Queue& queue = *owned;
  queue.record_touched = queue.subscription_touched = true;
  queues_by_name.emplace(queue.record.name, &queue);
  queues.emplace(queue.record.id, std::move(owned));
  touch(queue);
  ++pipeline.gathering().created;
  pipeline.gathering().created_bytes += created_queue_bytes(queue.record.name);
  return queue;
}

void Core::State::edit_queue(const EditQueueRequest& request) {
  Queue* const queue = queue_or_refuse(request.asker, request.name);
  if (queue == nullptr) return;
  QueueSettings settings = queue->record.settings;
  Status status = apply(settings, request.settings);
  if (status.ok() && queue->is_dead_queue()) status = check_of_dead_letters(request);
  if (!status.ok()) {
    refuse(request.asker, std::move(status));
    return;
  }
  queue->record.settings = settings;
  const Milliseconds lease(static_cast<std::int64_t>(settings.get(QueueSetting::kLease)));
  for (Consumer* consumer : queue->subscription.consumers) {
    if (consumer->lease_is_the_queues) consumer->lease = lease;
  }
  queue->record_touched = true;
  touch(*queue);
  say_after_commit(QueueReply{request.asker, report(*queue)});
  seal_if_full();
}

void Core::State::purge_queue(Asker asker, std::string_view name) {
  Queue* const queue = queue_or_refuse(asker, name);
  if (queue == nullptr) return;
  MovedReply reply;
  reply.to = asker;
  reply.moved = empty_queue(*queue);
  queue->counters.purged += reply.moved;
  say_after_commit(std::move(reply));
  seal_if_full();
}

std::uint64_t Core::State::empty_queue(Queue& queue) {
  Subscription& subscription = queue.subscription;
  const std::uint64_t count = queue.messages();
  const auto take_all_back = [&](Consumer& consumer) {
    LeaseLostNotice notice{consumer.session->id, consumer.id, wire::Cause_Purged, {}};
    while (Outstanding* const entry = consumer.earliest()) {
      add_to_ranges(notice.ranges, entry->sequence);
      take_back(queue, *entry);
    }
    while (!consumer.starting.empty()) {
      take_back(queue, *subscription.outstanding.find(consumer.starting.begin()->first));
    }
    if (!notice.ranges.empty() && !consumer.ending) say(std::move(notice));
  };
  for (Consumer* consumer : subscription.consumers) take_all_back(*consumer);
  for (Consumer* consumer : subscription.ending) take_all_back(*consumer);
  subscription.outstanding.for_each([&](Outstanding& entry) {
    if (entry.has_record) subscription.touched_retries.push_back(entry.sequence);
  });
  std::map<Sequence, PendingMove> moves = std::move(subscription.moves);
  subscription.moves.clear();
  subscription.outstanding.clear();
  subscription.waiting.clear();
  subscription.ready.clear();
  let_go_of_block(queue);
  subscription.settled.settle_through(queue.last_sequence());
  subscription.read_next = queue.record.next_sequence;
  subscription.record.delivered_to = queue.last_sequence();
  queue.subscription_touched = true;
  std::erase_if(pipeline.gathering().blocks_rewritten,
                [&](const auto& block) { return block->queue() == queue.record.id; });
  queue.open_blocks.clear();
  cache.erase_queue(queue.record.id);
  queue.record.bytes = 0;
  queue.record.bytes_estimated = false;
  queue.record.trim_below = queue.record.next_sequence;
  queue.record_touched = true;
  queue.trim_blocks = true;
  touch(queue);
  for (const auto& [sequence, move] : moves) moves_done(move.operation);
  return count;
}

void Core::State::delete_queue(Asker asker, std::string_view name, Now now) {
  Queue* const queue = queue_or_refuse(asker, name);
  if (queue == nullptr) return;
  if (queue->is_dead_queue()) {
    refuse(
        asker, ErrorCode::kOperationRefused,
        fmt::format("\"{}\" is a dead-letter queue: it goes together with its queue. Purge it to "
                    "remove its messages.",
                    queue->record.name));
    return;
  }
  for (Queue* going : {queue, &dead_queue_of(*queue)}) {
    empty_queue(*going);
    while (!going->subscription.consumers.empty()) {
      Consumer& consumer = *going->subscription.consumers.back();
      say_after_commit(ConsumerEndedNotice{
          consumer.session->id, consumer.id,
          Status(ErrorCode::kQueueNotFound,
                 fmt::format("Queue \"{}\" was deleted.", going->record.name))});
      leave(consumer);
    }
    end_consumers(*going, now);  // they hold nothing any more
    refuse_waiting_publishes(*going);
    going->dedup.clear();
    going->dedup_gathered.clear();
    queues_by_name.erase(going->record.name);
    going->record.deleted = true;
    going->record.trim_below = ~Sequence{0};
    going->trim_dedup = true;
  }
  --source_queues;
  say_after_commit(OkReply{asker});
  seal_if_full();
}

// ---- reports ----

std::shared_ptr<const QueueReport> Core::State::report(const Queue& queue) const {
  const Subscription& subscription = queue.subscription;
  auto report = std::make_shared<QueueReport>();
  report->id = queue.record.id;
  report->name = queue.record.name;
  report->settings = queue.record.settings;
  if (const Queue* const dead = find_queue(queue.record.dead_queue)) {
    report->dead_queue = dead->record.name;
    report->dead = dead->messages();
  }
  if (const Queue* const source = find_queue(queue.record.source_queue)) {
    report->source_queue = source->record.name;
  }
  report->next_sequence = queue.record.next_sequence;
  report->floor = subscription.settled.floor();
  report->messages = queue.messages();
  report->bytes = queue.record.bytes;
  report->in_flight = subscription.in_flight;
  report->waiting = subscription.waiting.size();
  report->moving = subscription.moves.size();
  report->ready = queue.ready();
  // Retries that are due have their places.
  report->stalled = report->ready > 0 && subscription.ready.empty() && places_left(queue) == 0;
  report->consumers = static_cast<std::uint32_t>(subscription.consumers.size());
  report->counters = queue.counters;
  report->dedup_ids = queue.dedup.size();
  report->dedup_cut_short = queue.dedup_cut_short;
  report->rates = {queue.publish_rate.per_second(), queue.deliver_rate.per_second(),
                   queue.ack_rate.per_second()};
  report->created_at = queue.record.created_at;
  return report;
}

void Core::State::list_queues(Asker asker, bool dead_only, QueueId from) {
  ListEndReply end{asker, 0, 0};
  for (auto at = queues.lower_bound(from); at != queues.end(); ++at) {
    const Queue& queue = *at->second;
    if (queue.record.deleted || (dead_only && !queue.is_dead_queue())) continue;
    if (end.count == kListPage) {
      end.next = at->first.value;
      break;
    }
    say(QueueReply{asker, report(queue)});
    ++end.count;
  }
  say(end);
}

void Core::State::list_consumers(Asker asker, std::string_view name, ConsumerId from, Now now) {
  const Queue* only = nullptr;
  if (!name.empty() && (only = queue_or_refuse(asker, name)) == nullptr) return;
  ListEndReply end{asker, 0, 0};
  for (auto at = consumers.lower_bound(from); at != consumers.end(); ++at) {
    if (at->second->ending || (only != nullptr && at->second->queue != only)) continue;
    if (end.count == kListPage) {
      end.next = at->first.value;
      break;
    }
    say(ConsumerReply{asker, report(*at->second, now)});
    ++end.count;
  }
  say(end);
}

std::shared_ptr<const ConsumerReport> Core::State::report(const Consumer& consumer, Now now) {
  auto report = std::make_shared<ConsumerReport>();
  report->id = consumer.id;
  report->session = consumer.session->id;
  report->queue = consumer.queue->record.name;
  report->subscription = consumer.queue->subscription.record.name;
  report->name = consumer.name;
  report->credit_messages = consumer.credit_messages;
  report->credit_bytes = consumer.credit_bytes;
  report->in_flight = consumer.held;
  report->in_flight_bytes = consumer.held_bytes;
  report->lease_ms = static_cast<std::uint32_t>(consumer.lease.count());
  report->delivered = consumer.delivered;
  report->acked = consumer.acked;
  Milliseconds oldest{0};
  consumer.for_each_in_flight(
      [&](const Outstanding& entry) { oldest = std::max(oldest, entry.age(now.monotonic)); });
  report->oldest_lease_ms = static_cast<std::uint64_t>(oldest.count());
  return report;
}

CoreReport Core::State::report() const {
  CoreReport total;
  total.queues = source_queues;
  total.consumers = static_cast<std::uint32_t>(consumer_count());
  for (const auto& [name, queue] : queues_by_name) {
    const Subscription& subscription = queue->subscription;
    if (queue->is_dead_queue()) {
      total.dead += queue->messages();
    } else {
      total.ready += queue->ready();
      total.in_flight += subscription.in_flight;
      total.waiting += subscription.waiting.size();
      total.moving += subscription.moves.size();
    }
    total.rates.publish += queue->publish_rate.per_second();
    total.rates.deliver += queue->deliver_rate.per_second();
    total.rates.ack += queue->ack_rate.per_second();
    total.counters.published += queue->counters.published;
    total.counters.delivered += queue->counters.delivered;
    total.counters.acked += queue->counters.acked;
    total.counters.corrupt += queue->counters.corrupt;
    total.counters.refused += queue->counters.refused;
  }
  total.space = pipeline.space();
  total.draining = draining;
  total.batch_number = pipeline.committed_number();
  total.commits = pipeline.commits();
  const std::vector<std::uint32_t> durations = pipeline.commit_durations_us();
  if (!durations.empty()) {
    total.commit_us_p50 = durations[durations.size() / 2];
    total.commit_us_p99 = durations[durations.size() * 99 / 100];
  }
  return total;
}

}  // namespace holdfast::broker
