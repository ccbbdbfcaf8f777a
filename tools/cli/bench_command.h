// holdfast bench: measures a broker, see bench/run.h.

#pragma once

#include "cli/arguments.h"

namespace holdfast::cli {

void add_bench_command(CLI::App& app, Action& action);

}  // namespace holdfast::cli
