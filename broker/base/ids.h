// Identifiers that cannot be mixed up: each is its own type around a number, 0 meaning "none".

#pragma once

#include <compare>
#include <cstdint>
#include <functional>

namespace holdfast {

template <typename Tag, typename Number>
struct Id {
  Number value = 0;

  constexpr Id() = default;
  constexpr explicit Id(Number number) : value(number) {}
  constexpr explicit operator bool() const { return value != 0; }
  constexpr auto operator<=>(const Id&) const = default;
};

using QueueId = Id<struct QueueTag, std::uint32_t>;                // durable, never reused
using SubscriptionId = Id<struct SubscriptionTag, std::uint32_t>;  // durable, never reused
using SessionId = Id<struct SessionTag, std::uint64_t>;            // one connection, one broker run
using ConsumerId = Id<struct ConsumerTag, std::uint64_t>;          // one broker run
using FetchId = Id<struct FetchTag, std::uint64_t>;                // one broker run

// A message's position in its queue, from 1, never reused. A plain number because ranges of
// sequences are reckoned with everywhere.
using Sequence = std::uint64_t;

}  // namespace holdfast

template <typename Tag, typename Number>
struct std::hash<holdfast::Id<Tag, Number>> {
  std::size_t operator()(const holdfast::Id<Tag, Number>& id) const noexcept {
    return std::hash<Number>()(id.value);
  }
};
