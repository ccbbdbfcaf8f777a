#include <doctest/doctest.h>

#include <set>
#include <thread>

#include "message_codec.h"
#include "message_id.h"
#include "schema/sequence_ranges.h"

namespace holdfast::test {

namespace {

DeliverFrame frame_of(const client::EncodedMessage& encoded) {
  DeliverFrame frame;
  frame.envelope = wire::DeliverEnvelope(1, 42, encoded.checksum, 5'000, 0,
                                         static_cast<std::uint32_t>(encoded.bytes.size()), 0, 3,
                                         30'000, 1, 0, 0, 0);
  frame.message_bytes = encoded.span();
  frame.message = read_message(encoded.span());
  return frame;
}

}  // namespace

TEST_CASE("a message comes out of its encoding as it went in") {
  Message message("the id", std::string("body with \0 in it", 17));
  message.headers = {{"content-type", "text/plain"}, {"empty", ""}};
  const client::EncodedMessage encoded = client::encode_message(message, message.id);
  CHECK(encoded.id() == "the id");
  const DeliverFrame frame = frame_of(encoded);
  REQUIRE(frame.message != nullptr);
  const StoredMessage stored = client::decode_message(frame, "orders", "ready");
  CHECK(stored.queue == "orders");
  CHECK(stored.sequence == 42);
  CHECK(stored.attempt == 3);
  CHECK(stored.id == message.id);
  CHECK(stored.body == message.body);
  CHECK(stored.headers == message.headers);
  CHECK(stored.published_at.time_since_epoch() == std::chrono::seconds(5));
  CHECK(client::encode_message(Message(), "only-an-id").span().size() < 100);
}

TEST_CASE("a dead letter tells its story") {
  flatbuffers::FlatBufferBuilder builder;
  const auto source = builder.CreateString("orders");
  const auto error = builder.CreateString("no such customer");
  const std::vector<wire::Attempt> attempts{
      wire::Attempt(1'000, 2'000, 9, wire::Cause_LeaseExpired, 0, 0),
      wire::Attempt(0, 3'000, 10, wire::Cause_Nacked, 0, 0)};
  const auto attempt_list = builder.CreateVectorOfStructs(attempts);
  const auto consumers = builder.CreateVectorOfStrings({"worker-1", "worker-2"});
  const auto errors = builder.CreateVectorOfStrings({""});  // shorter than the attempts
  builder.Finish(wire::CreateProvenance(builder, source, 7, 0, wire::Cause_RetryLimit, error, 4'000,
                                        10, attempt_list, consumers, errors, 500));
  const client::EncodedMessage encoded = client::encode_message(Message("x"), "id");
  DeliverFrame frame = frame_of(encoded);
  frame.provenance = read_provenance({builder.GetBufferPointer(), builder.GetSize()});
  REQUIRE(frame.provenance != nullptr);
  const StoredMessage stored = client::decode_message(frame, "orders.dead", "ready");
  REQUIRE(stored.is_dead_letter);
  CHECK(stored.provenance.source == "orders");
  CHECK(stored.provenance.source_sequence == 7);
  CHECK(stored.provenance.reason == "retry_limit");
  CHECK(stored.provenance.error == "no such customer");
  CHECK(stored.provenance.attempts == 10);
  REQUIRE(stored.provenance.history.size() == 2);
  CHECK(stored.provenance.history[0].cause == "lease_expired");
  CHECK(stored.provenance.history[0].consumer == "worker-1");
  CHECK(stored.provenance.history[1].number == 10);
  CHECK(stored.provenance.history[1].consumer == "worker-2");
  CHECK(stored.provenance.history[1].error.empty());
}

// Beyond the year 2262 it came out before 1970, by a conversion that no number of bits is promised.
TEST_CASE("a time beyond what the clock holds is its last millisecond") {
  using std::chrono::system_clock;
  const auto last = std::chrono::floor<std::chrono::milliseconds>(system_clock::time_point::max());
  const auto last_ms = static_cast<std::uint64_t>(last.time_since_epoch().count());
  CHECK(client::from_wire_time(last_ms - 1) == last - std::chrono::milliseconds(1));
  for (const std::uint64_t beyond :
       {last_ms, last_ms + 1, std::uint64_t{1} << 63, ~std::uint64_t{0}}) {
    CAPTURE(beyond);
    CHECK(client::from_wire_time(beyond) == last);
  }
}

TEST_CASE("message ids of one source are unique across threads and sort by their time") {
  client::MessageIdSource ids;
  std::vector<std::vector<std::string>> made(4);
  std::vector<std::thread> threads;
  for (auto& each : made) {
    threads.emplace_back([&] {
      for (int i = 0; i < 5000; ++i) each.push_back(ids.next());
    });
  }
  for (std::thread& thread : threads) thread.join();
  std::set<std::string> all;
  for (const auto& each : made) all.insert(each.begin(), each.end());
  CHECK(all.size() == 20'000);
  CHECK(all.begin()->size() == client::kMessageIdChars);
  for (const auto& each : made) CHECK(each.front().substr(0, 10) <= each.back().substr(0, 10));
  // Two sources begin at different numbers.
  client::MessageIdSource other;
  CHECK(ids.next().substr(10, 12) != other.next().substr(10, 12));
}

TEST_CASE("ranges join neighbours, skip repeats, and end where a frame is full") {
  SequenceRanges ranges;
  for (const std::uint64_t sequence : {1u, 2u, 2u, 3u, 7u, 8u, 10u}) CHECK(ranges.add(sequence));
  REQUIRE(ranges.ranges().size() == 3);
  CHECK(ranges.ranges()[0].last() == 3);
  CHECK(ranges.ranges()[1].first() == 7);

  SequenceRanges dense;
  std::uint64_t sequence = 1;
  while (dense.add(sequence)) ++sequence;
  CHECK(sequence == kRangesSequencesMax + 1);

  SequenceRanges sparse;
  sequence = 1;
  while (sparse.add(sequence)) sequence += 2;
  CHECK(sparse.ranges().size() == kRangesMax);
  // With the longest reason such a frame stays within the bound on control frames.
  CHECK(sparse.ranges().size() * sizeof(wire::SequenceRange) + 2048 < kControlFrameBytesMax);
}

TEST_CASE("a sequence is found in ranges of any order, and in none that ends before it begins") {
  const auto check = [](const std::vector<wire::SequenceRange>& ranges,
                        const std::set<std::uint64_t>& expected) {
    flatbuffers::FlatBufferBuilder builder;
    const auto vector = builder.CreateVectorOfStructs(ranges);
    builder.Finish(wire::CreateSettled(builder, 0, 0, vector));
    const auto* settled = flatbuffers::GetRoot<wire::Settled>(builder.GetBufferPointer());
    const SequenceSet set(settled->refused());
    CHECK(set.empty() == expected.empty());
    for (std::uint64_t sequence = 0; sequence <= 40; ++sequence) {
      CAPTURE(sequence);
      CHECK(set.contains(sequence) == expected.contains(sequence));
    }
  };
  check({}, {});
  check({{3, 3}, {5, 7}}, {3, 5, 6, 7});
  check({{30, 31}, {5, 7}, {3, 3}}, {3, 5, 6, 7, 30, 31});
  check({{2, 9}, {4, 5}, {8, 11}, {9, 9}}, {2, 3, 4, 5, 6, 7, 8, 9, 10, 11});
  check({{9, 2}}, {});
  check({{9, 2}, {12, 12}}, {12});
  CHECK(SequenceSet(nullptr).empty());
}

}  // namespace holdfast::test
