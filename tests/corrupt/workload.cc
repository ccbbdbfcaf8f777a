#include "corrupt/workload.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>
#include <tuple>
#include <utility>

#include "corrupt/messages.h"

namespace holdfast::corrupt {

namespace {

constexpr SessionId kPublisher{1};
constexpr SessionId kConsumer{2};
constexpr int kRounds = 70;
constexpr int kRoundsMax = 200;
constexpr int kRoundsWithAcks = 55;
constexpr std::uint32_t kCredit = 25;

class Workload {
 public:
  Workload(Engine& engine, crash::Random& random, History* history)
      : engine_(engine), random_(random), history_(history) {
    engine_.listener = [this](const broker::Effect& effect) { hear(effect); };
    engine_.core().session_opened(kPublisher, "publisher");
    engine_.core().session_opened(kConsumer, "consumer");
  }
  ~Workload() { engine_.listener = nullptr; }

  Status run(const std::function<void()>& look, const std::function<bool()>& is_enough) {
    for (const char* name : {"letters", "parcels", "notes"}) create(name);
    for (const char* name : {"letters", "parcels", "notes"}) subscribe(name);
    for (int round = 0; status_.ok() && (round < kRounds || !is_enough()); ++round) {
      if (round == kRoundsMax) return harness_fault("It is never enough.");
      publish_some();
      settle_some(round < kRoundsWithAcks);
      if (round % 12 == 5) come_and_go(round);
      if (round % 10 == 9) look();
      if (status_.ok()) status_ = engine_.pass(Milliseconds(1'000));
    }
    engine_.core().list_queues(engine_.ask(kPublisher), false, QueueId(), engine_.now());
    run_core();
    for (std::uint32_t i = 0; i < history_->queues.size(); ++i) {
      history_->queue_indexes[numbers_[history_->queues[i]]] = i;
      history_->next_sequences[i] = next_sequences_[history_->queues[i]];
    }
    return status_;
  }

 private:
  void hear(const broker::Effect& effect) {
    if (const auto* delivery = std::get_if<broker::Delivery>(&effect)) {
      held_[delivery->consumer].insert(delivery->entry.sequence);
      checksums_[{delivery->queue, delivery->entry.sequence}] = checksum(delivery->entry.message);
    } else if (const auto* subscribed = std::get_if<broker::SubscribedReply>(&effect)) {
      consumers_[subscribed->consumer] = subscribed->queue;
    } else if (const auto* reply = std::get_if<broker::QueueReply>(&effect)) {
      numbers_[reply->report->name] = reply->report->id;
      next_sequences_[reply->report->name] = reply->report->next_sequence;
    } else if (const auto* confirm = std::get_if<broker::ConfirmReply>(&effect)) {
      for (std::uint32_t i = 0; i < confirm->count; ++i) {
        stored_[confirm->to.correlation + i] = {confirm->sequence + i, engine_.last_batch()};
      }
    } else if (const auto* error = std::get_if<broker::ErrorReply>(&effect)) {
      status_ = error->error;
    } else if (const auto* settled = std::get_if<broker::SettledReply>(&effect)) {
      if (!settled->refused.empty()) status_ = harness_fault("A settle was refused.");
      const auto acked = acks_.find(settled->to.correlation);
      if (acked == acks_.end()) return;
      history_->published[acked->second].acked_by = engine_.last_batch();
    }
  }

  void run_core() {
    const Status status = engine_.run();
    if (!status.ok()) status_ = status;
  }

  void create(const std::string& name) {
    std::vector<broker::SettingChange> settings{
        {static_cast<std::uint16_t>(QueueSetting::kLease), 3'600'000},
        {static_cast<std::uint16_t>(QueueSetting::kDedupWindow), name == "notes" ? 0u : 3'600'000},
        {static_cast<std::uint16_t>(QueueSetting::kMaxAttempts), name == "parcels" ? 2u : 20}};
    engine_.core().create_queue({engine_.ask(kPublisher), name, settings, false}, engine_.now());
    run_core();
  }

  void subscribe(const std::string& queue) {
    broker::SubscribeRequest request;
    request.asker = engine_.ask(kConsumer);
    request.queue = queue;
    request.credit_messages = kCredit;
    engine_.core().subscribe(request, engine_.now());
    run_core();
  }

  std::size_t body_bytes() {
    switch (random_.below(10)) {
      case 0:
        return 2'000 + random_.below(4'000);
      case 1:
        return random_.below(20'000);
      case 2:
        return 0;
      default:
        return 10 + random_.below(300);
    }
  }

  // One batch.
  void publish(const std::string& queue, std::size_t count) {
    std::vector<std::pair<std::uint64_t, std::uint64_t>> asked;  // correlation, checksum
    for (std::size_t i = 0; i < count; ++i) {
      const std::string id = fmt::format("{}-{}", queue, ++last_id_);
      const std::size_t bytes = body_bytes();
      const std::vector<std::uint8_t> message = encode_message(id, bytes);
      broker::PublishRequest request;
      request.asker = engine_.ask(kPublisher);
      request.queue = numbers_[queue];
      request.id = id;
      request.body_bytes = bytes;
      request.message_checksum = checksum(message);
      request.message = message;
      engine_.core().publish(request, engine_.now());
      history_->published[request.message_checksum] = {queue, id};
      asked.emplace_back(request.asker.correlation, request.message_checksum);
    }
    run_core();
    for (const auto& [correlation, sum] : asked) {
      PublishedMessage& message = history_->published[sum];
      std::tie(message.sequence, message.stored_by) = stored_[correlation];
      if (message.sequence == 0) status_ = harness_fault("A publish was not confirmed.");
    }
  }

  void publish_some() {
    static constexpr std::array<const char*, 3> kQueues{"letters", "parcels", "notes"};
    publish(kQueues[random_.below(kQueues.size())], 1 + random_.below(9));
  }

  void settle_some(bool most) {
    for (auto& [consumer, sequences] : held_) {
      const std::vector<Sequence> held(sequences.begin(), sequences.end());
      for (const Sequence sequence : held) {
        const std::uint64_t choice = random_.below(100);
        if (choice < (most ? 45u : 5u)) {
          settle(consumer, sequence, wire::SettleKind_Ack);
        } else if (choice < (most ? 52u : 20u)) {
          settle(consumer, sequence, wire::SettleKind_Nack);
        } else if (choice < (most ? 55u : 22u)) {
          settle(consumer, sequence, wire::SettleKind_Reject);
        }
      }
    }
    run_core();
  }

  void settle(ConsumerId consumer, Sequence sequence, wire::SettleKind kind) {
    const broker::SequenceRange range{sequence, sequence};
    broker::SettleRequest request;
    request.asker = engine_.ask(kConsumer);
    request.consumer = consumer;
    request.kind = kind;
    request.ranges = {&range, 1};
    if (kind != wire::SettleKind_Ack) request.reason = "not today";
    if (kind == wire::SettleKind_Nack) {
      request.delay = Milliseconds(1'000 + random_.below(300'000));
    }
    if (kind == wire::SettleKind_Ack) {
      acks_[request.asker.correlation] = checksums_[{consumers_[consumer], sequence}];
    }
    engine_.core().settle(request, engine_.now());
    held_[consumer].erase(sequence);
  }

  // A queue that is made, filled, purged or not, and deleted.
  void come_and_go(int round) {
    const std::string name = fmt::format("passing-{}", round);
    create(name);
    publish(name, 20);
    if (random_.once_in(2)) {
      engine_.core().purge_queue(engine_.ask(kPublisher), name, engine_.now());
      run_core();
    }
    engine_.core().delete_queue(engine_.ask(kPublisher), name, engine_.now());
    run_core();
  }

  Engine& engine_;
  crash::Random& random_;
  History* history_;
  Status status_;
  std::uint64_t last_id_ = 0;
  std::map<std::string, QueueId> numbers_;
  std::map<std::string, Sequence> next_sequences_;
  std::map<ConsumerId, QueueId> consumers_;
  std::map<ConsumerId, std::set<Sequence>> held_;
  std::map<std::pair<QueueId, Sequence>, std::uint64_t> checksums_;
  // By correlation: of a publish its sequence and its batch, of an ack its message.
  std::map<std::uint64_t, std::pair<Sequence, std::uint64_t>> stored_;
  std::map<std::uint64_t, std::uint64_t> acks_;
};

}  // namespace

Now start_of_time() {
  return {MonotonicTime(Milliseconds(1'000'000)), from_unix_ms(1'700'000'000'000)};
}

Status harness_fault(std::string what) { return Status(ErrorCode::kInternal, std::move(what)); }

Status run_workload(Engine& engine, crash::Random& random, const std::function<void()>& look,
                    const std::function<bool()>& is_enough, History* history) {
  return Workload(engine, random, history).run(look, is_enough);
}

std::vector<Republish> choose_republishes(const History& history) {
  std::map<std::string, std::vector<Republish>> by_queue;
  for (const auto& [sum, message] : history.published) {
    if (message.queue != "letters" && message.queue != "parcels") continue;
    by_queue[message.queue].push_back(
        {message.queue, message.id, message.sequence, message.stored_by});
  }
  std::vector<Republish> chosen;
  for (auto& [queue, all] : by_queue) {
    std::sort(all.begin(), all.end(),
              [](const Republish& a, const Republish& b) { return a.sequence < b.sequence; });
    const std::size_t step = std::max<std::size_t>(1, all.size() / (kRepublishMax / 2));
    for (std::size_t i = 0; i < all.size() && chosen.size() < kRepublishMax; i += step) {
      chosen.push_back(all[i]);
    }
  }
  return chosen;
}

Status check_owed(const History& history, const std::vector<Republish>& republishes,
                  const ServingResult& owed, std::uint64_t batch) {
  std::set<std::uint64_t> seen;
  for (std::uint32_t i = 0; i < owed.served_count; ++i) {
    const Served& served = owed.served[i];
    const auto message = history.published.find(served.checksum);
    if (message == history.published.end() || !message->second.is_owed_after(batch) ||
        !seen.insert(served.checksum).second ||
        !history.queues[served.queue].starts_with(message->second.queue)) {
      return harness_fault(
          fmt::format("The sound image serves message {} of {}, which it must not.",
                      served.sequence, history.queues[served.queue]));
    }
  }
  for (const auto& [sum, message] : history.published) {
    const bool stays = std::ranges::find(history.queues, message.queue) != history.queues.end();
    if (stays && message.is_owed_after(batch) && !seen.contains(sum)) {
      return harness_fault(fmt::format("The sound image does not serve '{}'.", message.id));
    }
  }
  if (owed.corrupt_counted + owed.records_damaged + owed.messages_left + owed.fresh_lost > 0) {
    return harness_fault("The sound image is not served whole.");
  }
  for (std::size_t i = 0; i < republishes.size(); ++i) {
    const RepublishAnswer& answer = owed.republished[i];
    const bool is_known = republishes[i].stored_by <= batch;
    if (answer.duplicate != is_known || (is_known && answer.sequence != republishes[i].sequence)) {
      return harness_fault(fmt::format(
          "The sound image does not know, or knows too early, the id '{}'.", republishes[i].id));
    }
  }
  return Status();
}

}  // namespace holdfast::corrupt
