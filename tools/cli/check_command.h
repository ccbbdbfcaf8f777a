// holdfast check DIR: reads a data directory that no broker has open, and reports what is wrong in
// it.

#pragma once

#include "cli/arguments.h"

namespace holdfast::cli {

// Adds the command to `app`; if it was typed it sets `action`, which outlives the parsing.
void add_check_command(CLI::App& app, Action& action);

}  // namespace holdfast::cli
