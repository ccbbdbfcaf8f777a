// Looks at a data directory as a broker would that is started on it: opens the store, loads it into
// a core, reads every message that is not settled, and asks about every id. Then the store's own
// checker goes through it.

#pragma once

#include <optional>
#include <string>

#include "disk/ledger.h"

namespace holdfast::disk {

// Address space for the data file, here and in the lives: small, so that it is mapped fast.
inline constexpr std::uint64_t kMapBytes = 8u << 20;

// What contradicts a promise of the ledger's, as a sentence; nullopt: nothing.
std::optional<std::string> inspect(const std::string& directory, const Ledger& ledger);

}  // namespace holdfast::disk
