// holdfast status, consumer ls, connection ls: looking at the broker itself.

#pragma once

#include "cli/command.h"

namespace holdfast::cli {

void add_broker_commands(const Command& tool);

}  // namespace holdfast::cli
