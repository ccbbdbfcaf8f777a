// holdfast message send | receive | peek | get

#pragma once

#include "cli/command.h"

namespace holdfast::cli {

void add_message_commands(const Command& tool);

}  // namespace holdfast::cli
