#include "hostile/arena.h"

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <fstream>
#include <mutex>
#include <set>
#include <sstream>
#include <stdexcept>
#include <thread>

#include "hostile/bounds.h"
#include "support/process.h"

namespace holdfast::hostile {

namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kCalm{700};
constexpr milliseconds kSample{20};
constexpr std::chrono::microseconds kPace{4'000};
constexpr std::chrono::seconds kPatience{30};
// An attack that ends by itself, or has not begun, is given up after so long.
constexpr std::chrono::seconds kAttackMax{200};
// A loop that spins takes a whole processor; one that does not takes what the pair costs.
constexpr double kCpuShareMore = 0.4;
// docs/OPERATIONS.md: at most twenty lines in ten seconds of what goes wrong with connections. A
// listener that is opened again says so, twice a second at most.
constexpr std::int64_t kLogLinesOfPeers = 20 + 20 + 1;
constexpr std::int64_t kLogLinesOther = 20;

std::filesystem::path make_directory(const ArenaOptions& options) {
  std::filesystem::path directory =
      std::filesystem::temp_directory_path() /
      fmt::format("holdfast-hostile-{}-{}", ::getpid(), options.descriptors_max);
  std::filesystem::remove_all(directory);
  std::filesystem::create_directories(directory);
  return directory;
}

std::string held_body(const std::string& id) {
  return std::string(kHeldBodyBytes, static_cast<char>('a' + crash::hash_text(id) % 26));
}

double megabytes(std::uint64_t bytes) { return static_cast<double>(bytes) / 1e6; }

}  // namespace

Arena::Arena(const ArenaOptions& options, test::Checks& checks)
    : options_(options),
      checks_(checks),
      directory_(make_directory(options)),
      failed_before_(checks.failed()) {}

Arena::~Arena() {
  pair_.reset();
  client_.reset();
  broker_.reset();
  disk_.reset();
  if (checks_.failed() == failed_before_) {
    std::error_code ignored;
    std::filesystem::remove_all(directory_, ignored);
  } else {
    fmt::print("What the broker said is in {}.\n", (directory_ / "broker.log").string());
  }
}

void Arena::start() {
  disk_.emplace(options_.shim, directory_);
  const std::filesystem::path config = directory_ / "hostile.toml";
  std::ofstream(config) << kConfig;
  const std::uint16_t port = crash::free_port(options_.seed);
  broker_.emplace(write_launcher(directory_, options_.broker, &*disk_, options_.descriptors_max),
                  directory_, port, std::vector<std::string>{"--config", config.string()});
  started_at_ = steady_clock::now();
  must(broker_->start());
  must(broker_->wait_ready(kPatience));
  target_ = {broker_->address(), port, &*disk_, options_.own_binary};
  ClientOptions options(target_.address);
  options.reconnect = false;
  client_.emplace(must(Client::connect(options)));
  pid_ = static_cast<pid_t>(must(client_->admin().status()).pid);
  // What is lost with its connection comes again soon, as often as it takes.
  must(client_->admin().create_queue(
      kHeldQueue, {{"max-attempts", 0}, {"backoff-min", 1}, {"backoff-max", 10}}));
  pair_.emplace(target_.address, "steady", kPace);
  must(pair_->start());
}

void Arena::leave_descriptors(std::uint32_t descriptors_max) const {
  const rlimit limit{.rlim_cur = descriptors_max, .rlim_max = descriptors_max};
  if (::prlimit(pid_, RLIMIT_NOFILE, &limit, nullptr) != 0) {
    throw std::runtime_error("The broker's descriptors cannot be limited.");
  }
}

void Arena::must(const Status& status) const {
  if (!status.ok()) throw std::runtime_error(status.to_string());
}

void Arena::broker_lives() const {
  if (test::has_ended(pid_)) throw std::runtime_error("The broker has ended by itself.");
}

std::string Arena::log() const {
  std::ifstream file(directory_ / "broker.log");
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

// ---- a round ----

std::uint64_t Arena::round(std::vector<std::unique_ptr<Attack>> attacks, milliseconds duration) {
  std::vector<Attack*> all;
  std::string names;
  for (const auto& attack : attacks) {
    all.push_back(attack.get());
    names += (names.empty() ? "" : "; ") + attack->name();
  }
  fmt::print("-- {}\n", names);
  fill_held();
  const Measured calm = measure(kCalm, {});
  const std::uint64_t memory_before = test::rss_anon_bytes(pid_);
  const std::size_t descriptors_before = test::descriptors(pid_);
  const std::uint32_t connections_before = must(client_->admin().status()).connections;

  std::atomic<bool> stop{false};
  std::vector<std::thread> threads;
  for (Attack* attack : all) threads.emplace_back([attack, &stop] { attack->run(stop); });
  const Measured attacked = measure(duration, all);
  stop = true;
  for (std::thread& thread : threads) thread.join();
  broker_lives();

  for (const Attack* attack : all) {
    checks_.check(attack->hits() >= attack->hits_min() && attack->violations().empty(),
                  fmt::format("{}: {} {}, at least {}{}{}", attack->name(), attack->hits(),
                              attack->words_for_hits(), attack->hits_min(),
                              attack->violations().empty() ? "" : "; ",
                              attack->violations().empty() ? "" : attack->violations().front()));
  }
  check_memory(memory_before, attacked, all);
  check_pair(calm, attacked, all, names);
  check_cpu(calm, attacked, all);
  check_recovery(descriptors_before, connections_before);
  drain_held();
  std::uint64_t hits = 0;
  for (const Attack* attack : all) hits += attack->hits();
  return hits;
}

Arena::Measured Arena::measure(milliseconds duration, const std::vector<Attack*>& attacks) {
  Measured measured;
  pair_->begin_phase();
  const auto begin = steady_clock::now();
  const double cpu_before = test::cpu_seconds(pid_);
  const auto is_over = [&] {
    const auto passed = steady_clock::now() - begin;
    const bool all_done = std::all_of(attacks.begin(), attacks.end(), [](const Attack* attack) {
      return attack->done() || attack->hits() >= attack->hits_min();
    });
    return passed >= kAttackMax || (passed >= duration && (attacks.empty() || all_done));
  };
  while (!is_over()) {
    measured.rss_anon_bytes = std::max(measured.rss_anon_bytes, test::rss_anon_bytes(pid_));
    descriptors_highest_ = std::max(descriptors_highest_, test::descriptors(pid_));
    std::this_thread::sleep_for(kSample);
  }
  const std::chrono::duration<double> passed = steady_clock::now() - begin;
  measured.cpu_share = (test::cpu_seconds(pid_) - cpu_before) / passed.count();
  measured.pair = pair_->end_phase();
  return measured;
}

// ---- what is held ----

void Arena::fill_held() {
  for (std::uint32_t i = 0; i < kHeldMessages; ++i) {
    const std::string id = fmt::format("held-{}", ++held_number_);
    client_->publish_async(kHeldQueue, Message(id, held_body(id)), {});
  }
  must(client_->flush());
  const std::uint64_t held = must(client_->admin().queue(kHeldQueue)).messages;
  if (held != kHeldMessages) {
    checks_.check(false, fmt::format("{} messages of {} are held", held, kHeldMessages));
  }
}

void Arena::drain_held() {
  std::mutex mutex;
  std::set<std::string> missing;
  std::uint64_t wrong = 0;
  for (std::uint64_t i = held_number_ - kHeldMessages + 1; i <= held_number_; ++i) {
    missing.insert(fmt::format("held-{}", i));
  }
  ConsumeOptions options;
  options.prefetch = 256;
  Consumer consumer = must(client_->consume(kHeldQueue, options, [&](Delivery delivery) {
    const std::string id = delivery.message().id;
    {
      const std::lock_guard lock(mutex);
      if (missing.erase(id) == 0 || delivery.body() != held_body(id)) ++wrong;
    }
    delivery.ack_async();
  }));
  const auto deadline = steady_clock::now() + kPatience;
  std::uint64_t left = kHeldMessages;
  while (left > 0 && steady_clock::now() < deadline) {
    std::this_thread::sleep_for(milliseconds(5));
    broker_lives();
    left = must(client_->admin().queue(kHeldQueue)).messages;
  }
  consumer.stop();
  checks_.check(left == 0 && missing.empty() && wrong == 0,
                fmt::format("what was held from others came to a good consumer: {} of {}, {} wrong",
                            kHeldMessages - missing.size(), kHeldMessages, wrong));
}

// ---- the bounds ----

void Arena::check_memory(std::uint64_t before, const Measured& attacked,
                         const std::vector<Attack*>& attacks) {
  std::uint64_t bound = before + kMemorySlackBytes;
  for (const Attack* attack : attacks) bound += attack->memory_bytes_max();
  checks_.check(
      attacked.rss_anon_bytes <= bound,
      fmt::format("memory went from {:.1f} MB to {:.1f} MB, at most {:.1f} MB", megabytes(before),
                  megabytes(attacked.rss_anon_bytes), megabytes(bound)));
  if (before > kMemoryBytesMax) {
    checks_.check(false, fmt::format("between rounds it keeps {:.1f} MB, at most {:.1f} MB",
                                     megabytes(before), megabytes(kMemoryBytesMax)));
  }
}

void Arena::check_pair(const Measured& calm, const Measured& attacked,
                       const std::vector<Attack*>& attacks, const std::string& names) {
  double more_ms = 0;
  for (const Attack* attack : attacks) more_ms += static_cast<double>(attack->delay_max().count());
  const auto is_within = [&](const Latency& before, const Latency& now) {
    return now.p50 <= std::max(kMedianFactor * before.p50, kMedianMsMin) + more_ms &&
           now.p99 <= std::max(kTailFactor * before.p99, kTailMsMin) + more_ms;
  };
  const PairPhase& before = calm.pair;
  const PairPhase& now = attacked.pair;
  checks_.check(
      now.published > 0 && is_within(before.confirm, now.confirm) &&
          is_within(before.receipt, now.receipt),
      fmt::format("the pair's {} messages: confirm p50 {:.1f} ms ({:.1f} before), p99 {:.1f} "
                  "({:.1f}); receipt p50 {:.1f} ({:.1f}), p99 {:.1f} ({:.1f}); at most {} times "
                  "that or {} ms, {} times or {} ms{}",
                  now.published, now.confirm.p50, before.confirm.p50, now.confirm.p99,
                  before.confirm.p99, now.receipt.p50, before.receipt.p50, now.receipt.p99,
                  before.receipt.p99, kMedianFactor, kMedianMsMin, kTailFactor, kTailMsMin,
                  more_ms > 0 ? fmt::format(", and {} ms for the disk", more_ms) : ""));
  const std::vector<std::string> violations = pair_->violations();
  if (!violations.empty()) {
    checks_.check(false, fmt::format("the pair during {}: {}", names, violations.front()));
  }
}

void Arena::check_cpu(const Measured& calm, const Measured& attacked,
                      const std::vector<Attack*>& attacks) {
  // The others keep the broker busy by right.
  if (attacks.size() != 1 || !attacks.front()->is_idle()) return;
  checks_.check(
      attacked.cpu_share <= calm.cpu_share + kCpuShareMore,
      fmt::format("it does not spin: {:.2f} of a processor ({:.2f} before), at most {:.2f} "
                  "more",
                  attacked.cpu_share, calm.cpu_share, kCpuShareMore));
}

void Arena::check_recovery(std::size_t descriptors_before, std::uint32_t connections_before) {
  const auto deadline = steady_clock::now() + kPatience;
  std::size_t descriptors_now = 0;
  std::uint32_t connections_now = 0;
  do {
    std::this_thread::sleep_for(kSample);
    broker_lives();
    descriptors_now = test::descriptors(pid_);
    connections_now = must(client_->admin().status()).connections;
  } while ((descriptors_now > descriptors_before || connections_now != connections_before) &&
           steady_clock::now() < deadline);
  checks_.check(
      descriptors_now <= descriptors_before && connections_now == connections_before,
      fmt::format("afterwards it has {} descriptors and {} connections, {} and {} before",
                  descriptors_now, connections_now, descriptors_before, connections_before));
  const Result<Client> client = Client::connect(ClientOptions(target_.address));
  checks_.check(client.ok(), fmt::format("and takes new connections: {}",
                                         client.ok() ? "yes" : client.status().to_string()));
}

void Arena::finish() {
  pair_->stop();
  const std::vector<std::string> violations = pair_->violations();
  checks_.check(violations.empty(),
                violations.empty() ? "everything the pair was confirmed came, in order, and was "
                                     "acked once"
                                   : "the pair: " + violations.front());
  pair_.reset();
  client_.reset();
  const std::string text = log();
  const auto lines = std::count(text.begin(), text.end(), '\n');
  const auto seconds =
      std::chrono::duration_cast<std::chrono::seconds>(steady_clock::now() - started_at_).count();
  const auto lines_max = kLogLinesOther + kLogLinesOfPeers * (seconds / 10 + 1);
  checks_.check(lines <= lines_max,
                fmt::format("its log has {} lines, at most {} in {} s", lines, lines_max, seconds));
  const Status killed = broker_->kill();
  checks_.check(killed.ok(), killed.ok() ? "the broker ran until now" : killed.message());
}

}  // namespace holdfast::hostile
