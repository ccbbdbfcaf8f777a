// Status and Result: errors as values.
//
// A Status is either ok or an ErrorCode with a sentence that names the thing, the value, the limit
// and what to do. A Result<T> is a T or such a Status. Both are [[nodiscard]]: an error that nobody
// looks at is a warning. Values may be copied and moved between threads; one object is not for two
// threads at a time.

#pragma once

#include <optional>
#include <string>
#include <utility>

#include "holdfast/error_code.h"

namespace holdfast {

class [[nodiscard]] Status {
 public:
  Status() = default;
  Status(ErrorCode code, std::string message) : code_(code), message_(std::move(message)) {}

  bool ok() const { return code_ == ErrorCode::kOk; }
  explicit operator bool() const { return ok(); }
  ErrorCode code() const { return code_; }
  // The sentence; empty when ok.
  const std::string& message() const { return message_; }
  bool retryable() const { return error_is_retryable(code_); }
  // "storage_full: The disk …", or "ok".
  std::string to_string() const {
    if (ok()) return "ok";
    return std::string(error_name(code_)) + ": " + message_;
  }

 private:
  ErrorCode code_ = ErrorCode::kOk;
  std::string message_;
};

template <typename T>
class [[nodiscard]] Result {
 public:
  Result(T value) : value_(std::move(value)) {}         // NOLINT(google-explicit-constructor)
  Result(Status status) : status_(std::move(status)) {  // NOLINT(google-explicit-constructor)
    if (status_.ok()) status_ = Status(ErrorCode::kInternal, "A Result was made of an ok Status.");
  }

  bool ok() const { return value_.has_value(); }
  explicit operator bool() const { return ok(); }
  const Status& status() const { return status_; }
  // Undefined unless ok().
  T& value() & { return *value_; }
  const T& value() const& { return *value_; }
  T&& value() && { return std::move(*value_); }
  T* operator->() { return &*value_; }
  const T* operator->() const { return &*value_; }
  T& operator*() & { return *value_; }
  const T& operator*() const& { return *value_; }
  T&& operator*() && { return std::move(*value_); }

 private:
  std::optional<T> value_;
  Status status_;
};

}  // namespace holdfast
