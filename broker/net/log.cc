#include "net/log.h"

#include <ctime>
#include <string>

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
  timespec time{};
  clock_gettime(CLOCK_REALTIME, &time);
  tm utc{};
  gmtime_r(&time.tv_sec, &utc);
  const std::string line = fmt::format(
      "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z {:<7} {}\n", utc.tm_year + 1900, utc.tm_mon + 1,
      utc.tm_mday, utc.tm_hour, utc.tm_min, utc.tm_sec, time.tv_nsec / 1'000'000, level, sentence);
  // One call a line, so that lines of several processes on one stderr stay whole.
  std::fwrite(line.data(), 1, line.size(), out_);
  std::fflush(out_);
}

}  // namespace holdfast::broker
