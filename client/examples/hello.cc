// Publishes one message and takes it back.
//
//   example_hello [BROKER]

#include <holdfast/client.h>

#include <chrono>
#include <cstdio>

namespace {

int failed(const char* what, const holdfast::Status& status) {
  std::fprintf(stderr, "%s: %s\n", what, status.to_string().c_str());
  return 1;
}

}  // namespace

int main(int argc, char** argv) {
  auto client =
      holdfast::Client::connect(holdfast::ClientOptions(argc > 1 ? argv[1] : "127.0.0.1:7411"));
  if (!client.ok()) return failed("connect", client.status());

  auto queue = client->admin().create_queue("hello", {}, /*if_not_exists=*/true);
  if (!queue.ok()) return failed("create the queue", queue.status());

  // When this returns the message is on disk.
  auto receipt = client->publish("hello", holdfast::Message("Hello, world"));
  if (!receipt.ok()) return failed("publish", receipt.status());
  std::printf("published %s as number %llu\n", receipt->id.c_str(),
              static_cast<unsigned long long>(receipt->sequence));

  auto deliveries = client->receive("hello", 1, std::chrono::seconds(5));
  if (!deliveries.ok()) return failed("receive", deliveries.status());
  for (holdfast::Delivery& delivery : *deliveries) {
    std::printf("received \"%s\", attempt %u\n", delivery.body().c_str(), delivery.attempt());
    // Until it is acknowledged the message is the broker's to deliver again.
    if (holdfast::Status acked = delivery.ack(); !acked.ok()) return failed("ack", acked);
  }
  return deliveries->empty() ? 1 : 0;
}
