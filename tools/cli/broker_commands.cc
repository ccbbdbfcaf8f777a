#include "cli/broker_commands.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "cli/cell.h"
#include "cli/json_form.h"
#include "cli/session.h"

namespace holdfast::cli {
namespace {

std::string publishing_cell(const BrokerReport& report) {
  if (report.draining) return "refused: the broker is draining, it will stop soon";
  if (!report.publishes_allowed) {
    return "refused: storage_full; publishing resumes once there is room";
  }
  return "accepted";
}

std::string commit_time(std::uint32_t microseconds) {
  return fmt::format("{:.1f} ms", static_cast<double>(microseconds) / 1000);
}

void print_broker(Session& session, const BrokerReport& report) {
  session.output().text(render_fields({
      {"Broker", fmt::format("Holdfast {} at {}, process {}, up {}", report.broker_version,
                             session.options().address, report.pid, age_cell(report.uptime))},
      {"Node", report.node_id},
      {"Publishing", publishing_cell(report)},
      {"Queues", fmt::format("{} queues, {} consumers, {} connections", report.queues,
                             report.consumers, report.connections)},
      {"Messages",
       fmt::format("{} ready, {} in flight, {} waiting{}, {} dead", report.ready, report.in_flight,
                   report.waiting, moving_part(report.moving), report.dead)},
      {"Rates", fmt::format("{} published, {} delivered, {} acked", rate_cell(report.publish_rate),
                            rate_cell(report.deliver_rate), rate_cell(report.ack_rate))},
      {"Since start",
       fmt::format("{} published, {} delivered, {} acked, {} refused, {} corrupt", report.published,
                   report.delivered, report.acked, report.refused, report.corrupt)},
      {"Commits",
       fmt::format("{}, half within {}, 99 of 100 within {}", report.commits,
                   commit_time(report.commit_us_p50), commit_time(report.commit_us_p99))},
      {"Data", report.data_directory},
      {"Disk", fmt::format("{} in use, {} claimed, {} free, room for {} more",
                           size_cell(report.store_bytes), size_cell(report.store_file_bytes),
                           size_cell(report.disk_free_bytes), size_cell(report.room_bytes))},
  }));
}

// The queues with the most messages, as many as one screen takes.
Status print_largest_queues(Session& session) {
  constexpr std::size_t kShownMax = 10;
  Result<std::vector<QueueReport>> queues = session.admin().queues();
  if (!queues.ok()) return queues.status();
  std::erase_if(*queues, [](const QueueReport& queue) { return !queue.source_queue.empty(); });
  if (queues->empty()) return Status();
  std::stable_sort(queues->begin(), queues->end(), [](const auto& a, const auto& b) {
    return a.messages + a.dead > b.messages + b.dead;
  });
  Table table({{"QUEUE", Align::kLeft},
               {"READY", Align::kRight},
               {"IN FLIGHT", Align::kRight},
               {"WAITING", Align::kRight},
               {"DEAD", Align::kRight},
               {"PUBLISHED", Align::kRight},
               {"ACKED", Align::kRight}},
              session.output().width());
  for (std::size_t i = 0; i < std::min(kShownMax, queues->size()); ++i) {
    const QueueReport& queue = (*queues)[i];
    table.add({queue.name, fmt::format("{}", queue.ready), fmt::format("{}", queue.in_flight),
               fmt::format("{}", queue.waiting), fmt::format("{}", queue.dead),
               rate_cell(queue.publish_rate), rate_cell(queue.ack_rate)});
  }
  session.output().text("\n" + table.render());
  if (queues->size() > kShownMax) {
    session.output().text(
        fmt::format("and {} more, see: holdfast queue ls\n", queues->size() - kShownMax));
  }
  return Status();
}

ExitCode show_status(Session& session) {
  const Status connected = session.connect();
  if (!connected.ok()) return session.fail(connected);
  const Result<BrokerReport> report = session.admin().status();
  if (!report.ok()) return session.fail(report.status());
  if (!session.output().is_table()) {
    session.output().single(broker_json(*report));
    return session.finish();
  }
  print_broker(session, *report);
  const Status printed = print_largest_queues(session);
  return printed.ok() ? session.finish() : session.fail(printed);
}

ExitCode list_consumers(Session& session, const std::string& queue) {
  const Status connected = queue.empty() ? session.connect() : session.connect_for(queue);
  if (!connected.ok()) return session.fail(connected);
  const Result<std::vector<ConsumerReport>> consumers = session.admin().consumers(queue);
  if (!consumers.ok()) return session.fail(consumers.status(), queue);
  Output& output = session.output();
  output.begin_list({{"CONSUMER", Align::kRight},
                     {"NAME", Align::kLeft},
                     {"QUEUE", Align::kLeft},
                     {"IN FLIGHT", Align::kRight},
                     {"CREDIT", Align::kRight},
                     {"OLDEST", Align::kRight},
                     {"LEASE", Align::kRight},
                     {"DELIVERED", Align::kRight},
                     {"ACKED", Align::kRight}});
  for (const ConsumerReport& consumer : *consumers) {
    if (!output.is_table()) {
      output.object(consumer_json(consumer));
      continue;
    }
    output.row({fmt::format("{}", consumer.id), consumer.name, consumer.queue,
                fmt::format("{}", consumer.in_flight), fmt::format("{}", consumer.credit_messages),
                age_cell(std::chrono::milliseconds(consumer.oldest_lease_ms)),
                age_cell(std::chrono::milliseconds(consumer.lease_ms)),
                fmt::format("{}", consumer.delivered), fmt::format("{}", consumer.acked)});
  }
  output.end_list();
  if (consumers->empty()) {
    session.console().note(queue.empty() ? "There are no consumers."
                                         : fmt::format("Queue {} has no consumers.", queue));
  }
  return session.finish();
}

ExitCode list_connections(Session& session) {
  const Status connected = session.connect();
  if (!connected.ok()) return session.fail(connected);
  const Result<std::vector<ConnectionReport>> connections = session.admin().connections();
  if (!connections.ok()) return session.fail(connections.status());
  Output& output = session.output();
  output.begin_list({{"CONNECTION", Align::kRight},
                     {"NAME", Align::kLeft},
                     {"PEER", Align::kLeft},
                     {"SINCE", Align::kRight},
                     {"FRAMES IN", Align::kRight},
                     {"FRAMES OUT", Align::kRight},
                     {"BYTES IN", Align::kRight},
                     {"BYTES OUT", Align::kRight},
                     {"UNCONFIRMED", Align::kRight},
                     {"READING", Align::kLeft}});
  for (const ConnectionReport& connection : *connections) {
    if (!output.is_table()) {
      output.object(connection_json(connection));
      continue;
    }
    output.row({fmt::format("{}", connection.id), connection.client_name, connection.peer,
                age_cell(connection.connected), fmt::format("{}", connection.frames_in),
                fmt::format("{}", connection.frames_out), size_cell(connection.bytes_in),
                size_cell(connection.bytes_out), size_cell(connection.unconfirmed_bytes),
                connection.reading ? "yes" : "held back"});
  }
  output.end_list();
  return session.finish();
}

}  // namespace

void add_broker_commands(const Command& tool) {
  tool.add("status", "Shows the broker on one screen").does(show_status);

  const Command consumer = tool.add_group("consumer", "Shows who consumes");
  auto queue = std::make_shared<std::string>();
  const Command consumers = consumer.add("ls", "Lists the consumers of a queue, or of all");
  consumers.take({.name = "QUEUE", .meaning = "Only of this queue"}, *queue);
  consumers.does([queue](Session& session) { return list_consumers(session, *queue); });

  const Command connection = tool.add_group("connection", "Shows who is connected");
  connection.add("ls", "Lists the connections").does(list_connections);
}

}  // namespace holdfast::cli
