// What `holdfast` exits with: one mapping from error codes, in one place.

#pragma once

#include "holdfast/error_code.h"

namespace holdfast::cli {

enum class ExitCode : int {
  kDone = 0,
  kNothing = 1,       // nothing was received, or a check found something
  kPartly = 3,        // some of what was asked is done, some is not
  kUsage = 64,        // the command line is wrong
  kData = 65,         // no such queue or message, or data that is refused
  kUnreachable = 69,  // the broker cannot be reached
  kInternal = 70,
  kTryAgain = 75,      // full, draining, timed out
  kInterrupted = 130,  // the process is to end by the signal that interrupted it
};

ExitCode exit_code_for(ErrorCode code);

}  // namespace holdfast::cli
