// Requests that cost much, from many at once.

#include <doctest/doctest.h>
#include <sys/resource.h>

#include <chrono>
#include <future>
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
  std::promise<void> asked;
  broker.on_loop([&] {
    for (RawClient& client : curious) ask_for_queues(client, 1);
    asked.set_value();
  });
  asked.get_future().wait();
  auto last = std::async(std::launch::async, [&] { return curious.back().receive(); });
  for (int i = 0; i < 20; ++i) {
    bystander.send_empty(wire::FrameType_Ping, 1);
    bystander.expect(wire::FrameType_Pong);
  }
  CHECK(last.wait_for(std::chrono::seconds(0)) == std::future_status::timeout);
  last.wait();
  for (RawClient& client : curious) read_to_end(client);
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
