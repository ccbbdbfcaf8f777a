// The error codes of Holdfast: stable numbers and names, the same on the wire, in the client
// library, on the command line and in the logs. A code's number and name never change and are never
// reused; new ones are added at the end of their group.

#pragma once

#include <cstdint>
#include <string_view>

namespace holdfast {

enum class ErrorCode : std::uint16_t {
  kOk = 0,

  // The request is wrong: the same request fails again, but for kLimitReached, which may pass.
  kInvalidArgument = 1,
  kQueueNotFound = 2,
  kQueueExists = 3,
  kMessageNotFound = 4,
  kMessageTooLarge = 5,
  kHeadersTooLarge = 6,
  kMessageIdInvalid = 7,
  kNameInvalid = 8,
  kNotHeld = 9,  // settling or extending a delivery that this consumer does not hold
  kConsumerNotFound = 10,
  kLimitReached = 11,      // a configured number of queues, consumers, … is used up
  kOperationRefused = 12,  // e.g. publishing to a dead-letter queue
  kMessageCorrupt = 13,    // a checksum of a message does not match its bytes
  kNotSupported = 14,      // a field or frame that this version does not act upon

  // The conversation is broken: the broker closes the connection.
  kFrameMalformed = 20,
  kFrameTooLarge = 21,
  kFrameChecksum = 22,
  kVersionUnsupported = 23,
  kProtocolViolation = 24,  // a well-formed frame at the wrong time
  kDeadlineExceeded = 25,   // handshake, frame or heartbeat deadline missed
  kSlowReader = 26,         // the peer does not read what it is sent

  // Trying again later makes sense.
  kStorageFull = 40,
  kQueueFull = 41,
  kDraining = 42,
  kTimeout = 43,
  kConnectionLost = 44,
  kUnreachable = 45,
  kTooManyConnections = 46,

  // The installation or the broker itself.
  kInternal = 60,
  kStorageFailed = 61,
  kDirectoryLocked = 62,
  kDirectoryForeign = 63,
  kDirectoryNewer = 64,
  kDirectoryReadOnly = 65,
  kConfigInvalid = 66,
  kAddressInUse = 67,
  kCancelled = 68,  // the client object was closed while the call was waiting
};

// The stable name, e.g. "storage_full"; "unknown" for a number that this version does not know.
std::string_view error_name(ErrorCode code);

// Whether the same request may succeed later without anyone changing it.
bool error_is_retryable(ErrorCode code);

}  // namespace holdfast
