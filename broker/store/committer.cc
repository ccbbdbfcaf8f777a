#include "store/committer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <chrono>
#include <limits>
#include <optional>
#include <utility>

#include "base/check.h"
#include "store/file.h"

namespace holdfast::broker {

namespace {

using std::chrono::steady_clock;

constexpr std::chrono::milliseconds kSpaceRetryInterval{200};
constexpr std::chrono::seconds kSpaceLookInterval{1};
// Counting tens of millions of free pages takes a while, in which a batch has to wait: so many
// times as long it is not done again.
constexpr int kSpaceLookPause = 20;
// A larger batch goes to the tables at once: its bytes cost more than a flush.
constexpr std::size_t kJournaledBytesMax = 256 * 1024;

std::size_t bytes_of(const Batches& batches) {
  std::size_t bytes = 0;
  for (const std::unique_ptr<Batch>& batch : batches) bytes += batch->bytes();
  return bytes;
}

}  // namespace

Committer::Committer(const CommitterParts& parts, const ProgressRecord& progress, OwnerSums owners)
    : environment_(parts.environment),
      space_(parts.space),
      journal_(parts.journal),
      journaled_(parts.journaled),
      catch_up_interval_(parts.catch_up_interval),
      reader_check_interval_(parts.reader_check_interval),
      progress_(progress),
      table_progress_(progress),
      writer_(std::move(owners)),
      publishes_refused_(!parts.space->publishes_allowed()) {}

void Committer::start(CommitterCallbacks callbacks) {
  CHECK(!thread_.joinable());
  callbacks_ = std::move(callbacks);
  thread_ = std::thread([this] { run(); });
}

void Committer::commit(Batches batches) {
  CHECK(!batches.empty());
  {
#ifndef HOLDFAST_BREAK_UNGUARDED_MAILBOX
    const std::lock_guard<std::mutex> lock(mutex_);
#endif
    CHECK(failed_ || (mailbox_.empty() && !busy_), "batch {} before the last one was committed",
          batches.front()->number);
    mailbox_ = std::move(batches);
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
    const Batches batches = wait_for_batches();
    if (!failed_) check_files();
    if (!batches.empty()) {
      if (!failed_) commit_until_done(batches);
      continue;
    }
    bool stopping = false;
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stopping = stopping_;
    }
    if (!failed_ && catching_up_due()) commit_to_tables({});
    if (stopping) {
      catching_up_.reset();  // a transaction ends on its thread
      return;
    }
    if (!failed_) do_idle_work();
  }
}

Batches Committer::wait_for_batches() {
  steady_clock::duration longest = reader_check_interval_;
  if (look_due()) longest = kSpaceLookInterval;
  if (catching_up_due()) longest = catch_up_interval_;
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait_for(lock, longest, [this] { return !mailbox_.empty() || stopping_; });
  busy_ = !mailbox_.empty();
  return std::exchange(mailbox_, {});
}

void Committer::do_idle_work() {
  if (steady_clock::now() - readers_checked_ >= reader_check_interval_) {
    readers_checked_ = steady_clock::now();
    // A slot that stays taken only delays the reuse of free pages.
    static_cast<void>(environment_->check_readers().ok());
  }
  if (look_due() && steady_clock::now() >= next_look_) look_at_space();
}

void Committer::look_at_space() {
  next_look_ = steady_clock::now() + kSpaceLookInterval;
  if (publishes_refused_ || (space_->is_short() && freed_up_to_ != table_progress_.batch_number)) {
    if (const Outcome outcome = commit_nothing(); !outcome.ok()) {
      if (!means_full(outcome)) fail(outcome, progress_.batch_number);
      return;
    }
    freed_up_to_ = table_progress_.batch_number;
  }
  const steady_clock::time_point began = steady_clock::now();
  Result<SpaceReport> measured = space_->measure_now(bytes_changed_);
  const steady_clock::time_point ended = steady_clock::now();
  next_look_ = std::max(next_look_, ended + kSpaceLookPause * (ended - began));
  if (!measured) return;
  publishes_refused_ = !measured->publishes_allowed;
  if (callbacks_.space) callbacks_.space(std::move(*measured));
}

void Committer::check_files() {
  const bool has_data = !is_removed(environment_->file_descriptor());
  if (has_data && (journal_ == nullptr || !is_removed(journal_->file_descriptor()))) return;
  fail(Status(
      ErrorCode::kStorageFailed,
      fmt::format("{} {} was removed under the running broker, and what was confirmed since "
                  "is lost with it. Restore the whole data directory from a backup, or "
                  "remove what is left of it to begin with an empty one.",
                  has_data ? "The journal beside" : "The data file", environment_->data_file())));
}

#ifdef HOLDFAST_BREAK_CONFIRM_BEFORE_COMMIT

void Committer::commit_until_done(const Batches& batches) {
  constexpr std::chrono::milliseconds kDelay{5};
  began_ = steady_clock::now();
  const std::uint64_t number = batches.back()->number;
  report_committed(number, bytes_of(batches), {});
  std::this_thread::sleep_for(kDelay);
  TrimsLeft left;
  if (const Outcome outcome = try_commit_to_tables(batches, &left); !outcome.ok()) {
    fail(outcome, number);
  }
}

#else

void Committer::commit_until_done(const Batches& batches) {
  began_ = steady_clock::now();
  const Batch& first = *batches.front();
  const bool is_journaled =
      batches.size() == 1 && is_for_journal(first) && commit_to_journal(first);
  if (!is_journaled) commit_to_tables(batches);
}

#endif

bool Committer::is_for_journal(const Batch& batch) const {
  return journal_ != nullptr && batch.bytes() <= kJournaledBytesMax &&
         batch.bytes() <= journal_->bytes_max() / 4 && batch.block_trims.empty() &&
         bytes_changed_ <= 2 * journal_->bytes_max() && space_->is_ample();
}

// Returns false if it is the tables' after all.
bool Committer::commit_to_journal(const Batch& batch) {
  CHECK(batch.number == progress_.batch_number + 1, "batch {} after {}", batch.number,
        progress_.batch_number);
  entry_.begin(batch.number);
  ProgressRecord progress = progress_;
  Outcome outcome = writer_.write(batch, &progress, &entry_);
  CHECK(outcome.ok(), "batch {} for the journal: {}", batch.number, outcome.text());
  if (!journal_->fits(entry_)) return false;
  outcome = journal_->append(&entry_);
  // On a file system that writes everything to a new place, the disk may be full even here. An
  // error of the device is one: this file has all its bytes.
  if (outcome.out_of_space()) return false;
  if (!outcome.ok()) {
    fail(outcome, batch.number);
    return true;
  }
  progress_ = progress;
  journaled_->add(batch);
  // Only the tables tell what is left of a trim.
  const bool is_told_by_tables = !batch.dedup_trims.empty();
  if (!is_told_by_tables) report_committed(batch.number, batch.bytes(), {});
  TrimsLeft left;
  outcome = catch_up(batch, &left);
  if (!outcome.ok()) {
    fail(outcome, batch.number);
  } else if (is_told_by_tables) {
    if (!catching_up_) {
      for (const DedupTrim& trim : batch.dedup_trims) left.dedup.push_back(trim.queue);
    }
    report_committed(batch.number, batch.bytes(), std::move(left));
  }
  return true;
}

// An error is one that every further try would meet, as would a start, which does the same.
Outcome Committer::catch_up(const Batch& batch, TrimsLeft* left) {
  if (!catching_up_) {
    // The last transaction was given up: the next commit to the tables begins anew.
    if (batch.number != table_progress_.batch_number + 1) return Outcome();
    if (!environment_->begin_write(&catching_up_).ok()) return Outcome();
  }
  TableWriter tables(&*catching_up_, left);
  ProgressRecord progress = progress_;
  const Outcome outcome = writer_.write(batch, &progress, &tables);
  if (!outcome.ok()) catching_up_.reset();
  bytes_changed_ += tables.bytes_changed();
  return means_full(outcome) || outcome.out_of_memory() ? Outcome() : outcome;
}

Outcome Committer::catch_up_anew() {
  Outcome outcome = environment_->begin_write(&catching_up_);
  if (!outcome.ok() || !catching_up_due()) return outcome;
  TrimsLeft left;
  TableWriter tables(&*catching_up_, &left);
  const Journal::Replayed replayed =
      journal_->replay(table_progress_.batch_number, progress_.batch_number, &tables);
  if (!replayed.outcome.ok()) return replayed.outcome;
  return replayed.last_batch == progress_.batch_number ? Outcome() : Outcome(EIO);
}

void Committer::commit_to_tables(const Batches& batches) {
  const std::uint64_t number = batches.empty() ? progress_.batch_number : batches.back()->number;
  for (;;) {
    TrimsLeft left;
    Outcome outcome = try_commit_to_tables(batches, &left);
    if (outcome.ok()) {
      if (!batches.empty()) report_committed(number, bytes_of(batches), std::move(left));
      waiting_for_space_ = false;
      return;
    }
    if (!means_full(outcome)) return fail(outcome, number);
    if (!wait_for_space(outcome)) return;
    // What the last commits freed may be all the space there is.
    outcome = commit_nothing();
    if (!outcome.ok() && !means_full(outcome)) return fail(outcome, number);
  }
}

Outcome Committer::try_commit_to_tables(const Batches& batches, TrimsLeft* left) {
  Outcome outcome = catching_up_ ? Outcome() : catch_up_anew();
  ProgressRecord progress = progress_;
  for (const std::unique_ptr<Batch>& batch : batches) {
    if (!outcome.ok()) break;
    CHECK(batch->number == progress.batch_number + 1, "batch {} after {}", batch->number,
          progress.batch_number);
    TableWriter tables(&*catching_up_, left);
    outcome = writer_.write(*batch, &progress, &tables);
  }
  if (outcome.ok()) outcome = journaled_->commit(&*catching_up_);
  catching_up_.reset();
  if (!outcome.ok()) return outcome;
  progress_ = table_progress_ = progress;
  if (journal_ != nullptr) journal_->clear();
  bytes_changed_ = 0;
  environment_->extend_file();
  return outcome;
}

void Committer::report_committed(std::uint64_t number, std::size_t bytes, TrimsLeft left) {
  CommitResult result;
  result.number = number;
  const auto duration =
      std::chrono::duration_cast<std::chrono::microseconds>(steady_clock::now() - began_);
  result.duration_us = static_cast<std::uint32_t>(
      std::min<std::int64_t>(duration.count(), std::numeric_limits<std::uint32_t>::max()));
  result.blocks_left = std::move(left.blocks);
  result.dedup_left = std::move(left.dedup);
  // What was counted while it waited is of before all that was journaled.
  Result<SpaceReport> measured = waiting_for_space_ ? space_->measure_now(bytes_changed_)
                                                    : space_->measure(bytes, bytes_changed_);
  if (measured) {
    result.space = std::move(*measured);
  } else {
    result.space.publishes_allowed = result.space.retries_allowed = false;
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
  outcome = transaction->put(Table::kMeta, key, encoder.encode(key, table_progress_));
  return outcome.ok() ? transaction->commit() : outcome;
}

// A short write is reported as an I/O error; with the disk full that is what it was.
bool Committer::means_full(const Outcome& outcome) const {
  return outcome.out_of_space() || (outcome.is_io_error() && space_->disk_nearly_full());
}

bool Committer::wait_for_space(const Outcome& outcome) {
  if (!waiting_for_space_) {
    waiting_for_space_ = true;
    report_waiting(outcome);
  }
  std::unique_lock<std::mutex> lock(mutex_);
  changed_.wait_for(lock, kSpaceRetryInterval, [this] { return stopping_; });
  return !stopping_;
}

void Committer::report_waiting(const Outcome& outcome) {
  publishes_refused_ = true;
  if (!callbacks_.space) return;
  SpaceReport report;
  if (Result<SpaceReport> measured = space_->measure_now(bytes_changed_))
    report = std::move(*measured);
  report.publishes_allowed = report.retries_allowed = false;
  report.commits_wait = true;
  report.room_bytes = report.reserve_room_bytes = 0;
  report.reason = fmt::format(
      "The disk of {} is full ({}): commits wait until there is space. Free some on "
      "that disk.",
      environment_->data_file(), outcome.text());
  callbacks_.space(std::move(report));
}

void Committer::fail(const Outcome& outcome, std::uint64_t batch_number) {
  fail(Status(
      ErrorCode::kStorageFailed,
      fmt::format("Committing batch {} to {} failed: {}. What the disk holds is not known now; "
                  "check the disk, then start the broker again.",
                  batch_number, environment_->data_file(), outcome.text())));
}

void Committer::fail(Status status) {
  failed_ = true;
  callbacks_.fatal(std::move(status));
}

}  // namespace holdfast::broker
