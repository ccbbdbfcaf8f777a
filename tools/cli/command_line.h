// The command line as a whole: options of all commands, the commands, help, and what is said when
// something is wrong with it.

#pragma once

#include <string>

#include "cli/command.h"
#include "cli/session.h"

namespace holdfast::cli {

struct CommandLine {
  // What to run; empty: print `text` and leave with `code`.
  Action action;
  SessionOptions options;
  ExitCode code = ExitCode::kDone;
  std::string text;  // the help, the version, or (code kUsage) a sentence for standard error
};

CommandLine parse_command_line(int argument_count, const char* const* arguments);

}  // namespace holdfast::cli
