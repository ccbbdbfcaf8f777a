// `holdfast diskcheck DIR`: see disk_check.h.

#pragma once

#include "cli/arguments.h"

namespace holdfast::cli {

void add_diskcheck_command(CLI::App& app, Action& action);

}  // namespace holdfast::cli
