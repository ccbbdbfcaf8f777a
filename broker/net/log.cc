#include "net/log.h"

#include <poll.h>
#include <unistd.h>

#include <chrono>
#include <climits>
#include <string>

#include "holdfast/text.h"

namespace holdfast::broker {

bool Log::peer_line_allowed(MonotonicTime now) {
  tell_left_out(now);
  if (lines_in_window_ == 0) window_began_ = now;
  if (lines_in_window_ < kPeerLinesMax) {
    ++lines_in_window_;
    return true;
  }
  ++lines_left_out_;
  return false;
}

void Log::tell_left_out(MonotonicTime now) {
  if (now - window_began_ < kPeerWindow) return;
  lines_in_window_ = 0;
  if (const std::uint64_t left_out = std::exchange(lines_left_out_, 0); left_out > 0) {
    write("info", fmt::format("{} more lines about connections were left out.", left_out));
  }
}

void Log::write(std::string_view level, std::string_view sentence) {
  if (out_ == nullptr) return;
  if (lines_lost_ > 0 &&
      write_now("warning", fmt::format("{} lines were left out: nobody read the log, or it could "
                                       "not be written.",
                                       lines_lost_))) {
    lines_lost_ = 0;
  }
  if (lines_lost_ > 0 || !write_now(level, sentence)) ++lines_lost_;
}

bool Log::write_now(std::string_view level, std::string_view sentence) {
  std::string line = fmt::format("{}{} {:<7} {}", line_is_cut_ ? "\n" : "",
                                 format_time(std::chrono::system_clock::now()), level, sentence);
  // What a pipe takes whole if it takes anything.
  line.resize(cut_utf8(line, PIPE_BUF - 1).size());
  line += '\n';
  pollfd out{::fileno(out_), POLLOUT, 0};
  if (::poll(&out, 1, 0) != 1 || (out.revents & POLLOUT) == 0) return false;
  // One call a line, so that lines of several processes on one stderr stay whole.
  const ssize_t written = ::write(out.fd, line.data(), line.size());
  if (written == static_cast<ssize_t>(line.size())) {
    line_is_cut_ = false;
    return true;
  }
  // On a disk that is full a part of it may have been written.
  if (written > 0) line_is_cut_ = true;
  return false;
}

}  // namespace holdfast::broker
