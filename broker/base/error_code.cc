#include "holdfast/error_code.h"

namespace holdfast {

std::string_view error_name(ErrorCode code) {
  switch (code) {
    case ErrorCode::kOk:
      return "ok";
    case ErrorCode::kInvalidArgument:
      return "invalid_argument";
    case ErrorCode::kQueueNotFound:
      return "queue_not_found";
    case ErrorCode::kQueueExists:
      return "queue_exists";
    case ErrorCode::kMessageNotFound:
      return "message_not_found";
    case ErrorCode::kMessageTooLarge:
      return "message_too_large";
    case ErrorCode::kHeadersTooLarge:
      return "headers_too_large";
    case ErrorCode::kMessageIdInvalid:
      return "message_id_invalid";
    case ErrorCode::kNameInvalid:
      return "name_invalid";
    case ErrorCode::kNotHeld:
      return "not_held";
    case ErrorCode::kConsumerNotFound:
      return "consumer_not_found";
    case ErrorCode::kLimitReached:
      return "limit_reached";
    case ErrorCode::kOperationRefused:
      return "operation_refused";
    case ErrorCode::kMessageCorrupt:
      return "message_corrupt";
    case ErrorCode::kNotSupported:
      return "not_supported";
    case ErrorCode::kFrameMalformed:
      return "frame_malformed";
    case ErrorCode::kFrameTooLarge:
      return "frame_too_large";
    case ErrorCode::kFrameChecksum:
      return "frame_checksum";
    case ErrorCode::kVersionUnsupported:
      return "version_unsupported";
    case ErrorCode::kProtocolViolation:
      return "protocol_violation";
    case ErrorCode::kDeadlineExceeded:
      return "deadline_exceeded";
    case ErrorCode::kSlowReader:
      return "slow_reader";
    case ErrorCode::kStorageFull:
      return "storage_full";
    case ErrorCode::kQueueFull:
      return "queue_full";
    case ErrorCode::kDraining:
      return "draining";
    case ErrorCode::kTimeout:
      return "timeout";
    case ErrorCode::kConnectionLost:
      return "connection_lost";
    case ErrorCode::kUnreachable:
      return "unreachable";
    case ErrorCode::kTooManyConnections:
      return "too_many_connections";
    case ErrorCode::kInternal:
      return "internal";
    case ErrorCode::kStorageFailed:
      return "storage_failed";
    case ErrorCode::kDirectoryLocked:
      return "directory_locked";
    case ErrorCode::kDirectoryForeign:
      return "directory_foreign";
    case ErrorCode::kDirectoryNewer:
      return "directory_newer";
    case ErrorCode::kDirectoryReadOnly:
      return "directory_read_only";
    case ErrorCode::kConfigInvalid:
      return "config_invalid";
    case ErrorCode::kAddressInUse:
      return "address_in_use";
    case ErrorCode::kCancelled:
      return "cancelled";
  }
  return "unknown";
}

bool error_is_retryable(ErrorCode code) {
  switch (code) {
    case ErrorCode::kStorageFull:
    case ErrorCode::kQueueFull:
    case ErrorCode::kDraining:
    case ErrorCode::kTimeout:
    case ErrorCode::kConnectionLost:
    case ErrorCode::kUnreachable:
    case ErrorCode::kTooManyConnections:
    case ErrorCode::kLimitReached:
      return true;
    default:
      return false;
  }
}

}  // namespace holdfast
