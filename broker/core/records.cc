#include "core/records.h"

namespace holdfast::broker {

namespace {
// Of an ended attempt, its texts aside; an estimate.
constexpr std::size_t kAttemptBytes = 40;
}  // namespace

std::size_t retry_record_bytes(std::span<const AttemptRecord> history) {
  std::size_t bytes = kRecordBytes;
  for (const AttemptRecord& attempt : history) {
    bytes += kAttemptBytes + attempt.consumer.size() + attempt.error.size();
  }
  return bytes;
}

}  // namespace holdfast::broker
