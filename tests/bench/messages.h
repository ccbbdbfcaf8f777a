// What the benchmarks have in common: the messages they work on, and how these are counted.

#pragma once

#include <benchmark/benchmark.h>

#include <cstdint>
#include <string>
#include <vector>

#include "support/core_fixture.h"

namespace holdfast {

// A message with a body of this many bytes, and an id as long as those that the client library
// makes.
inline std::vector<std::uint8_t> message_with_body(std::int64_t body_bytes) {
  return broker::encode_test_message("0123456789abcdef0123456789",
                                     std::string(static_cast<std::size_t>(body_bytes), 'x'));
}

// Each iteration handled this many messages, of this many bytes in all. The time of one message is
// a counter of its own, because the time that Google Benchmark shows is that of an iteration.
inline void count_messages(benchmark::State& state, std::size_t messages, std::size_t bytes = 0) {
  const std::int64_t iterations = state.iterations();
  const std::int64_t count = iterations * static_cast<std::int64_t>(messages);
  state.SetItemsProcessed(count);
  if (bytes > 0) state.SetBytesProcessed(iterations * static_cast<std::int64_t>(bytes));
  state.counters["per_message"] = benchmark::Counter(
      static_cast<double>(count), benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
}

}  // namespace holdfast
