// A network between clients and the broker that delays, splits, merges and cuts.
//
// It knows frames, so that it can lose exactly the replies: a request was forwarded, the broker did
// it and answered, and the answer never arrives. Each connection through it is a link with a plan
// of its own, chosen when it is accepted:
//
// - its bytes are passed on in segments of other sizes than they came in, after a delay;
// - it ends by a cut: after some replies all later ones are dropped for a while and then both sides
//   are closed; or in the middle of a frame; or the client's side is closed while the broker's
//   stays open: what the client had sent last is held back and delivered late, when the client has
//   already sent it again through another link.
//
// Threads: one of its own; the methods may be called from any.

#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "crash/random.h"

namespace holdfast::network {

struct ProxyCounts {
  std::uint64_t links = 0;
  std::uint64_t cuts = 0;              // links that the proxy ended
  std::uint64_t confirms_dropped = 0;  // publishes that were done and whose reply was lost
  std::uint64_t settled_dropped = 0;   // frames that answered settles
  std::uint64_t publishes_late = 0;    // delivered over a link that the client had lost before
};

class Link;

class Proxy {
 public:
  // Throws std::runtime_error where no socket can be had.
  Proxy(std::uint64_t seed, std::uint16_t broker_port);
  ~Proxy();
  Proxy(const Proxy&) = delete;
  Proxy& operator=(const Proxy&) = delete;

  std::string address() const;
  ProxyCounts counts() const;
  // From now on links are cut no more, those that stand neither.
  void be_calm() { calm_ = true; }

 private:
  friend class Link;
  void run();
  void accept();

  crash::Random random_;
  const std::uint16_t broker_port_;
  std::uint16_t port_ = 0;
  int listener_ = -1;
  int wake_[2] = {-1, -1};
  std::vector<std::unique_ptr<Link>> links_;
  std::atomic<bool> calm_{false};
  std::atomic<bool> stopping_{false};
  std::atomic<std::uint64_t> links_total_{0};
  std::atomic<std::uint64_t> cuts_{0};
  std::atomic<std::uint64_t> confirms_dropped_{0};
  std::atomic<std::uint64_t> settled_dropped_{0};
  std::atomic<std::uint64_t> publishes_late_{0};
  std::thread thread_;
};

}  // namespace holdfast::network
