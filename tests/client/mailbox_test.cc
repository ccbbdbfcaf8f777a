#include "mailbox.h"

#include <doctest/doctest.h>

#include <chrono>
#include <future>
#include <optional>
#include <string>
#include <vector>

#include "message_codec.h"
#include "support/given_time.h"

namespace holdfast::test {

namespace {

using client::Mailbox;
using client::SteadyTime;

Mailbox::Publish publish_of(std::size_t bytes) {
  Mailbox::Publish publish;
  publish.queue = "orders";
  publish.publication.message = client::encode_message(Message(std::string(bytes, 'x')), "id");
  return publish;
}

// A mailbox with room for 10,000 bytes; the first publish, of 6,000, is unconfirmed.
struct AlmostFull {
  AlmostFull() {
    CHECK(add(6'000).ok());
    Mailbox::Contents first;
    mailbox.take(&first, 0);
    first_bytes = first.publishes.at(0).publication.bytes();
  }

  Status add(std::size_t bytes) {
    Mailbox::Publish publish = publish_of(bytes);
    return mailbox.add(publish, false, std::nullopt);
  }
  Status add_until(std::size_t bytes, SteadyTime deadline) {
    Mailbox::Publish publish = publish_of(bytes);
    return mailbox.add(publish, true, deadline);
  }
  std::future<Status> add_later(std::size_t bytes, std::chrono::milliseconds patience) {
    return std::async(std::launch::async, [this, bytes, patience] {
      return add_until(bytes, std::chrono::steady_clock::now() + patience);
    });
  }
  // Sizes of what was added; `completed_bytes` have left the client.
  std::vector<std::size_t> take(std::size_t completed_bytes) {
    Mailbox::Contents contents;
    mailbox.take(&contents, completed_bytes);
    std::vector<std::size_t> sizes;
    for (const auto& publish : contents.publishes) sizes.push_back(publish.publication.bytes());
    return sizes;
  }
  // True as soon as somebody waits, because then what has room is refused.
  bool somebody_waits() {
    return somebody_waits_before(std::chrono::steady_clock::now() + std::chrono::seconds(10));
  }
  bool somebody_waits_before(SteadyTime patience) {
    while (add(100).ok()) {
      take(take(0).at(0));
      if (std::chrono::steady_clock::now() > patience) return false;
    }
    return true;
  }

  Mailbox mailbox{10'000, [] {}};
  std::size_t first_bytes = 0;
};

}  // namespace

TEST_CASE_FIXTURE(AlmostFull, "a large publish found no room as long as small ones came") {
  std::future<Status> large = add_later(6'000, std::chrono::seconds(10));
  REQUIRE(somebody_waits());
  CHECK(add_until(100, std::chrono::steady_clock::now()).code() == ErrorCode::kTimeout);
  std::future<Status> small = add_later(100, std::chrono::seconds(10));
  take(first_bytes);
  CHECK(large.get().ok());
  CHECK(small.get().ok());
  CHECK(add(100).ok());
}

TEST_CASE_FIXTURE(AlmostFull, "a publish that waited in vain holds up nobody") {
  CHECK(add_until(6'000, std::chrono::steady_clock::now()).code() == ErrorCode::kTimeout);
  CHECK(add(100).ok());
  CHECK(holds_given_time([&](std::chrono::milliseconds patience) {
    std::future<Status> large = add_later(6'000, patience);
    const bool waited = somebody_waits_before(std::chrono::steady_clock::now() + patience);
    // Behind it, and gets the room that is there when it gives up.
    CHECK(add_until(100, std::chrono::steady_clock::now() + std::chrono::seconds(10)).ok());
    CHECK(large.get().code() == ErrorCode::kTimeout);
    return waited;
  }));
}

TEST_CASE_FIXTURE(AlmostFull, "publishes that wait for room are cancelled together") {
  std::future<Status> large = add_later(6'000, std::chrono::seconds(10));
  REQUIRE(somebody_waits());
  std::future<Status> small = add_later(100, std::chrono::seconds(10));
  mailbox.stop_publishes();
  CHECK(large.get().code() == ErrorCode::kCancelled);
  CHECK(small.get().code() == ErrorCode::kCancelled);
}

}  // namespace holdfast::test
