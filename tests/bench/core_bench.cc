// The core's step: messages are published, committed, delivered and settled, with a store in memory
// and time that stands still while the core works.

#include "core/core.h"

#include <fmt/format.h>

#include <memory>
#include <string>
#include <variant>
#include <vector>

#include "base/check.h"
#include "bench/messages.h"
#include "support/memory_store.h"

namespace holdfast::broker {
namespace {

constexpr SessionId kPublisher{1};
constexpr SessionId kWorker{2};
// The window is short and time passes quickly, so that it soon loses as many ids as it gets.
constexpr std::uint64_t kDedupWindowMs = 1000;
constexpr Milliseconds kRoundTime{10};

// The parts of a round that can be timed.
enum class Part {
  kPublish,  // the publishes and sealing their batch, and once a second dropping old ids
  kDeliver,  // what follows the commit of that batch: a confirm, and the deliveries
  kSettle,   // one settle with one range, sealing its batch, and what follows that commit
  kAll,
};

// One queue, one publisher, one consumer with credit for a whole round. The clock of the benchmark
// runs only during the timed part, and never while the store works: the memory store is no measure
// for one on disk.
class Rounds {
 public:
  Rounds(benchmark::State& state, Part timed)
      : state_(state),
        timed_(timed),
        core_(CoreOptions()),
        ids_(static_cast<std::size_t>(state.range(0))),
        message_(message_with_body(state.range(1))),
        message_checksum_(checksum(message_)) {
    now_.monotonic = MonotonicTime(Milliseconds(1'000'000));
    now_.wall = from_unix_ms(1'700'000'000'000);
    core_.load(store_.load(), now_);
    core_.session_opened(kPublisher, "publisher");
    core_.session_opened(kWorker, "worker");
    create_queue();
    subscribe();
  }

  // With the benchmark's clock stopped. Each part is one stretch of time, because starting and
  // stopping the clock takes as long as a few messages do.
  void run() {
    begin();
    std::unique_ptr<Batch> batch;
    time(Part::kPublish, [&] {
      publish();
      read_ids();
      batch = core_.take_batch(now_);
    });
    CommitResult result = store(std::move(batch));
    time(Part::kDeliver, [&] {
      core_.committed(result, now_);
      // The confirm, and each delivery.
      CHECK(said().size() == 1 + ids_.size(), "{} effects", said().size());
      core_.effects().clear();
    });
    time(Part::kSettle, [&] {
      settle();
      batch = core_.take_batch(now_);
    });
    result = store(std::move(batch));
    time(Part::kSettle, [&] {
      core_.committed(result, now_);
      CHECK(said().size() == 1 && std::get<SettledReply>(said()[0]).settled == ids_.size());
      core_.effects().clear();
    });
    CHECK(core_.take_batch(now_) == nullptr && store_.block_count() == 0);
  }

  std::size_t messages() const { return ids_.size(); }
  std::size_t message_bytes() const { return message_.size(); }

 private:
  std::vector<Effect>& said() { return core_.effects().said; }

  template <typename Work>
  void time(Part part, Work work) {
    if (timed_ != part && timed_ != Part::kAll) {
      work();
      return;
    }
    state_.ResumeTiming();
    work();
    state_.PauseTiming();
  }

  // The batch is freed here, too, and not while the clock runs.
  CommitResult store(std::unique_ptr<Batch> batch) { return store_.apply(*batch); }

  void create_queue() {
    const SettingChange window{static_cast<std::uint16_t>(QueueSetting::kDedupWindow),
                               kDedupWindowMs};
    core_.create_queue({{kPublisher, ++last_correlation_}, "queue", {&window, 1}, false}, now_);
    core_.committed(store(core_.take_batch(now_)), now_);
    CHECK(said().size() == 1);
    queue_ = std::get<QueueReply>(said()[0]).report->id;
    core_.effects().clear();
  }

  void subscribe() {
    SubscribeRequest request;
    request.asker = {kWorker, 1};
    request.queue = "queue";
    request.credit_messages = static_cast<std::uint32_t>(ids_.size());
    core_.subscribe(request, now_);
    CHECK(said().size() == 1);
    consumer_ = std::get<SubscribedReply>(said()[0]).consumer;
    core_.effects().clear();
  }

  void begin() {
    now_.monotonic += kRoundTime;
    now_.wall += kRoundTime;
    for (std::string& id : ids_) id = fmt::format("0123456789{:016x}", ++last_);
  }

  // Now and then a fingerprint of an older id is mistaken for one of these.
  void read_ids() {
    while (!core_.effects().ids_requests.empty()) {
      const std::vector<IdsRequest> requests = std::move(core_.effects().ids_requests);
      core_.effects().ids_requests.clear();
      for (const IdsRequest& request : requests) {
        core_.ids_fetched(store_.fetch_ids(request), now_);
      }
    }
  }

  void publish() {
    core_.advance(now_);
    PublishRequest request;
    request.queue = queue_;
    request.body_bytes = message_.size();
    request.message_checksum = message_checksum_;
    request.message = message_;
    for (const std::string& id : ids_) {
      request.asker = {kPublisher, ++last_correlation_};
      request.id = id;
      core_.publish(request, now_);
    }
  }

  // Sequences are consecutive, and every round publishes as many.
  void settle() {
    const SequenceRange range{last_ - ids_.size() + 1, last_};
    SettleRequest request;
    request.asker = {kWorker, last_};
    request.consumer = consumer_;
    request.ranges = {&range, 1};
    core_.settle(request, now_);
  }

  benchmark::State& state_;
  const Part timed_;
  MemoryStore store_;
  Core core_;
  Now now_;
  QueueId queue_;
  ConsumerId consumer_;
  std::uint64_t last_correlation_ = 0;
  Sequence last_ = 0;  // published; ids are made of it
  std::vector<std::string> ids_;
  const std::vector<std::uint8_t> message_;
  const std::uint64_t message_checksum_;
};

void core_round(benchmark::State& state, Part timed) {
  Rounds rounds(state, timed);
  for (auto _ : state) {
    state.PauseTiming();
    rounds.run();
    state.ResumeTiming();
  }
  count_messages(state, rounds.messages(), rounds.messages() * rounds.message_bytes());
}

void sizes(benchmark::internal::Benchmark* round) {
  round->ArgNames({"messages", "body"})->Args({512, 100})->Args({512, 1024});
}
BENCHMARK_CAPTURE(core_round, publish, Part::kPublish)->Apply(sizes);
BENCHMARK_CAPTURE(core_round, deliver, Part::kDeliver)->Apply(sizes);
BENCHMARK_CAPTURE(core_round, settle, Part::kSettle)->Apply(sizes);
BENCHMARK_CAPTURE(core_round, all, Part::kAll)->Apply(sizes);

}  // namespace
}  // namespace holdfast::broker
