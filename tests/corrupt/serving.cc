#include "corrupt/serving.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <optional>
#include <utility>

#include "corrupt/engine.h"
#include "corrupt/messages.h"

namespace holdfast::corrupt {

namespace {

constexpr SessionId kConsumer{1};
constexpr SessionId kPublisher{2};
constexpr std::uint32_t kCredit = 1'000;
// Waits for retries are shorter than this, see workload.cc.
constexpr Milliseconds kTimePassed{400'000};
constexpr Milliseconds kStep{20'000};

class Drain {
 public:
  Drain(const ServingPlan& plan, Engine& engine, ServingResult* result)
      : plan_(plan), engine_(engine), result_(result) {
    engine_.listener = [this](const broker::Effect& effect) { hear(effect); };
    engine_.core().session_opened(kConsumer, "drain");
    engine_.core().session_opened(kPublisher, "publisher");
  }
  ~Drain() { engine_.listener = nullptr; }

  Status run() {
    Status status = subscribe();
    if (status.ok()) status = drain();
    if (status.ok()) status = republish();
    if (status.ok()) status = publish_fresh();
    if (status.ok()) status = look();
    return status;
  }

 private:
  void hear(const broker::Effect& effect) {
    if (const auto* delivery = std::get_if<broker::Delivery>(&effect)) {
      hear(*delivery);
    } else if (const auto* subscribed = std::get_if<broker::SubscribedReply>(&effect)) {
      subscribed_ = subscribed->consumer;
    } else if (const auto* confirm = std::get_if<broker::ConfirmReply>(&effect)) {
      confirms_[confirm->to.correlation] = {true, confirm->duplicate, confirm->sequence};
    } else if (const auto* reply = std::get_if<broker::QueueReply>(&effect)) {
      result_->corrupt_counted += reply->report->counters.corrupt;
      result_->messages_left += reply->report->messages;
    }
  }

  void hear(const broker::Delivery& delivery) {
    held_[delivery.consumer].push_back(delivery.entry.sequence);
    Served served;
    const auto queue = consumers_.find(delivery.consumer);
    if (queue != consumers_.end()) served.queue = queue->second;
    served.attempt = delivery.attempt;
    served.sequence = delivery.entry.sequence;
    served.checksum = checksum(delivery.entry.message);
    if (!delivery.entry.provenance.empty()) {
      const wire::Provenance* const provenance = read_provenance(delivery.entry.provenance);
      if (provenance != nullptr && provenance->reason() == wire::Cause_Corrupt) {
        served.is_set_aside = true;
        served.source_sequence = provenance->source_sequence();
      }
    }
    if (fresh_.erase(served.checksum) > 0) return;
    if (result_->served_count < kServedMax) result_->served[result_->served_count++] = served;
  }

  Status subscribe() {
    for (std::uint32_t i = 0; i < plan_.queues.size(); ++i) {
      broker::SubscribeRequest request;
      request.asker = engine_.ask(kConsumer);
      request.queue = plan_.queues[i];
      subscribed_.reset();
      // With no credit yet: a delivery must not come before its consumer is known here.
      engine_.core().subscribe(request, engine_.now());
      if (Status status = engine_.run(); !status) return status;
      if (!subscribed_) continue;
      consumers_[*subscribed_] = i;
      engine_.core().set_credit(engine_.ask(kConsumer), *subscribed_, kCredit, 0, engine_.now());
      if (Status status = engine_.run(); !status) return status;
    }
    return Status();
  }

  // Acks what comes, until every wait is over and nothing comes any more.
  Status drain() {
    const MonotonicTime end = engine_.now().monotonic + kTimePassed;
    for (;;) {
      if (Status status = ack_all(); !status) return status;
      if (engine_.now().monotonic >= end) return Status();
      if (Status status = engine_.pass(kStep); !status) return status;
    }
  }

  Status ack_all() {
    while (!held_.empty()) {
      if (Status status = ack_once(); !status) return status;
    }
    return Status();
  }

  Status ack_once() {
    for (auto& [consumer, sequences] : std::exchange(held_, {})) {
      std::sort(sequences.begin(), sequences.end());
      std::vector<broker::SequenceRange> ranges;
      for (const Sequence sequence : sequences) broker::add_to_ranges(ranges, sequence);
      broker::SettleRequest request;
      request.asker = engine_.ask(kConsumer);
      request.consumer = consumer;
      request.ranges = ranges;
      engine_.core().settle(request, engine_.now());
      if (Status status = engine_.run(); !status) return status;
    }
    return Status();
  }

  RepublishAnswer publish(const std::string& queue, const std::string& id, Status* status) {
    const std::optional<QueueId> number = engine_queue(queue, status);
    if (!number) return {};
    const std::vector<std::uint8_t> bytes = encode_message(id, 100);
    const broker::Asker asker = engine_.ask(kPublisher);
    broker::PublishRequest request;
    request.asker = asker;
    request.queue = *number;
    request.id = id;
    request.body_bytes = 100;
    request.message_checksum = checksum(bytes);
    request.message = bytes;
    fresh_.emplace(request.message_checksum, id);
    engine_.core().publish(request, engine_.now());
    *status = engine_.run();
    if (status->ok()) *status = ack_all();
    return confirms_[asker.correlation];
  }

  std::optional<QueueId> engine_queue(const std::string& name, Status* status) {
    std::optional<QueueId> found;
    const auto listener = std::exchange(engine_.listener, [&](const broker::Effect& effect) {
      const auto* reply = std::get_if<broker::QueueReply>(&effect);
      if (reply != nullptr) found = reply->report->id;
    });
    engine_.core().open_queue(engine_.ask(kPublisher), name, engine_.now());
    *status = engine_.run();
    engine_.listener = listener;
    return found;
  }

  Status republish() {
    for (std::size_t i = 0; i < plan_.republishes.size() && i < kRepublishMax; ++i) {
      const Republish& again = plan_.republishes[i];
      Status status;
      result_->republished[i] = publish(again.queue, again.id, &status);
      if (!status.ok()) return status;
    }
    fresh_.clear();
    return Status();
  }

  Status publish_fresh() {
    for (const std::string& queue : plan_.queues) {
      if (queue.ends_with(".dead")) continue;
      Status status;
      const RepublishAnswer answer = publish(queue, "fresh-" + queue, &status);
      if (!status.ok()) return status;
      if (!answer.answered || answer.duplicate || !fresh_.empty()) ++result_->fresh_lost;
      fresh_.clear();
    }
    return Status();
  }

  Status look() {
    engine_.core().list_queues(engine_.ask(kPublisher), false, QueueId(), engine_.now());
    return engine_.run();
  }

  const ServingPlan& plan_;
  Engine& engine_;
  ServingResult* result_;
  std::optional<ConsumerId> subscribed_;
  std::map<ConsumerId, std::uint32_t> consumers_;
  std::map<ConsumerId, std::vector<Sequence>> held_;
  std::map<std::uint64_t, RepublishAnswer> confirms_;  // by correlation
  std::map<std::uint64_t, std::string> fresh_;         // by checksum: to come out yet
};

}  // namespace

Status serve(const ServingPlan& plan, ServingResult* result) {
  Result<std::unique_ptr<Engine>> engine = Engine::open(plan.directory, plan.now);
  if (!engine) return engine.status();
  result->started = true;
  result->batch_cut_short = (*engine)->batch_cut_short();
  if (plan.cut_while_running) {
    std::filesystem::resize_file(plan.directory + "/store/data.mdb", plan.cut_to_bytes);
  }
  Drain drain(plan, **engine, result);
  Status status = drain.run();
  result->records_damaged = (*engine)->records_damaged();
  result->finished = status.ok();
  return status;
}

}  // namespace holdfast::corrupt
