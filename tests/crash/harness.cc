#include "crash/harness.h"

#include <fmt/format.h>

#include <optional>
#include <thread>
#include <utility>

#include "crash/reach.h"

namespace holdfast::crash {

namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::uint32_t kAttemptsMax = 5;
constexpr std::uint32_t kProducers = 4;
constexpr std::uint32_t kConsumers = 4;
constexpr std::uint64_t kUntilKillMsMin = 20;
constexpr std::uint64_t kUntilKillMsMax = 600;
constexpr std::uint32_t kCreations = 8;
// As long as consumers take to settle what they hold, and longer.
constexpr std::uint64_t kDrainUsMax = 60'000;
constexpr milliseconds kReadyTimeout{30'000};
constexpr milliseconds kAnswersTimeout{30'000};

constexpr std::array<std::string_view, kMomentCount> kMoments{
    "creating its directory", "starting", "under load", "draining", "redriving", "at rest"};

SettingList queue_settings() {
  return {{"lease", 1'000},
          {"max-attempts", kAttemptsMax},
          {"backoff-min", 5},
          {"backoff-max", 40},
          {"dedup-window", 3'600'000}};
}

}  // namespace

Harness::Harness(HarnessOptions options)
    : options_(std::move(options)),
      random_(options_.seed),
      ledger_(options_.seed, kAttemptsMax),
      drain_(
          queues_, [this](const std::string& name) { return client_options(name); }, ledger_),
      broker_(options_.broker, options_.directory, free_port(options_.seed)) {}

HarnessResult Harness::run() {
  create_under_kills();
  if (!found_something()) create_queues();
  while (!found_something() && result_.rounds < options_.rounds) {
    run_round(result_.rounds + result_.void_rounds + 1);
    if (result_.void_rounds > options_.rounds + 5) {
      ledger_.add_violation(fmt::format(
          "{} rounds had fewer than {} confirmed publishes before the kill; so little traffic "
          "proves nothing.",
          result_.void_rounds, options_.confirmed_min));
    }
  }
  if (!found_something()) check_moments();
  if (broker_.running()) kill_broker(Moment::kRest);
  result_.violations = ledger_.violations();
  result_.counts = ledger_.counts();
  return result_;
}

ClientOptions Harness::client_options(const std::string& name) const {
  ClientOptions options(broker_.address());
  options.client_name = name;
  options.timeout = milliseconds(10'000);
  options.reconnect_min = milliseconds(2);
  options.reconnect_max = milliseconds(50);
  return options;
}

// A kill during the first creation must not leave a directory that does not open.
void Harness::create_under_kills() {
  start_until_ready();
  for (std::uint32_t i = 0; i < kCreations && !found_something(); ++i) {
    const std::chrono::microseconds creation_takes = start_takes_;
    kill_broker(Moment::kRest);
    std::error_code ignored;
    std::filesystem::remove_all(broker_.data_directory(), ignored);
    do {
      start_takes_ = creation_takes;
      start_and_kill(Moment::kCreating);
    } while (random_.once_in(2) && !found_something());
    start_until_ready();
  }
}

// A void run is no green one. A few rounds are not judged.
void Harness::check_moments() {
  constexpr std::uint32_t kRoundsJudged = 40;
  if (options_.rounds < kRoundsJudged) return;
  std::uint32_t sum = 0;
  for (std::size_t i = 0; i < kMomentCount; ++i) {
    sum += result_.kills[i];
    if (result_.kills[i] == 0) {
      ledger_.add_violation(fmt::format("No kill met the broker while it was {}.", kMoments[i]));
    }
  }
  if (sum * 10 < options_.rounds * 25) {
    ledger_.add_violation(fmt::format("{} kills in {} rounds are too few.", sum, options_.rounds));
  }
}

bool Harness::create_queues() {
  std::optional<Client> client = reach(client_options("crash-setup"), ledger_);
  if (!client) return false;
  for (const std::string& queue : queues_) {
    const auto report = client->admin().create_queue(queue, queue_settings(), true);
    if (!report.ok()) {
      ledger_.add_violation("A queue cannot be created: " + report.status().to_string());
      return false;
    }
  }
  return true;
}

void Harness::run_round(std::uint32_t round) {
  const std::uint64_t confirmed_before = ledger_.counts().confirmed;
  start_load(round);
  if (found_something()) return;
  const milliseconds until_kill(kUntilKillMsMin + random_.below(kUntilKillMsMax - kUntilKillMsMin));
  std::this_thread::sleep_for(until_kill);
  if (random_.once_in(4)) {
    kill_draining_broker();
  } else {
    kill_broker(Moment::kLoad);
  }
  const std::uint64_t confirmed = ledger_.counts().confirmed - confirmed_before;
  const bool is_void = confirmed < options_.confirmed_min;
  // In half of the rounds two producers give up: their unconfirmed messages may exist or not.
  if (random_.once_in(2)) producers_.resize(producers_.size() / 2);
  restart_broker();
  std::this_thread::sleep_for(milliseconds(20 + random_.below(120)));
  if (random_.once_in(4)) {
    kill_broker(Moment::kLoad);
    restart_broker();
  }
  end_load();
  if (random_.once_in(2)) {
    kill_broker(Moment::kRest);
    restart_broker();
  }
  if (found_something()) return;
  drain_.run(life_);
  if (found_something()) return;
  kill_broker(Moment::kRest);
  restart_broker();
  // All of this again, as the disk holds it: the queues must be empty still.
  drain_.run(life_);
  if (!found_something()) drain_.compare_with_ledger();
  if (!found_something()) clear_dead_letters();
  ++(is_void ? result_.void_rounds : result_.rounds);
  report_round(round, is_void, until_kill, confirmed);
}

void Harness::start_load(std::uint32_t round) {
  for (std::uint32_t i = 0; i < kConsumers; ++i) {
    SettlerPlan plan;
    plan.name = fmt::format("consumer-{}", i);
    plan.queue = queues_[i % queues_.size()];
    plan.seed = random_.next();
    plan.life = life_;
    settlers_.push_back(std::make_unique<Settler>(client_options(plan.name), ledger_, plan));
  }
  for (std::uint32_t i = 0; i < kProducers; ++i) {
    ProducerPlan plan;
    plan.name = fmt::format("p{}-r{}", i, round);
    plan.seed = random_.next();
    plan.queues = queues_;
    plan.synchronous = i == 0;
    producers_.push_back(std::make_unique<Producer>(client_options(plan.name), ledger_, plan));
  }
  for (const auto& settler : settlers_) {
    const Status status = settler->start();
    if (!status.ok()) ledger_.add_violation("A consumer cannot start: " + status.to_string());
  }
  for (const auto& producer : producers_) {
    const Status status = producer->start();
    if (!status.ok()) ledger_.add_violation("A producer cannot start: " + status.to_string());
  }
}

void Harness::end_load() {
  for (const auto& producer : producers_) producer->stop();
  for (const auto& producer : producers_) {
    const std::string id = producer->wait_answered(kAnswersTimeout);
    if (id.empty()) continue;
    ledger_.add_violation(fmt::format(
        "Publishing '{}' was not answered for {} ms, with the broker running in life {}.\n{}", id,
        kAnswersTimeout.count(), life_, ledger_.story_of(id)));
  }
  producers_.clear();
  settlers_.clear();
}

void Harness::clear_dead_letters() {
  if (random_.once_in(3)) {
    for (const std::string& queue : queues_) redrive_under_kill(queue);
    return;
  }
  std::optional<Client> client = reach(client_options("crash-discard"), ledger_);
  if (!client) return;
  Admin admin = client->admin();
  for (const std::string& queue : queues_) {
    std::uint64_t from = 0;
    do {
      const Result<MoveReport> report = admin.discard_all(queue, from, 256);
      if (!report.ok()) {
        ledger_.add_violation("Discarding failed: " + report.status().to_string());
        return;
      }
      from = report.value().next;
    } while (from != 0);
    ledger_.dead_letters_discarded(queue);
  }
}

// A dead letter is then in one of the two queues, never in both and never in none.
void Harness::redrive_under_kill(const std::string& queue) {
  {
    ClientOptions options = client_options("crash-redrive");
    options.reconnect = false;
    std::optional<Client> client = reach(options, ledger_);
    if (!client) return;
    std::thread redriving([admin = client->admin(), &queue]() mutable {
      std::uint64_t from = 0;
      do {
        const Result<MoveReport> report = admin.redrive_all(queue, from, 16);
        if (!report.ok()) return;
        from = report.value().next;
      } while (from != 0);
    });
    std::this_thread::sleep_for(std::chrono::microseconds(random_.below(20'000)));
    kill_broker(Moment::kRedriving);
    redriving.join();
  }
  restart_broker();
  if (found_something()) return;
  std::optional<Client> client = reach(client_options("crash-look"), ledger_);
  if (!client) return;
  Admin admin = client->admin();
  ledger_.dead_letters_redriven(queue, drain_.dead_letters(admin, queue));
}

// ---- the broker ----

void Harness::start_broker() {
  ledger_.broker_started(++life_);
  const Status status = broker_.start();
  if (!status.ok()) ledger_.add_violation(status.message());
}

void Harness::kill_broker(Moment moment) {
  if (!broker_.running()) return;
  const Status status = broker_.kill();
  ++(broker_.had_drained() ? result_.drained : result_.kills[static_cast<std::size_t>(moment)]);
  if (!status.ok()) ledger_.add_violation(status.message());
}

void Harness::kill_draining_broker() {
  if (!broker_.running()) return;
  broker_.terminate();
  std::this_thread::sleep_for(std::chrono::microseconds(random_.below(kDrainUsMax)));
  kill_broker(Moment::kDraining);
}

void Harness::start_and_kill(Moment moment) {
  start_broker();
  const auto longest = static_cast<std::uint64_t>(start_takes_.count()) * 5 / 4;
  std::this_thread::sleep_for(std::chrono::microseconds(random_.below(longest + 1)));
  if (broker_.running() && broker_.is_ready()) moment = Moment::kRest;
  kill_broker(moment);
}

void Harness::start_until_ready() {
  start_broker();
  if (!broker_.running()) return;
  const auto begin = steady_clock::now();
  const Status status = broker_.wait_ready(kReadyTimeout);
  if (!status.ok()) ledger_.add_violation(status.message());
  start_takes_ = std::chrono::duration_cast<std::chrono::microseconds>(steady_clock::now() - begin);
}

void Harness::restart_broker() {
  while (random_.once_in(4) && !found_something()) start_and_kill(Moment::kStarting);
  start_until_ready();
}

void Harness::report_round(std::uint32_t round, bool is_void, milliseconds until_kill,
                           std::uint64_t confirmed) const {
  const LedgerCounts counts = ledger_.counts();
  fmt::print(
      "round {:>3}{}: killed after {:>3} ms with {:>5} confirmed; so far {} confirmed, {} "
      "delivered, {} acked, {} dead, {} redriven\n",
      round, is_void ? " (void)" : "", until_kill.count(), confirmed, counts.confirmed,
      counts.delivered, counts.acked, counts.dead, counts.redriven);
  std::fflush(stdout);
}

}  // namespace holdfast::crash
