// Messages as rows of a table, and as objects: the same for all commands that show them.

#pragma once

#include <vector>

#include "cli/output.h"
#include "holdfast/message.h"

namespace holdfast::cli {

// What a listing of messages shows: a peeked message its state, a dead letter why it died.
enum class MessageColumns { kDelivered, kPeeked, kDead };

void begin_messages(Output& output, MessageColumns columns);
void print_in_list(Output& output, MessageColumns columns, const StoredMessage& message);
// Alone, with everything that is known about it.
void print_message(Output& output, const StoredMessage& message, const AttemptsReport& attempts);

}  // namespace holdfast::cli
