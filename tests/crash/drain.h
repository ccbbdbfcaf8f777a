// The end of a trial: new consumers settle what is left in the queues, and what came of every
// message is compared with the ledger. Whatever goes wrong is a violation there.

#pragma once

#include <functional>
#include <string>
#include <vector>

#include "crash/ledger.h"
#include "holdfast/client.h"

namespace holdfast::crash {

class Drain {
 public:
  // The options of a client of this name, which says where the broker is.
  using OptionsOf = std::function<ClientOptions(const std::string& name)>;

  // The ledger outlives it.
  Drain(std::vector<std::string> queues, OptionsOf options_of, Ledger& ledger)
      : queues_(std::move(queues)), options_of_(std::move(options_of)), ledger_(ledger) {}

  // Returns when all queues are empty; earlier if a queue stands still, or the broker is not there.
  void run(Life life);
  // Of queues that are empty.
  void compare_with_ledger();
  // As far as they can be looked at.
  std::vector<StoredMessage> dead_letters(Admin& admin, const std::string& queue);

 private:
  bool wait_until_empty(Admin& admin, const std::string& queue);

  const std::vector<std::string> queues_;
  const OptionsOf options_of_;
  Ledger& ledger_;
};

}  // namespace holdfast::crash
