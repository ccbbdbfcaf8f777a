// holdfast dlq ls | show | peek | redrive | discard | export
//
// A dead-letter queue is named by its queue or by its own name, NAME.dead.

#pragma once

#include "cli/command.h"

namespace holdfast::cli {

void add_dlq_commands(const Command& tool);

}  // namespace holdfast::cli
