#include "store/committer.h"

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <optional>
#include <utility>

#include "base/check.h"

namespace holdfast::broker {

namespace {

using std::chrono::steady_clock;

constexpr std::chrono::milliseconds kSpaceRetryInterval{200};
constexpr std::chrono::seconds kSpaceLookInterval{1};
constexpr std::chrono::minutes kReaderCheckInterval{1};

}  // namespace

Committer::Committer(Environment* environment, Space* space, const ProgressRecord& progress)
    : environment_(environment), space_(space), progress_(progress) {}

void Committer::start(CommitterCallbacks callbacks) {
  CHECK(!thread_.joinable());
  callbacks_ = std::move(callbacks);
  thread_ = std::thread([this] { run(); });
}

void Committer::commit(std::unique_ptr<Batch> batch) {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    CHECK(mailbox_ == nullptr && !busy_, "batch {} before the last one was committed",
          batch->number);
    mailbox_ = std::move(batch);
  }
  // After the mutex is free, or the thread would wake only to wait for it.
  changed_.notify_one();
}

void Committer::stop() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    changed_.notify_one();
  }
  if (thread_.joinable()) thread_.join();
}

void Committer::run() {
  readers_checked_ = steady_clock::now();
  for (;;) {
    const std::unique_ptr<Batch> batch = wait_for_batch();
    if (batch != nullptr) {
      if (failed_) continue;
      commit_until_done(*batch);
      if (!failed_) space_->write_ahead();
      continue;
    }
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (stopping_) return;
    }
    if (!failed_) do_idle_work();
  }
}

std::unique_ptr<Batch> Committer::wait_for_batch() {
  const steady_clock::duration longest =
      publishes_refused_ ? steady_clock::duration(kSpaceLookInterval) : kReaderCheckInterval;
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait_for(lock, longest, [this] { return mailbox_ != nullptr || stopping_; });
  busy_ = mailbox_ != nullptr;
  return std::move(mailbox_);
}

void Committer::do_idle_work() {
  if (steady_clock::now() - readers_checked_ >= kReaderCheckInterval) {
    readers_checked_ = steady_clock::now();
    // A slot that stays taken only delays the reuse of free pages.
    static_cast<void>(environment_->check_readers().ok());
  }
  if (!publishes_refused_) return;
  if (const Outcome outcome = commit_nothing(); !outcome.ok()) {
    if (!means_full(outcome)) fail(outcome, progress_.batch_number);
    return;
  }
  Result<SpaceReport> measured = space_->measure_now();
  if (!measured) return;
  publishes_refused_ = !measured->publishes_allowed;
  if (callbacks_.space) callbacks_.space(std::move(*measured));
}

void Committer::commit_until_done(const Batch& batch) {
  CHECK(batch.number == progress_.batch_number + 1, "batch {} after {}", batch.number,
        progress_.batch_number);
  began_ = steady_clock::now();
  for (;;) {
    TrimsLeft left;
    Outcome outcome = try_commit(batch, &left);
    if (outcome.ok()) return;
    if (!means_full(outcome)) return fail(outcome, batch.number);
    if (!wait_for_space(outcome)) return;
    // What the last commits freed may be all the space there is.
    outcome = commit_nothing();
    if (!outcome.ok() && !means_full(outcome)) return fail(outcome, batch.number);
  }
}

#ifdef HOLDFAST_BREAK_CONFIRM_BEFORE_COMMIT

Outcome Committer::try_commit(const Batch& batch, TrimsLeft* left) {
  constexpr std::chrono::milliseconds kDelay{5};
  report_committed(batch, {});
  std::this_thread::sleep_for(kDelay);
  const Outcome outcome = write_and_commit(batch, left);
  if (outcome.ok()) waiting_for_space_ = false;
  return outcome;
}

#else

Outcome Committer::try_commit(const Batch& batch, TrimsLeft* left) {
  const Outcome outcome = write_and_commit(batch, left);
  if (outcome.ok()) {
    waiting_for_space_ = false;
    report_committed(batch, std::move(*left));
  }
  return outcome;
}

#endif

Outcome Committer::write_and_commit(const Batch& batch, TrimsLeft* left) {
  std::optional<Transaction> transaction;
  Outcome outcome = environment_->begin_write(&transaction);
  if (!outcome.ok()) return outcome;
  const std::uint32_t next_id = batch.next_id != 0 ? batch.next_id : progress_.next_id;
  outcome = writer_.apply(batch, next_id, &*transaction, left);
  if (outcome.ok()) outcome = transaction->commit();
  if (outcome.ok()) progress_ = {.batch_number = batch.number, .next_id = next_id};
  return outcome;
}

void Committer::report_committed(const Batch& batch, TrimsLeft left) {
  CommitResult result;
  result.number = batch.number;
  result.duration_us = static_cast<std::uint32_t>(
      std::chrono::duration_cast<std::chrono::microseconds>(steady_clock::now() - began_).count());
  result.blocks_left = std::move(left.blocks);
  result.dedup_left = std::move(left.dedup);
  Result<SpaceReport> measured = space_->measure(batch.bytes());
  if (measured) {
    result.space = std::move(*measured);
  } else {
    result.space.publishes_allowed = false;
    result.space.reason = measured.status().message();
  }
  publishes_refused_ = !result.space.publishes_allowed;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    busy_ = false;
  }
  callbacks_.committed(std::move(result));
}

Outcome Committer::commit_nothing() {
  std::optional<Transaction> transaction;
  Outcome outcome = environment_->begin_write(&transaction);
  if (!outcome.ok()) return outcome;
  const ByteSpan key = meta_key(ProgressRecord::kName);
  RecordEncoder encoder;
  outcome = transaction->put(Table::kMeta, key, encoder.encode(key, progress_));
  return outcome.ok() ? transaction->commit() : outcome;
}

// A short write is reported as an I/O error; with the disk full that is what it was.
bool Committer::means_full(const Outcome& outcome) const {
  return outcome.out_of_space() || (outcome.is_io_error() && space_->disk_nearly_full());
}

bool Committer::wait_for_space(const Outcome& outcome) {
  if (!waiting_for_space_) {
    waiting_for_space_ = true;
    fmt::print(
        stderr,
        "holdfast: the disk of {} is full ({}): commits wait until there is space. Free some "
        "on that disk.\n",
        environment_->data_file(), outcome.text());
  }
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait_for(lock, kSpaceRetryInterval, [this] { return stopping_; });
  return !stopping_;
}

void Committer::fail(const Outcome& outcome, std::uint64_t batch_number) {
  failed_ = true;
  callbacks_.fatal(Status(
      ErrorCode::kStorageFailed,
      fmt::format("Committing batch {} to {} failed: {}. What the disk holds is not known now; "
                  "check the disk, then start the broker again.",
                  batch_number, environment_->data_file(), outcome.text())));
}

}  // namespace holdfast::broker
