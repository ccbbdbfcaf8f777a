#include "net/broker.h"

#include <unistd.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "net/listen_address.h"
#include "net/system_clock.h"

namespace holdfast::broker {

namespace {

// Rounds of a pump before the loop looks at its sockets again.
constexpr int kPumpRoundsMax = 4;
// So late the loop is only when something held it up.
constexpr Milliseconds kLate{50};
constexpr Milliseconds kTellInterval{10'000};
// When more peers than this wait for a confirm, and fewer bytes of messages have gathered, the next
// batch is handed over a turn later.
constexpr std::size_t kManyUnconfirmed = 48;
constexpr std::uint64_t kGatheredBytes = 64 * 1024;

CoreOptions core_options(const BrokerOptions& options) {
  CoreOptions core = options.core;
  // Whoever has nothing unanswered is read, whatever the others have: these may be many.
  core.pending_bytes_max = 2 * options.limits.unconfirmed_bytes_total_max;
  return core;
}

}  // namespace

// ---- start ----

Broker::Broker(uv_loop_t& loop, Store& store, Log& log, BrokerOptions options)
    : loop_(loop),
      store_(store),
      log_(log),
      options_(std::move(options)),
      core_(core_options(options_)),
      context_{core_, encoder_, *this, options_.session, {}, 0, {}, {}},
      peers_(loop, log, context_, options_.limits, options_.connection, options_.deadlines),
      started_at_(read_clocks().monotonic) {
  CHECK(uv_prepare_init(&loop_, &prepare_) == 0);
  CHECK(uv_timer_init(&loop_, &timer_) == 0);
  CHECK(uv_idle_init(&loop_, &again_) == 0);
  // Only wakes the loop: the pump looks at drains_requested_.
  CHECK(uv_async_init(&loop_, &drain_signal_, [](uv_async_t*) {}) == 0);
  handles_open_ = 4;
  prepare_.data = timer_.data = again_.data = drain_signal_.data = this;
}

Broker::~Broker() { tear_down(); }

Result<std::unique_ptr<Broker>> Broker::start(uv_loop_t& loop, Store& store, Log& log,
                                              BrokerOptions options) {
  std::unique_ptr<Broker> broker(new Broker(loop, store, log, std::move(options)));
  Status status = broker->load();
  if (status.ok()) status = broker->listen();
  if (!status.ok()) return status;
  uv_prepare_start(&broker->prepare_,
                   [](uv_prepare_t* handle) { static_cast<Broker*>(handle->data)->pump(); });
  return broker;
}

Status Broker::load() {
  Result<StoredState> state = store_.load();
  if (!state.ok()) return state.status();
  if (state->records_corrupt > 0) {
    log_.warning(
        "{} damaged records of acks and retries were left out: some messages may be delivered "
        "again.",
        state->records_corrupt);
  }
  options_.session.node_id = state->node_id;
  if (state->batch_number == 0) {
    log_.info("The store in {} is new: nothing was ever stored in it.", options_.data_directory);
  } else {
    log_.info(
        "The store in {} has {} queues, those of dead letters included; its last batch is {}.",
        options_.data_directory, state->queues.size(), state->batch_number);
  }
  if (state->batch_cut_short > 0) {
    log_.warning(
        "Batch {} in the journal is not whole and was left out: a crash cut it short before it was "
        "confirmed, or the disk damaged it since, and what was confirmed with it is lost.",
        state->batch_cut_short);
  }
  const Now now = read_clocks();
  core_.load(*state, now);
  if (const InterruptedAttempts interrupted = core_.interrupted(); interrupted.messages > 0) {
    log_.warning(
        "{} messages were in flight, or about to be, when the broker ended, which counts as an "
        "attempt; {} of them become dead letters by it.",
        interrupted.messages, interrupted.dead);
  }
  note_space(state->space);
  const Result<std::uint64_t> damaged =
      store_.load_dedup([this, now](QueueId queue, std::uint64_t time_ms, Sequence first,
                                    std::span<const MessageIdHash> hashes) {
        core_.load_dedup(queue, time_ms, first, hashes, now);
      });
  if (!damaged.ok()) return damaged.status();
  if (*damaged > 0) {
    log_.warning(
        "{} damaged records of the dedup window were left out: a message that is published again "
        "may be stored twice.",
        *damaged);
  }
  link_.emplace(loop_, store_, static_cast<StoreLinkOwner&>(*this));
  return Status();
}

Status Broker::listen() {
  const auto on_connection = [this](const Listener& listener, uv_stream_t& server) {
    peers_.accept(listener, server);
  };
  if (!options_.listen.empty()) {
    const Result<sockaddr_storage> address = resolve_listen_address(options_.listen);
    if (!address.ok()) return address.status();
    auto listener = Listener::open_tcp(loop_, log_, *address, on_connection);
    if (!listener.ok()) return listener.status();
    listeners_.push_back(std::move(*listener));
    ++listeners_open_;
  }
  if (!options_.unix_path.empty()) {
    auto listener = Listener::open_unix(loop_, log_, options_.unix_path, on_connection);
    if (!listener.ok()) return listener.status();
    listeners_.push_back(std::move(*listener));
    ++listeners_open_;
  }
  return Status();
}

std::vector<std::string> Broker::addresses() const {
  std::vector<std::string> addresses;
  for (const auto& listener : listeners_) addresses.push_back(listener->address());
  return addresses;
}

// ---- the turn ----

Status Broker::run() {
  while (phase_ != Phase::kDone && phase_ != Phase::kFailed) uv_run(&loop_, UV_RUN_ONCE);
  // What was to be told later is told now.
  tell_counted(read_clocks().monotonic + std::max(kTellInterval, Log::kPeerWindow));
  if (phase_ == Phase::kFailed) return failure_;
  tear_down();
  return failure_;
}

void Broker::pump() {
  if (phase_ == Phase::kDone || phase_ == Phase::kFailed) return;
  const Now now = read_clocks();
  uv_idle_stop(&again_);
  report_.reset();
  answer_drain_requests(now);
  advance_core(now);
  peers_.begin_turn(now);
  tell_counted(now.monotonic);
  holds_back_ = std::exchange(has_committed_, false) && gathers_more();
  int rounds = 0;
  while (rounds < kPumpRoundsMax && pump_round(now)) ++rounds;
  if (phase_ != Phase::kServing) advance_drain(now);
  report_.reset();
  if (rounds == kPumpRoundsMax || looks_first_ || holds_back_) {
    uv_idle_start(&again_, [](uv_idle_t*) {});
  }
  arm_timer(now);
}

// A loop that was held up (a stopped process, a machine that stood still) may find a lease at its
// end before it has read the ack that came in time: so it looks at its sockets once more first.
void Broker::advance_core(Now now) {
  const std::optional<MonotonicTime> due = core_.next_wake();
  const bool is_due = due && *due <= now.monotonic;
  const bool is_late = is_due && now.monotonic - *core_.next_timed_wake() > kLate;
  looks_first_ = is_late && !looks_first_;
  if (is_due && !looks_first_) core_.advance(now);
}

bool Broker::pump_round(Now now) {
  bool did_something = false;
  if (!link_->commit_under_way() && !hurry_ && !holds_back_) {
    if (Batches batches = core_.take_batches(now); !batches.empty()) {
      link_->commit(std::move(batches));
      did_something = true;
    }
  }
  Effects& effects = core_.effects();
  if (!effects.said.empty() || !effects.fetches.empty() || !effects.ids_requests.empty()) {
    peers_.say(effects.said);
    for (const FetchRequest& request : effects.fetches) link_->fetch(request);
    for (const IdsRequest& request : effects.ids_requests) link_->fetch_ids(request);
    effects.clear();
    did_something = true;
  }
  return peers_.attend(now) || did_something;
}

// A batch that is handed over as soon as the one before is committed holds what some have sent;
// what those send who are answered only then is for the next. Where many peers publish and wait,
// twice as many commits cost more than a look at the sockets between the answers and the next batch
// (figures: docs/PERFORMANCE.md). Where few do, that look is time lost.
bool Broker::gathers_more() const {
  return phase_ == Phase::kServing && peers_.unconfirmed() > kManyUnconfirmed &&
         core_.pending_bytes() < kGatheredBytes;
}

void Broker::arm_timer(Now now) {
  std::optional<MonotonicTime> next = core_.next_wake();
  const auto consider = [&next](std::optional<MonotonicTime> time) {
    if (time && (!next || *time < *next)) next = time;
  };
  consider(peers_.next_deadline());
  if (phase_ == Phase::kDraining) consider(drain_until_);
  if (next == armed_for_ && uv_is_active(reinterpret_cast<uv_handle_t*>(&timer_))) return;
  armed_for_ = next;
  if (!next) {
    uv_timer_stop(&timer_);
    return;
  }
  const auto wait_ms = std::max<std::int64_t>(0, (*next - now.monotonic).count());
  uv_update_time(&loop_);
  // A millisecond more, because the loop's clock is coarser and may fire early.
  uv_timer_start(
      &timer_, [](uv_timer_t*) {}, static_cast<std::uint64_t>(wait_ms) + 1, 0);
}

std::uint64_t Broker::ToldSeldom::due(std::uint64_t counted, MonotonicTime now) {
  if (counted == told || now < next_at) return 0;
  next_at = now + kTellInterval;
  return counted - std::exchange(told, counted);
}

// A disk that fails damages many, one that is nearly full refuses many, and who is turned away
// comes again at once.
void Broker::tell_counted(MonotonicTime now) {
  log_.tell_left_out(now);
  if (const auto turned_away = turned_away_told_.due(peers_.turned_away(), now); turned_away > 0) {
    log_.warning(
        "{} clients were turned away: the broker serves {} connections, its limit "
        "(connections_max). `holdfast connection ls` tells who has them; raise the limit or close "
        "some.",
        turned_away, options_.limits.connections_max);
  }
  if (const auto found = corrupt_told_.due(core_.corrupt_found(), now); found > 0) {
    log_.error(
        "{} stored messages no longer match their checksums or can no longer be read, the last of "
        "them {}; what is left of them is in the dead-letter queues, with the reason corrupt. "
        "Check the disk.",
        found, core_.corrupt_last());
  }
  const auto refused = room_refusals_told_.due(core_.room_refusals(), now);
  if (refused > 0) {
    log_.warning(
        "{} publishes were refused: the store is not full, but had too little room for theirs; "
        "smaller messages may still be taken. Consume or delete messages, or give the store more "
        "space.",
        refused);
  }
  const auto held_up = moves_held_up_told_.due(core_.moves_held_up(), now);
  if (held_up > 0) {
    log_.warning(
        "{} messages that were rejected, or failed for the last time, had to wait for room in the "
        "dead-letter queues; the status tells how many still do (moving). Consume or delete "
        "messages, or give the store more space.",
        held_up);
  }
  const auto cut_short = ids_cut_short_told_.due(core_.ids_cut_short(), now);
  if (cut_short > 0) {
    log_.warning(
        "{} message ids were forgotten before their dedup-window was over, the last of them of "
        "queue \"{}\", because all queues together remember {} (dedup_ids_max): what is published "
        "again with one of them is stored twice. Raise the limit, or shorten the windows.",
        cut_short, core_.ids_cut_short_last(), options_.core.dedup.ids_max);
  }
}

void Broker::on_committed(const CommitResult& result) {
  note_space(result.space);
  has_committed_ = true;
  core_.committed(result, read_clocks());
}

void Broker::on_fetched(const FetchResult& result) { core_.fetched(result, read_clocks()); }
void Broker::on_ids_fetched(const IdsResult& result) {
  if (result.records_corrupt > 0) {
    log_.warning(
        "{} damaged records of the dedup window of queue {} were left out: a message that is "
        "published again may be stored twice.",
        result.records_corrupt, result.queue.value);
  }
  core_.ids_fetched(result, read_clocks());
}

void Broker::on_space(const SpaceReport& space) {
  note_space(space);
  core_.space_changed(space, read_clocks());
}

void Broker::note_space(const SpaceReport& space) {
  const bool waited = std::exchange(commits_wait_, space.commits_wait);
  const bool allowed = std::exchange(publishes_allowed_, space.publishes_allowed);
  if (commits_wait_) {
    if (!waited) log_.error("{} Publishes are refused meanwhile.", space.reason);
    return;
  }
  if (waited) {
    log_.info("Commits go on: the file system has {} bytes free.", space.disk_free_bytes);
  }
  if (!publishes_allowed_ && (allowed || waited)) {
    log_.warning("Publishes are refused: {}", space.reason);
  } else if (publishes_allowed_ && !allowed) {
    log_.info("Publishes are accepted again: the store uses {} bytes, the file system has {} free.",
              space.used_bytes, space.disk_free_bytes);
  }
}

void Broker::on_store_failed(const Status& status) {
  log_.error(
      "The store failed: {} What was not confirmed may or may not be stored; a restart reads what "
      "the disk holds.",
      status.to_string());
  failure_ = status;
  phase_ = Phase::kFailed;
}

// ---- what the broker knows of itself ----

std::size_t Broker::append_status(std::uint64_t correlation, FrameWriter& out, Now now) {
  // Over many queues it takes milliseconds.
  if (!report_) report_ = core_.report(now);
  const CoreReport& report = *report_;
  auto& builder = encoder_.begin();
  const auto version = builder.CreateString(options_.session.broker_version);
  const auto node = builder.CreateString(options_.session.node_id);
  const auto directory = builder.CreateString(options_.data_directory);
  wire::StatusInfoBuilder info(builder);
  info.add_broker_version(version);
  info.add_node_id(node);
  info.add_uptime_ms(static_cast<std::uint64_t>((now.monotonic - started_at_).count()));
  info.add_queues(report.queues);
  info.add_connections(static_cast<std::uint32_t>(peers_.count()));
  info.add_consumers(report.consumers);
  info.add_ready(report.ready);
  info.add_in_flight(report.in_flight);
  info.add_waiting(report.waiting);
  info.add_moving(report.moving);
  info.add_dead(report.dead);
  info.add_publish_rate(report.rates.publish);
  info.add_deliver_rate(report.rates.deliver);
  info.add_ack_rate(report.rates.ack);
  info.add_published(report.counters.published);
  info.add_delivered(report.counters.delivered);
  info.add_acked(report.counters.acked);
  info.add_corrupt(report.counters.corrupt);
  info.add_refused(report.counters.refused);
  info.add_data_directory(directory);
  info.add_store_bytes(report.space.used_bytes);
  info.add_store_file_bytes(report.space.file_bytes);
  info.add_disk_free_bytes(report.space.disk_free_bytes);
  info.add_room_bytes(report.space.room_bytes);
  info.add_publishes_allowed(report.space.publishes_allowed);
  info.add_draining(report.draining);
  info.add_batch_number(report.batch_number);
  info.add_commits(report.commits);
  info.add_commit_us_p50(report.commit_us_p50);
  info.add_commit_us_p99(report.commit_us_p99);
  info.add_pid(static_cast<std::uint32_t>(getpid()));
  return encoder_.finish(wire::FrameType_StatusInfo, correlation, info.Finish(), out);
}

std::size_t Broker::append_connections(std::uint64_t correlation, std::uint64_t from,
                                       FrameWriter& out, Now now) {
  return peers_.append_list(correlation, from, out, now);
}

// ---- the end ----

void Broker::request_drain() {
  drains_requested_.fetch_add(1);
  uv_async_send(&drain_signal_);
}

void Broker::answer_drain_requests(Now now) {
  const int requested = drains_requested_.load();
  if (requested > 0 && phase_ == Phase::kServing) {
    log_.info("Stopping: {} connections have {} ms to settle what they hold.", peers_.count(),
              options_.drain.count());
    phase_ = Phase::kDraining;
    drain_until_ = now.monotonic + options_.drain + options_.drain_grace;
    close_listeners();
    core_.begin_drain();
    peers_.say_goodbye(now.monotonic + options_.drain, now);
  }
  if (requested > 1 && !hurry_) {
    log_.info("Stopping at once.");
    hurry_ = true;
  }
}

void Broker::advance_drain(Now now) {
  if (phase_ == Phase::kDraining) {
    const bool all_settled = core_.drained() && peers_.output_bytes() == 0;
    if (!all_settled && !hurry_ && now.monotonic < drain_until_) return;
    tell_unsettled(now);
    peers_.close_all(now);
    phase_ = Phase::kCommittingLast;
  }
  // What ending the sessions changed is to be committed too; what they held ends piece by piece.
  while (phase_ == Phase::kCommittingLast) {
    core_.advance(now);
    if (!pump_round(now)) break;
  }
  if (link_->commit_under_way()) {
    if (!commits_wait_) return;
    log_.warning(
        "Stopping without the last commit, which waits for room: nothing that is in it was "
        "confirmed.");
  }
  phase_ = Phase::kDone;
}

void Broker::tell_unsettled(Now now) {
  const std::uint64_t unsettled = core_.report(now).in_flight;
  if (unsettled == 0) return;
  log_.warning("{} messages in flight were not settled before the end, which counts as an attempt.",
               unsettled);
}

void Broker::close_listeners() {
  for (const auto& listener : listeners_) {
    listener->close([this] { --listeners_open_; });
  }
  if (!listeners_.empty()) closing_listeners_ = std::move(listeners_);
  listeners_.clear();
}

void Broker::tear_down() {
  if (std::exchange(torn_down_, true)) return;
  uv_prepare_stop(&prepare_);
  close_listeners();
  peers_.close_all(read_clocks());
  if (link_) link_->close();
  const auto on_closed = [](uv_handle_t* handle) {
    --static_cast<Broker*>(handle->data)->handles_open_;
  };
  uv_close(reinterpret_cast<uv_handle_t*>(&prepare_), on_closed);
  uv_close(reinterpret_cast<uv_handle_t*>(&timer_), on_closed);
  uv_close(reinterpret_cast<uv_handle_t*>(&again_), on_closed);
  uv_close(reinterpret_cast<uv_handle_t*>(&drain_signal_), on_closed);
  while (handles_open_ > 0 || listeners_open_ > 0 || !peers_.empty() ||
         (link_ && !link_->closed())) {
    uv_run(&loop_, UV_RUN_ONCE);
  }
}

}  // namespace holdfast::broker
