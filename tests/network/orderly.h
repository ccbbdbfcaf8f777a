// A consumer that looks at the order: first deliveries come in the order of their sequences.

#pragma once

#include <cstdint>
#include <mutex>
#include <optional>
#include <string>

#include "crash/ledger.h"
#include "holdfast/client.h"

namespace holdfast::network {

class OrderlyConsumer {
 public:
  OrderlyConsumer(ClientOptions options, crash::Ledger& ledger, std::string queue,
                  crash::Life life);
  ~OrderlyConsumer() { stop(); }
  OrderlyConsumer(const OrderlyConsumer&) = delete;
  OrderlyConsumer& operator=(const OrderlyConsumer&) = delete;

  Status start();
  // What was not handed to it is given back; its attempts do not count, so it comes as a first
  // delivery again, out of order, to whoever consumes next.
  void stop();
  // First deliveries that were in order.
  std::uint64_t firsts() const;

 private:
  void handle(Delivery delivery);

  const ClientOptions options_;
  crash::Ledger& ledger_;
  const std::string queue_;
  const crash::Life life_;
  mutable std::mutex mutex_;
  std::uint64_t last_first_ = 0;
  std::uint64_t firsts_ = 0;
  std::optional<Client> client_;
  std::optional<Consumer> consumer_;
};

}  // namespace holdfast::network
