// A host name that has two addresses, both of this machine: for getaddrinfo() of this program.

#pragma once

#include <array>
#include <cstdint>

namespace holdfast::test {

inline constexpr const char* kTwoAddresses = "two-addresses.example";

// Their ports, in the order in which they are found. Before the first look-up.
void set_two_addresses(const std::array<std::uint16_t, 2>& ports);

}  // namespace holdfast::test
