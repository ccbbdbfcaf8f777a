// Which messages the blocks of a queue hold. Goes by their headers: no message is read, but for the
// sequences in blocks with gaps.

#pragma once

#include <vector>

#include "core/records.h"
#include "store/environment.h"

namespace holdfast::broker {

// Ascending, those that follow on each other as one range. A block whose header is damaged counts
// as holding everything up to the next one, or to before the queue's next sequence.
Result<std::vector<SequenceRange>> held_sequences(Transaction* transaction, QueueId queue,
                                                  Sequence next_sequence);

}  // namespace holdfast::broker
