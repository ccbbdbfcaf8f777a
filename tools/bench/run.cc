#include "bench/run.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <limits>
#include <thread>
#include <utility>

namespace holdfast::bench {

namespace {

constexpr std::uint64_t kStallNs = 20'000'000'000;
constexpr std::uint64_t kWaitNs = 100'000'000;
// The last part of the time until a message is due is spent polling: timers are not that exact.
constexpr std::uint64_t kPollNs = 100'000;
// With several queues: messages to each of the active ones before the next ones are active.
constexpr std::uint64_t kMessagesPerTurn = 64;
// The backlog is published by one producer with this window.
constexpr std::uint64_t kFillWindow = 4'096;

std::uint64_t salt_of_now() {
  return static_cast<std::uint64_t>(std::chrono::system_clock::now().time_since_epoch().count()) /
         1000;
}

Status failed(std::string sentence) { return Status(ErrorCode::kInternal, std::move(sentence)); }

}  // namespace

Run::Run(const Plan& plan, RunOptions options)
    : plan_(plan), options_(std::move(options)), mold_(plan.body_bytes, salt_of_now()) {
  if (plan_.queues == 1) names_.push_back(options_.queue);
  while (names_.size() < plan_.queues) {
    names_.push_back(fmt::format("{}-{:05}", options_.queue, names_.size()));
  }
}

Result<Figures> Run::execute() {
  if (options_.server_pid != 0) reset_peak_memory(options_.server_pid);
  if (Status status = prepare(); !status.ok()) return status;
  Status status = run_phases();
  Result<std::unique_ptr<Link>> admin = Link::open(options_.address, "bench-admin");
  if (status.ok()) status = admin.status();
  if (status.ok()) status = verify(**admin);
  if (status.ok()) status = take_figures();
  if (admin.ok()) {
    const Status deleted = (*admin)->delete_queues(names_);
    if (status.ok()) status = deleted;
  }
  if (!status.ok()) return status;
  return std::move(figures_);
}

Status Run::prepare() {
  Result<std::unique_ptr<Link>> admin = Link::open(options_.address, "bench-admin");
  if (!admin.ok()) return admin.status();
  figures_.broker_version = (*admin)->broker_version();
  Result<std::vector<std::uint32_t>> ids = (*admin)->make_queues(names_);
  if (!ids.ok()) return ids.status();
  ids_ = std::move(*ids);
  return options_.disk == nullptr ? Status() : options_.disk->sample();
}

Status Run::run_phases() {
  const std::uint64_t unbounded = std::numeric_limits<std::uint64_t>::max();
  std::uint64_t count = plan_.count == 0 ? unbounded : plan_.count;
  if (plan_.is_paced() && plan_.seconds > 0) {
    count = static_cast<std::uint64_t>(plan_.rate * plan_.seconds);
  }
  if (plan_.backlog > 0) {
    Phase fill;
    fill.producers = 1;
    fill.publish_max = plan_.backlog;
    if (Status status = run_phase(fill); !status.ok()) return status;
  }
  Phase phase;
  phase.is_timed = true;
  phase.producers = plan_.producers;
  phase.publish_max = count == unbounded ? unbounded : published_ + count;
  if (plan_.workload == Workload::kDrain) {
    if (published_ < count) {
      phase.publish_max = count;
      if (Status status = run_phase(phase); !status.ok()) return status;
    }
    phase.producers = 0;
    phase.consumers = plan_.consumers;
    phase.publish_max = published_;
    phase.acks_wanted = std::min(count, published_);
    return run_phase(phase);
  }
  phase.is_paced = plan_.is_paced();
  if (plan_.consumes()) phase.consumers = plan_.consumers;
  return run_phase(phase);
}

// ---- a phase ----

Status Run::run_phase(const Phase& phase) {
  phase_ = phase;
  if (Status status = open_links(phase); !status.ok()) return status;
  const double own_cpu = own_cpu_seconds();
  const auto server_cpu = [this] {
    return options_.server_pid == 0 ? Result<double>(0.0) : cpu_seconds(options_.server_pid);
  };
  const Result<double> server_cpu_before = server_cpu();
  if (!server_cpu_before.ok()) return server_cpu_before.status();
  begin_clock(phase);
  for (const auto& consumer : consumers_) {
    for (const std::string& name : names_) {
      consumer->subscribe(name, static_cast<std::uint32_t>(plan_.window));
    }
  }
  poller_->go_on_all();

  std::uint64_t progress_ns = begin_ns_;
  while (!finished()) {
    const std::uint64_t wait = wait_ns();
    const bool idle = !poller_->turn(wait);
    if (trouble_.ok()) trouble_ = poller_->status();
    if (!trouble_.ok()) return trouble_;
    if (!idle) {
      progress_ns = now_ns();
    } else if (now_ns() - progress_ns > kStallNs) {
      return failed(fmt::format("Nothing moved for {} s, with {} messages published, {} delivered.",
                                kStallNs / 1'000'000'000, published_, delivered_));
    }
    if (idle || phase.is_paced) poller_->go_on_all();
    if (!options_.go_on(std::max(delivered_, published_))) {
      return Status(ErrorCode::kCancelled, "The run was interrupted.");
    }
  }
  figures_.seconds = static_cast<double>(now_ns() - begin_ns_) * 1e-9;
  figures_.client_cpu_s = own_cpu_seconds() - own_cpu;
  if (options_.server_pid != 0) {
    const Result<double> after = server_cpu();
    if (!after.ok()) return after.status();
    figures_.server_cpu_s = *after - *server_cpu_before;
  }
  figures_.published = phase.producers > 0 ? published_ - first_of_phase_ : acked();
  // More may have been acked than was waited for; what is on the way counts as well.
  for (const auto& consumer : consumers_) {
    if (Status status = consumer->wait_acked(); !status.ok()) return status;
  }
  acked_ += acked();
  poller_.reset();
  producers_.clear();
  consumers_.clear();
  return Status();
}

Status Run::open_links(const Phase& phase) {
  poller_ = std::make_unique<Poller>();
  for (std::uint64_t i = 0; i < phase.producers; ++i) {
    Result<std::unique_ptr<Link>> link = Link::open(options_.address, "bench-producer");
    if (!link.ok()) return link.status();
    Producer& producer = producers_.emplace_back();
    producer.link = std::move(*link);
    poller_->add(*producer.link, [this, &producer] { produce(producer); });
  }
  for (std::uint64_t i = 0; i < phase.consumers; ++i) {
    Result<std::unique_ptr<Link>> link = Link::open(options_.address, "bench-consumer");
    if (!link.ok()) return link.status();
    Link& consumer = *consumers_.emplace_back(std::move(*link));
    consumer.on_message = [this](ByteSpan body) { take_message(body); };
    poller_->add(consumer, [&consumer] { consumer.acknowledge(); });
  }
  return Status();
}

void Run::begin_clock(const Phase& phase) {
  begin_ns_ = now_ns();
  first_of_phase_ = published_;
  publish_max_ = phase.publish_max;
  publish_until_ns_ = 0;
  if (phase.is_timed && phase.producers > 0 && plan_.seconds > 0) {
    // A broker that cannot keep the pace gets twice the time to catch up.
    const double seconds = phase.is_paced ? 2 * plan_.seconds : plan_.seconds;
    publish_until_ns_ = begin_ns_ + static_cast<std::uint64_t>(seconds * 1e9);
  }
}

bool Run::finished() {
  if (publish_until_ns_ > 0 && now_ns() >= publish_until_ns_) {
    publish_max_ = std::min(publish_max_, published_);
  }
  if (published_ < publish_max_) return false;
  for (const Producer& producer : producers_) {
    if (producer.link->confirmed() < producer.link->published()) return false;
  }
  if (consumers_.empty()) return true;
  return acked() >= (phase_.acks_wanted > 0 ? phase_.acks_wanted : published_);
}

std::uint64_t Run::acked() const {
  std::uint64_t count = 0;
  for (const auto& consumer : consumers_) count += consumer->acked();
  return count;
}

std::uint64_t Run::due_ns(std::uint64_t number) const {
  return begin_ns_ + static_cast<std::uint64_t>(static_cast<double>(number - first_of_phase_) *
                                                1e9 / plan_.rate);
}

std::uint64_t Run::wait_ns() const {
  if (!phase_.is_paced || published_ >= publish_max_ || window_is_full_) return kWaitNs;
  const std::uint64_t soon = now_ns() + kPollNs;
  const std::uint64_t due = due_ns(published_);
  return due > soon ? std::min(kWaitNs, due - soon) : 0;
}

// ---- messages ----

void Run::produce(Producer& producer) {
  Link& link = *producer.link;
  const std::uint64_t now = now_ns();
  if (phase_.is_timed && plan_.times_confirms() && link.confirmed() > producer.confirmed) {
    figures_.latencies.add(now - producer.sent_at_ns);
  }
  producer.confirmed = link.confirmed();
  if (publish_until_ns_ > 0 && now >= publish_until_ns_) {
    publish_max_ = std::min(publish_max_, published_);
  }
  const std::uint64_t window = phase_.is_timed ? plan_.window : kFillWindow;
  window_is_full_ = false;
  while (published_ < publish_max_) {
    window_is_full_ = link.published() - link.confirmed() >= window;
    if (window_is_full_) return;
    if (!phase_.is_paced) {
      send_next(producer, now_ns());
    } else if (const std::uint64_t due = due_ns(published_); due <= now_ns()) {
      send_next(producer, due);
    } else {
      return;
    }
  }
}

void Run::send_next(Producer& producer, std::uint64_t sent_at_ns) {
  producer.sent_at_ns = sent_at_ns;
  const ByteSpan message = mold_.cast(published_, sent_at_ns);
  producer.link->publish(queue_of(published_), message, checksum(message));
  ++published_;
}

std::uint32_t Run::queue_of(std::uint64_t number) const {
  if (ids_.size() == 1) return ids_.front();
  const std::uint64_t active = plan_.active_queues;
  const std::uint64_t turn = number / (active * kMessagesPerTurn);
  return ids_[(turn * active + number % active) % ids_.size()];
}

void Run::take_message(ByteSpan body) {
  const MessageMold::Reading reading = mold_.read(body);
  if (!reading.good || reading.number >= published_) {
    if (trouble_.ok()) {
      trouble_ = failed(
          fmt::format("A message of {} bytes was delivered that was not published.", body.size()));
    }
    return;
  }
  if (reading.number >= seen_.size()) {
    seen_.resize(std::max<std::uint64_t>(reading.number + 1, 2 * seen_.size()));
  }
  if (seen_[reading.number]) {
    ++figures_.redelivered;
    return;
  }
  seen_[reading.number] = true;
  ++delivered_;
  if (plan_.workload != Workload::kDrain) figures_.latencies.add(now_ns() - reading.sent_at_ns);
}

// ---- afterwards ----

Result<std::uint64_t> Run::stored(Link& admin) {
  std::uint64_t messages = 0;
  for (const std::string& name : names_) {
    const Result<QueueFacts> facts = admin.look_at_queue(name);
    if (!facts.ok()) return facts.status();
    messages += facts->messages;
  }
  return messages;
}

// Everything that was to be delivered has been, and what the broker holds is the rest.
Status Run::verify(Link& admin) {
  if (plan_.consumes() && delivered_ < acked_) {
    return failed(
        fmt::format("{} messages were acked and {} different ones delivered.", acked_, delivered_));
  }
  const Result<std::uint64_t> left = stored(admin);
  if (!left.ok()) return left.status();
  if (*left != published_ - acked_) {
    return failed(fmt::format("The broker holds {} messages; of {} published {} were acked.", *left,
                              published_, acked_));
  }
  return Status();
}

Status Run::take_figures() {
  if (options_.server_pid != 0) {
    figures_.server_peak_rss_mb = peak_memory_mb(options_.server_pid);
    figures_.server_rss_anon_mb = anonymous_memory_mb(options_.server_pid);
  }
  return options_.disk == nullptr ? Status() : options_.disk->sample();
}

}  // namespace holdfast::bench
