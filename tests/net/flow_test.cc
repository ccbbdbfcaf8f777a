// Flow control both ways, the cap on connections, and the two listeners.

#include <doctest/doctest.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <deque>
#include <filesystem>
#include <fstream>
#include <optional>
#include <set>
#include <thread>

#include "net/listen_address.h"
#include "running_broker.h"
#include "support/given_time.h"

namespace holdfast::test {
namespace {

std::string path_in_tmp() {
  char name[] = "/tmp/holdfast-net-XXXXXX";
  return std::string(mkdtemp(name)) + "/broker.sock";
}

// Looks until the broker holds this connection back.
SeenConnection wait_until_held(RawClient& watcher, std::string_view name) {
  SeenConnection seen = look_at(watcher, name);
  while (seen.reading) seen = look_at(watcher, name);
  return seen;
}

TEST_CASE(
    "a publisher that runs ahead of its confirms is not read on, and goes on when they come") {
  broker::BrokerOptions options = loopback_options();
  options.session.unconfirmed_bytes_max = 100'000;
  RunningBroker broker(options);
  RawClient watcher = broker.connect("watcher");
  RawClient publisher = broker.connect("publisher");
  const std::uint32_t queue = watcher.create_queue("q");
  broker.store().hold();
  watcher.send_publish(1, queue, "first", "x");
  broker.store().wait_for_commit();

  constexpr std::uint64_t kMessages = 400;
  FrameWriter frames;
  for (std::uint64_t n = 1; n <= kMessages; ++n) {
    const auto message = message_bytes("m" + std::to_string(n), std::string(1'000, 'b'));
    frames.append_publish(n, wire::PublishEnvelope(queue, 0, checksum(message)), message);
  }
  publisher.send(frames);

  // The broker takes its bound and at most one message more.
  const SeenConnection seen = wait_until_held(watcher, "publisher");
  CHECK(seen.unconfirmed_bytes >= 100'000);
  CHECK(seen.unconfirmed_bytes < 102'000);

  broker.store().let_go();
  std::uint64_t confirmed = 0;
  while (confirmed < kMessages) {
    confirmed += publisher.expect(wire::FrameType_Confirm).table<wire::Confirm>().count();
  }
  CHECK(confirmed == kMessages);
}

// 16,384 such answers, of 62 KB each, might wait for a commit: a gigabyte for one connection.
TEST_CASE("answers that name thousands of sequences waited for a commit by their number alone") {
  RunningBroker broker;
  RawClient watcher = broker.connect("watcher");
  RawClient client = broker.connect("client");
  const std::uint32_t queue = client.create_queue("q");
  const std::uint64_t consumer = client.subscribe("q", 0);
  std::vector<wire::SequenceRange> ranges;
  for (std::uint64_t n = 1; n <= 3'900; ++n) ranges.emplace_back(2 * n, 2 * n);
  broker.store().hold();
  client.send_publish(1, queue, "first", "x");
  broker.store().wait_for_commit();
  const std::uint64_t before = look_at(watcher, "client").frames_in;
  constexpr std::uint64_t kSettles = 200;
  std::thread sender([&] {
    for (std::uint64_t n = 2; n < 2 + kSettles; ++n) {
      client.send_settle(n, consumer, wire::SettleKind_Ack, ranges);
    }
  });
  // It is held for a moment after each two of them, too: so it is looked at for a while when as
  // many have come as are taken.
  constexpr std::uint64_t kTakenMax =
      broker::kWaitingMax / (3'900 / broker::kSequencesPerWaiting) + 1;
  std::uint64_t frames_in = before;
  for (int looks = 0; looks < 100;) {
    frames_in = look_at(watcher, "client").frames_in;
    if (frames_in - before >= kTakenMax) ++looks;
  }
  CHECK(frames_in - before > 10);
  CHECK(frames_in - before <= kTakenMax);
  broker.store().let_go();
  client.expect(wire::FrameType_Confirm);
  for (std::uint64_t n = 2; n < 2 + kSettles; ++n) {
    CHECK(client.expect(wire::FrameType_Settled).correlation == n);
  }
  sender.join();
}

// 17,000 of them took 220 MB, for one connection.
TEST_CASE("answers with the attempts of a message waited for a commit by their number alone") {
  RunningBroker broker;
  RawClient watcher = broker.connect("watcher");
  RawClient client = broker.connect("client");
  const std::uint32_t queue = client.create_queue("q");
  client.publish(queue, "first", "x");
  broker.store().hold();
  client.send_publish(1, queue, "second", "x");
  broker.store().wait_for_commit();
  const std::uint64_t before = look_at(watcher, "client").frames_in;
  constexpr std::uint64_t kTakenMax = broker::kWaitingMax / broker::kAttemptsWeight;
  constexpr std::uint64_t kAsked = 3 * kTakenMax;
  for (std::uint64_t n = 2; n < 2 + kAsked; ++n) {
    auto& builder = client.builder();
    client.send_table(wire::FrameType_Attempts, n,
                      wire::CreateAttempts(builder, builder.CreateString("q"), 1));
  }
  // As many as are taken come soon; then it is looked at for a while.
  std::uint64_t taken = 0;
  int looks_left = 100;
  for (int looks = 0; looks < 100'000 && looks_left > 0; ++looks) {
    taken = look_at(watcher, "client").frames_in - before;
    if (taken >= kTakenMax) --looks_left;
  }
  CHECK(taken == kTakenMax);
  broker.store().let_go();
  client.expect(wire::FrameType_Confirm);
  for (std::uint64_t n = 2; n < 2 + kAsked; ++n) {
    CHECK(client.expect(wire::FrameType_AttemptsInfo).correlation == n);
  }
}

TEST_CASE("a batch that many publishers wait for is handed over a turn later, not forgotten") {
  constexpr std::uint64_t kPublishers = 60;  // more than are many
  RunningBroker broker;
  RawClient first = broker.connect("first");
  const std::uint32_t queue = first.create_queue("q");
  broker.store().hold();
  first.send_publish(1, queue, "first", "x");
  broker.store().wait_for_commit();
  std::deque<RawClient> publishers;
  for (std::uint64_t i = 0; i < kPublishers; ++i) {
    FrameWriter frames = publish_frame(1, queue, message_bytes("m" + std::to_string(i), "x"));
    frames.append(wire::FrameType_Status, 2, {});
    publishers.push_back(broker.connect());
    publishers.back().send(frames);
    // Then the broker has read the publish, too.
    publishers.back().expect(wire::FrameType_StatusInfo);
  }
  broker.store().let_go();
  first.expect(wire::FrameType_Confirm);
  std::set<std::uint64_t> sequences;
  for (RawClient& publisher : publishers) {
    sequences.insert(publisher.expect(wire::FrameType_Confirm).table<wire::Confirm>().sequence());
  }
  CHECK(sequences.size() == kPublishers);
}

TEST_CASE("refused publishes do not count as unconfirmed") {
  broker::BrokerOptions options = loopback_options();
  options.session.unconfirmed_bytes_max = 10'000;
  RunningBroker broker(options);
  RawClient client = broker.connect();
  const std::uint32_t queue = client.create_queue("q", {{QueueSetting::kMaxMessages, 1}});
  CHECK(client.publish(queue, "fits", "x") == 1);
  for (std::uint64_t n = 1; n <= 50; ++n) {
    client.send_publish(n, queue, "m" + std::to_string(n), std::string(1'000, 'b'));
  }
  for (std::uint64_t n = 1; n <= 50; ++n) client.expect_error(ErrorCode::kQueueFull, n);
}

TEST_CASE("over all connections together, publishers wait as well") {
  broker::BrokerOptions options = loopback_options();
  options.limits.unconfirmed_bytes_total_max = 50'000;
  RunningBroker broker(options);
  RawClient first = broker.connect();
  RawClient second = broker.connect();
  const std::uint32_t queue = first.create_queue("q");
  broker.store().hold();
  FrameWriter one;
  FrameWriter two;
  for (std::uint64_t n = 1; n <= 100; ++n) {
    for (auto& [frames, name] : {std::pair{&one, "a"}, std::pair{&two, "b"}}) {
      const auto message = message_bytes(name + std::to_string(n), std::string(1'000, 'b'));
      frames->append_publish(n, wire::PublishEnvelope(queue, 0, checksum(message)), message);
    }
  }
  first.send(one);
  second.send(two);
  broker.store().let_go();
  for (RawClient* client : {&first, &second}) {
    std::uint64_t confirmed = 0;
    while (confirmed < 100) {
      confirmed += client->expect(wire::FrameType_Confirm).table<wire::Confirm>().count();
    }
  }
}

TEST_CASE("publishers that went before they were answered left more and more in memory") {
  broker::BrokerOptions options = loopback_options();
  options.limits.unconfirmed_bytes_total_max = 50'000;
  RunningBroker broker(options);
  RawClient watcher = broker.connect("watcher");
  RawClient patient = broker.connect("patient");
  const std::uint32_t queue = watcher.create_queue("q");
  const std::string body(20'000, 'b');
  broker.store().hold();
  int taken = 0;
  for (bool refused = false; !refused;) {
    REQUIRE(taken < 10);
    const std::string name = "hasty-" + std::to_string(taken);
    RawClient hasty = broker.connect(name);
    hasty.send_publish(1, queue, name, body);
    SeenConnection seen;
    while (seen.frames_in < 2) seen = look_at(watcher, name);
    refused = look_at(watcher, name).unconfirmed_bytes == 0;
    if (!refused) ++taken;
  }
  CHECK(taken == 5);  // the last one reaches twice the limit
  patient.send_publish(3, queue, "patient", body);
  const RawFrame error = patient.expect_error(ErrorCode::kLimitReached, 3);
  CHECK(error.table<wire::Error>().retryable());
  broker.store().let_go_and_wait();
  // What was answered, though to nobody, counts no more.
  std::optional<RawFrame> answer;
  do {
    patient.send_publish(4, queue, "patient", body);
    answer = patient.receive();
  } while (answer->type == wire::FrameType_Error);
  CHECK(answer->table<wire::Confirm>().sequence() == 6);
  RawClient ahead = broker.connect("ahead");
  for (std::uint64_t n = 1; n <= 20; ++n) {
    ahead.send_publish(n, queue, "ahead-" + std::to_string(n), body);
  }
  std::uint64_t confirmed = 0;
  while (confirmed < 20) {
    confirmed += ahead.expect(wire::FrameType_Confirm).table<wire::Confirm>().count();
  }
}

void send_open(RawClient& client, std::uint64_t correlation) {
  auto& builder = client.builder();
  client.send_table(wire::FrameType_QueueOpen, correlation,
                    wire::CreateQueueOpen(builder, builder.CreateString("q")));
}

// A broker whose commit of the watcher's first message is held, and who looks on.
struct HeldCommit {
  explicit HeldCommit(const broker::BrokerOptions& options) : broker(options) {
    broker.store().hold();
    watcher.send_publish(1, queue, "first", "x");
    broker.store().wait_for_commit();
  }

  RunningBroker broker;
  RawClient watcher = broker.connect("watcher");
  std::uint32_t queue = watcher.create_queue("q");
  RawClient publisher = broker.connect("publisher");
  RawClient patient = broker.connect("patient");
};

// Clients that ask and go, one after the other, until one is put off or `taken_max` were taken: how
// many were.
int ask_and_go(RunningBroker& broker, RawClient& watcher, std::string_view prefix, int taken_max) {
  for (int taken = 0; taken < taken_max; ++taken) {
    const std::string name = std::string(prefix) + std::to_string(taken);
    RawClient hasty = broker.connect(name);
    send_open(hasty, 1);
    SeenConnection seen;
    while (seen.reading && seen.frames_in < 2) seen = look_at(watcher, name);
    if (!seen.reading) return taken;
  }
  return taken_max;
}

TEST_CASE("clients that asked and went before they were answered left more and more in memory") {
  broker::BrokerOptions options = loopback_options();
  options.limits.answers_bytes_total_max = 50'000;
  HeldCommit held(options);
  auto& [broker, watcher, queue, publisher, patient] = held;
  const int taken_max = 1 + 50'000 / static_cast<int>(sizeof(broker::QueueReport));
  const int taken = ask_and_go(broker, watcher, "hasty-", taken_max + 1);
  CHECK(taken <= taken_max);
  CHECK(taken > taken_max / 3);
  // Whose answer does not wait is read, and all others wait.
  patient.send_empty(wire::FrameType_Status, 1);
  patient.expect(wire::FrameType_StatusInfo);
  send_open(patient, 2);
  wait_until_held(watcher, "patient");
  publisher.send_publish(1, queue, "second", "x");
  wait_until_held(watcher, "publisher");
  broker.store().let_go();
  CHECK(patient.expect(wire::FrameType_QueueInfo).correlation == 2);
  CHECK(publisher.expect(wire::FrameType_Confirm).table<wire::Confirm>().sequence() == 2);
  send_open(patient, 3);
  CHECK(patient.expect(wire::FrameType_QueueInfo).correlation == 3);
}

// Beside publishers that always have so much under way they waited for good.
TEST_CASE("who was put off for the answers of others waited for the publishes of others, too") {
  broker::BrokerOptions options = loopback_options();
  options.limits.answers_bytes_total_max = 50'000;
  options.limits.unconfirmed_bytes_total_max = 50'000;
  HeldCommit held(options);
  auto& [broker, watcher, queue, publisher, patient] = held;
  // More than half of the answers wait for this commit, and the others, with more than half of what
  // may be published, for the next one.
  const int most = 30'000 / static_cast<int>(sizeof(broker::QueueReport));
  REQUIRE(ask_and_go(broker, watcher, "early-", most) == most);
  publisher.send_publish(1, queue, "second", std::string(30'000, 'b'));
  while (look_at(watcher, "publisher").unconfirmed_bytes == 0) {
  }
  REQUIRE(ask_and_go(broker, watcher, "late-", 2 * most) < 2 * most);
  send_open(patient, 1);
  const std::uint64_t before = wait_until_held(watcher, "patient").frames_in;
  broker.on_loop([&held] {
    held.broker.store().let_go_and_wait();
    held.broker.store().hold();
  });
  watcher.expect(wire::FrameType_Confirm);
  bool is_read = false;
  for (int looks = 0; looks < 1'000 && !is_read; ++looks) {
    is_read = look_at(watcher, "patient").frames_in > before;
  }
  CHECK(is_read);
  CHECK(look_at(watcher, "publisher").unconfirmed_bytes > 25'000);
  broker.store().let_go();
  CHECK(patient.expect(wire::FrameType_QueueInfo).correlation == 1);
}

TEST_CASE("a client that settles ahead of the commits is not read on, and goes on when they come") {
  RunningBroker broker;
  RawClient watcher = broker.connect("watcher");
  RawClient flooder = broker.connect("flooder");
  const std::uint32_t queue = watcher.create_queue("q");
  const std::uint64_t consumer = flooder.subscribe("q", 0);
  broker.store().hold();
  watcher.send_publish(1, queue, "first", "x");
  broker.store().wait_for_commit();
  constexpr std::uint64_t kSettles = 20'000;
  std::jthread sender([&] {
    for (std::uint64_t n = 1; n <= kSettles; ++n) {
      flooder.send_settle(n, consumer, wire::SettleKind_Ack, {{n, n}});
    }
  });
  wait_until_held(watcher, "flooder");
  broker.store().let_go();
  for (std::uint64_t n = 1; n <= kSettles; ++n) {
    const RawFrame frame = flooder.expect(wire::FrameType_Settled);
    REQUIRE(frame.correlation == n);
  }
}

TEST_CASE("parts of frames of up to 256 KiB were kept beyond the limit on all of them") {
  broker::BrokerOptions options = loopback_options();
  options.limits.input_bytes_total_max = 1u << 20;
  RunningBroker broker(options);
  RawClient watcher = broker.connect("watcher");
  const std::uint32_t queue = watcher.create_queue("q");
  const auto message = message_bytes("m", std::string(200'000, 'b'));
  const FrameWriter frame = publish_frame(1, queue, message);
  const ByteSpan bytes(frame.data(), frame.size());
  constexpr std::size_t kPart = 150'000;
  constexpr int kConnections = 20;  // thrice the limit
  std::vector<RawClient> clients;
  for (int i = 0; i < kConnections; ++i) {
    clients.push_back(broker.connect("partly"));
    clients.back().send_bytes(bytes.first(kPart));
  }
  const auto most = static_cast<std::uint32_t>(options.limits.input_bytes_total_max / kPart);
  while (count_connections(watcher) > 1 + most) {
  }
  int confirmed = 0;
  for (RawClient& client : clients) {
    try {
      client.send_bytes(bytes.subspan(kPart));
      const std::optional<RawFrame> answer = client.receive();
      if (answer && answer->type == wire::FrameType_Confirm) {
        ++confirmed;
      } else if (answer) {
        CHECK(answer->error() == ErrorCode::kLimitReached);
      }
    } catch (const std::runtime_error&) {
      // It was closed, and the rest was sent into nothing.
    }
  }
  CHECK(confirmed > 0);
  CHECK(confirmed <= static_cast<int>(most));
}

TEST_CASE("the receive buffers of publishers that waited were kept empty") {
  broker::BrokerOptions options = loopback_options();
  options.limits.input_bytes_total_max = 1u << 20;
  options.session.unconfirmed_bytes_max = 100'000;
  RunningBroker broker(options);
  RawClient watcher = broker.connect("watcher");
  const std::uint32_t queue = watcher.create_queue("q");
  broker.store().hold();
  std::vector<RawClient> waiting;
  for (int i = 0; i < 10; ++i) {
    const std::string name = "waiting-" + std::to_string(i);
    waiting.push_back(broker.connect(name));
    waiting.back().send_publish(1, queue, name, std::string(200'000, 'b'));
    wait_until_held(watcher, name);
  }
  broker.store().let_go();
  for (RawClient& client : waiting) client.expect(wire::FrameType_Confirm);
}

TEST_CASE("a client that asks for much and reads nothing costs a bounded amount") {
  RunningBroker broker;
  RawClient watcher = broker.connect("watcher");
  const std::uint32_t queue =
      watcher.create_queue("q", {{QueueSetting::kMaxMessageBytes, 4u << 20}});
  watcher.publish(queue, "large", std::string(1u << 20, 'b'));
  RawClient curious = broker.connect("curious");
  constexpr std::uint64_t kPeeks = 200;
  for (std::uint64_t n = 1; n <= kPeeks; ++n) {
    curious.send_peek(n, "q", 0, 1);
  }
  CHECK(wait_until_held(watcher, "curious").output_bytes < 8u << 20);
  // Several are read at a time, so that they may overtake one another.
  std::uint64_t items = 0;
  std::set<std::uint64_t> ended;
  while (ended.size() < kPeeks) {
    const std::optional<RawFrame> frame = curious.receive();
    REQUIRE(frame.has_value());
    if (frame->type == wire::FrameType_PeekItem) {
      ++items;
    } else {
      REQUIRE(frame->type == wire::FrameType_ListEnd);
      REQUIRE(ended.insert(frame->correlation).second);
    }
  }
  CHECK(items == kPeeks);
}

TEST_CASE(
    "of those that read nothing, the one with the most output is closed when it is too much") {
  broker::BrokerOptions options = loopback_options();
  options.connection.send_buffer_bytes = 64 * 1024;
  options.limits.output_bytes_total_max = 2u << 20;
  RunningBroker broker(options);
  RawClient watcher = broker.connect("watcher");
  const std::uint32_t queue =
      watcher.create_queue("q", {{QueueSetting::kMaxMessageBytes, 4u << 20}});
  watcher.publish(queue, "small", std::string(400'000, 'b'));
  watcher.publish(queue, "large", std::string(1'500'000, 'b'));
  const auto peek = [&](const std::string& name, std::uint64_t from) {
    RawClient client(broker.address(), 64 * 1024);
    client.hello(name);
    client.send_peek(1, "q", from, 1);
    return client;
  };
  std::deque<RawClient> modest;
  for (const char* name : {"a", "b", "c", "d"}) {
    modest.push_back(peek(name, 1));
    while (look_at(watcher, name).output_bytes == 0) continue;
  }
  RawClient greedy = peek("greedy", 2);
  greedy.expect_close();
  CHECK(broker.logged().find("the most of all") != std::string::npos);
  for (RawClient& client : modest) {
    client.expect(wire::FrameType_PeekItem);
    client.expect(wire::FrameType_ListEnd);
  }
}

// While much is to be sent to all peers together, one with little of it is held as well.
TEST_CASE("a peer that was held because of what waited for others goes on when they have gone") {
  broker::BrokerOptions options = loopback_options();
  options.connection.send_buffer_bytes = 64 * 1024;
  options.limits.output_bytes_high = 16u << 20;
  options.limits.output_bytes_low = 8u << 20;
  options.limits.output_bytes_total_max = 16u << 20;
  RunningBroker broker(options);
  RawClient watcher = broker.connect("watcher");
  RawClient consumer = broker.connect("consumer");
  const std::uint32_t other = watcher.create_queue("other");
  consumer.subscribe("other", 1);
  const std::uint32_t queue =
      watcher.create_queue("q", {{QueueSetting::kMaxMessageBytes, 10u << 20}});
  watcher.publish(queue, "small", std::string(1u << 20, 'b'));
  watcher.publish(queue, "large", std::string(9u << 20, 'b'));
  const auto peek = [&](RawClient& client, std::uint64_t from, std::string_view name) {
    client.hello(name);
    client.send_peek(1, "q", from, 1);
    while (look_at(watcher, name).output_bytes == 0) continue;
  };
  RawClient modest(broker.address(), 64 * 1024);
  peek(modest, 1, "modest");
  {
    RawClient greedy(broker.address(), 64 * 1024);
    peek(greedy, 2, "greedy");
    modest.send_empty(wire::FrameType_Ping, 2);
    wait_until_held(watcher, "modest");
    modest.send_publish(3, other, "m", "x");
  }
  // It reads nothing all the time: that the other has gone is why it is read again.
  consumer.expect(wire::FrameType_Deliver);
}

TEST_CASE("the retries of one commit went all at once to a connection that read nothing") {
  broker::BrokerOptions options = loopback_options();
  constexpr std::size_t kHigh = 64u << 10;
  options.limits.output_bytes_high = kHigh;
  RunningBroker broker(options);
  RawClient watcher = broker.connect("watcher");
  const std::uint32_t queue =
      watcher.create_queue("q", {{QueueSetting::kBackoffMin, 0}, {QueueSetting::kBackoffMax, 0}});
  // More than the system's buffers take.
  constexpr std::uint64_t kMessages = 2'000;
  for (std::uint64_t n = 1; n <= kMessages; ++n) {
    watcher.publish(queue, "m" + std::to_string(n), std::string(16'000, 'b'));
  }
  RawClient deaf = broker.connect("deaf");
  {
    RawClient lost = broker.connect("lost");
    lost.subscribe("q", kMessages);
    for (std::uint64_t n = 1; n <= kMessages; ++n) lost.expect(wire::FrameType_Deliver);
    deaf.subscribe("q", kMessages);
  }
  // It is held back with the first frame that it sends above the mark.
  SeenConnection seen = look_at(watcher, "deaf");
  for (; seen.reading; seen = look_at(watcher, "deaf")) deaf.send_empty(wire::FrameType_Ping, 1);
  CHECK(seen.output_bytes <= 4 * kHigh);
  std::uint64_t delivered = 0;
  while (delivered < kMessages) {
    const std::optional<RawFrame> frame = deaf.receive();
    REQUIRE(frame.has_value());
    delivered += frame->type == wire::FrameType_Deliver ? 1 : 0;
  }
}

TEST_CASE("a broker that is stopped in the middle of reads ends in order") {
  for (int round = 0; round < 20; ++round) {
    RunningBroker broker;
    RawClient client = broker.connect();
    const std::uint32_t queue =
        client.create_queue("q", {{QueueSetting::kMaxMessageBytes, 4u << 20}});
    client.publish(queue, "large", std::string(1u << 20, 'b'));
    for (std::uint64_t n = 1; n <= 50; ++n) {
      client.send_peek(n, "q", 0, 1);
    }
    client.expect(wire::FrameType_PeekItem);
  }
}

// How many of 1,000 messages were delivered again because a consumer that never read was closed.
// Nothing if the other one was, which reads on, but not as fast.
std::optional<std::uint64_t> redelivered_of_one_that_never_reads(Milliseconds stall) {
  broker::BrokerOptions options = loopback_options();
  options.limits.output_bytes_high = 64'000;
  options.limits.output_bytes_low = 16'000;
  options.connection.send_buffer_bytes = 16'000;
  options.deadlines.stall = stall;
  RunningBroker broker(options);
  RawClient client = broker.connect("publisher");
  const std::uint32_t queue =
      client.create_queue("q", {{QueueSetting::kBackoffMin, 1}, {QueueSetting::kBackoffMax, 1}});
  RawClient lazy(broker.address(), 4'096);
  lazy.hello("lazy");
  lazy.subscribe("q", 60'000);
  constexpr std::uint64_t kMessages = 1'000;
  for (std::uint64_t n = 1; n <= kMessages; ++n) {
    client.publish(queue, "m" + std::to_string(n), std::string(1'000, 'b'));
  }
  // It never reads; meanwhile another is served, and gets everything in the end.
  RawClient diligent = broker.connect("diligent");
  const std::uint64_t consumer = diligent.subscribe("q", 60'000);
  std::uint64_t received = 0;
  std::uint64_t redelivered = 0;
  std::uint64_t settled = 0;
  while (settled < kMessages) {
    const std::optional<RawFrame> frame = diligent.receive();
    if (!frame.has_value()) return std::nullopt;
    if (frame->type == wire::FrameType_Settled) {
      settled += frame->table<wire::Settled>().settled();
      continue;
    }
    const auto delivery = read_deliver(frame->frame());
    if (!delivery.ok()) return std::nullopt;
    ++received;
    if (delivery->envelope.attempt() > 1) ++redelivered;
    const std::uint64_t sequence = delivery->envelope.sequence();
    diligent.send_settle(received, consumer, wire::SettleKind_Ack, {{sequence, sequence}});
  }
  return redelivered;
}

TEST_CASE(
    "a consumer that never reads costs a bounded amount, is closed, and its messages return") {
  CHECK(holds_given_time([](Milliseconds deadline) {
    const auto redelivered = redelivered_of_one_that_never_reads(5 * deadline);
    if (!redelivered.has_value()) return false;
    CHECK(*redelivered > 0);
    // The bound on output, the socket buffers, and the blocks of one delivery more.
    CHECK(*redelivered < 600);
    return true;
  }));
}

TEST_CASE("a connection over the cap is told so, and another is served when one has gone") {
  broker::BrokerOptions options = loopback_options();
  options.limits.connections_max = 2;
  RunningBroker broker(options);
  RawClient first = broker.connect();
  {
    RawClient second = broker.connect();
    RawClient third = broker.connect_silently();
    const RawFrame error = third.expect_fatal(ErrorCode::kTooManyConnections);
    CHECK(error.table<wire::Error>().retryable());
    first.send_empty(wire::FrameType_Ping, 1);
    first.expect(wire::FrameType_Pong);
    second.send_empty(wire::FrameType_Goodbye, 0);
    second.expect_close();
  }
  // The place is free as soon as the broker has closed its side.
  bool served = false;
  for (int attempt = 0; attempt < 1'000 && !served; ++attempt) {
    RawClient client = broker.connect_silently();
    client.send_hello(1, 1, "late", 0);
    const std::optional<RawFrame> answer = client.receive();
    served = answer && answer->type == wire::FrameType_Welcome;
  }
  CHECK(served);
}

// With the tool, for instance, to see who has the others.
TEST_CASE("when all connections are taken, a few more are through the unix socket") {
  const std::string path = path_in_tmp();
  broker::BrokerOptions options = loopback_options();
  options.unix_path = path;
  options.limits.connections_max = 1;
  options.limits.unix_connections_more = 1;
  {
    RunningBroker broker(options);
    RawClient first = broker.connect();
    RawClient local("unix:" + path);
    local.hello("local");
    local.create_queue("q");
    RawClient another("unix:" + path);
    another.expect_fatal(ErrorCode::kTooManyConnections);
    RawClient remote = broker.connect_silently();
    remote.expect_fatal(ErrorCode::kTooManyConnections);
  }
  std::filesystem::remove_all(std::filesystem::path(path).parent_path());
}

TEST_CASE("a connection over the cap that is not told so is in the log") {
  broker::BrokerOptions options = loopback_options();
  options.limits.connections_max = 1;
  options.limits.refused_max = 0;
  RunningBroker broker(options);
  RawClient first = broker.connect();
  RawClient second = broker.connect_silently();
  CHECK_FALSE(second.receive().has_value());
  CHECK_NE(broker.logged().find("is closed at once: too_many_connections"), std::string::npos);
}

// Only lines of info told of them, twenty in ten seconds.
TEST_CASE("clients that were turned away for want of connections raised no warning") {
  broker::BrokerOptions options = loopback_options();
  options.limits.connections_max = 1;
  RunningBroker broker(options);
  RawClient first = broker.connect();
  constexpr int kMore = 3;
  for (int i = 0; i < kMore; ++i) {
    broker.connect_silently().expect_fatal(ErrorCode::kTooManyConnections);
  }
  const auto told = [&broker] {
    std::vector<int> counts;
    const std::string log = broker.logged();
    const std::string words =
        " clients were turned away: the broker serves 1 connections, its "
        "limit (connections_max).";
    for (std::size_t at = log.find(words); at != log.npos; at = log.find(words, at + 1)) {
      const std::size_t number = log.rfind(' ', at - 1);
      CHECK(log.substr(0, number).ends_with("warning"));
      counts.push_back(std::stoi(log.substr(number)));
    }
    return counts;
  };
  // Some at once, the others, which come within ten seconds of them, with the end.
  first.send_empty(wire::FrameType_Ping, 1);
  first.expect(wire::FrameType_Pong);
  CHECK_FALSE(told().empty());
  broker.request_drain();
  broker.request_drain();
  CHECK(broker.wait().ok());
  int sum = 0;
  for (const int count : told()) sum += count;
  CHECK_EQ(sum, kMore);
}

TEST_CASE("a broker listens on TCP and on a unix socket, and both reach the same queues") {
  const std::string path = path_in_tmp();
  broker::BrokerOptions options = loopback_options();
  options.unix_path = path;
  {
    RunningBroker broker(options);
    RawClient tcp = broker.connect();
    RawClient local("unix:" + path);
    local.hello("local");
    const std::uint32_t queue = tcp.create_queue("q");
    CHECK(local.publish(queue, "m", "x") == 1);
    tcp.subscribe("q", 1);
    tcp.expect(wire::FrameType_Deliver);
  }
  CHECK_FALSE(std::filesystem::exists(path));
  std::filesystem::remove_all(std::filesystem::path(path).parent_path());
}

TEST_CASE("a stale unix socket is replaced; a live one and a file are refused") {
  const std::string path = path_in_tmp();
  broker::BrokerOptions options = loopback_options();
  options.unix_path = path;
  const auto refused = [&] {
    uv_loop_t loop;
    uv_loop_init(&loop);
    broker::Log log(nullptr);
    HeldStore store;
    Status status;
    {
      auto started = broker::Broker::start(loop, store, log, options);
      REQUIRE_FALSE(started.ok());
      status = started.status();
    }
    CHECK(uv_loop_close(&loop) == 0);
    return status.code();
  };
  SUBCASE("stale") {
    const int descriptor = socket(AF_UNIX, SOCK_STREAM, 0);
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    path.copy(address.sun_path, sizeof(address.sun_path) - 1);
    REQUIRE(bind(descriptor, reinterpret_cast<const sockaddr*>(&address), sizeof(address)) == 0);
    close(descriptor);
    REQUIRE(std::filesystem::exists(path));
    RunningBroker broker(options);
    RawClient("unix:" + path).hello();
  }
  SUBCASE("live") {
    RunningBroker broker(options);
    CHECK(refused() == ErrorCode::kAddressInUse);
    RawClient("unix:" + path).hello();
  }
  SUBCASE("a file") {
    std::ofstream(path) << "precious";
    CHECK(refused() == ErrorCode::kAddressInUse);
    CHECK(std::filesystem::file_size(path) == 8);
  }
  SUBCASE("a port in use") {
    RunningBroker broker;
    options.unix_path.clear();
    options.listen = broker.address();
    CHECK(refused() == ErrorCode::kAddressInUse);
  }
  std::filesystem::remove_all(std::filesystem::path(path).parent_path());
}

TEST_CASE("listen addresses are read, and wrong ones explained") {
  using broker::format_address;
  using broker::resolve_listen_address;
  CHECK(format_address(*resolve_listen_address("127.0.0.1:7411")) == "127.0.0.1:7411");
  CHECK(format_address(*resolve_listen_address("[::1]:0")) == "[::1]:0");
  for (const char* wrong : {"", "7411", ":7411", "127.0.0.1", "127.0.0.1:", "127.0.0.1:x",
                            "127.0.0.1:65536", "127.0.0.1:-1", "::1:7411", "[::1:7411", "[]:1"}) {
    CAPTURE(wrong);
    CHECK(resolve_listen_address(wrong).status().code() == ErrorCode::kInvalidArgument);
  }
  CHECK(broker::check_unix_path(std::string(107, 'p')).ok());
  CHECK(broker::check_unix_path(std::string(108, 'p')).code() == ErrorCode::kInvalidArgument);
}

}  // namespace
}  // namespace holdfast::test
