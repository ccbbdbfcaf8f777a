#include "client_impl.h"

#include <errno.h>
#include <fmt/format.h>
#include <pthread.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <system_error>
#include <utility>

#include "base/check.h"
#include "consumer.h"
#include "holdfast/text.h"
#include "message_codec.h"
#include "process.h"
#include "receiver.h"
#include "schema/field_limits.h"

namespace holdfast {

using client::Call;
using client::Mailbox;
using client::SteadyTime;

namespace {

// A turn writes about this much, so that what the broker answers is read in between.
constexpr std::size_t kTurnBytes = 512 * 1024;
constexpr std::chrono::milliseconds kPublishPauseMin{20};
constexpr std::chrono::milliseconds kPublishPauseMax{1'000};
// Longer waits would leave the range of the clock.
constexpr std::chrono::milliseconds kWaitMax = std::chrono::hours(24 * 365);
constexpr std::uint32_t kConcurrencyMax = 1'024;

// Whose I/O thread this is. An id would not tell: a later thread may get that of one that ended.
thread_local const ClientImpl* io_thread_of = nullptr;

std::string default_client_name() {
  std::array<char, 256> host{};
  if (gethostname(host.data(), host.size() - 1) != 0) host[0] = '\0';
  std::string name = fmt::format("{}@{}:{}", program_invocation_short_name, host.data(), getpid());
  if (name.size() > kNameBytesMax || !is_valid_utf8(name)) {
    name = fmt::format("pid:{}", getpid());
  }
  return name;
}

Status check_name(std::string_view what, std::string_view name) {
  if (name.size() > kNameBytesMax) {
    return Status(ErrorCode::kInvalidArgument, fmt::format("The {} has {} bytes; the limit is {}.",
                                                           what, name.size(), kNameBytesMax));
  }
  if (!is_valid_utf8(name)) {
    return Status(ErrorCode::kInvalidArgument, fmt::format("The {} is not valid UTF-8.", what));
  }
  return Status();
}

Status check_lease(std::chrono::milliseconds lease) {
  if (lease.count() == 0 || (lease.count() >= kLeaseMsMin && lease.count() <= kLeaseMsMax)) {
    return Status();
  }
  return Status(ErrorCode::kInvalidArgument,
                fmt::format("A lease of {} ms cannot be asked for; it can be {} to {} ms, or 0 for "
                            "the one that is set.",
                            lease.count(), kLeaseMsMin, kLeaseMsMax));
}

Status check_options(const ClientOptions& options) {
  if (Status checked = check_name("client name", options.client_name); !checked.ok()) {
    return checked;
  }
  if (options.timeout.count() <= 0) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("The client's timeout is {} ms; it can be 1 ms or longer.",
                              options.timeout.count()));
  }
  if (options.reconnect_min.count() <= 0) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("The client's reconnect_min is {} ms; it can be 1 ms or longer.",
                              options.reconnect_min.count()));
  }
  if (options.reconnect_max < options.reconnect_min) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("The client's reconnect_max is {} ms; it can be {} ms, its "
                              "reconnect_min, or longer.",
                              options.reconnect_max.count(), options.reconnect_min.count()));
  }
  return Status();
}

Status check_options(const ConsumeOptions& options) {
  if (Status checked = check_name("consumer name", options.consumer_name); !checked.ok()) {
    return checked;
  }
  if (Status checked = check_lease(options.lease); !checked.ok()) return checked;
  if (options.concurrency == 0 || options.concurrency > kConcurrencyMax) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("The concurrency of a consumer is {}; it can be 1 to {}.",
                              options.concurrency, kConcurrencyMax));
  }
  if (options.prefetch > kCreditMessagesMax) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("The prefetch of a consumer is {}; it can be 1 to {}, or 0 for one "
                              "that suits its concurrency.",
                              options.prefetch, kCreditMessagesMax));
  }
  return Status();
}

client::ConnectionOptions connection_options(const ClientOptions& options, const Address& address,
                                             const client::ClientTuning& tuning) {
  client::ConnectionOptions connection;
  connection.address = address;
  connection.client_name =
      options.client_name.empty() ? default_client_name() : options.client_name;
  connection.reconnect_min_ms = static_cast<std::uint64_t>(options.reconnect_min.count());
  connection.reconnect_max_ms = static_cast<std::uint64_t>(options.reconnect_max.count());
  connection.reconnect = options.reconnect;
  connection.heartbeat_ms = tuning.heartbeat_ms;
  connection.handshake_ms = tuning.handshake_ms;
  return connection;
}

Result<std::thread> start_thread(std::function<void()> body) {
  try {
    return std::thread(std::move(body));
  } catch (const std::system_error& refused) {
    return Status(ErrorCode::kLimitReached,
                  fmt::format("The system gives the client no further thread: {}. Raise the limit "
                              "on threads of this process, or lower the concurrency.",
                              refused.code().message()));
  }
}

// What a broker has room for later.
bool is_short_of_room(ErrorCode code) {
  return code == ErrorCode::kStorageFull || code == ErrorCode::kQueueFull ||
         code == ErrorCode::kLimitReached;
}

Status cancelled() { return Status(ErrorCode::kCancelled, "The client was closed."); }

}  // namespace

Result<std::thread> client::start_quiet_thread(std::function<void()> body) {
  sigset_t all;
  sigset_t before;
  sigfillset(&all);
  pthread_sigmask(SIG_SETMASK, &all, &before);
  Result<std::thread> thread = start_thread(std::move(body));
  pthread_sigmask(SIG_SETMASK, &before, nullptr);
  return thread;
}

// ---- beginning and end ----

ClientImpl::ClientImpl(ClientOptions options, Address address, const client::ClientTuning& tuning)
    : process_(client::current_process()),
      options_(std::move(options)),
      address_(std::move(address)),
      loop_(*this),
      mailbox_(options_.unconfirmed_bytes_max, [this] { loop_.wake(); }),
      first_connection_(std::make_shared<Call<Status>>()),
      connection_status_(ErrorCode::kUnreachable, "There has been no connection yet."),
      publisher_(requests_),
      subscriptions_(requests_, [this] { return shared_from_this(); }),
      connection_(loop_, connection_options(options_, address_, tuning), *this) {}

ClientImpl::~ClientImpl() { CHECK(!thread_.joinable(), "a client was not closed"); }

Result<Client> ClientImpl::connect(ClientOptions options, const client::ClientTuning& tuning) {
  if (Status checked = check_options(options); !checked.ok()) return checked;
  Result<Address> address = parse_address(options.address);
  if (!address.ok()) return address.status();
  const auto impl = std::make_shared<ClientImpl>(std::move(options), *std::move(address), tuning);
  if (Status started = impl->start(); !started.ok()) return started;
  Status connected = impl->wait_for_first_connection();
  if (!connected.ok()) {
    impl->close();
    return connected;
  }
  return Client(impl);
}

Status ClientImpl::start() {
  if (Status opened = loop_.open(); !opened.ok()) return opened;
  // The thread keeps the client alive: its last owner may be a callback.
  Result<std::thread> thread = client::start_quiet_thread([self = shared_from_this()] {
    io_thread_of = self.get();
    self->connection_.start();
    self->loop_.run();
  });
  if (!thread.ok()) {
    loop_.close();
    loop_.run();  // what was opened closes
    return thread.status();
  }
  thread_ = *std::move(thread);
  return Status();
}

Status ClientImpl::wait_for_first_connection() {
  const std::optional<Status> answer = first_connection_->wait_until(deadline());
  if (answer.has_value()) return *answer;
  const std::lock_guard lock(mutex_);
  return Status(
      ErrorCode::kUnreachable,
      fmt::format("No connection to the broker at {} within {} ms: {}", address_.to_string(),
                  options_.timeout.count(), connection_status_.message()));
}

std::vector<std::shared_ptr<ConsumerImpl>> ClientImpl::consumers() const {
  const std::lock_guard lock(mutex_);
  std::vector<std::shared_ptr<ConsumerImpl>> consumers;
  for (const auto& weak : consumers_) {
    if (auto consumer = weak.lock(); consumer != nullptr) consumers.push_back(std::move(consumer));
  }
  return consumers;
}

std::optional<std::unique_lock<std::mutex>> ClientImpl::turn_to_wait() {
  const auto all = consumers();
  const bool in_handler =
      std::any_of(all.begin(), all.end(), [](const auto& one) { return one->on_own_thread(); });
  if (!in_handler) return std::unique_lock<std::mutex>();
  std::unique_lock turn(handler_waits_, std::try_to_lock);
  if (!turn.owns_lock()) return std::nullopt;
  return turn;
}

void ClientImpl::close() {
  if (is_forked()) {
    // The connection is the parent's, and the threads that would end it are not here.
    if (thread_.joinable()) thread_.detach();
    return;
  }
  {
    const std::lock_guard lock(mutex_);
    closing_ = true;
  }
  mailbox_.stop_publishes();
  const auto stopping = consumers();
  for (const auto& consumer : stopping) consumer->begin_stop();
  if (const auto turn = turn_to_wait(); turn.has_value()) {
    for (const auto& consumer : stopping) consumer->wait_for_handlers();
  }
  if (!on_io_thread()) {
    const auto quiet = std::make_shared<Call<bool>>();
    run_on_io([this, quiet](const Status& status) {
      if (!status.ok()) return quiet->finish(true);
      subscriptions_.when_quiet([quiet] { quiet->finish(true); });
    });
    quiet->wait_until(deadline());
  }
  close_thread();
}

void ClientImpl::close_thread() {
  run_on_io([this](const Status& status) {
    if (status.ok()) shut_down();
  });
  if (on_io_thread()) {
    // It cannot wait for itself; it ends with this turn and keeps itself alive until then. If
    // another thread closes at the same time, that one waits for it.
    const std::unique_lock lock(closing_mutex_, std::try_to_lock);
    if (lock.owns_lock() && thread_.joinable()) thread_.detach();
    return;
  }
  // Also if a callback has closed before, or is about to.
  const LastTurn last_turn = last_turn_told_.get();
  const std::lock_guard lock(closing_mutex_);
  if (!thread_.joinable()) return;
  // A look-up of a name cannot be called off and may take longer than anybody waits. The thread
  // ends with it, and calls nobody any more.
  if (last_turn == LastTurn::kLooksUp) {
    thread_.detach();
  } else {
    thread_.join();
  }
}

void ClientImpl::shut_down() {
  if (std::exchange(shut_, true)) return;
  if (connection_.ready()) {
    flatbuffers::FlatBufferBuilder builder(64);
    builder.Finish(wire::CreateGoodbye(builder));
    connection_.output().append(wire::FrameType_Goodbye, 0, client::table_bytes(builder));
    connection_.flush();
  }
  connection_.shutdown();
  Mailbox::Contents left;
  mailbox_.close(&left);
  const Status why = cancelled();
  note_connection(why);
  requests_.fail_all(why);
  subscriptions_.fail_all(why);
  for (auto& publish : left.publishes) {
    publisher_.submit(publish.queue, std::move(publish.publication));
  }
  publisher_.fail_all(why);
  for (auto& item : left.settles) {
    item.delivery->settle_not_sent(why);
    if (item.done) item.done(why);
  }
  for (auto& task : left.tasks) task(why);
  first_connection_->finish(why);
  loop_.close();
}

// ---- waiting and threads ----

bool ClientImpl::on_io_thread() const { return io_thread_of == this; }

bool ClientImpl::is_forked() const { return client::current_process() != process_; }

Status ClientImpl::check_process() const {
  if (!is_forked()) return Status();
  return Status(
      ErrorCode::kInvalidArgument,
      "This client belongs to the process that connected it. After a fork the child needs "
      "one of its own.");
}

Status ClientImpl::check_may_wait() const {
  if (Status checked = check_process(); !checked.ok()) return checked;
  if (!on_io_thread()) return Status();
  return Status(ErrorCode::kInvalidArgument,
                "A synchronous call was made from a callback on the client's I/O thread, where it "
                "would wait for itself. Use the asynchronous call, or another thread.");
}

SteadyTime ClientImpl::deadline() const {
  return std::chrono::steady_clock::now() + std::min(options_.timeout, kWaitMax);
}

Status ClientImpl::connection_status() const {
  if (Status checked = check_process(); !checked.ok()) return checked;
  const std::lock_guard lock(mutex_);
  return connection_status_;
}

Status ClientImpl::timed_out(std::string_view what) const {
  const std::lock_guard lock(mutex_);
  std::string sentence = fmt::format("{} took longer than {} ms", what, options_.timeout.count());
  if (!connection_status_.ok()) {
    sentence += fmt::format("; there is no connection: {}", connection_status_.message());
  } else {
    sentence += ".";
  }
  return Status(ErrorCode::kTimeout, std::move(sentence));
}

void ClientImpl::run_on_io(client::Task task) {
  if (const Status checked = check_process(); !checked.ok()) return task(checked);
  if (const Status added = mailbox_.add(task); !added.ok()) task(added);
}

// A callback that publishes again when it is told that the client was closed would use up the
// stack.
void ClientImpl::call_back(client::Task task) {
  const Status added = mailbox_.add(task);
  if (added.ok()) return;
  if (!on_io_thread()) return task(added);
  called_back_.push_back(std::move(task));
  if (std::exchange(calls_back_, true)) return;
  while (!called_back_.empty()) {
    const client::Task next = std::move(called_back_.front());
    called_back_.pop_front();
    next(added);
  }
  calls_back_ = false;
}

// ---- calls ----

Result<PublishReceipt> ClientImpl::publish(std::string_view queue, const Message& message) {
  if (Status allowed = check_may_wait(); !allowed.ok()) return allowed;
  const SteadyTime until = deadline();
  // A message that is tried again must keep its id.
  const std::string id = message.id.empty() ? ids_.next() : message.id;
  for (auto pause = kPublishPauseMin;; pause = std::min(pause * 2, kPublishPauseMax)) {
    Result<PublishReceipt> result = publish_once(queue, message, id, until);
    const ErrorCode code = result.status().code();
    if (!is_short_of_room(code)) return result;
    if (std::chrono::steady_clock::now() + pause >= until) return result;
    if (!mailbox_.pause(pause)) return cancelled();
  }
}

Result<PublishReceipt> ClientImpl::publish_once(std::string_view queue, const Message& message,
                                                const std::string& id, SteadyTime until) {
  if (Status checked = check_queue_name(queue); !checked.ok()) return checked;
  if (Status checked = client::check_message(message); !checked.ok()) return checked;
  const auto call = std::make_shared<Call<Result<PublishReceipt>>>();
  Mailbox::Publish publish;
  publish.queue = queue;
  publish.publication.message = client::encode_message(message, id);
  publish.publication.done = [call](Result<PublishReceipt> result) {
    call->finish(std::move(result));
  };
  publish.publication.abandoned = std::shared_ptr<const std::atomic<bool>>(call, &call->abandoned);
  if (Status added = mailbox_.add(publish, true, until); !added.ok()) return added;
  std::optional<Result<PublishReceipt>> answer = call->wait_until(until);
  if (answer.has_value()) return *std::move(answer);
  run_on_io([this](const Status& status) {
    if (status.ok()) publisher_.drop_abandoned();
  });
  return timed_out(fmt::format("Publishing message \"{}\" to queue \"{}\"", id, queue));
}

void ClientImpl::publish_async(std::string_view queue, const Message& message,
                               Client::PublishDone done) {
  if (Status checked = check_process(); !checked.ok()) {
    if (done) done(std::move(checked));
    return;
  }
  Status refused = check_queue_name(queue);
  if (refused.ok()) refused = client::check_message(message);
  if (refused.ok()) {
    Mailbox::Publish publish;
    publish.queue = queue;
    publish.publication.message = message.id.empty() ? client::encode_message(message, ids_.next())
                                                     : client::encode_message(message, message.id);
    publish.publication.done = std::move(done);
    refused = mailbox_.add(publish, !on_io_thread(), std::nullopt);
    if (refused.ok()) return;
    done = std::move(publish.publication.done);
  }
  if (done) call_back([done = std::move(done), refused](const Status&) { done(refused); });
}

Status ClientImpl::flush() {
  if (Status allowed = check_may_wait(); !allowed.ok()) return allowed;
  const auto call = std::make_shared<Call<Status>>();
  run_on_io([this, call](const Status& status) {
    if (!status.ok()) return call->finish(status);
    publisher_.when_done([call] { call->finish(Status()); });
  });
  std::optional<Status> answer = call->wait_until(deadline());
  if (answer.has_value()) return *std::move(answer);
  return timed_out("Waiting for the confirms of everything published");
}

Result<Consumer> ClientImpl::consume(std::string_view queue, const ConsumeOptions& options,
                                     Handler handler) {
  if (Status allowed = check_may_wait(); !allowed.ok()) return allowed;
  if (Status checked = check_queue_name(queue); !checked.ok()) return checked;
  if (Status checked = check_options(options); !checked.ok()) return checked;
  if (!handler) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("Consuming \"{}\" needs a handler, and the one that was given is "
                              "empty.",
                              queue));
  }
  client::SubscribeOptions subscribe;
  subscribe.queue = queue;
  subscribe.consumer_name = options.consumer_name;
  subscribe.credit_messages =
      options.prefetch != 0 ? options.prefetch : std::max(4u, 2 * options.concurrency);
  subscribe.credit_bytes = options.prefetch_bytes;
  subscribe.lease_ms = static_cast<std::uint32_t>(options.lease.count());
  subscribe.extend_leases = options.extend_leases;
  const auto consumer =
      std::make_shared<ConsumerImpl>(shared_from_this(), std::move(handler), options.on_ended);
  {
    const std::lock_guard lock(mutex_);
    if (closing_) return cancelled();
    std::erase_if(consumers_, [](const auto& weak) { return weak.expired(); });
    consumers_.push_back(consumer);
  }
  if (Status started = consumer->start(std::move(subscribe), options.concurrency); !started.ok()) {
    return started;
  }
  return Consumer(consumer);
}

Result<std::vector<Delivery>> ClientImpl::receive(std::string_view queue, std::uint32_t count,
                                                  std::chrono::milliseconds wait,
                                                  std::chrono::milliseconds lease) {
  if (Status allowed = check_may_wait(); !allowed.ok()) return allowed;
  if (Status checked = check_queue_name(queue); !checked.ok()) return checked;
  if (Status checked = check_lease(lease); !checked.ok()) return checked;
  if (count == 0 || count > kCreditMessagesMax) {
    return Status(ErrorCode::kInvalidArgument,
                  fmt::format("{} messages cannot be received at once; it can be 1 to {}.", count,
                              kCreditMessagesMax));
  }
  if (wait.count() < 0) {
    return Status(
        ErrorCode::kInvalidArgument,
        fmt::format("A wait of {} ms cannot be kept; it can be 0 ms or longer.", wait.count()));
  }
  client::SubscribeOptions subscribe;
  subscribe.queue = queue;
  subscribe.credit_messages = count;
  subscribe.lease_ms = static_cast<std::uint32_t>(lease.count());
  subscribe.extend_leases = false;
  return std::make_shared<client::Receiver>(shared_from_this(), std::move(subscribe))
      ->receive(std::min(wait, kWaitMax));
}

Status ClientImpl::ask(client::Request request, std::string_view what) {
  if (Status allowed = check_may_wait(); !allowed.ok()) return allowed;
  {
    const std::lock_guard lock(mutex_);
    if (closing_) return cancelled();
  }
  struct Asked {
    Call<Status> call;
    std::uint64_t token = 0;  // the I/O thread's
  };
  const auto asked = std::make_shared<Asked>();
  request.on_frame = [asked, on_frame = std::move(request.on_frame)](const Frame& frame) {
    Result<bool> last = on_frame(frame);
    if (last.ok() && *last) asked->call.finish(Status());
    return last;
  };
  request.on_failed = [asked](const Status& why) { asked->call.finish(why); };
  run_on_io([this, asked, request = std::move(request)](const Status& status) {
    if (!status.ok()) return asked->call.finish(status);
    if (!ended_.ok()) return asked->call.finish(ended_);
    asked->token = requests_.add(request);
  });
  std::optional<Status> answer = asked->call.wait_until(deadline());
  if (answer.has_value()) return *std::move(answer);
  run_on_io([this, asked](const Status& status) {
    if (status.ok()) requests_.cancel(asked->token);
  });
  return timed_out(what);
}

void ClientImpl::settle(client::SettleItem item) {
  const Status added = mailbox_.add(item);
  if (added.ok()) return;
  item.delivery->settle_not_sent(added);
  if (item.done) item.done(added);
}

Status ClientImpl::extend(std::shared_ptr<DeliveryImpl> delivery, std::chrono::milliseconds lease) {
  if (Status allowed = check_may_wait(); !allowed.ok()) return allowed;
  if (Status checked = check_lease(lease); !checked.ok()) return checked;
  const auto call = std::make_shared<Call<Status>>();
  const std::uint64_t sequence = delivery->sequence();
  run_on_io([this, call, lease, delivery = std::move(delivery)](const Status& status) {
    if (!status.ok()) return call->finish(status);
    const auto lease_ms = static_cast<std::uint32_t>(lease.count());
    subscriptions_.extend(delivery, lease_ms, loop_.now_ms(),
                          [call](const Status& why) { call->finish(why); });
  });
  std::optional<Status> answer = call->wait_until(deadline());
  if (answer.has_value()) return *std::move(answer);
  return timed_out(fmt::format("Extending the lease of message {}", sequence));
}

// ---- the I/O thread ----

bool ClientImpl::turn() {
  if (shut_) return false;
  take_mail();
  if (shut_) {
    last_turn_.set_value(connection_.looks_up() ? LastTurn::kLooksUp : LastTurn::kEnds);
    return false;
  }
  const std::uint64_t wake_at = subscriptions_.advance(loop_.now_ms());
  const bool more = send();
  if (draining_) drop_if_drained();
  if (wake_at == 0) {
    loop_.clear_timer();
  } else {
    loop_.set_timer(wake_at);
  }
  // Completed bytes make room for those who wait to publish: the next turn tells them.
  return more || publisher_.has_completed_bytes() || !mailbox_.try_sleep();
}

void ClientImpl::take_mail() {
  mailbox_.take(&mail_, publisher_.take_completed_bytes());
  for (auto& publish : mail_.publishes) {
    publisher_.submit(publish.queue, std::move(publish.publication));
  }
  mail_.publishes.clear();
  if (!mail_.tasks.empty()) {
    for (auto& task : std::exchange(mail_.tasks, {})) task(shut_ ? cancelled() : Status());
  }
  if (!mail_.settles.empty()) subscriptions_.settle(std::exchange(mail_.settles, {}));
  if (!ended_.ok()) {
    requests_.fail_all(ended_);
    publisher_.fail_all(ended_);
    subscriptions_.fail_all(ended_);
  }
}

// True: there is more to send, and room for it.
bool ClientImpl::send() {
  if (!connection_.ready()) return false;
  requests_.pump(connection_.output());
  bool more = false;
  if (connection_.unsent_bytes() < kTurnBytes) {
    more = publisher_.pump(connection_.output(), {kTurnBytes, connection_.frame_bytes_max(),
                                                  connection_.unconfirmed_bytes_max()});
    requests_.pump(connection_.output());  // queues that the publisher has to open
  }
  connection_.flush();
  return more && connection_.ready() && connection_.unsent_bytes() < kTurnBytes;
}

void ClientImpl::drop_if_drained() {
  if (!connection_.ready() || publisher_.under_way() > 0 || requests_.under_way() > 0 ||
      !subscriptions_.holds_nothing()) {
    return;
  }
  connection_.drop(Status(ErrorCode::kDraining, "The broker is shutting down."));
}

// For a connect() whose time is over before that of the first attempt.
void ClientImpl::accepted() {
  if (!stood_) note_connection(Status(ErrorCode::kUnreachable, std::string(client::kNoWelcome)));
}

void ClientImpl::connected() {
  note_connection(Status());
  stood_ = true;
  draining_ = false;
  subscriptions_.connected(loop_.now_ms());
  first_connection_->finish(Status());
  if (options_.on_connection) options_.on_connection(Status());
}

void ClientImpl::frame(const Frame& frame) {
  switch (frame.type) {
    case wire::FrameType_Confirm:
      return publisher_.on_confirm(frame);
    case wire::FrameType_Deliver:
      if (!subscriptions_.on_deliver(frame)) {
        connection_.drop(
            Status(ErrorCode::kFrameMalformed, "The broker sent a malformed delivery."));
      }
      return;
    case wire::FrameType_LeaseLost:
      return subscriptions_.on_lease_lost(frame);
    case wire::FrameType_ConsumerEnded:
      return subscriptions_.on_consumer_ended(frame);
    case wire::FrameType_Goodbye:
      return goodbye(frame);
    case wire::FrameType_Error:
      if (!requests_.owns(frame.correlation)) return publisher_.on_error(frame);
      break;
    default:
      break;
  }
  requests_.on_frame(frame);
}

// The broker drains: new work waits for the next broker, what was begun may end.
void ClientImpl::goodbye(const Frame& frame) {
  const auto* goodbye = read_table<wire::Goodbye>(frame.body);
  const std::uint64_t deadline_ms = goodbye == nullptr ? 0 : goodbye->deadline_ms();
  draining_ = true;
  publisher_.draining();
  subscriptions_.draining();
  connection_.drop_after(std::max<std::uint64_t>(deadline_ms, 1),
                         Status(ErrorCode::kDraining, "The broker is shutting down."));
  if (options_.on_draining) options_.on_draining();
}

void ClientImpl::disconnected(const Status& why) {
  note_connection(why);
  draining_ = false;
  subscriptions_.connection_lost();
  publisher_.connection_lost();
  requests_.connection_lost(why);
  if (options_.on_connection) options_.on_connection(why);
}

void ClientImpl::note_connection(const Status& status) {
  const std::lock_guard lock(mutex_);
  connection_status_ = status;
}

void ClientImpl::ended(const Status& why) {
  const bool lost = stood_ && why.code() != ErrorCode::kVersionUnsupported;
  ended_ = lost ? Status(ErrorCode::kConnectionLost, why.message()) : why;
  note_connection(why);
  first_connection_->finish(why);
  requests_.fail_all(ended_);
  publisher_.fail_all(ended_);
  subscriptions_.fail_all(ended_);
}

}  // namespace holdfast
