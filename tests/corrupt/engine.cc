#include "corrupt/engine.h"

#include <chrono>
#include <utility>

#include "support/virtual_time.h"

namespace holdfast::corrupt {

namespace {

constexpr std::uint64_t kMapBytes = 1ull << 30;
constexpr std::uint64_t kPreallocateBytes = 1 << 20;
constexpr std::uint64_t kSizeBytesMax = 16 << 20;
constexpr std::chrono::hours kNever{24};

}  // namespace

Result<std::unique_ptr<Engine>> Engine::open(const std::string& directory, Now now,
                                             std::uint64_t journal_bytes) {
  broker::StoreOptions options;
  options.directory = directory;
  options.map_bytes = kMapBytes;
  options.size_bytes_max = kSizeBytesMax;
  options.preallocate_bytes = kPreallocateBytes;
  options.journal_bytes = journal_bytes;
  if (journal_bytes > 0) options.catch_up_interval = kNever;
  Result<std::unique_ptr<broker::Store>> store = broker::Store::open(options);
  if (!store) return store.status();
  std::unique_ptr<Engine> engine(new Engine(std::move(*store), now));
  if (Status status = engine->load(); !status) return status;
  return engine;
}

Engine::Engine(std::unique_ptr<broker::Store> store, Now now)
    : store_(std::move(store)),
      core_(std::make_unique<broker::Core>(broker::CoreOptions())),
      now_(now) {}

Engine::~Engine() { store_->close(); }

Status Engine::load() {
  const Result<broker::StoredState> state = store_->load();
  if (!state) return state.status();
  records_damaged_ = state->records_corrupt;
  batch_cut_short_ = state->batch_cut_short;
  core_->load(*state, now_);
  const Result<std::uint64_t> damaged =
      store_->load_dedup([this](QueueId queue, std::uint64_t time_ms, Sequence first,
                                std::span<const broker::MessageIdHash> hashes) {
        core_->load_dedup(queue, time_ms, first, hashes, now_);
      });
  if (!damaged) return damaged.status();
  records_damaged_ += *damaged;
  const auto set = [this](auto* slot, auto value) {
    const std::lock_guard<std::mutex> lock(mutex_);
    *slot = std::move(value);
    changed_.notify_one();
  };
  store_->start([this, set](broker::CommitResult result) { set(&committed_, std::move(result)); },
                [this, set](Status status) { set(&failed_, std::move(status)); });
  return Status();
}

broker::Asker Engine::ask(SessionId session) { return {session, ++last_correlation_}; }

Status Engine::run() {
  for (;;) {
    bool did_something = false;
    if (Status status = take_effects(&did_something); !status) return status;
    if (did_something) continue;
    std::unique_ptr<broker::Batch> batch = core_->take_batch(now_);
    if (batch == nullptr) return take_effects(&did_something);
    if (Status status = commit(std::move(batch)); !status) return status;
  }
}

// Says what there is to say, and answers what the core wants to read.
Status Engine::take_effects(bool* did_something) {
  broker::Effects& effects = core_->effects();
  if (listener) std::for_each(effects.said.begin(), effects.said.end(), listener);
  const std::vector<broker::FetchRequest> fetches = std::move(effects.fetches);
  const std::vector<broker::IdsRequest> ids_requests = std::move(effects.ids_requests);
  effects.clear();
  *did_something = !fetches.empty() || !ids_requests.empty();
  for (const broker::FetchRequest& request : fetches) {
    const Result<broker::FetchResult> result = store_->fetch_blocking(request);
    if (!result) return result.status();
    core_->fetched(*result, now_);
  }
  for (const broker::IdsRequest& request : ids_requests) {
    const Result<broker::IdsResult> result = store_->fetch_ids_blocking(request);
    if (!result) return result.status();
    records_damaged_ += result->records_corrupt;
    core_->ids_fetched(*result, now_);
  }
  return Status();
}

Status Engine::commit(std::unique_ptr<broker::Batch> batch) {
  broker::Batches batches;
  batches.push_back(std::move(batch));
  store_->commit(std::move(batches));
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait(lock, [this] { return committed_ || failed_; });
  if (failed_) return *failed_;
  const broker::CommitResult result = std::move(*committed_);
  last_batch_ = result.number;
  committed_.reset();
  lock.unlock();
  core_->committed(result, now_);
  return Status();
}

Status Engine::pass(Milliseconds duration) {
  const MonotonicTime end = now_.monotonic + duration;
  while (now_.monotonic < end) {
    test::set_clock(test::next_stop(*core_, now_, end), &now_);
    core_->advance(now_);
    if (Status status = run(); !status) return status;
  }
  return Status();
}

}  // namespace holdfast::corrupt
