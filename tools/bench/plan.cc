#include "bench/plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <utility>

namespace holdfast::bench {

namespace {

constexpr std::array<std::pair<std::string_view, Workload>, 6> kWorkloads = {{
    {"publish", Workload::kPublish},
    {"drain", Workload::kDrain},
    {"pipe", Workload::kPipe},
    {"sync", Workload::kSync},
    {"fan", Workload::kFan},
    {"paced", Workload::kPaced},
}};

constexpr std::uint64_t kCountDefault = 100'000;
constexpr std::uint64_t kWindowDefault = 1'024;
constexpr std::uint64_t kWindowMax = 65'536;  // the largest credit that a consumer may have
constexpr std::uint64_t kFanProducers = 64;
constexpr double kFanSeconds = 5;
constexpr std::uint64_t kConnectionsMax = 1'000;
constexpr std::uint64_t kQueuesMax = 100'000;
constexpr std::uint64_t kCountMax = 1'000'000'000'000;
// Within these every time and every number of messages of a run has room in 64 bits.
constexpr double kRateMin = 0.001;
constexpr double kRateMax = 1'000'000'000;
constexpr double kSecondsMax = 7 * 86'400;

template <typename Number>
Status out_of_bounds(std::string_view option, Number value, Number value_min, Number value_max) {
  return Status(ErrorCode::kInvalidArgument, fmt::format("{} {} is out of bounds: {} to {}.",
                                                         option, value, value_min, value_max));
}

Status check_bounds(const Plan& plan) {
  const struct {
    std::string_view option;
    std::uint64_t value;
    std::uint64_t value_min;
    std::uint64_t value_max;
  } bounds[] = {
      {"--size", plan.body_bytes, kBodyBytesMin, kMessageBodyBytesMax},
      {"--count", plan.count, 0, kCountMax},
      {"--backlog", plan.backlog, 0, kCountMax},
      {"--producers", plan.producers, 1, kConnectionsMax},
      {"--consumers", plan.consumers, 1, kConnectionsMax},
      {"--window", plan.window, 1, kWindowMax},
      {"--queues", plan.queues, 1, kQueuesMax},
      {"--active", plan.active_queues, 1, plan.queues},
  };
  for (const auto& [option, value, value_min, value_max] : bounds) {
    if (value < value_min || value > value_max) {
      return out_of_bounds(option, value, value_min, value_max);
    }
  }
  // So put that what is not a number is out of them.
  if (!(plan.rate >= kRateMin && plan.rate <= kRateMax)) {
    return out_of_bounds("--rate", plan.rate, kRateMin, kRateMax);
  }
  if (!(plan.seconds >= 0 && plan.seconds <= kSecondsMax)) {
    return out_of_bounds("--seconds", plan.seconds, 0.0, kSecondsMax);
  }
  if (plan.count == 0 && plan.seconds == 0) {
    return Status(ErrorCode::kInvalidArgument,
                  "Nothing ends the run: give --count or --seconds, or both.");
  }
  if (plan.backlog > 0 && plan.workload != Workload::kPublish &&
      plan.workload != Workload::kDrain) {
    return Status(ErrorCode::kInvalidArgument, "--backlog goes with publish or drain.");
  }
  if (plan.backlog > 0 && plan.queues > 1) {
    return Status(ErrorCode::kInvalidArgument, "--backlog goes with one queue.");
  }
  return Status();
}

}  // namespace

std::optional<Workload> parse_workload(std::string_view name) {
  const auto found = std::find_if(kWorkloads.begin(), kWorkloads.end(),
                                  [name](const auto& entry) { return entry.first == name; });
  if (found == kWorkloads.end()) return std::nullopt;
  return found->second;
}

std::string_view workload_name(Workload workload) {
  return kWorkloads[static_cast<std::size_t>(workload)].first;
}

Result<Plan> make_plan(const PlanArguments& arguments) {
  const std::optional<Workload> workload = parse_workload(arguments.workload);
  if (!workload) {
    return Status(
        ErrorCode::kInvalidArgument,
        fmt::format("There is no workload \"{}\": publish, drain, pipe, sync, fan, paced.",
                    arguments.workload));
  }
  const bool fan = *workload == Workload::kFan;
  const bool one_at_a_time = fan || *workload == Workload::kSync;
  Plan plan;
  plan.workload = *workload;
  plan.body_bytes = arguments.body_bytes;
  plan.count = arguments.count.value_or(fan ? 0 : kCountDefault);
  plan.seconds = fan && arguments.seconds == 0 ? kFanSeconds : arguments.seconds;
  plan.producers =
      *workload == Workload::kSync ? 1 : arguments.producers.value_or(fan ? kFanProducers : 1);
  plan.consumers = arguments.consumers;
  plan.window = one_at_a_time ? 1 : arguments.window.value_or(kWindowDefault);
  plan.rate = arguments.rate;
  plan.backlog = arguments.backlog;
  plan.queues = arguments.queues;
  plan.active_queues = std::min(arguments.active_queues, arguments.queues);
  if (Status status = check_bounds(plan); !status.ok()) return status;
  return plan;
}

}  // namespace holdfast::bench
