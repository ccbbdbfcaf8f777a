#include "cli/console.h"

#include <fmt/format.h>
#include <unistd.h>

#include <cerrno>

#include "base/standard_streams.h"
#include "holdfast/text.h"

namespace holdfast::cli {
namespace {

// A line from standard input without its end; longer ones than any name are cut.
std::string read_answer() {
  constexpr std::size_t kAnswerBytesMax = 4'096;
  std::string answer;
  char byte = 0;
  while (answer.size() < kAnswerBytesMax) {
    const ssize_t count = ::read(STDIN_FILENO, &byte, 1);
    if (count < 0 && errno == EINTR) continue;
    if (count <= 0 || byte == '\n') break;
    answer += byte;
  }
  return answer;
}

}  // namespace

void Console::note(std::string_view sentence) {
  if (options_.quiet) return;
  end_progress();
  write(fmt::format("{}\n", sentence));
}

void Console::error(std::string_view sentence) {
  end_progress();
  write(fmt::format("holdfast: {}\n", sentence));
}

void Console::error(const Status& status) { error(status.to_string()); }

void Console::progress(std::string_view label, std::uint64_t count) {
  constexpr std::chrono::milliseconds kInterval{100};
  if (options_.quiet || !options_.talk_is_terminal || options_.data_is_terminal) return;
  const auto now = std::chrono::steady_clock::now();
  if (progress_is_shown_ && now - progress_at_ < kInterval) return;
  progress_at_ = now;
  progress_is_shown_ = true;
  write(fmt::format("\r\x1b[K{}: {}", label, count));
}

void Console::end_progress() {
  if (!progress_is_shown_) return;
  progress_is_shown_ = false;
  write("\r\x1b[K");
}

Status Console::check_agreement(std::string_view action, bool agreed) const {
  if (agreed || (options_.input_is_terminal && options_.talk_is_terminal)) return Status();
  return Status(ErrorCode::kInvalidArgument,
                fmt::format("{} cannot be undone, and there is no terminal to ask on: add --yes if "
                            "you mean it.",
                            action));
}

Status Console::ask_for_name(std::string_view question, std::string_view name, bool agreed) {
  if (agreed) return Status();
  end_progress();
  write(fmt::format("{} This cannot be undone. Type the queue's name to go on: ", question));
  const std::string answer = read_answer();
  if (answer == name) return Status();
  return Status(ErrorCode::kInvalidArgument,
                fmt::format("{} is not {}: nothing was changed.", quoted(answer), quoted(name)));
}

void Console::write(std::string_view text) { write_to_standard_error(text); }

}  // namespace holdfast::cli
