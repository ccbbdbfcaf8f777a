// The log: when nobody reads it, and what it tells of damage.

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <memory>
#include <string>
#include <string_view>

#include "net/log.h"
#include "running_broker.h"
#include "support/resource_limit.h"

namespace holdfast::test {
namespace {

// A pipe whose writing end is a file, as standard error may be.
class Pipe {
 public:
  Pipe() {
    int ends[2];
    REQUIRE(::pipe2(ends, O_CLOEXEC) == 0);
    reader_ = ends[0];
    out_.reset(::fdopen(ends[1], "w"));
    ::fcntl(reader_, F_SETFL, O_NONBLOCK);
  }
  ~Pipe() { ::close(reader_); }
  Pipe(const Pipe&) = delete;
  Pipe& operator=(const Pipe&) = delete;

  std::FILE* out() { return out_.get(); }
  std::string read() {
    std::string text;
    char piece[4096];
    for (ssize_t bytes; (bytes = ::read(reader_, piece, sizeof piece)) > 0;) {
      text.append(piece, static_cast<std::size_t>(bytes));
    }
    return text;
  }

 private:
  int reader_ = -1;
  std::unique_ptr<std::FILE, int (*)(std::FILE*)> out_{nullptr, std::fclose};
};

TEST_CASE("a log that nobody read held up the broker") {
  Pipe pipe;
  broker::Log log(pipe.out());
  // More than a pipe holds.
  constexpr int kLines = 10'000;
  for (int i = 0; i < kLines; ++i) log.info("Line {}: {}.", i, std::string(100, 'x'));
  const std::string read = pipe.read();
  const auto lines = static_cast<int>(std::count(read.begin(), read.end(), '\n'));
  CHECK(lines < kLines);
  CHECK(read.ends_with(".\n"));

  log.info("Somebody reads again.");
  const std::string told = pipe.read();
  CHECK(told.find(fmt::format("warning {} lines were left out: nobody read the log, or it could "
                              "not be written.\n",
                              kLines - lines)) != std::string::npos);
  CHECK(told.ends_with("info    Somebody reads again.\n"));
}

TEST_CASE("lines that a full disk did not take were counted as written") {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> out(std::fopen("/dev/full", "w"),
                                                            std::fclose);
  REQUIRE(out != nullptr);
  broker::Log log(out.get());
  log.info("One.");
  log.info("Two.");
  Pipe pipe;
  REQUIRE(::dup2(::fileno(pipe.out()), ::fileno(out.get())) >= 0);
  log.info("There is room again.");
  const std::string told = pipe.read();
  CHECK(told.find("warning 2 lines were left out") != std::string::npos);
  CHECK(told.ends_with("info    There is room again.\n"));
}

// The file may grow by ten bytes: a part of the line is written.
TEST_CASE("a line that is cut by a full disk does not run into the next one") {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> out(std::tmpfile(), std::fclose);
  REQUIRE(out != nullptr);
  broker::Log log(out.get());
  {
    constexpr std::uint64_t kBytesMax = 10;
    const ResourceLimit limit(RLIMIT_FSIZE, kBytesMax);
    log.info("One.");
    log.info("Two.");
  }
  log.info("There is room again.");
  std::rewind(out.get());
  char text[1024] = {};
  const std::size_t bytes = std::fread(text, 1, sizeof text, out.get());
  const std::string_view told(text, bytes);
  CHECK(told.find('\n') == 10);
  CHECK(told.find("warning 2 lines were left out") != std::string::npos);
  CHECK(told.ends_with("info    There is room again.\n"));
}

TEST_CASE("a line that is too long for a pipe is cut, between two characters") {
  Pipe pipe;
  broker::Log log(pipe.out());
  std::string text;
  while (text.size() < 10'000) text += "ü";
  log.info("{}", text);
  const std::string line = pipe.read();
  CHECK(line.size() <= 4096);
  CHECK(line.size() >= 4094);
  CHECK(line.ends_with("ü\n"));
}

// They were told with the next line about a connection, which may never come.
TEST_CASE("how many lines about connections were left out was told only when one more came") {
  Pipe pipe;
  broker::Log log(pipe.out());
  const MonotonicTime begin{Milliseconds(1'000'000)};
  constexpr std::uint64_t kMore = 3;
  for (std::uint64_t i = 0; i < broker::Log::kPeerLinesMax + kMore; ++i) {
    log.peer(begin + Milliseconds(i), "One.");
  }
  const std::string lines = pipe.read();
  CHECK(std::count(lines.begin(), lines.end(), '\n') == broker::Log::kPeerLinesMax);
  log.tell_left_out(begin + broker::Log::kPeerWindow - Milliseconds(1));
  CHECK(pipe.read().empty());
  log.tell_left_out(begin + broker::Log::kPeerWindow);
  CHECK(pipe.read().ends_with("info    3 more lines about connections were left out.\n"));
  log.tell_left_out(begin + 2 * broker::Log::kPeerWindow);
  CHECK(pipe.read().empty());
  log.peer(begin + 2 * broker::Log::kPeerWindow, "One.");
  CHECK(pipe.read().ends_with("info    One.\n"));
}

TEST_CASE("damage was not in the log") {
  broker::BrokerOptions options = loopback_options();
  options.core.cache_bytes_max = 1;  // so that it is read
  RunningBroker broker(options);
  RawClient client = broker.connect();
  const std::uint32_t queue = client.create_queue("q");
  for (std::uint64_t i = 1; i <= 2; ++i) {
    client.send_publish(i, queue, fmt::format("m{}", i), "x");
    REQUIRE(client.receive()->type == wire::FrameType_Confirm);
  }
  broker.store().flip_bit_in_message(QueueId(queue), 1);
  client.subscribe("q", 10);
  std::optional<RawFrame> frame = client.receive();
  REQUIRE(frame.has_value());
  // By the time of a second answer the loop has had its turn.
  client.send_publish(3, queue, "m3", "x");
  while (frame.has_value() && frame->type != wire::FrameType_Confirm) {
    frame = client.receive();
  }
  REQUIRE(frame.has_value());
  const std::string log = broker.logged();
  CHECK(log.find("error   1 stored messages no longer match their checksums") != std::string::npos);
}

// One in memory, of which a start says that it left out a batch.
class StoreThatLeftOutABatch : public broker::Store {
 public:
  Result<broker::StoredState> load() override {
    Result<broker::StoredState> state = store_.load();
    state->batch_cut_short = 7;
    return state;
  }
  Result<std::uint64_t> load_dedup(const broker::DedupLoader& loader) override {
    return store_.load_dedup(loader);
  }
  void start(std::function<void(broker::CommitResult)> committed, std::function<void(Status)> fatal,
             std::function<void(broker::SpaceReport)> space) override {
    store_.start(std::move(committed), std::move(fatal), std::move(space));
  }
  void commit(broker::Batches batches) override { store_.commit(std::move(batches)); }
  Result<broker::FetchResult> fetch_blocking(const broker::FetchRequest& request) override {
    return store_.fetch_blocking(request);
  }
  Result<broker::IdsResult> fetch_ids_blocking(const broker::IdsRequest& request) override {
    return store_.fetch_ids_blocking(request);
  }
  void close() override { store_.close(); }

 private:
  HeldStore store_;
};

TEST_CASE("a batch of the journal that was left out is in the log") {
  RunningBroker broker(loopback_options(), std::make_unique<StoreThatLeftOutABatch>());
  const std::string log = broker.logged();
  CHECK(log.find("warning Batch 7 in the journal is not whole and was left out") !=
        std::string::npos);
}

}  // namespace
}  // namespace holdfast::test
