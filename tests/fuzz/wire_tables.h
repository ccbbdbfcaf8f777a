// Every frame type and the table that its body holds.

#pragma once

#include "schema/frame.h"

namespace holdfast::fuzz {

// Calls `with` with a null pointer of the type of the table that frames of this type hold; false
// if they hold none: no body, or a message.
template <typename With>
bool with_table_of(wire::FrameType type, const With& with) {
  switch (type) {
#define HOLDFAST_TABLE(name)                       \
  case wire::FrameType_##name:                     \
    with(static_cast<const wire::name*>(nullptr)); \
    return true;
    HOLDFAST_TABLE(Hello)
    HOLDFAST_TABLE(Welcome)
    HOLDFAST_TABLE(Goodbye)
    HOLDFAST_TABLE(Error)
    HOLDFAST_TABLE(Confirm)
    HOLDFAST_TABLE(Subscribe)
    HOLDFAST_TABLE(Subscribed)
    HOLDFAST_TABLE(Unsubscribe)
    HOLDFAST_TABLE(Credit)
    HOLDFAST_TABLE(Settle)
    HOLDFAST_TABLE(Settled)
    HOLDFAST_TABLE(Extend)
    HOLDFAST_TABLE(Extended)
    HOLDFAST_TABLE(LeaseLost)
    HOLDFAST_TABLE(ConsumerEnded)
    HOLDFAST_TABLE(QueueOpen)
    HOLDFAST_TABLE(QueueCreate)
    HOLDFAST_TABLE(QueueEdit)
    HOLDFAST_TABLE(QueueDelete)
    HOLDFAST_TABLE(QueuePurge)
    HOLDFAST_TABLE(QueueList)
    HOLDFAST_TABLE(QueueInfo)
    HOLDFAST_TABLE(Peek)
    HOLDFAST_TABLE(ListEnd)
    HOLDFAST_TABLE(Redrive)
    HOLDFAST_TABLE(Discard)
    HOLDFAST_TABLE(Moved)
    HOLDFAST_TABLE(Attempts)
    HOLDFAST_TABLE(AttemptsInfo)
    HOLDFAST_TABLE(StatusInfo)
    HOLDFAST_TABLE(ConsumerList)
    HOLDFAST_TABLE(ConsumerInfo)
    HOLDFAST_TABLE(ConnectionInfo)
#undef HOLDFAST_TABLE
    default:
      return false;
  }
}

// Reads every byte that a table's accessors reach, and returns a sum of it.
std::uint64_t touch(wire::FrameType type, ByteSpan body);
std::uint64_t touch(const wire::Message& message);
std::uint64_t touch(const wire::Provenance& provenance);

// Not ok if a client cannot read the frame: its table does not verify, its message does not match
// its checksum.
Status check_readable(const Frame& frame);

}  // namespace holdfast::fuzz
