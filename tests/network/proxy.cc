#include "network/proxy.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <stdexcept>

#include "network/link.h"

namespace holdfast::network {

namespace {

sockaddr_in loopback(std::uint16_t port) {
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

void send_at_once(int socket) {
  const int on = 1;
  ::setsockopt(socket, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
}

// -1: nobody listens there.
int connect_to(std::uint16_t port) {
  const int socket = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  const sockaddr_in address = loopback(port);
  if (::connect(socket, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) {
    ::close(socket);
    return -1;
  }
  send_at_once(socket);
  return socket;
}

LinkPlan choose_plan(crash::Random& random) {
  using std::chrono::milliseconds;
  LinkPlan plan;
  const std::uint64_t fate = random.below(100);
  if (fate < 50) {
    plan.fate = Fate::kReplyLost;
    plan.count = 1 + random.below(8);
  } else if (fate < 65) {
    plan.fate = Fate::kMidFrame;
    plan.count = 1 + random.below(40'000);
  } else {
    plan.fate = Fate::kOldLingers;
    plan.count = 1 + random.below(200);
  }
  plan.last_for = milliseconds(random.below(12));
  plan.linger = milliseconds(1 + random.below(150));
  plan.reset = random.once_in(2);
  // Half of the links have a delay, a few a long one.
  if (random.once_in(2)) plan.delay_max = std::chrono::microseconds(random.below(2'000));
  if (random.once_in(10)) plan.delay_max = milliseconds(20);
  constexpr std::size_t kSegments[] = {16, 200, 1'500, 65'536};
  plan.segment_bytes_max = kSegments[random.below(4)];
  return plan;
}

}  // namespace

Proxy::Proxy(std::uint64_t seed, std::uint16_t broker_port)
    : random_(seed), broker_port_(broker_port) {
  listener_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  sockaddr_in address = loopback(0);
  socklen_t bytes = sizeof address;
  if (::bind(listener_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
      ::listen(listener_, 64) != 0 ||
      ::getsockname(listener_, reinterpret_cast<sockaddr*>(&address), &bytes) != 0 ||
      ::pipe2(wake_, O_CLOEXEC) != 0) {
    throw std::runtime_error("The proxy has no socket to listen on.");
  }
  port_ = ntohs(address.sin_port);
  thread_ = std::thread([this] { run(); });
}

Proxy::~Proxy() {
  stopping_ = true;
  static_cast<void>(::write(wake_[1], "", 1));
  thread_.join();
  links_.clear();
  ::close(listener_);
  ::close(wake_[0]);
  ::close(wake_[1]);
}

std::string Proxy::address() const { return "127.0.0.1:" + std::to_string(port_); }

ProxyCounts Proxy::counts() const {
  return {links_total_, cuts_, confirms_dropped_, settled_dropped_, publishes_late_};
}

void Proxy::run() {
  std::vector<pollfd> polls;
  while (!stopping_) {
    polls.clear();
    polls.push_back({wake_[0], POLLIN, 0});
    polls.push_back({listener_, POLLIN, 0});
    Clock::time_point due = Clock::now() + std::chrono::seconds(1);
    for (const auto& link : links_) {
      link->append_polls(polls);
      due = std::min(due, link->next_due());
    }
    const auto wait = std::max(Clock::duration(0), due - Clock::now());
    const timespec timeout{
        std::chrono::duration_cast<std::chrono::seconds>(wait).count(),
        static_cast<long>(std::chrono::nanoseconds(wait % std::chrono::seconds(1)).count())};
    if (::ppoll(polls.data(), polls.size(), &timeout, nullptr) < 0) continue;
    const Clock::time_point now = Clock::now();
    for (std::size_t i = 0; i < links_.size(); ++i) {
      constexpr short kReadable = POLLIN | POLLHUP | POLLERR;
      links_[i]->work((polls[2 + 2 * i].revents & kReadable) != 0,
                      (polls[3 + 2 * i].revents & kReadable) != 0, now);
    }
    std::erase_if(links_, [](const auto& link) { return link->over(); });
    if ((polls[1].revents & POLLIN) != 0) accept();
  }
}

void Proxy::accept() {
  const int client = ::accept4(listener_, nullptr, nullptr, SOCK_CLOEXEC);
  if (client < 0) return;
  const int broker = connect_to(broker_port_);
  if (broker < 0) {
    ::close(client);
    return;
  }
  send_at_once(client);
  ++links_total_;
  const LinkPlan plan = choose_plan(random_);
  links_.push_back(std::make_unique<Link>(*this, plan, random_.next(), client, broker));
}

}  // namespace holdfast::network
