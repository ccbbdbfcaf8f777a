// A client of the broker that a harness watches.

#pragma once

#include <optional>
#include <utility>

#include "crash/ledger.h"
#include "holdfast/client.h"

namespace holdfast::crash {

// Empty, and a violation in the ledger, when the broker cannot be reached.
inline std::optional<Client> reach(const ClientOptions& options, Ledger& ledger) {
  Result<Client> client = Client::connect(options);
  if (client.ok()) return std::move(client).value();
  ledger.add_violation("The broker cannot be reached: " + client.status().to_string());
  return std::nullopt;
}

}  // namespace holdfast::crash
