// A publisher that neither loses nor doubles what it publishes.
//
// The client library sends again by itself what was not confirmed when the connection was lost.
// What is left to the program are refusals that pass: a full disk, a full queue. Its own message
// ids make trying again safe, also after a crash of this very program: within the queue's dedup
// window one id is stored once.
//
//   example_publisher [BROKER]

#include <holdfast/client.h>

#include <chrono>
#include <cstdio>
#include <deque>
#include <future>
#include <string>
#include <thread>

namespace {

constexpr const char* kQueue = "invoices";
constexpr int kInvoices = 1'000;
constexpr int kTriesMax = 5;

holdfast::Message invoice(int number) {
  holdfast::Message message("invoice-" + std::to_string(number),
                            "{\"invoice\": " + std::to_string(number) + "}");
  message.headers.emplace_back("content-type", "application/json");
  return message;
}

struct Pending {
  int number = 0;
  std::future<holdfast::Result<holdfast::PublishReceipt>> result;
};

// True: it is stored. Tries again as long as that makes sense.
bool finish(holdfast::Client& client, Pending& pending, int& duplicates) {
  auto result = pending.result.get();
  for (int tries = 1; !result.ok() && result.status().retryable() && tries < kTriesMax; ++tries) {
    std::this_thread::sleep_for(std::chrono::milliseconds(100) * tries);
    result = client.publish(kQueue, invoice(pending.number));
  }
  if (!result.ok()) {
    std::fprintf(stderr, "invoice %d: %s\n", pending.number, result.status().to_string().c_str());
    return false;
  }
  if (result->duplicate) ++duplicates;
  return true;
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

  // All are under way at once; the broker writes them to disk by the hundred.
  std::deque<Pending> pending;
  for (int number = 0; number < kInvoices; ++number) {
    pending.push_back({number, client->publish_future(kQueue, invoice(number))});
  }
  int stored = 0;
  int duplicates = 0;
  for (Pending& each : pending) stored += finish(*client, each, duplicates) ? 1 : 0;
  std::printf("%d of %d invoices are stored, %d of them already were\n", stored, kInvoices,
              duplicates);
  return stored == kInvoices ? 0 : 1;
}
