// The broker's log: lines on stderr, each with UTC time, level and a sentence with its values.
//
//   2026-05-01T12:00:00.123Z info    Listening on 127.0.0.1:7411.
//
// Nothing is logged per message. What happens per connection is logged through peer(), which lets a
// burst pass and then counts instead: a port scan must not fill a disk. A line that would have to
// wait, because nobody reads what is at the other end, is left out and counted, too: it must not
// hold up the broker. So is one that cannot be written, as on a full disk.
//
// Belongs to one thread, the loop's (main's before the loop runs).

#pragma once

#include <fmt/format.h>

#include <cstdint>
#include <cstdio>
#include <string_view>
#include <utility>

#include "base/clock.h"

namespace holdfast::broker {

class Log {
 public:
  // `out` outlives the log. Null: nothing is written.
  explicit Log(std::FILE* out) : out_(out) {}
  Log(const Log&) = delete;
  Log& operator=(const Log&) = delete;

  template <typename... Args>
  void info(fmt::format_string<Args...> format, Args&&... args) {
    write("info", fmt::format(format, std::forward<Args>(args)...));
  }
  template <typename... Args>
  void warning(fmt::format_string<Args...> format, Args&&... args) {
    write("warning", fmt::format(format, std::forward<Args>(args)...));
  }
  template <typename... Args>
  void error(fmt::format_string<Args...> format, Args&&... args) {
    write("error", fmt::format(format, std::forward<Args>(args)...));
  }
  // About one connection: at most kPeerLinesMax lines in kPeerWindow, the rest is counted.
  template <typename... Args>
  void peer(MonotonicTime now, fmt::format_string<Args...> format, Args&&... args) {
    if (peer_line_allowed(now)) write("info", fmt::format(format, std::forward<Args>(args)...));
  }

  // Tells of those, once their window is over.
  void tell_left_out(MonotonicTime now);

  static constexpr std::uint64_t kPeerLinesMax = 20;
  static constexpr Milliseconds kPeerWindow{10'000};

 private:
  bool peer_line_allowed(MonotonicTime now);
  void write(std::string_view level, std::string_view sentence);
  // Returns false if it would have to wait, or is not written as a whole.
  bool write_now(std::string_view level, std::string_view sentence);

  std::FILE* out_;
  MonotonicTime window_began_;
  std::uint64_t lines_in_window_ = 0;
  std::uint64_t lines_left_out_ = 0;
  std::uint64_t lines_lost_ = 0;
  bool line_is_cut_ = false;  // the last one that was begun
};

}  // namespace holdfast::broker
