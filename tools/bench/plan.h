// What one run of the bench does: its workload and its numbers. docs/PERFORMANCE.md defines the
// workloads.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "holdfast/status.h"
#include "schema/field_limits.h"

namespace holdfast::bench {

enum class Workload : std::uint8_t { kPublish, kDrain, kPipe, kSync, kFan, kPaced };

// "publish", "drain", …; nullopt if there is no such workload.
std::optional<Workload> parse_workload(std::string_view name);
std::string_view workload_name(Workload workload);

// Every body begins with the time it was sent and its number.
inline constexpr std::uint64_t kBodyBytesMin = 16;

// As typed: what is not given depends on the workload.
struct PlanArguments {
  std::string workload;
  std::uint64_t body_bytes = 1024;
  std::optional<std::uint64_t> count;  // messages; 0: as many as fit into `seconds`
  double seconds = 0;                  // publishing stops then; 0: no bound
  std::optional<std::uint64_t> producers;
  std::uint64_t consumers = 1;
  std::optional<std::uint64_t>
      window;                 // unconfirmed messages of each producer, credit of consumers
  double rate = 1000;         // messages a second, of paced
  std::uint64_t backlog = 0;  // messages that are in the queue before the clock starts
  std::uint64_t queues = 1;
  std::uint64_t active_queues = 64;  // of those, published to at a time
};

struct Plan {
  Workload workload = Workload::kPublish;
  std::uint64_t body_bytes = 0;
  std::uint64_t count = 0;
  double seconds = 0;
  std::uint64_t producers = 1;
  std::uint64_t consumers = 1;
  std::uint64_t window = 1;
  double rate = 0;
  std::uint64_t backlog = 0;
  std::uint64_t queues = 1;
  std::uint64_t active_queues = 1;

  bool is_paced() const { return workload == Workload::kPaced; }
  // Whether consumers take what was published, at the same time or afterwards.
  bool consumes() const {
    return workload == Workload::kDrain || workload == Workload::kPipe || is_paced();
  }
  // Whether it tells how long a confirm takes.
  bool times_confirms() const { return window == 1 && !consumes(); }
};

// kInvalidArgument with a sentence that names the option.
Result<Plan> make_plan(const PlanArguments& arguments);

}  // namespace holdfast::bench
