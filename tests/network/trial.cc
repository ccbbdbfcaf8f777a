#include "network/trial.h"

#include <fmt/format.h>

#include <optional>
#include <stdexcept>
#include <thread>

#include "crash/reach.h"
#include "support/raw_client.h"

namespace holdfast::network {

namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::uint32_t kAttemptsMax = 12;
constexpr std::uint32_t kProducers = 4;
const std::vector<std::string> kQueues{"letters", "orders"};
constexpr milliseconds kReadyTimeout{30'000};
constexpr milliseconds kAnswersTimeout{30'000};
// A load in which nothing at all went on for so long stands still.
constexpr milliseconds kStandstill{20'000};
// The disk of early_duplicates(): a kill comes well before the commit that it must precede.
constexpr milliseconds kSlowFlush{50};

SettingList queue_settings() {
  return {{"lease", 1'000},
          {"max-attempts", kAttemptsMax},
          {"backoff-min", 5},
          {"backoff-max", 40},
          {"dedup-window", 3'600'000}};
}

}  // namespace

Trial::Trial(const TrialPlan& plan)
    : plan_(plan),
      random_(plan.seed),
      ledger_(plan.seed, kAttemptsMax),
      disk_(plan.shim, plan.directory),
      port_(crash::free_port(plan.seed)),
      broker_(hostile::write_launcher(plan.directory, plan.broker, &disk_), plan.directory, port_),
      drain_(
          kQueues,
          [this](const std::string& name) { return client_options(name, broker_.address()); },
          ledger_) {}

TrialResult Trial::run() {
  start_broker();
  if (!found_something() && create_queues()) early_duplicates();
  if (!found_something()) start_load();
  if (!found_something()) lose_replies();
  if (proxy_) end_load();
  if (!found_something()) drain_.run(life_);
  kill_broker();
  if (!found_something()) {
    start_broker();
    // All of this again, as the disk holds it: the queues must be empty still.
    drain_.run(life_);
    drain_.compare_with_ledger();
    kill_broker();
  }
  result_.violations = ledger_.violations();
  result_.counts = ledger_.counts();
  return result_;
}

ClientOptions Trial::client_options(const std::string& name, const std::string& address) const {
  ClientOptions options(address);
  options.client_name = name;
  options.timeout = milliseconds(20'000);
  options.reconnect_min = milliseconds(1);
  options.reconnect_max = milliseconds(20);
  return options;
}

bool Trial::create_queues() {
  std::optional<Client> client =
      crash::reach(client_options("network-setup", broker_.address()), ledger_);
  if (!client) return false;
  for (const std::string& queue : kQueues) {
    const auto report = client->admin().create_queue(queue, queue_settings(), true);
    if (!report.ok()) {
      ledger_.add_violation("A queue cannot be created: " + report.status().to_string());
      return false;
    }
  }
  return client->admin().create_queue("early", queue_settings(), true).ok();
}

// ---- duplicates of what is not durable yet ----

// The disk is slow. A message goes to the broker over one connection and, as a client does that has
// lost it, again over a second one while the first still stands; as soon as the duplicate is
// confirmed the broker is killed. What was confirmed must be there, once.
void Trial::early_duplicates() {
  for (std::uint32_t i = 0; i < plan_.early_duplicates && !found_something(); ++i) {
    disk_.set_delay(kSlowFlush);
    const std::string id = fmt::format("early-{}", i);
    try {
      early_duplicate(id);
    } catch (const std::runtime_error& error) {
      ledger_.add_violation(fmt::format("Publishing '{}' twice at once: {}", id, error.what()));
    }
  }
  disk_.set_delay(milliseconds(0));
  result_.slow_flushes = disk_.delayed_total();
}

void Trial::early_duplicate(const std::string& id) {
  std::uint64_t confirmed = 0;
  {
    test::RawClient first(broker_.address());
    test::RawClient second(broker_.address());
    first.hello("first");
    second.hello("second");
    auto& builder = second.builder();
    const auto name = builder.CreateString("early");
    second.send_table(wire::FrameType_QueueOpen, 1, wire::CreateQueueOpen(builder, name));
    const std::uint32_t queue =
        second.expect(wire::FrameType_QueueInfo).table<wire::QueueInfo>().queue();
    first.send_publish(2, queue, id, ledger_.body_of(id));
    if (random_.once_in(2)) std::this_thread::sleep_for(milliseconds(random_.below(40)));
    second.send_publish(2, queue, id, ledger_.body_of(id));
    // Which of the two connections the broker reads first does not matter: one answer says
    // duplicate, and both are of one message.
    confirmed = second.expect(wire::FrameType_Confirm).table<wire::Confirm>().sequence();
  }
  kill_broker();
  disk_.set_delay(milliseconds(0));
  start_broker();
  const std::vector<std::uint64_t> found = sequences_of("early", id);
  if (found.size() != 1 || found[0] != confirmed) {
    ledger_.add_violation(fmt::format(
        "Message '{}' was confirmed as a duplicate with sequence {}, and after the kill "
        "of the broker it is stored {} times.",
        id, confirmed, found.size()));
  }
  ++result_.early_duplicates;
}

std::vector<std::uint64_t> Trial::sequences_of(const std::string& queue, const std::string& id) {
  std::vector<std::uint64_t> sequences;
  Result<Client> client = Client::connect(client_options("network-look", broker_.address()));
  if (!client.ok()) throw std::runtime_error(client.status().to_string());
  std::uint64_t from = 0;
  do {
    Result<PeekPage> page = client->admin().peek(queue, 500, from);
    if (!page.ok()) throw std::runtime_error(page.status().to_string());
    for (const StoredMessage& message : page->messages) {
      if (message.id == id && message.body == ledger_.body_of(id)) {
        sequences.push_back(message.sequence);
      }
    }
    from = page->next;
  } while (from != 0);
  return sequences;
}

// ---- the load ----

void Trial::start_load() {
  proxy_ = std::make_unique<Proxy>(random_.next(), port_);
  orderly_ = std::make_unique<OrderlyConsumer>(client_options("orderly", proxy_->address()),
                                               ledger_, "orders", life_);
  Status status = orderly_->start();
  for (std::size_t i = 0; i < std::size(settlers_) && status.ok(); ++i) {
    crash::SettlerPlan plan;
    plan.name = fmt::format("settler-{}", i);
    plan.queue = "letters";
    plan.seed = random_.next();
    plan.life = life_;
    settlers_[i] = std::make_unique<crash::Settler>(client_options(plan.name, proxy_->address()),
                                                    ledger_, plan);
    status = settlers_[i]->start();
  }
  for (std::uint32_t i = 0; i < kProducers && status.ok(); ++i) {
    crash::ProducerPlan plan;
    plan.name = fmt::format("p{}", i);
    plan.seed = random_.next();
    plan.queues = kQueues;
    plan.synchronous = i == 0;
    plan.window = 64;
    plan.messages_max = UINT32_MAX;
    producers_.push_back(std::make_unique<crash::Producer>(
        client_options(plan.name, proxy_->address()), ledger_, plan));
    status = producers_.back()->start();
  }
  if (!status.ok()) ledger_.add_violation("The load cannot start: " + status.to_string());
}

void Trial::lose_replies() {
  auto next_kill = steady_clock::now() + milliseconds(200 + random_.below(1'000));
  auto progress_until = steady_clock::now() + kStandstill;
  std::uint64_t dropped = 0;
  while (!found_something()) {
    const std::uint64_t dropped_now = proxy_->counts().confirms_dropped;
    if (dropped_now >= plan_.retries && ledger_.counts().duplicates >= plan_.retries) return;
    const auto now = steady_clock::now();
    if (dropped_now != dropped) progress_until = now + kStandstill;
    dropped = dropped_now;
    if (now > progress_until) {
      ledger_.add_violation(
          fmt::format("The load stands still: no reply was lost for {} ms.", kStandstill.count()));
    }
    if (now >= next_kill) {
      kill_broker();
      start_broker();
      next_kill = steady_clock::now() + milliseconds(200 + random_.below(3'000));
    }
    std::this_thread::sleep_for(milliseconds(2));
  }
}

void Trial::end_load() {
  proxy_->be_calm();
  for (const auto& producer : producers_) producer->stop();
  for (const auto& producer : producers_) {
    const std::string id = producer->wait_answered(kAnswersTimeout);
    if (id.empty()) continue;
    ledger_.add_violation(fmt::format(
        "Publishing '{}' was not answered for {} ms, with the broker running in life {}.\n{}", id,
        kAnswersTimeout.count(), life_, ledger_.story_of(id)));
  }
  producers_.clear();
  for (auto& settler : settlers_) settler.reset();
  if (orderly_) result_.firsts = orderly_->firsts();
  orderly_.reset();
  result_.proxy = proxy_->counts();
  proxy_.reset();
}

// ---- the broker ----

void Trial::start_broker() {
  ledger_.broker_started(++life_);
  Status status = broker_.start();
  if (status.ok()) status = broker_.wait_ready(kReadyTimeout);
  if (!status.ok()) ledger_.add_violation(status.message());
}

void Trial::kill_broker() {
  if (!broker_.running()) return;
  ++result_.kills;
  const Status status = broker_.kill();
  if (!status.ok()) ledger_.add_violation(status.message());
}

}  // namespace holdfast::network
