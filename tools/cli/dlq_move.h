// Redriving and discarding dead letters, in steps that the broker does each in one transaction.

#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "cli/session.h"

namespace holdfast::cli {

enum class DeadMove { kRedrive, kDiscard };

// The dead-letter queue of `queue`, which may itself be one.
std::string dead_queue_name(std::string_view queue);

// Moves exactly these dead letters of the queue, or if `sequences` is empty all that were there
// when `dead_queue` was reported, and prints what happened. kPartly if some were moved and some
// were not; kInterrupted if an interrupt came before the last step.
ExitCode move_dead_letters(Session& session, DeadMove move, const QueueReport& dead_queue,
                           const std::vector<std::uint64_t>& sequences, bool dry_run);

}  // namespace holdfast::cli
