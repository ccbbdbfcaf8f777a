// `holdfast diskcheck DIR`: see disk_check.h.

#pragma once

#include "cli/command.h"

namespace holdfast::cli {

void add_diskcheck_command(const Command& tool);

}  // namespace holdfast::cli
