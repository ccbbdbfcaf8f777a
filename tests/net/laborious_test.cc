// Requests that cost much, from many at once.

#include <doctest/doctest.h>
#include <sys/resource.h>

#include <algorithm>
#include <functional>
#include <future>
#include <thread>
#include <vector>

#include "running_broker.h"

namespace holdfast::test {
namespace {

void raise_descriptor_limit() {
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  limit.rlim_cur = limit.rlim_max;
  setrlimit(RLIMIT_NOFILE, &limit);
}

std::vector<RawClient> connect_many(RunningBroker& broker, int count) {
  std::vector<RawClient> clients;
  clients.reserve(static_cast<std::size_t>(count));
  for (int i = 0; i < count; ++i) clients.push_back(broker.connect("one of many"));
  return clients;
}

void ask_for_queues(RawClient& client, std::uint64_t correlation) {
  auto& builder = client.builder();
  client.send_table(wire::FrameType_QueueList, correlation, wire::CreateQueueList(builder));
}

// How many turns of the loop each of these takes to come true, once this was begun in one of them.
// The loop's own thread looks, in every turn, so that it does not matter when other threads run.
std::vector<int> turns_until(RunningBroker& broker, const std::function<void()>& begin,
                             const std::vector<std::function<bool()>>& awaited) {
  std::vector<int> turns(awaited.size(), 0);
  std::promise<void> over;
  std::function<void()> look = [&] {
    bool waits = false;
    for (std::size_t i = 0; i < awaited.size(); ++i) {
      if (awaited[i]()) continue;
      ++turns[i];
      waits = true;
    }
    if (waits) {
      broker.on_loop(look);
    } else {
      over.set_value();
    }
  };
  broker.on_loop([&] {
    begin();
    look();
  });
  over.get_future().wait();
  return turns;
}

// What a list ends with, and whose it is.
struct End {
  std::uint64_t correlation = 0;
  std::uint32_t count = 0;
  std::uint64_t next = 0;
};
End read_to_end(RawClient& client) {
  for (;;) {
    const std::optional<RawFrame> frame = client.receive();
    REQUIRE(frame.has_value());
    if (frame->type != wire::FrameType_ListEnd) continue;
    const auto& end = frame->table<wire::ListEnd>();
    return {frame->correlation, end.count(), end.next()};
  }
}

TEST_CASE("lists that many asked for in one turn kept everybody else waiting for all of them") {
  raise_descriptor_limit();
  RunningBroker broker;
  RawClient bystander = broker.connect("bystander");
  for (int i = 0; i < 50; ++i) bystander.create_queue("q" + std::to_string(i));
  std::vector<RawClient> curious = connect_many(broker, 400);
  const auto ask = [&] {
    for (RawClient& client : curious) ask_for_queues(client, 1);
    bystander.send_empty(wire::FrameType_Ping, 1);
  };
  const auto all_answered = [&] {
    return std::all_of(curious.begin(), curious.end(),
                       [](const RawClient& client) { return client.bytes_waiting() > 0; });
  };
  const std::vector<int> turns =
      turns_until(broker, ask, {[&] { return bystander.bytes_waiting() > 0; }, all_answered});
  // Two are dealt with in a turn.
  CHECK_LE(turns[0], 20);
  CHECK_GE(turns[1], 100);
  bystander.expect(wire::FrameType_Pong);
  for (RawClient& client : curious) read_to_end(client);
}

// Each costs two milliseconds, and each connection had one dealt with in every round of a turn.
TEST_CASE("settles of many sequences from many kept everybody else waiting for all of them") {
  raise_descriptor_limit();
  RunningBroker broker;
  RawClient bystander = broker.connect("bystander");
  bystander.create_queue("q");
  std::vector<RawClient> busy = connect_many(broker, 200);
  std::vector<std::uint64_t> consumers;
  for (RawClient& client : busy) consumers.push_back(client.subscribe("q", 0));
  constexpr std::uint64_t kSettles = 12;
  busy.back().send_settle(1, consumers.back(), wire::SettleKind_Ack, {{1, 65'536}});
  while (busy.back().bytes_waiting() == 0) std::this_thread::yield();
  const std::size_t answer_bytes = busy.back().bytes_waiting();
  busy.back().expect(wire::FrameType_Settled);
  const auto send = [&] {
    for (std::size_t i = 0; i < busy.size(); ++i) {
      for (std::uint64_t n = 1; n <= kSettles; ++n) {
        busy[i].send_settle(n, consumers[i], wire::SettleKind_Ack, {{1, 65'536}});
      }
    }
    bystander.send_empty(wire::FrameType_Ping, 1);
  };
  const std::size_t answers_bytes = kSettles * answer_bytes;
  const std::vector<int> turns =
      turns_until(broker, send,
                  {[&] { return bystander.bytes_waiting() > 0; },
                   [&] { return busy.back().bytes_waiting() >= answers_bytes; }});
  // The first round has one of each; the others come two in a turn.
  CHECK_LE(turns[0], 20);
  CHECK_GE(turns[1], 200);
  for (std::uint64_t n = 1; n <= kSettles; ++n) busy.back().expect(wire::FrameType_Settled);
  bystander.expect(wire::FrameType_Pong);
}

std::uint64_t frames_of_many(RawClient& watcher) {
  watcher.send_empty(wire::FrameType_ConnectionList, 2);
  std::uint64_t frames = 0;
  std::optional<RawFrame> frame;
  while ((frame = watcher.receive()) && frame->type == wire::FrameType_ConnectionInfo) {
    const auto& info = frame->table<wire::ConnectionInfo>();
    if (view(info.client_name()) == "one of many") frames += info.frames_in();
  }
  return frames;
}

// Up to 512 KiB of each connection were dealt with before anybody was answered.
TEST_CASE("a flood of small requests from many kept everybody else waiting for all of it") {
  raise_descriptor_limit();
  RunningBroker broker;
  RawClient watcher = broker.connect("watcher");
  std::vector<RawClient> many = connect_many(broker, 200);
  constexpr std::uint64_t kFrames = 1'000;
  const std::uint64_t all = many.size() * (kFrames + 1);
  FrameWriter flood;
  auto& builder = many.front().builder();
  builder.Finish(wire::CreateUnsubscribe(builder, 99));
  for (std::uint64_t n = 1; n <= kFrames; ++n) {
    flood.append(wire::FrameType_Unsubscribe, n, {builder.GetBufferPointer(), builder.GetSize()});
  }
  std::promise<void> sent;
  broker.on_loop([&] {
    for (RawClient& client : many) client.send(flood);
    sent.set_value();
  });
  sent.get_future().wait();
  // The second answer is of a turn that began when the first one had been sent.
  frames_of_many(watcher);
  CHECK(frames_of_many(watcher) < all / 2);
  for (RawClient& client : many) {
    for (std::uint64_t n = 1; n <= kFrames; ++n) {
      client.expect_error(ErrorCode::kConsumerNotFound, n);
    }
  }
  CHECK(frames_of_many(watcher) == all);
}

TEST_CASE("a report that others share has all that anybody was told") {
  RunningBroker broker;
  RawClient first = broker.connect();
  const std::uint32_t queue = first.create_queue("q");
  std::vector<RawClient> curious = connect_many(broker, 100);
  broker.on_loop([&] {
    for (RawClient& client : curious) client.send_empty(wire::FrameType_Status, 1);
  });
  for (RawClient& client : curious) client.expect(wire::FrameType_StatusInfo);
  // Who was told that something is so finds it in every report from then on.
  for (std::uint64_t n = 1; n <= 200; ++n) {
    first.publish(queue, "m" + std::to_string(n), "x");
    for (RawClient* client : {&curious[0], &curious[1]}) {
      client->send_empty(wire::FrameType_Status, 2);
      const RawFrame frame = client->expect(wire::FrameType_StatusInfo);
      REQUIRE(frame.table<wire::StatusInfo>().ready() == n);
    }
  }
}

TEST_CASE("of those that ask for much each has its turn, and answers keep a connection's order") {
  RunningBroker broker;
  RawClient greedy = broker.connect("greedy");
  greedy.create_queue("q");
  std::vector<RawClient> others = connect_many(broker, 20);
  constexpr std::uint64_t kLists = 2'000;
  broker.on_loop([&] {
    for (std::uint64_t n = 1; n <= kLists; ++n) ask_for_queues(greedy, n);
    for (RawClient& client : others) {
      ask_for_queues(client, 1);
      client.send_empty(wire::FrameType_Ping, 2);
    }
  });
  for (RawClient& client : others) {
    CHECK(read_to_end(client).correlation == 1);
    client.expect(wire::FrameType_Pong);
  }
  for (std::uint64_t n = 1; n <= kLists; ++n) REQUIRE(read_to_end(greedy).correlation == n);
}

TEST_CASE("who stands in line may go, and the others have their turns") {
  RunningBroker broker;
  RawClient watcher = broker.connect("watcher");
  watcher.create_queue("q");
  std::vector<RawClient> staying = connect_many(broker, 20);
  {
    std::vector<RawClient> going = connect_many(broker, 20);
    broker.on_loop([&] {
      for (std::size_t i = 0; i < going.size(); ++i) {
        ask_for_queues(going[i], 1);
        ask_for_queues(staying[i], 1);
      }
    });
    read_to_end(staying.front());
  }
  for (std::size_t i = 1; i < staying.size(); ++i) read_to_end(staying[i]);
}

TEST_CASE("connections are listed in pages by number") {
  raise_descriptor_limit();
  RunningBroker broker;
  RawClient watcher = broker.connect("watcher");
  const std::vector<RawClient> others = connect_many(broker, 1'005);
  watcher.send_empty(wire::FrameType_ConnectionList, 1);
  const End first = read_to_end(watcher);
  CHECK(first.count == 1'000);
  REQUIRE(first.next > 0);
  watcher.send_table(wire::FrameType_ConnectionList, 2,
                     wire::CreateConnectionList(watcher.builder(), first.next));
  const RawFrame info = watcher.expect(wire::FrameType_ConnectionInfo);
  CHECK(info.table<wire::ConnectionInfo>().connection() == first.next);
  const End rest = read_to_end(watcher);
  CHECK(rest.count == 6);
  CHECK(rest.next == 0);
}

}  // namespace
}  // namespace holdfast::test
