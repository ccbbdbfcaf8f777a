// Publishes lines one after the other without waiting for each, and reports them in their order.
//
// Happy path: send() hands a line to the client; the client's I/O thread notes its confirm in the
// line's slot; a reporting thread takes the slots from the front as soon as they are answered, and
// prints them; finish() waits until all are.
//
// Failures: a line that is refused by itself (too large, a wrong id) is reported, the next ones go
// on. A failure that would meet every line (no such queue, a full disk) ends the sending: send()
// returns false. If nothing is confirmed for the session's timeout, the connection is given up, and
// of what waits for its confirm nobody knows whether it is stored; before that it is noted when the
// connection is lost, and when it stands again.
//
// Limits: at most kWindow lines are unreported at a time, send() waits for room.

#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <deque>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "cli/session.h"

namespace holdfast::cli {

class LineSender {
 public:
  static constexpr std::size_t kWindow = 16'384;

  // The session is connected, and its output in a list.
  LineSender(Session& session, std::string queue);
  ~LineSender();
  LineSender(const LineSender&) = delete;
  LineSender& operator=(const LineSender&) = delete;

  // False: no further line makes sense.
  bool send(std::uint64_t line_number, const Message& message);
  // A line that cannot be sent at all.
  bool refuse(std::uint64_t line_number, const Status& status);

  struct Outcome {
    std::uint64_t stored = 0;
    std::uint64_t duplicates = 0;  // of those
    std::uint64_t refused = 0;     // not stored
    std::uint64_t not_known = 0;   // whether they are stored
    ErrorCode first_failure = ErrorCode::kOk;
  };
  // Waits for what is under way. Called once; nothing may be sent after it.
  Outcome finish();

 private:
  struct Slot {
    std::uint64_t line_number = 0;
    std::optional<Result<PublishReceipt>> result;
  };
  // Lines that failed for the same reason, one after the other.
  struct FailedRun {
    std::uint64_t first_line = 0;
    std::uint64_t last_line = 0;
    Status status;
  };

  // Takes a slot at the end; null if no further line makes sense.
  Slot* take_slot(std::uint64_t line_number);
  void answer(Slot& slot, Result<PublishReceipt> result);
  void report_all();
  bool is_ready() const;
  // False: the timeout is over. Notes what happens to the connection meanwhile.
  bool wait_for_answer(std::unique_lock<std::mutex>& lock);
  void note_connection();
  void report(const Slot& slot);
  void report_failure(std::uint64_t line_number, const Status& status);
  void print_failed_run();

  Session& session_;
  const std::string queue_;

  std::mutex mutex_;  // guards the slots and the three flags
  std::condition_variable changed_;
  std::deque<Slot> slots_;  // references stay valid while others are added and taken at the ends
  bool is_finished_ = false;
  bool is_hopeless_ = false;
  bool is_given_up_ = false;

  // The reporting thread's, until it is joined.
  Outcome outcome_;
  std::optional<FailedRun> failed_run_;
  bool is_connected_ = true;  // as last noted
  std::thread reporter_;
};

}  // namespace holdfast::cli
