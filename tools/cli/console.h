// Standard error and the person behind it: notes, errors, progress, questions. Data goes to
// standard output, see output.h.
//
// Limits: one thread at a time.

#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>

#include "holdfast/status.h"

namespace holdfast::cli {

class Console {
 public:
  struct Options {
    bool quiet = false;  // errors only
    bool input_is_terminal = false;
    bool talk_is_terminal = false;  // standard error
    bool data_is_terminal = false;  // standard output
  };
  explicit Console(Options options) : options_(options) {}
  ~Console() { end_progress(); }
  Console(const Console&) = delete;
  Console& operator=(const Console&) = delete;

  bool input_is_terminal() const { return options_.input_is_terminal; }

  // A sentence; silent when quiet.
  void note(std::string_view sentence);
  // "holdfast: SENTENCE", always.
  void error(std::string_view sentence);
  // "holdfast: CODE: SENTENCE".
  void error(const Status& status);

  // Shows "LABEL: COUNT" in one line that the next call overwrites, at most ten times a second;
  // only on a terminal that does not show the data too, and not when quiet.
  void progress(std::string_view label, std::uint64_t count);
  void end_progress();

  // Before something is destroyed: that there is a way to ask, or `agreed` (--yes).
  // kInvalidArgument naming the flag otherwise.
  Status check_agreement(std::string_view action, bool agreed) const;
  // Asks for the queue's name unless `agreed`. kInvalidArgument if another answer came.
  Status ask_for_name(std::string_view question, std::string_view name, bool agreed);

 private:
  void write(std::string_view text);

  Options options_;
  bool progress_is_shown_ = false;
  std::chrono::steady_clock::time_point progress_at_;
};

}  // namespace holdfast::cli
