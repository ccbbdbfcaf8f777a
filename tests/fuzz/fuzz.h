// What the fuzz targets share: bytes to choose by, a bound on the time that an input may take, and
// a way to say what is wrong with it.
//
// A target is a function that libFuzzer calls with millions of inputs. It checks what must hold for
// every input and ends the process by violation() where it does not; AddressSanitizer and
// UndefinedBehaviorSanitizer look at the rest.

#pragma once

#include <fmt/format.h>
#include <time.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <span>
#include <string_view>

#include "schema/frame.h"

namespace holdfast::fuzz {

[[noreturn]] inline void violation(std::string_view what) {
  fmt::print(stderr, "VIOLATION: {}\n", what);
  std::fflush(stderr);
  std::abort();
}

// Takes an input apart, from its front; zeroes when it is used up.
class Input {
 public:
  Input(const std::uint8_t* bytes, std::size_t size) : rest_(bytes, size) {}

  bool empty() const { return rest_.empty(); }
  ByteSpan rest() const { return rest_; }
  ByteSpan take(std::size_t size) {
    const ByteSpan taken = rest_.first(std::min(size, rest_.size()));
    rest_ = rest_.subspan(taken.size());
    return taken;
  }
  template <typename Number = std::uint8_t>
  Number number() {
    const ByteSpan bytes = take(sizeof(Number));
    Number value = 0;
    if (!bytes.empty()) std::memcpy(&value, bytes.data(), bytes.size());
    return value;
  }
  // 0 to bound - 1; bound is 1 to 256.
  std::size_t below(std::size_t bound) { return number() % bound; }
  bool once_in(std::size_t count) { return below(count) == count - 1; }

 private:
  ByteSpan rest_;
};

// Bytes at an aligned address, with nothing around them that belongs to somebody: a read beyond
// them is seen.
class AlignedCopy {
 public:
  explicit AlignedCopy(ByteSpan bytes)
      : bytes_(new std::uint8_t[bytes.size()]), size_(bytes.size()) {
    if (size_ > 0) std::memcpy(bytes_.get(), bytes.data(), size_);
  }
  ByteSpan span() const { return {bytes_.get(), size_}; }
  std::uint8_t* data() { return bytes_.get(); }

 private:
  std::unique_ptr<std::uint8_t[]> bytes_;
  std::size_t size_;
};

// An input may cost a tenth of a second, and a second for each megabyte of it, of processor time
// under the sanitizers, which make it about ten times as slow.
class TimeBound {
 public:
  explicit TimeBound(std::size_t input_bytes) : bytes_(input_bytes), began_ns_(now_ns()) {}
  ~TimeBound() {
    const std::int64_t limit_ns = 100'000'000 + static_cast<std::int64_t>(bytes_) * 1'000;
    const std::int64_t took_ns = now_ns() - began_ns_;
    if (took_ns <= limit_ns) return;
    violation(fmt::format("time: {} bytes took {} ms of processor time; the limit is {}", bytes_,
                          took_ns / 1'000'000, limit_ns / 1'000'000));
  }
  TimeBound(const TimeBound&) = delete;
  TimeBound& operator=(const TimeBound&) = delete;

 private:
  static std::int64_t now_ns() {
    timespec time{};
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return time.tv_sec * std::int64_t{1'000'000'000} + time.tv_nsec;
  }

  const std::size_t bytes_;
  const std::int64_t began_ns_;
};

}  // namespace holdfast::fuzz
