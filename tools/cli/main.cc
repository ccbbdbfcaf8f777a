// The command-line tool: joins its parts, runs one command, leaves with its exit code.

#include <fmt/format.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <algorithm>
#include <csignal>
#include <cstdio>
#include <cstdlib>

#include "base/standard_streams.h"
#include "cli/command_line.h"
#include "cli/console.h"
#include "cli/exit_code.h"
#include "cli/interrupt.h"
#include "cli/output.h"
#include "cli/session.h"

namespace {

// Of a terminal its own; elsewhere wide enough for most tables.
std::size_t table_width() {
  constexpr std::size_t kWidthElsewhere = 120;
  constexpr std::size_t kWidthMin = 40;
  winsize size{};
  if (::ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_col == 0) return kWidthElsewhere;
  return std::max<std::size_t>(size.ws_col, kWidthMin);
}

}  // namespace

int main(int argument_count, char** arguments) {
  using namespace holdfast::cli;
  const holdfast::Status streams = holdfast::hold_standard_streams();
  // A reader that goes away shows as a failed write, so that what was not seen is not settled.
  std::signal(SIGPIPE, SIG_IGN);
  const CommandLine line = parse_command_line(argument_count, arguments);
  Output output(line.options.format, STDOUT_FILENO, table_width());
  Console console({.quiet = line.options.quiet,
                   .input_is_terminal = ::isatty(STDIN_FILENO) == 1,
                   .talk_is_terminal = ::isatty(STDERR_FILENO) == 1,
                   .data_is_terminal = ::isatty(STDOUT_FILENO) == 1});
  if (!streams.ok()) {
    console.error(streams);
    return static_cast<int>(ExitCode::kInternal);
  }
  if (!line.action) {
    if (line.code == ExitCode::kUsage) {
      console.error(line.text);
    } else {
      output.text(line.text);
      if (!output.flush() && !output.pipe_is_closed()) {
        console.error(output.status());
        return static_cast<int>(exit_code_for(output.status().code()));
      }
    }
    return static_cast<int>(line.code);
  }
  ExitCode code = ExitCode::kDone;
  {
    Session session(line.options, output, console);
    code = line.action(session);
  }
  if (output.pipe_is_closed()) {
    console.end_progress();
    // As every tool in a pipeline ends, once what was held has been given back.
    std::signal(SIGPIPE, SIG_DFL);
    std::raise(SIGPIPE);
  }
  if (code == ExitCode::kInterrupted) end_by_interrupt();
  // At an ordinary end libuv waits for its threads: a name that nobody answers for may be looked up
  // longer than --timeout.
  std::fflush(nullptr);
  std::_Exit(static_cast<int>(code));
}
