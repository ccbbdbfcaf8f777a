#include "net/log.h"

#include <chrono>
#include <string>

#include "holdfast/text.h"

namespace holdfast::broker {

bool Log::peer_line_allowed(MonotonicTime now) {
  if (now - window_began_ >= kPeerWindow) {
    window_began_ = now;
    lines_in_window_ = 0;
    if (lines_left_out_ > 0) {
      write("info", fmt::format("{} more lines about connections were left out.", lines_left_out_));
      lines_left_out_ = 0;
    }
  }
  if (lines_in_window_ < kPeerLinesMax) {
    ++lines_in_window_;
    return true;
  }
  ++lines_left_out_;
  return false;
}

void Log::write(std::string_view level, std::string_view sentence) {
  if (out_ == nullptr) return;
  const std::string line =
      fmt::format("{} {:<7} {}\n", format_time(std::chrono::system_clock::now()), level, sentence);
  // One call a line, so that lines of several processes on one stderr stay whole.
  std::fwrite(line.data(), 1, line.size(), out_);
  std::fflush(out_);
}

}  // namespace holdfast::broker
