#include "cli/exit_code.h"

namespace holdfast::cli {

ExitCode exit_code_for(ErrorCode code) {
  switch (code) {
    case ErrorCode::kOk:
      return ExitCode::kDone;

    case ErrorCode::kInvalidArgument:
    case ErrorCode::kConfigInvalid:
      return ExitCode::kUsage;

    case ErrorCode::kQueueNotFound:
    case ErrorCode::kQueueExists:
    case ErrorCode::kMessageNotFound:
    case ErrorCode::kMessageTooLarge:
    case ErrorCode::kHeadersTooLarge:
    case ErrorCode::kMessageIdInvalid:
    case ErrorCode::kNameInvalid:
    case ErrorCode::kNotHeld:
    case ErrorCode::kConsumerNotFound:
    case ErrorCode::kOperationRefused:
    case ErrorCode::kMessageCorrupt:
    case ErrorCode::kNotSupported:
    case ErrorCode::kDirectoryForeign:
    case ErrorCode::kDirectoryNewer:
    case ErrorCode::kDirectoryReadOnly:
      return ExitCode::kData;

    case ErrorCode::kUnreachable:
    case ErrorCode::kConnectionLost:
    case ErrorCode::kVersionUnsupported:
    case ErrorCode::kFrameMalformed:  // no broker answers there, or the line damages what it says
    case ErrorCode::kFrameChecksum:
      return ExitCode::kUnreachable;

    case ErrorCode::kStorageFull:
    case ErrorCode::kQueueFull:
    case ErrorCode::kLimitReached:
    case ErrorCode::kDraining:
    case ErrorCode::kTimeout:
    case ErrorCode::kDeadlineExceeded:
    case ErrorCode::kTooManyConnections:
    case ErrorCode::kDirectoryLocked:
    case ErrorCode::kAddressInUse:
      return ExitCode::kTryAgain;

    case ErrorCode::kFrameTooLarge:
    case ErrorCode::kProtocolViolation:
    case ErrorCode::kSlowReader:
    case ErrorCode::kInternal:
    case ErrorCode::kStorageFailed:
    case ErrorCode::kCancelled:
      return ExitCode::kInternal;
  }
  return ExitCode::kInternal;
}

}  // namespace holdfast::cli
