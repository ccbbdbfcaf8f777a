// One run of the bench: its queues, its links, the clock, and what must be true afterwards.
//
// Happy path: the queues are made anew; what the workload wants to be there beforehand is
// published, untimed; then a timed phase of producers, consumers or both; then the count of what
// the broker holds is compared with what must be left, and the queues are deleted.
//
// Failures: a link that fails, a message that is damaged, missing or was never published, or twenty
// seconds without any progress end the run with an error that says so.

#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "bench/figures.h"
#include "bench/link.h"
#include "bench/message_mold.h"
#include "bench/plan.h"
#include "bench/poller.h"

namespace holdfast::bench {

struct RunOptions {
  Address address;
  std::string queue;             // the queues' name, or what their names begin with
  std::uint32_t server_pid = 0;  // whose processor time and memory are measured; 0: nobody's
  DiskProbe* disk = nullptr;     // sampled before and after; null: not at all
  // Called now and then with the messages published or delivered so far. False ends the run.
  std::function<bool(std::uint64_t)> go_on;
};

class Run {
 public:
  Run(const Plan& plan, RunOptions options);
  Result<Figures> execute();

 private:
  struct Producer {
    std::unique_ptr<Link> link;
    std::uint64_t sent_at_ns = 0;
    std::uint64_t confirmed = 0;
  };
  // What of the plan a phase does.
  struct Phase {
    std::uint64_t producers = 0;
    std::uint64_t consumers = 0;
    std::uint64_t publish_max = 0;  // total of the run at which publishing ends
    std::uint64_t acks_wanted = 0;  // of this phase; 0: of everything that was published
    bool is_timed = false;          // takes latencies, heeds `seconds`
    bool is_paced = false;
  };

  Status prepare();
  Status run_phases();
  Status run_phase(const Phase& phase);
  Status open_links(const Phase& phase);
  void begin_clock(const Phase& phase);
  bool finished();
  std::uint64_t acked() const;
  // How long to wait for events: until there is something to do without any.
  std::uint64_t wait_ns() const;
  // Takes note of confirms, and publishes as far as window, pace and plan allow.
  void produce(Producer& producer);
  void send_next(Producer& producer, std::uint64_t sent_at_ns);
  void take_message(ByteSpan body);
  std::uint32_t queue_of(std::uint64_t number) const;
  std::uint64_t due_ns(std::uint64_t number) const;
  Status verify(Link& admin);
  Result<std::uint64_t> stored(Link& admin);
  Status take_figures();

  const Plan plan_;
  const RunOptions options_;
  MessageMold mold_;
  std::vector<std::string> names_;
  std::vector<std::uint32_t> ids_;
  Figures figures_;
  Status trouble_;

  Phase phase_;
  std::unique_ptr<Poller> poller_;
  std::deque<Producer> producers_;
  std::vector<std::unique_ptr<Link>> consumers_;
  std::uint64_t published_ = 0;       // also the next number
  std::uint64_t first_of_phase_ = 0;  // number of the first message of the phase
  std::uint64_t publish_max_ = 0;     // publishing ends there
  std::uint64_t begin_ns_ = 0;
  std::uint64_t publish_until_ns_ = 0;  // 0: no bound
  bool window_is_full_ = false;
  std::vector<bool> seen_;  // by number
  std::uint64_t delivered_ = 0;
  std::uint64_t acked_ = 0;  // in all phases
};

}  // namespace holdfast::bench
