// holdfast queue create | ls | show | edit | rm | purge

#pragma once

#include "cli/command.h"

namespace holdfast::cli {

void add_queue_commands(const Command& tool);

}  // namespace holdfast::cli
