#include "message_id.h"

#include <sys/random.h>

#include <array>
#include <chrono>

#include "base/check.h"

namespace holdfast::client {

namespace {

constexpr std::string_view kAlphabet = "0123456789ABCDEFGHJKMNPQRSTVWXYZ";
constexpr std::size_t kTimeChars = 10;  // 50 bits hold the 48 of the time

std::uint64_t unix_ms() {
  const auto since_epoch = std::chrono::system_clock::now().time_since_epoch();
  return static_cast<std::uint64_t>(
      std::chrono::duration_cast<std::chrono::milliseconds>(since_epoch).count());
}

}  // namespace

MessageIdSource::MessageIdSource() {
  std::array<unsigned char, sizeof(start_high_) + sizeof(start_low_)> random{};
  const ssize_t got = getrandom(random.data(), random.size(), 0);
  CHECK(got == static_cast<ssize_t>(random.size()), "getrandom returned {}", got);
  std::memcpy(&start_high_, random.data(), sizeof(start_high_));
  std::memcpy(&start_low_, random.data() + sizeof(start_high_), sizeof(start_low_));
}

std::string MessageIdSource::next() {
  const std::uint64_t count = count_.fetch_add(1, std::memory_order_relaxed);
  unsigned __int128 number =
      (static_cast<unsigned __int128>(start_high_) << 64 | start_low_) + count;
  std::uint64_t time = unix_ms();
  std::string id(kMessageIdChars, '0');
  for (std::size_t at = kTimeChars; at-- > 0; time >>= 5) id[at] = kAlphabet[time & 31];
  for (std::size_t at = kMessageIdChars; at-- > kTimeChars; number >>= 5) {
    id[at] = kAlphabet[static_cast<std::size_t>(number & 31)];
  }
  return id;
}

}  // namespace holdfast::client
