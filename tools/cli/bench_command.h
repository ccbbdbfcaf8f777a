// holdfast bench: measures a broker, see bench/run.h.

#pragma once

#include "cli/command.h"

namespace holdfast::cli {

void add_bench_command(const Command& tool);

}  // namespace holdfast::cli
