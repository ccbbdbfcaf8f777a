#include "two_addresses.h"

#include <arpa/inet.h>
#include <dlfcn.h>
#include <netdb.h>
#include <netinet/in.h>

#include <cstdlib>
#include <string_view>

namespace {

std::array<std::uint16_t, 2> two_ports{};

// As freeaddrinfo() expects it: one piece of memory.
addrinfo* make_found(std::uint16_t port, addrinfo* next) {
  struct Found {
    addrinfo info;
    sockaddr_in address;
  };
  auto* const found = static_cast<Found*>(std::calloc(1, sizeof(Found)));
  found->address.sin_family = AF_INET;
  found->address.sin_port = htons(port);
  found->address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  found->info.ai_family = AF_INET;
  found->info.ai_socktype = SOCK_STREAM;
  found->info.ai_addrlen = sizeof(sockaddr_in);
  found->info.ai_addr = reinterpret_cast<sockaddr*>(&found->address);
  found->info.ai_next = next;
  return &found->info;
}

}  // namespace

void holdfast::test::set_two_addresses(const std::array<std::uint16_t, 2>& ports) {
  two_ports = ports;
}

// In the place of the C library's, for everybody in this program.
extern "C" int getaddrinfo(const char* host, const char* service, const addrinfo* hints,
                           addrinfo** found) {
  if (host != nullptr && std::string_view(host) == holdfast::test::kTwoAddresses) {
    *found = make_found(two_ports[0], make_found(two_ports[1], nullptr));
    return 0;
  }
  using Function = int (*)(const char*, const char*, const addrinfo*, addrinfo**);
  static const auto real = reinterpret_cast<Function>(dlsym(RTLD_NEXT, "getaddrinfo"));
  return real(host, service, hints, found);
}
