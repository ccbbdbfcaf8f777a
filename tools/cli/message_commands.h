// holdfast message send | receive | peek | get

#pragma once

#include "cli/arguments.h"

namespace holdfast::cli {

// Adds the commands to `app`; the one that was typed sets `action`, which outlives the parsing.
void add_message_commands(CLI::App& app, Action& action);

}  // namespace holdfast::cli
