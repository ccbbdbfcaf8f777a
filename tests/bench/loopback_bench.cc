// What sockets cost by themselves: connections over loopback that each wait for an answer before
// they ask again, as the producers of the workload fan do, and a thread that does nothing but
// answer. A broker that has a processor for itself, beside a generator that has the other, cannot
// be faster.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <array>
#include <cstdint>
#include <span>
#include <thread>
#include <vector>

#include "base/check.h"
#include "bench/messages.h"

namespace holdfast {
namespace {

// As long as the frames that publish a message of 100 bytes and confirm it.
constexpr std::size_t kRequestBytes = 240;
constexpr std::size_t kAnswerBytes = 80;
constexpr int kConnectionsMax = 1024;

// Sockets of which some can be read.
class Poll {
 public:
  Poll() : poll_(epoll_create1(EPOLL_CLOEXEC)) { CHECK(poll_ >= 0); }
  Poll(const Poll&) = delete;
  Poll& operator=(const Poll&) = delete;
  ~Poll() {
    for (const int socket : sockets_) close(socket);
    close(poll_);
  }

  // Takes the socket, and closes it in the end.
  void add(int socket) {
    CHECK(socket >= 0);
    sockets_.push_back(socket);
    const int on = 1;
    CHECK(setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)) == 0);
    epoll_event event{};
    event.events = EPOLLIN;
    event.data.fd = socket;
    CHECK(epoll_ctl(poll_, EPOLL_CTL_ADD, socket, &event) == 0);
  }
  // Waits for those that can be read.
  std::span<const epoll_event> wait() {
    const int count = epoll_wait(poll_, events_.data(), kConnectionsMax, -1);
    CHECK(count > 0);
    return {events_.data(), static_cast<std::size_t>(count)};
  }
  std::span<const int> sockets() const { return sockets_; }

 private:
  int poll_;
  std::vector<int> sockets_;
  std::array<epoll_event, kConnectionsMax> events_;
};

void send_whole(int socket, std::size_t bytes) {
  static const std::array<std::uint8_t, kRequestBytes> kContent{};
  CHECK(send(socket, kContent.data(), bytes, MSG_NOSIGNAL) == static_cast<ssize_t>(bytes));
}

// False: the other side has closed. So few bytes, sent at once, arrive at once.
bool receive_whole(int socket, std::size_t bytes) {
  std::array<std::uint8_t, kRequestBytes> received;
  const ssize_t count = recv(socket, received.data(), received.size(), 0);
  CHECK(count == 0 || count == static_cast<ssize_t>(bytes));
  return count > 0;
}

void answer_until_closed(Poll& asked) {
  for (;;) {
    for (const epoll_event& event : asked.wait()) {
      if (!receive_whole(event.data.fd, kRequestBytes)) return;
      send_whole(event.data.fd, kAnswerBytes);
    }
  }
}

void connect_both(int connections, Poll* asking, Poll* asked) {
  const int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t address_bytes = sizeof(address);
  auto* const generic = reinterpret_cast<sockaddr*>(&address);
  CHECK(bind(listener, generic, sizeof(address)) == 0);
  CHECK(listen(listener, connections) == 0);
  CHECK(getsockname(listener, generic, &address_bytes) == 0);
  for (int i = 0; i < connections; ++i) {
    asking->add(socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0));
    CHECK(connect(asking->sockets().back(), generic, sizeof(address)) == 0);
    asked->add(accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
  }
  close(listener);
}

// Each iteration has as many answers as there are connections.
void loopback_ask(benchmark::State& state) {
  const auto connections = static_cast<std::size_t>(state.range(0));
  Poll asked;
  std::thread answering;
  {
    Poll asking;
    connect_both(static_cast<int>(connections), &asking, &asked);
    answering = std::thread([&] { answer_until_closed(asked); });
    for (const int socket : asking.sockets()) send_whole(socket, kRequestBytes);
    for (auto _ : state) {
      for (std::size_t answered = 0; answered < connections;) {
        for (const epoll_event& event : asking.wait()) {
          CHECK(receive_whole(event.data.fd, kAnswerBytes));
          send_whole(event.data.fd, kRequestBytes);
          ++answered;
        }
      }
    }
    // What is closed before its answer was read would end in an error over there.
    for (const int socket : asking.sockets()) CHECK(receive_whole(socket, kAnswerBytes));
  }
  answering.join();
  count_messages(state, connections);
}
BENCHMARK(loopback_ask)->ArgName("connections")->Arg(1)->Arg(64)->UseRealTime();

}  // namespace
}  // namespace holdfast
