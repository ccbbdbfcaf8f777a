#include "running_broker.h"

#include <signal.h>
#include <unistd.h>

#include <array>
#include <optional>
#include <stdexcept>
#include <utility>

namespace holdfast::test {

using broker::Batches;
using broker::Broker;
using broker::BrokerOptions;
using broker::CommitResult;

HeldStore::HeldStore() = default;
HeldStore::~HeldStore() { close(); }

void HeldStore::hold() {
  const std::scoped_lock lock(mutex_);
  held_ = true;
}

void HeldStore::let_go() {
  const std::scoped_lock lock(mutex_);
  held_ = false;
  changed_.notify_all();
}

void HeldStore::fail_next() {
  const std::scoped_lock lock(mutex_);
  fails_ = true;
  held_ = false;
  changed_.notify_all();
}

void HeldStore::wait_for_commit() {
  std::unique_lock lock(mutex_);
  if (!changed_.wait_for(lock, std::chrono::seconds(10), [this] { return !batches_.empty(); })) {
    throw std::runtime_error("no commit came");
  }
}

void HeldStore::let_go_and_wait() {
  std::unique_lock lock(mutex_);
  held_ = false;
  changed_.notify_all();
  changed_.wait(lock, [this] { return batches_.empty() && !telling_; });
}

void HeldStore::set_room_of_commits(broker::SpaceReport report) {
  const std::scoped_lock lock(mutex_);
  memory_.space = std::move(report);
  memory_.space.commits_wait = false;
}

void HeldStore::tell_space(broker::SpaceReport report) {
  set_room_of_commits(report);
  space_(std::move(report));
}

void HeldStore::flip_bit_in_message(QueueId queue, Sequence sequence) {
  const std::scoped_lock lock(mutex_);
  memory_.flip_bit_in_message(queue, sequence);
}

Result<broker::StoredState> HeldStore::load() {
  const std::scoped_lock lock(mutex_);
  return memory_.load();
}

Result<std::uint64_t> HeldStore::load_dedup(const broker::DedupLoader&) { return std::uint64_t{0}; }

void HeldStore::start(std::function<void(CommitResult)> committed,
                      std::function<void(Status)> fatal,
                      std::function<void(broker::SpaceReport)> space) {
  committed_ = std::move(committed);
  fatal_ = std::move(fatal);
  space_ = std::move(space);
  committer_ = std::thread([this] { run(); });
}

void HeldStore::commit(Batches batches) {
  const std::scoped_lock lock(mutex_);
  batches_ = std::move(batches);
  changed_.notify_all();
}

Result<broker::FetchResult> HeldStore::fetch_blocking(const broker::FetchRequest& request) {
  const std::scoped_lock lock(mutex_);
  return memory_.fetch(request);
}

Result<broker::IdsResult> HeldStore::fetch_ids_blocking(const broker::IdsRequest& request) {
  const std::scoped_lock lock(mutex_);
  return memory_.fetch_ids(request);
}

void HeldStore::run() {
  std::unique_lock lock(mutex_);
  while (true) {
    changed_.wait(lock, [this] { return closed_ || (!batches_.empty() && !held_); });
    const bool ends = closed_ && (batches_.empty() || held_);
    if (ends && !fails_) return;
    const Batches batches = std::exchange(batches_, {});
    if (fails_) {
      lock.unlock();
      fatal_(Status(ErrorCode::kStorageFailed, "The test lets this commit fail."));
      return;
    }
    CommitResult result = memory_.apply(batches);
    telling_ = true;
    lock.unlock();
    committed_(std::move(result));
    lock.lock();
    telling_ = false;
    changed_.notify_all();
  }
}

void HeldStore::close() {
  {
    const std::scoped_lock lock(mutex_);
    closed_ = true;
    changed_.notify_all();
  }
  if (committer_.joinable()) committer_.join();
}

BrokerOptions loopback_options() {
  BrokerOptions options;
  options.listen = "127.0.0.1:0";
  options.data_directory = "memory";
  options.session.broker_version = "test";
  return options;
}

BrokerOptions short_drain_options() {
  BrokerOptions options = loopback_options();
  options.drain = Milliseconds(20);
  options.drain_grace = Milliseconds(20);
  return options;
}

RunningBroker::RunningBroker(BrokerOptions options) {
  auto store = std::make_unique<HeldStore>();
  held_store_ = store.get();
  store_ = std::move(store);
  start(std::move(options));
}

RunningBroker::RunningBroker(BrokerOptions options, std::unique_ptr<broker::Store> store)
    : store_(std::move(store)) {
  start(std::move(options));
}

void RunningBroker::start(BrokerOptions options) {
  signal(SIGPIPE, SIG_IGN);  // as main does
  uv_loop_init(&loop_);
  on_loop_signal_.data = this;
  uv_async_init(&loop_, &on_loop_signal_, [](uv_async_t* signal) {
    auto* const self = static_cast<RunningBroker*>(signal->data);
    std::function<void()> work;
    {
      const std::scoped_lock lock(self->on_loop_mutex_);
      work = std::exchange(self->on_loop_work_, nullptr);
    }
    if (work) work();
  });
  auto broker = Broker::start(loop_, *store_, log_, std::move(options));
  if (!broker.ok()) throw std::runtime_error(broker.status().to_string());
  broker_ = std::move(*broker);
  address_ = broker_->addresses().front();
  thread_ = std::thread([this] { outcome_ = broker_->run(); });
}

RunningBroker::~RunningBroker() {
  if (thread_.joinable()) {
    if (held_store_ != nullptr) held_store_->let_go();
    broker_->request_drain();
    broker_->request_drain();
    thread_.join();
  }
  broker_.reset();
  uv_close(reinterpret_cast<uv_handle_t*>(&on_loop_signal_), nullptr);
  uv_run(&loop_, UV_RUN_DEFAULT);
  uv_loop_close(&loop_);
}

void RunningBroker::on_loop(std::function<void()> work) {
  const std::scoped_lock lock(on_loop_mutex_);
  on_loop_work_ = std::move(work);
  uv_async_send(&on_loop_signal_);
}

std::string RunningBroker::logged() const {
  std::string text;
  std::array<char, 4096> part;
  const auto read = [&] {
    return pread(fileno(log_file_.get()), part.data(), part.size(),
                 static_cast<off_t>(text.size()));
  };
  for (ssize_t bytes = read(); bytes > 0; bytes = read()) {
    text.append(part.data(), static_cast<std::size_t>(bytes));
  }
  return text;
}

RawClient RunningBroker::connect(std::string_view name, std::uint32_t heartbeat_ms) {
  RawClient client(address_);
  client.hello(name, heartbeat_ms);
  return client;
}

Status RunningBroker::wait() {
  thread_.join();
  return outcome_;
}

SeenConnection look_at(RawClient& watcher, std::string_view name) {
  watcher.send_empty(wire::FrameType_ConnectionList, 2);
  SeenConnection seen;
  std::optional<RawFrame> frame;
  while ((frame = watcher.receive()) && frame->type == wire::FrameType_ConnectionInfo) {
    const auto& info = frame->table<wire::ConnectionInfo>();
    if (view(info.client_name()) == name) {
      seen = {info.reading(), info.output_bytes(), info.unconfirmed_bytes(), info.frames_in()};
    }
  }
  return seen;
}

std::uint32_t count_connections(RawClient& watcher) {
  watcher.send_empty(wire::FrameType_Status, 2);
  return watcher.expect(wire::FrameType_StatusInfo).table<wire::StatusInfo>().connections();
}

}  // namespace holdfast::test
