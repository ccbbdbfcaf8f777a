#include "net/store_link.h"

#include <utility>

#include "base/check.h"

namespace holdfast::broker {

namespace {
// Twice as many as there are worker threads.
constexpr std::size_t kFetchesMax = 8;
}  // namespace

// One read on a worker thread.
struct StoreLink::Fetch {
  explicit Fetch(StoreLink* owner) : link(owner) { work.data = this; }
  virtual ~Fetch() = default;
  virtual void read() = 0;    // on the worker
  virtual Status tell() = 0;  // the owner, what was read; not ok: reading failed

  uv_work_t work;
  StoreLink* link;
};

template <typename Request, typename Answer>
struct StoreLink::FetchOf final : Fetch {
  using Read = Result<Answer> (Store::*)(const Request&);
  using Told = void (StoreLinkOwner::*)(const Answer&);
  FetchOf(StoreLink* owner, const Request& asked, Read how, Told whom)
      : Fetch(owner), request(asked), read_by(how), told(whom) {}
  void read() override { result = (link->store_.*read_by)(request); }
  Status tell() override {
    if (result->ok()) (link->owner_.*told)(result->value());
    return result->status();
  }

  const Request request;
  const Read read_by;
  const Told told;
  std::optional<Result<Answer>> result;
};

StoreLink::StoreLink(uv_loop_t& loop, Store& store, StoreLinkOwner& owner)
    : loop_(loop), store_(store), owner_(owner), wakeup_(loop, [this] { open_mailbox(); }) {
  store_.start(
      [this](CommitResult result) {
        tell_loop([&] {
          mailbox_committed_ = std::move(result);
          mailbox_space_.reset();  // of before this commit
        });
      },
      [this](Status status) { tell_loop([&] { mailbox_failure_ = std::move(status); }); },
      [this](SpaceReport space) { tell_loop([&] { mailbox_space_ = std::move(space); }); });
}

StoreLink::~StoreLink() { CHECK(closed(), "the link to the store is destroyed while in use"); }

template <typename Fill>
void StoreLink::tell_loop(Fill fill) {
  {
    const std::scoped_lock lock(mailbox_mutex_);
    fill();
  }
  // After the mutex is free, or the loop would wake only to wait for it.
  wakeup_.wake();
}

void StoreLink::commit(Batches batches) {
  CHECK(!commit_under_way_ && !closing_);
  commit_under_way_ = true;
  store_.commit(std::move(batches));
}

void StoreLink::open_mailbox() {
  std::optional<CommitResult> committed;
  std::optional<SpaceReport> space;
  std::optional<Status> failure;
  {
    const std::scoped_lock lock(mailbox_mutex_);
    committed.swap(mailbox_committed_);
    space.swap(mailbox_space_);
    failure.swap(mailbox_failure_);
  }
  if (failed_) return;
  if (failure) {
    failed_ = true;
    owner_.on_store_failed(*failure);
    return;
  }
  if (closing_) return;
  if (committed) {
    commit_under_way_ = false;
    owner_.on_committed(*committed);
  }
  if (space) owner_.on_space(*space);
}

void StoreLink::fetch(const FetchRequest& request) {
  queue_fetch(request, &Store::fetch_blocking, &StoreLinkOwner::on_fetched);
}

void StoreLink::fetch_ids(const IdsRequest& request) {
  queue_fetch(request, &Store::fetch_ids_blocking, &StoreLinkOwner::on_ids_fetched);
}

template <typename Request, typename Answer>
void StoreLink::queue_fetch(const Request& request, Result<Answer> (Store::*read)(const Request&),
                            void (StoreLinkOwner::*told)(const Answer&)) {
  CHECK(!closing_);
  fetches_waiting_.push_back(std::make_unique<FetchOf<Request, Answer>>(this, request, read, told));
  start_fetches();
}

void StoreLink::start_fetches() {
  while (!closing_ && !fetches_waiting_.empty() && fetches_under_way_ < kFetchesMax) {
    std::unique_ptr<Fetch> fetch = std::move(fetches_waiting_.front());
    fetches_waiting_.pop_front();
    const int error = uv_queue_work(
        &loop_, &fetch->work, [](uv_work_t* work) { static_cast<Fetch*>(work->data)->read(); },
        [](uv_work_t* work, int) {
          const std::unique_ptr<Fetch> self(static_cast<Fetch*>(work->data));
          self->link->fetch_done(*self);
        });
    CHECK(error == 0, "uv_queue_work: {}", uv_strerror(error));
    ++fetches_under_way_;
    static_cast<void>(fetch.release());  // its callback owns it
  }
}

void StoreLink::fetch_done(Fetch& fetch) {
  --fetches_under_way_;
  if (closing_ || failed_) return;
  if (const Status status = fetch.tell(); !status.ok()) {
    failed_ = true;
    owner_.on_store_failed(status);
    return;
  }
  start_fetches();
}

void StoreLink::close() {
  if (closing_) return;
  closing_ = true;
  // A read that is running uses the store: it must be over before the store closes.
  while (fetches_under_way_ > 0) uv_run(&loop_, UV_RUN_ONCE);
  store_.close();
  open_mailbox();
  wakeup_.close();
}

}  // namespace holdfast::broker
