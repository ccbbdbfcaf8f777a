#include "full/trial.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstring>
#include <stdexcept>
#include <thread>

#include "support/process.h"

namespace holdfast::full {

namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr std::chrono::seconds kPatience{60};
// A drain in which nothing at all was delivered for so long stands still.
constexpr std::chrono::seconds kStandstill{10};
constexpr milliseconds kLook{50};
// A round of publishing at once that stores fewer than this ends the filling but for single ones.
constexpr std::uint64_t kFewTaken = 32;
// Few messages are settled on the full disk, so that it stays full: at most some 64 KiB where they
// are small, and four of the large ones. A restart takes publishes while there is room for 64 KiB,
// and a quarter of the reserve, a thirty-second of the disk, may have been left before.
constexpr std::uint64_t kSettledBytesMax = 64 * 1024;
constexpr std::uint64_t kRoomBytesMax = kDiskBytes / 32 + 4 * 65'536;
// What may stay of a filling when everything is settled: records of the ids until they are trimmed,
// pages of the trees that held it, the free list itself.
constexpr std::uint64_t kLeftBytesMax = kDiskBytes / 16;
constexpr std::uint64_t kOneWaitsOf = 100;

}  // namespace

TrialDirectory::TrialDirectory(const TrialPlan& plan)
    : path_(std::filesystem::temp_directory_path() /
            fmt::format("holdfast-full-{}-{}-{}", ::getpid(), disk_kind_name(plan.disk),
                        plan.body_bytes)) {
  std::filesystem::remove_all(path_);
  std::filesystem::create_directories(path_);
}

TrialDirectory::~TrialDirectory() {
  std::error_code ignored;
  if (!keep_) std::filesystem::remove_all(path_, ignored);
}

Trial::Trial(const TrialPlan& plan, test::Checks& checks)
    : plan_(plan),
      checks_(checks),
      random_(plan.seed),
      directory_(plan),
      disk_(plan.disk, directory_.path()),
      broker_(plan.broker, directory_.path(), crash::free_port(plan.seed),
              disk_.broker_arguments()) {}

Trial::~Trial() {
  client_.reset();
  if (broker_.running()) static_cast<void>(broker_.kill().ok());
}

void Trial::run() {
  fmt::print("-- {} of {:.1f} MB, messages of {} bytes, seed {}\n", disk_kind_name(plan_.disk),
             static_cast<double>(disk_.bytes()) / 1e6, plan_.body_bytes, plan_.seed);
  if (!disk_.substitution().empty()) {
    fmt::print("{}: a quota of 32 MiB stands in for it.\n", disk_.substitution());
  }
  std::fflush(stdout);
  const int failed_before = checks_.failed();
  try {
    steps();
  } catch (const std::runtime_error& error) {
    checks_.check(false, error.what());
  }
  client_.reset();
  if (broker_.running()) {
    const Status killed = broker_.kill();
    if (!killed.ok()) checks_.check(false, killed.message());
  }
  if (checks_.failed() == failed_before) return;
  directory_.keep();
  fmt::print("What the broker said is in {}.\n", (directory_.path() / "broker.log").string());
}

void Trial::steps() {
  begin();
  fill("first", share_of_new_store());
  settle_some();
  kill_while_settling();
  still_full();
  drain();
  resume("resumed");
  pages_are_free("between");
  // Less after much deleting here and there: what is free lies in pieces, which on a disk as small
  // as this count. Of 204 such fillings one took 13 %, the others 27 to 86; with a quota of 768 MiB
  // it was 84 to 91.
  fill("second", 0.05);
  drain();
  discard_dead_letters();
  pages_are_free("end");

  kill();
  for (const auto& entry : std::filesystem::directory_iterator(broker_.data_directory())) {
    std::filesystem::remove_all(entry.path());
  }
  begin();
  fill("anew", share_of_new_store());
  retries_hold_no_space();
  pages_are_free("last");
  fill("rejected", 0.05);
  rejects_leave_room();
}

// docs/STORAGE.md: more than four fifths. Beside small messages their ids take space, too.
double Trial::share_of_new_store() const { return plan_.body_bytes < 1'000 ? 0.75 : 0.8; }

// ---- the broker ----

void Trial::begin() {
  start();
  // A short window, so that the ids of a filling are gone when pages are counted.
  must(client_->admin().create_queue(
      "q", {{"dedup-window", 1'000}, {"backoff-min", 1}, {"backoff-max", 1}, {"max-attempts", 0}}));
  store_bytes_empty_ = must(client_->admin().status()).store_bytes;
}

void Trial::start() {
  must(broker_.start());
  must(broker_.wait_ready(std::chrono::seconds(30)));
  ClientOptions options(broker_.address());
  options.timeout = std::chrono::seconds(20);
  // A broker that ends is seen at once.
  options.reconnect = false;
  options.unconfirmed_bytes_max = 1u << 20;
  client_.emplace(must(Client::connect(options)));
  pid_ = static_cast<pid_t>(must(client_->admin().status()).pid);
}

void Trial::kill() {
  client_.reset();
  must(broker_.kill());
}

void Trial::must(const Status& status) const {
  if (status.ok()) return;
  std::string sentence = "The trial cannot go on: " + status.to_string();
  if (pid_ > 0 && test::has_ended(pid_)) sentence += " The broker has ended by itself.";
  throw std::runtime_error(sentence);
}

// ---- filling ----

std::string Trial::body_of(const std::string& id) const {
  crash::Random random(plan_.seed ^ crash::hash_text(id));
  std::string body(plan_.body_bytes, '\0');
  for (std::size_t at = 0; at < body.size(); at += sizeof(std::uint64_t)) {
    const std::uint64_t bits = random.next();
    std::memcpy(body.data() + at, &bits, std::min(sizeof bits, body.size() - at));
  }
  return body;
}

std::uint32_t Trial::few() const {
  return std::clamp(static_cast<std::uint32_t>(kSettledBytesMax / plan_.body_bytes), 2u, 40u);
}

Result<PublishReceipt> Trial::publish(const std::string& id) {
  Result<PublishReceipt> receipt = client_->publish_future("q", Message(id, body_of(id))).get();
  published(id, receipt);
  return receipt;
}

void Trial::published(const std::string& id, const Result<PublishReceipt>& receipt) {
  const std::lock_guard lock(mutex_);
  if (receipt.ok()) {
    refused_.erase(id);
    owed_[id] = receipt->sequence;
    if (receipt->duplicate) wrong_.push_back(id + " was called a duplicate and was not");
  } else if (receipt.status().code() == ErrorCode::kStorageFull) {
    refused_.insert(id);
  } else {
    wrong_.push_back(fmt::format("{} was refused: {}", id, receipt.status().to_string()));
  }
}

// Publishes until the broker refuses, with at least this share of the disk in messages.
void Trial::fill(const std::string& prefix, double share_min) {
  std::uint64_t confirmed = 0;
  // What was on its way was refused while it counted against the room; so again and again, and then
  // one at a time.
  for (std::uint64_t round = 0, taken = kFewTaken; taken >= kFewTaken; ++round) {
    taken = fill_at_once(fmt::format("{}-{}", prefix, round));
    confirmed += taken;
  }
  confirmed += fill_one_by_one(prefix);
  checks_.check(
      !refused_.empty() && wrong_.empty(),
      fmt::format("publishes are refused with storage_full after {} messages", confirmed));
  const double share = static_cast<double>(must(client_->admin().queue("q")).bytes) /
                       static_cast<double>(disk_.bytes());
  checks_.check(share > share_min,
                fmt::format("messages take {:.0f} % of the disk, more than {:.0f} %", share * 100,
                            share_min * 100));
  // Publishes are refused altogether when room is below 64 KiB; a message of 64 KiB and its header
  // may be too large for the room while a smaller one would not be.
  if (plan_.body_bytes < 65'000) {
    checks_.check(!must(client_->admin().status()).publishes_allowed, "the status says so");
  }
}

std::uint64_t Trial::fill_at_once(const std::string& prefix) {
  const std::size_t before = owed_.size();
  const std::size_t refused_before = refused_.size();
  const std::uint64_t most = 2 * disk_.bytes() / plan_.body_bytes;
  for (std::uint64_t i = 0; i < most; ++i) {
    const std::string id = fmt::format("{}-{}", prefix, i);
    client_->publish_async(
        "q", Message(id, body_of(id)),
        [this, id](const Result<PublishReceipt>& receipt) { published(id, receipt); });
    const std::lock_guard lock(mutex_);
    if (refused_.size() > refused_before || !wrong_.empty()) break;
  }
  must(client_->flush());
  return owed_.size() - before;
}

// Until the first one that is refused.
std::uint64_t Trial::fill_one_by_one(const std::string& prefix) {
  const std::uint64_t most = disk_.bytes() / plan_.body_bytes;
  for (std::uint64_t i = 0; i < most; ++i) {
    const Result<PublishReceipt> receipt = publish(fmt::format("{}-alone-{}", prefix, i));
    if (receipt.ok()) continue;
    if (receipt.status().code() != ErrorCode::kStorageFull) must(receipt.status());
    return i;
  }
  return most;
}

// ---- on the full disk ----

// Acks and moves to the dead-letter queue go on while new messages are refused.
void Trial::settle_some() {
  std::uint64_t acked = 0;
  std::vector<Delivery> deliveries =
      must(client_->receive("q", few(), std::chrono::seconds(30), std::chrono::minutes(5)));
  for (std::size_t i = 0; i < deliveries.size(); ++i) {
    const std::string id = deliveries[i].message().id;
    owed_.erase(id);
    if (i % 2 == 0) {
      must(deliveries[i].reject("set aside on a full disk"));
      dead_.insert(id);
    } else {
      must(deliveries[i].ack());
      acked_.insert(id);
      ++acked;
    }
  }
  const QueueReport report = must(client_->admin().queue("q"));
  checks_.check(
      acked > 0 && report.dead == dead_.size() && report.messages == owed_.size(),
      fmt::format("on the full disk {} messages were acked and {} went to the dead-letter "
                  "queue",
                  acked, dead_.size()));
}

// The acks that were answered are final; of the others nobody knows.
void Trial::kill_while_settling() {
  std::vector<Delivery> deliveries =
      must(client_->receive("q", few(), std::chrono::seconds(30), std::chrono::minutes(5)));
  for (Delivery& delivery : deliveries) ack(delivery);
  std::this_thread::sleep_for(std::chrono::microseconds(random_.below(800)));
  must(broker_.kill());
  client_.reset();
  fmt::print("        killed with {} acks asked for, {} of them not answered\n", deliveries.size(),
             unsure_.size());
  start();
}

// What was settled made room for as much.
void Trial::still_full() {
  const std::uint64_t bytes = fill_one_by_one("while-full") * plan_.body_bytes;
  checks_.check(bytes <= kRoomBytesMax,
                fmt::format("after SIGKILL and a restart publishes are refused after {} bytes, at "
                            "most {}",
                            bytes, kRoomBytesMax));
}

// ---- draining ----

void Trial::drain() {
  const std::size_t wanted = owed_.size();
  // Half of the drains are killed somewhere in the middle.
  if (wanted > 10 && random_.once_in(2)) {
    const std::size_t left = random_.below(wanted);
    consume_until([this, left] { return owed_.size() <= left; });
    kill();
    start();
  }
  consume_until([this] { return owed_.size() <= unsure_.size() && unsure_.empty(); });
  // Those that did not come were acked by what was not answered.
  for (const std::string& id : unsure_) owed_.erase(id);
  unsure_.clear();
  for (std::size_t i = 0; i < wrong_.size() && i < 5; ++i) fmt::print("        {}\n", wrong_[i]);
  const bool drained = owed_.empty() && wrong_.empty();
  checks_.check(drained,
                fmt::format("everything confirmed was drained and acked: {} of {}, {} wrong",
                            wanted - owed_.size(), wanted, wrong_.size()));
  // As the disk holds it.
  kill();
  start();
  compare();
  // What follows would wait for the pages of what is left.
  if (!drained) throw std::runtime_error("a drain that went wrong ends the trial");
}

void Trial::consume_until(const std::function<bool()>& enough) {
  ConsumeOptions options;
  options.prefetch = 512;
  options.lease = std::chrono::minutes(5);
  Consumer consumer =
      must(client_->consume("q", options, [this](Delivery delivery) { ack(delivery); }));
  wait_while_delivered(consumer, enough);
  consumer.stop();
}

void Trial::wait_while_delivered(const Consumer& consumer, const std::function<bool()>& enough) {
  std::uint64_t delivered = 0;
  auto deadline = steady_clock::now() + kStandstill;
  while (steady_clock::now() < deadline) {
    {
      const std::lock_guard lock(mutex_);
      if (enough() || !wrong_.empty()) break;
      if (delivered_ != delivered) deadline = steady_clock::now() + kStandstill;
      delivered = delivered_;
    }
    must(consumer.status());
    // What is unsure need not come: an empty queue ends the waiting, too.
    if (must(client_->admin().queue("q")).messages == 0) break;
    std::this_thread::sleep_for(kLook);
  }
}

// Checks what came, and acks it. Of an ack without an answer nobody knows.
void Trial::ack(Delivery& delivery) {
  const std::string id = delivery.message().id;
  {
    const std::lock_guard lock(mutex_);
    ++delivered_;
    const auto found = owed_.find(id);
    if (found == owed_.end()) {
      const char* const why = acked_.contains(id)     ? "was acked before"
                              : dead_.contains(id)    ? "was rejected before"
                              : refused_.contains(id) ? "was refused"
                                                      : "was never published";
      wrong_.push_back(fmt::format("{} came and {}", id, why));
    } else if (found->second != delivery.message().sequence || delivery.body() != body_of(id)) {
      wrong_.push_back(fmt::format("{} came with another sequence or body", id));
    }
    unsure_.insert(id);
  }
  delivery.ack_async([this, id](const Status& status) {
    const std::lock_guard lock(mutex_);
    if (!status.ok()) return;
    unsure_.erase(id);
    owed_.erase(id);
    acked_.insert(id);
  });
}

void Trial::compare() {
  const QueueReport report = must(client_->admin().queue("q"));
  checks_.check(
      report.messages == 0 && report.bytes == 0 && report.in_flight == 0 && report.waiting == 0 &&
          report.dead == dead_.size() && report.corrupt == 0,
      fmt::format("after SIGKILL and a restart the queue is empty: {} messages, {} bytes, "
                  "{} dead",
                  report.messages, report.bytes, report.dead));
}

// ---- afterwards ----

void Trial::resume(const std::string& id) {
  const auto deadline = steady_clock::now() + kPatience;
  Result<PublishReceipt> receipt = publish(id);
  while (!receipt.ok() && steady_clock::now() < deadline) {
    if (receipt.status().code() != ErrorCode::kStorageFull) must(receipt.status());
    std::this_thread::sleep_for(kLook);
    receipt = publish(id);
  }
  checks_.check(receipt.ok() && !receipt->duplicate, "publishing resumes by itself");
}

// A backlog is drained but for one message in a hundred, which waits for its retry.
void Trial::retries_hold_no_space() {
  {
    ConsumeOptions options;
    options.prefetch = 512;
    options.lease = std::chrono::minutes(5);
    Consumer consumer = must(client_->consume("q", options, [this](Delivery delivery) {
      if (delivery.message().sequence % kOneWaitsOf != 0) return ack(delivery);
      must(delivery.nack("later", std::chrono::hours(1)));
      const std::lock_guard lock(mutex_);
      ++delivered_;
      waiting_.insert(delivery.message().id);
    }));
    wait_while_delivered(consumer, [this] { return owed_.size() <= waiting_.size(); });
    consumer.stop();
  }
  const QueueReport report = must(client_->admin().queue("q"));
  checks_.check(report.waiting == waiting_.size() && report.messages == waiting_.size(),
                fmt::format("all but {} messages of {} bytes are settled; these wait",
                            report.waiting, plan_.body_bytes));
  resume("beside-retries");
  must(client_->admin().purge_queue("q"));
  owed_.clear();
}

// Dead letters take more than the messages that they were: all of them would be more than the
// reserve has.
void Trial::rejects_leave_room() {
  const std::uint64_t messages = must(client_->admin().queue("q")).messages;
  std::atomic<std::uint64_t> rejected = 0;
  {
    ConsumeOptions options;
    options.prefetch = 512;
    options.lease = std::chrono::minutes(5);
    Consumer consumer = must(client_->consume("q", options, [&rejected](Delivery delivery) {
      delivery.reject_async(std::string(1'000, 'r'));
      ++rejected;
    }));
    for (std::uint64_t before = messages + 1; before != rejected.load();) {
      before = rejected.load();
      std::this_thread::sleep_for(10 * kLook);
    }
    consumer.stop();
  }
  const std::uint64_t dead = must(client_->admin().queue("q")).dead;
  const Result<std::uint64_t> purged = client_->admin().purge_queue("q");
  checks_.check(purged.ok() && rejected > 0,
                fmt::format("of {} messages {} were rejected on the full disk, {} of them became "
                            "dead letters, and a purge finds room",
                            messages, rejected.load(), dead));
  if (!purged.ok()) return;
  owed_.clear();
  MoveReport moved = must(client_->admin().discard_all("q", 0, 256));
  while (moved.next != 0) moved = must(client_->admin().discard_all("q", 0, 256));
  resume("after-rejects");
}

void Trial::discard_dead_letters() {
  std::size_t found = 0;
  for (const StoredMessage& letter : must(client_->admin().peek("q.dead", 1'000)).messages) {
    if (dead_.contains(letter.id) && letter.body == body_of(letter.id)) ++found;
  }
  checks_.check(found == dead_.size(),
                "every message that was set aside is in the dead-letter queue");
  const MoveReport report = must(client_->admin().discard_all("q", 0, 256));
  checks_.check(report.moved == dead_.size(), "and can be discarded");
}

// Ids leave their window by the second, and their records a few with each commit.
void Trial::pages_are_free(const std::string& prefix) {
  const auto deadline = steady_clock::now() + kPatience;
  std::uint64_t grown = kDiskBytes;
  for (std::uint64_t i = 0; grown > kLeftBytesMax && steady_clock::now() < deadline; ++i) {
    const Result<PublishReceipt> receipt = publish(fmt::format("{}-{}", prefix, i));
    if (receipt.ok()) {
      for (Delivery& delivery : must(client_->receive("q", 8, std::chrono::seconds(5)))) {
        must(delivery.ack());
        owed_.erase(delivery.message().id);
        acked_.insert(delivery.message().id);
      }
    } else if (receipt.status().code() != ErrorCode::kStorageFull) {
      must(receipt.status());
    } else {
      std::this_thread::sleep_for(kLook);
    }
    const std::uint64_t used = must(client_->admin().status()).store_bytes;
    grown = used - std::min(used, store_bytes_empty_);
  }
  checks_.check(grown <= kLeftBytesMax,
                fmt::format("its pages are free again: {} bytes more in use than before the first "
                            "message, at most {}",
                            grown, kLeftBytesMax));
}

}  // namespace holdfast::full
