// holdfast check DIR: reads a data directory that no broker has open, and reports what is wrong in
// it.

#pragma once

#include "cli/command.h"

namespace holdfast::cli {

void add_check_command(const Command& tool);

}  // namespace holdfast::cli
