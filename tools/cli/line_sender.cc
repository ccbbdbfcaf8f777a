#include "cli/line_sender.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "cli/json_form.h"

namespace holdfast::cli {
namespace {

// How long nothing is confirmed before it looks whether the connection stands.
constexpr std::chrono::milliseconds kLookInterval{500};

// Whether only this message is refused, not every one.
bool concerns_one_message(ErrorCode code) {
  switch (code) {
    case ErrorCode::kMessageTooLarge:
    case ErrorCode::kHeadersTooLarge:
    case ErrorCode::kMessageIdInvalid:
    case ErrorCode::kMessageCorrupt:
    case ErrorCode::kInvalidArgument:
      return true;
    default:
      return false;
  }
}

// Whether the message may be stored all the same.
bool leaves_unknown(ErrorCode code) {
  return code == ErrorCode::kTimeout || code == ErrorCode::kConnectionLost;
}

}  // namespace

LineSender::LineSender(Session& session, std::string queue)
    : session_(session), queue_(std::move(queue)), reporter_([this] { report_all(); }) {}

LineSender::~LineSender() {
  if (reporter_.joinable()) finish();
}

LineSender::Slot* LineSender::take_slot(std::uint64_t line_number) {
  std::unique_lock lock(mutex_);
  changed_.wait(lock, [this] { return slots_.size() < kWindow || is_hopeless_; });
  if (is_hopeless_) return nullptr;
  if (slots_.empty()) changed_.notify_all();  // its time begins to run
  return &slots_.emplace_back(Slot{line_number, std::nullopt});
}

bool LineSender::send(std::uint64_t line_number, const Message& message) {
  Slot* slot = take_slot(line_number);
  if (slot == nullptr) return false;
  session_.client().publish_async(queue_, message, [this, slot](Result<PublishReceipt> result) {
    answer(*slot, std::move(result));
  });
  return true;
}

bool LineSender::refuse(std::uint64_t line_number, const Status& status) {
  Slot* slot = take_slot(line_number);
  if (slot == nullptr) return false;
  answer(*slot, status);
  return true;
}

void LineSender::answer(Slot& slot, Result<PublishReceipt> result) {
  const std::lock_guard lock(mutex_);
  if (!result.ok() && !concerns_one_message(result.status().code())) is_hopeless_ = true;
  slot.result = std::move(result);
  // Under the lock: the one who waits may be done with this, and destroy it, as soon as it is free.
  changed_.notify_all();
}

LineSender::Outcome LineSender::finish() {
  {
    const std::lock_guard lock(mutex_);
    is_finished_ = true;
  }
  changed_.notify_all();
  reporter_.join();
  print_failed_run();
  return outcome_;
}

// Without an answer to wait for there is nothing to lose patience with: only a front slot that
// stays unanswered for the whole timeout counts as stalled.
void LineSender::report_all() {
  std::unique_lock lock(mutex_);
  for (;;) {
    if (!is_ready()) {
      lock.unlock();
      if (!session_.output().flush()) {
        const std::lock_guard guard(mutex_);
        is_hopeless_ = true;
      }
      changed_.notify_all();
      lock.lock();
    }
    const bool is_waiting = !slots_.empty() && !is_given_up_;
    if (!is_waiting) {
      changed_.wait(lock, [this] { return is_ready() || (!slots_.empty() && !is_given_up_); });
    } else if (!wait_for_answer(lock)) {
      is_given_up_ = true;
      is_hopeless_ = true;
      lock.unlock();
      session_.client().close();  // answers everything with kCancelled
      changed_.notify_all();
      lock.lock();
      continue;
    }
    if (slots_.empty()) {
      if (is_finished_) return;
      continue;
    }
    if (!slots_.front().result.has_value()) continue;
    const Slot slot = std::move(slots_.front());
    slots_.pop_front();
    lock.unlock();
    changed_.notify_all();
    report(slot);
    lock.lock();
  }
}

bool LineSender::is_ready() const {
  return slots_.empty() ? is_finished_ : slots_.front().result.has_value();
}

bool LineSender::wait_for_answer(std::unique_lock<std::mutex>& lock) {
  using std::chrono::steady_clock;
  const auto deadline = steady_clock::now() + session_.options().timeout;
  for (;;) {
    const auto look_at = std::min(deadline, steady_clock::now() + kLookInterval);
    if (changed_.wait_until(lock, look_at, [this] { return is_ready(); })) return true;
    if (steady_clock::now() >= deadline) return false;
    lock.unlock();
    note_connection();
    lock.lock();
  }
}

void LineSender::note_connection() {
  const Status status = session_.client().connection_status();
  if (status.ok() == is_connected_) return;
  is_connected_ = status.ok();
  session_.console().note(is_connected_ ? "Connected again."
                                        : fmt::format("{} Trying again.", status.message()));
}

void LineSender::report(const Slot& slot) {
  if (!is_connected_) note_connection();
  if (!slot.result->ok()) {
    report_failure(slot.line_number, slot.result->status());
    return;
  }
  print_failed_run();
  const PublishReceipt& receipt = slot.result->value();
  ++outcome_.stored;
  if (receipt.duplicate) ++outcome_.duplicates;
  Output& output = session_.output();
  if (output.is_table()) {
    output.row({fmt::format("{}", receipt.sequence), receipt.duplicate ? "yes" : "no", receipt.id});
  } else {
    output.object(receipt_json(queue_, receipt));
  }
  session_.console().progress("Lines stored", outcome_.stored);
}

void LineSender::report_failure(std::uint64_t line_number, const Status& status) {
  Status shown = status;
  if (status.code() == ErrorCode::kCancelled) {
    shown = Status(ErrorCode::kTimeout,
                   "No confirm came in time. Whether it is stored is not known; the same id again "
                   "would be stored once.");
  }
  ++(leaves_unknown(shown.code()) ? outcome_.not_known : outcome_.refused);
  if (outcome_.first_failure == ErrorCode::kOk) outcome_.first_failure = shown.code();
  const bool goes_on = failed_run_ && failed_run_->last_line + 1 == line_number &&
                       failed_run_->status.code() == shown.code();
  if (goes_on) {
    failed_run_->last_line = line_number;
    return;
  }
  print_failed_run();
  failed_run_ = FailedRun{line_number, line_number, std::move(shown)};
}

void LineSender::print_failed_run() {
  if (!failed_run_) return;
  const FailedRun& run = *failed_run_;
  const std::string lines = run.first_line == run.last_line
                                ? fmt::format("line {}", run.first_line)
                                : fmt::format("lines {} to {}", run.first_line, run.last_line);
  session_.console().error(fmt::format("{}: {}", lines, run.status.to_string()));
  failed_run_.reset();
}

}  // namespace holdfast::cli
