// holdfast dlq ls | show | peek | redrive | discard | export
//
// A dead-letter queue is named by its queue or by its own name, NAME.dead.

#pragma once

#include "cli/arguments.h"

namespace holdfast::cli {

// Adds the commands to `app`; the one that was typed sets `action`, which outlives the parsing.
void add_dlq_commands(CLI::App& app, Action& action);

}  // namespace holdfast::cli
