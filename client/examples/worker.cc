// A worker: four handlers at a time, each message acknowledged when its work is done. A message
// that cannot be processed is rejected and ends in the dead-letter queue; one that failed for a
// passing reason is nacked and comes again after a while.
//
//   example_worker [BROKER]
//
// A real worker runs until it is told to stop; this one publishes twenty jobs and ends when they
// are done.

#include <holdfast/client.h>

#include <atomic>
#include <charconv>
#include <condition_variable>
#include <cstdio>
#include <mutex>
#include <string>

namespace {

constexpr const char* kQueue = "jobs";
constexpr int kJobs = 20;

class Progress {
 public:
  void done() {
    {
      const std::lock_guard lock(mutex_);
      ++done_;
    }
    changed_.notify_all();
  }
  // False: it took too long.
  bool wait_for(int count) {
    std::unique_lock lock(mutex_);
    return changed_.wait_for(lock, std::chrono::seconds(30), [&] { return done_ >= count; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  int done_ = 0;
};

// The work itself: false if the body is not a number and never will be.
bool square(const std::string& body) {
  int number = 0;
  const auto [end, error] = std::from_chars(body.data(), body.data() + body.size(), number);
  if (error != std::errc() || end != body.data() + body.size()) return false;
  std::printf("%d squared is %d\n", number, number * number);
  return true;
}

void work(holdfast::Delivery delivery, Progress& progress) {
  const bool good = square(delivery.body());
  // Its lease is extended while the work goes on, however long that takes.
  const holdfast::Status settled =
      good ? delivery.ack() : delivery.reject("The body is not a number.");
  // If the connection was lost meanwhile, the message may come again.
  if (settled.ok()) {
    progress.done();
  } else {
    std::fprintf(stderr, "settle: %s\n", settled.to_string().c_str());
  }
}

}  // namespace

int main(int argc, char** argv) {
  auto client =
      holdfast::Client::connect(holdfast::ClientOptions(argc > 1 ? argv[1] : "127.0.0.1:7411"));
  if (!client.ok()) {
    std::fprintf(stderr, "connect: %s\n", client.status().to_string().c_str());
    return 1;
  }
  auto queue = client->admin().create_queue(kQueue, {}, /*if_not_exists=*/true);
  if (!queue.ok()) {
    std::fprintf(stderr, "create the queue: %s\n", queue.status().to_string().c_str());
    return 1;
  }
  for (int i = 0; i < kJobs; ++i) {
    const std::string body = i == kJobs / 2 ? "not a number" : std::to_string(i);
    client->publish_async(kQueue, holdfast::Message(body), {});
  }

  Progress progress;
  holdfast::ConsumeOptions options;
  options.concurrency = 4;
  options.on_ended = [](const holdfast::Status& why) {
    std::fprintf(stderr, "the consumer ended: %s\n", why.to_string().c_str());
  };
  auto consumer = client->consume(kQueue, options, [&progress](holdfast::Delivery delivery) {
    work(std::move(delivery), progress);
  });
  if (!consumer.ok()) {
    std::fprintf(stderr, "consume: %s\n", consumer.status().to_string().c_str());
    return 1;
  }
  const bool all_done = progress.wait_for(kJobs);
  consumer->stop();  // waits for the handlers that run
  if (!all_done) std::fprintf(stderr, "Some jobs were not done within 30 seconds.\n");
  return all_done ? 0 : 1;
}
