#include "cli/bench_command.h"

#include <fmt/format.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "bench/figures.h"
#include "bench/own_broker.h"
#include "bench/plan.h"
#include "bench/run.h"
#include "cli/interrupt.h"
#include "cli/json_form.h"
#include "cli/session.h"
#include "holdfast/text.h"

namespace holdfast::cli {
namespace {

using bench::Figures;
using bench::Latencies;
using bench::Plan;

struct BenchArguments {
  bench::PlanArguments plan;
  std::string queue = "bench";
  std::string label = "holdfast";
  std::uint64_t server_pid = 0;
  std::string probe;                  // directory; empty: that of the own broker, if there is one
  std::optional<std::string> parent;  // of the own broker's directory
  std::optional<std::string> binary;  // of the own broker
  bool json = false;
};

Json optional_json(const std::optional<double>& value, int digits) {
  return value ? Json(rounded(*value, digits)) : Json();
}

Json latency_json(Latencies& latencies, double quantile) {
  return latencies.empty() ? Json() : Json(rounded(latencies.us(quantile), 1));
}

Json run_json(const BenchArguments& arguments, const Plan& plan, Figures& figures,
              bench::DiskProbe* disk) {
  const double rate = static_cast<double>(figures.published) / figures.seconds;
  Json json;
  json["peer"] = arguments.label;
  json["version"] = figures.broker_version;
  json["durable"] = true;
  json["workload"] = bench::workload_name(plan.workload);
  json["size"] = plan.body_bytes;
  json["count"] = figures.published;
  json["producers"] = plan.producers;
  json["consumers"] = plan.consumes() ? plan.consumers : 0;
  json["window"] = plan.window;
  json["target_rate"] = plan.is_paced() ? Json(plan.rate) : Json();
  json["seconds"] = rounded(figures.seconds, 3);
  json["rate"] = rounded(rate, 1);
  json["mb_per_s"] = rounded(rate * static_cast<double>(plan.body_bytes) / 1e6, 3);
  json["lat_p50_us"] = latency_json(figures.latencies, .5);
  json["lat_p99_us"] = latency_json(figures.latencies, .99);
  json["lat_p999_us"] = latency_json(figures.latencies, .999);
  json["lat_max_us"] = latency_json(figures.latencies, 1);
  json["redelivered"] = figures.redelivered;
  json["client_cpu_s"] = rounded(figures.client_cpu_s, 3);
  json["server_cpu_s"] = optional_json(figures.server_cpu_s, 2);
  json["server_peak_rss_mb"] = optional_json(figures.server_peak_rss_mb, 1);
  json["fsync_p50_us"] = disk == nullptr ? Json() : latency_json(disk->appends, .5);
  json["server_rss_anon_mb"] = optional_json(figures.server_rss_anon_mb, 1);
  json["fsync_pair_p50_us"] = disk == nullptr ? Json() : latency_json(disk->pairs, .5);
  json["backlog"] = plan.backlog;
  json["queues"] = plan.queues;
  return json;
}

// "key value" for people, in the order of the JSON.
std::string lines_of(const Json& json) {
  std::string lines;
  for (const auto& [key, value] : json.items()) {
    if (value.is_null()) continue;
    lines +=
        fmt::format("{:<20}{}\n", key, value.is_string() ? value.get<std::string>() : value.dump());
  }
  return lines;
}

// What is about a broker of its own goes with none that is named: that one would be measured, and
// loaded, instead.
Status check_whose_broker(const BenchArguments& arguments, const SessionOptions& options) {
  if (options.address_source == AddressSource::kDefault) return Status();
  const std::string_view option = arguments.parent ? "--dir" : arguments.binary ? "--broker" : "";
  if (option.empty()) return Status();
  const bool is_of_environment = options.address_source == AddressSource::kEnvironment;
  return Status(
      ErrorCode::kInvalidArgument,
      fmt::format(
          "{} is about a broker that the bench starts itself, and {} names one at {}, which "
          "would be measured instead. {}, or leave {} out.",
          option, is_of_environment ? "HOLDFAST_URL" : "-u", quoted(options.address),
          is_of_environment ? "Unset HOLDFAST_URL" : "Leave -u out", option));
}

Result<Address> broker_address(const BenchArguments& arguments, Session& session,
                               std::unique_ptr<bench::OwnBroker>& own) {
  if (session.options().address_source != AddressSource::kDefault) {
    Result<Address> address = parse_address(session.options().address);
    if (!address.ok()) return session.with_address(address.status());
    return address;
  }
  const std::string parent = arguments.parent.value_or("");
  auto started = bench::OwnBroker::start(
      arguments.binary.value_or(""),
      parent.empty() ? std::filesystem::temp_directory_path() : std::filesystem::path(parent));
  if (!started.ok()) return started.status();
  own = std::move(*started);
  session.console().note(fmt::format("A broker of its own, process {}, with its data in {}.",
                                     own->pid(), own->directory().string()));
  return parse_address(own->address());
}

ExitCode run_bench(Session& session, const BenchArguments& arguments) {
  const Result<Plan> plan = bench::make_plan(arguments.plan);
  if (!plan.ok()) return session.fail(plan.status());
  const Status checked = check_whose_broker(arguments, session.options());
  if (!checked.ok()) return session.fail(checked);
  std::unique_ptr<bench::OwnBroker> own;
  const Result<Address> address = broker_address(arguments, session, own);
  if (!address.ok()) return session.fail(address.status());

  std::optional<bench::DiskProbe> disk;
  if (!arguments.probe.empty()) {
    disk.emplace(arguments.probe);
  } else if (own != nullptr) {
    disk.emplace(own->directory().string());
  }
  bench::RunOptions options;
  options.address = *address;
  options.queue = arguments.queue;
  options.server_pid =
      own != nullptr ? own->pid() : static_cast<std::uint32_t>(arguments.server_pid);
  options.disk = disk ? &*disk : nullptr;
  // An interrupt ends the run, so that a broker of its own is stopped and its data removed.
  catch_interrupts();
  options.go_on = [&session](std::uint64_t messages) {
    session.console().progress("Messages", messages);
    return !interrupted();
  };
  Result<Figures> figures = bench::Run(*plan, options).execute();
  session.console().end_progress();
  if (!figures.ok()) return session.fail(figures.status(), arguments.queue);
  const Json json = run_json(arguments, *plan, *figures, options.disk);
  if (arguments.json || !session.output().is_table()) {
    session.output().text(dump(json) + "\n");
  } else {
    session.output().text(lines_of(json));
  }
  return session.finish();
}

void take_plan(const Command& command, bench::PlanArguments& plan) {
  constexpr std::uint64_t kMax = 1'000'000'000'000;
  command.take(
      {.name = "WORKLOAD", .meaning = "publish, drain, pipe, sync, fan or paced", .required = true},
      plan.workload);
  command.take_number({.name = "--size", .meaning = "Bytes of each body (default 1024)"},
                      plan.body_bytes, bench::kBodyBytesMin, kMessageBodyBytesMax);
  command.take_number(
      {.name = "--count", .meaning = "Messages; 0: no bound (default 100000, fan: 0)"}, plan.count,
      0, kMax);
  command.take({.name = "--seconds", .meaning = "Publishing stops then (fan: 5)", .value = "S"},
               plan.seconds);
  command.take_number(
      {.name = "--producers", .meaning = "Connections that publish (default 1, fan: 64)"},
      plan.producers, 1, kMax);
  command.take_number({.name = "--consumers", .meaning = "Connections that consume (default 1)"},
                      plan.consumers, 1, kMax);
  command.take_number(
      {.name = "--window",
       .meaning = "Unconfirmed messages of a producer, unsettled of a consumer (default 1024)"},
      plan.window, 1, kMax);
  command.take(
      {.name = "--rate", .meaning = "Messages a second, of paced (default 1000)", .value = "R"},
      plan.rate);
  command.take_number(
      {.name = "--backlog", .meaning = "Messages in the queue beforehand, with publish and drain"},
      plan.backlog, 0, kMax);
  command.take_number({.name = "--queues", .meaning = "Spread over so many queues (default 1)"},
                      plan.queues, 1, kMax);
  command.take_number(
      {.name = "--active", .meaning = "Of those, published to at a time (default 64)"},
      plan.active_queues, 1, kMax);
}

}  // namespace

void add_bench_command(const Command& tool) {
  auto arguments = std::make_shared<BenchArguments>();
  const Command command =
      tool.add("bench", "Measures the broker of -u, or one of its own in a temporary directory");
  take_plan(command, arguments->plan);
  command.take_number(
      {.name = "--server-pid", .meaning = "The broker's process, whose time and memory are told"},
      arguments->server_pid, 1, 1'000'000'000);
  command.take(
      {.name = "--probe", .meaning = "Times the disk of this directory, too", .value = "DIR"},
      arguments->probe);
  command.take({.name = "--dir",
                .meaning = "Where its own broker keeps its data; not with -u",
                .value = "DIR"},
               arguments->parent);
  command.take(
      {.name = "--broker", .meaning = "The holdfastd that it starts; not with -u", .value = "FILE"},
      arguments->binary);
  command.take({.name = "--queue",
                .meaning = "Made and deleted; must not exist (default bench)",
                .value = "NAME"},
               arguments->queue);
  command.take({.name = "--label", .meaning = "Names the broker in the output", .value = "NAME"},
               arguments->label);
  command.take_flag("--json", arguments->json, "One JSON object in one line");
  command.does([arguments](Session& session) { return run_bench(session, *arguments); });
}

}  // namespace holdfast::cli
