// What must hold when there is nothing left to do.

#include <fmt/format.h>

#include <algorithm>

#include "sim/model.h"

namespace holdfast::broker::sim {

void Model::check_rest(const std::vector<QueueReport>& reports, bool is_roomy) {
  for (const QueueReport& report : reports) {
    QueueModel* const of = queue(report.id);
    if (of == nullptr) {
      find("rest", fmt::format("queue {} is there and not stored", report.name));
      continue;
    }
    if (of->delete_asked) continue;
    check_contents(*of, report);
    check_counters(*of, report, reports);
    if (is_roomy && !draining_) check_nobody_waits(*of, report);
  }
}

void Model::check_contents(const QueueModel& of, const QueueReport& report) {
  std::uint64_t surely = 0;
  std::uint64_t bytes = 0;
  for (const Sequence sequence : of.live) {
    const Message& message = of.messages.at(sequence);
    bytes += message.stored_bytes;
    if (!perhaps_gone(of, sequence, message)) ++surely;
  }
  if (report.messages < surely || report.messages > of.live.size()) {
    find("rest", fmt::format("queue {} has {} messages; {} to {} are expected", report.name,
                             report.messages, surely, of.live.size()));
  }
  const bool is_known = surely == of.live.size();
  if (is_known && report.bytes != bytes) {
    find("rest",
         fmt::format("queue {} has {} bytes; {} are expected", report.name, report.bytes, bytes));
  }
  if (report.messages == 0 && report.floor + 1 != report.next_sequence) {
    find("rest", fmt::format("queue {} is empty, and its floor is {} of {}", report.name,
                             report.floor, report.next_sequence - 1));
  }
  const std::size_t held = held_count(report.id);
  if (report.in_flight != held) {
    find("rest", fmt::format("queue {} has {} in flight; consumers hold {}", report.name,
                             report.in_flight, held));
  }
}

// What came less what went is there, and no delivery ended twice.
void Model::check_counters(const QueueModel& of, const QueueReport& report,
                           const std::vector<QueueReport>& reports) {
  const QueueCounters& counters = report.counters;
  std::uint64_t came = of.messages_at_start + counters.published + counters.redriven;
  std::uint64_t went = counters.acked + counters.purged + counters.dead_lettered;
  if (of.source) {
    const auto source = std::find_if(reports.begin(), reports.end(),
                                     [&](const auto& one) { return one.id == of.source; });
    if (source == reports.end()) {
      return find("rest", fmt::format("queue {} is there without its source", report.name));
    }
    // Letters that were rejected came again.
    came += source->counters.dead_lettered + counters.dead_lettered;
    went += source->counters.redriven + counters.discarded;
  }
  if (came != went + report.messages) {
    find("rest", fmt::format("queue {} has {} messages; {} came and {} went", report.name,
                             report.messages, came, went));
  }
  const std::uint64_t ended = counters.acked - counters.late_acks + counters.nacked +
                              counters.rejected + counters.released + counters.leases_expired +
                              counters.deliveries_lost;
  if (ended > counters.delivered || counters.redelivered > counters.delivered) {
    find("rest", fmt::format("queue {} made {} deliveries, {} of them again, and {} ended",
                             report.name, counters.delivered, counters.redelivered, ended));
  }
}

// Neither a consumer for what is ready, nor a message for the dead-letter queue.
void Model::check_nobody_waits(const QueueModel& of, const QueueReport& report) {
  if (report.moving > 0) {
    find("rest", fmt::format("queue {} has {} on the way to its dead-letter queue", report.name,
                             report.moving));
  }
  const std::uint64_t outstanding_max = of.settings.at(QueueSetting::kOutstandingMax);
  if (report.ready == 0 || report.in_flight + report.waiting >= outstanding_max) return;
  for (const auto& [id, consumer] : consumers_) {
    if (consumer.queue != report.id || consumer.held.size() >= consumer.credit) continue;
    const std::uint64_t bytes = held_bytes(consumer);
    if (consumer.credit_bytes > 0 && bytes >= consumer.credit_bytes) continue;
    const auto room = rooms_.find(consumer.session);
    if (room != rooms_.end() && room->second == 0) continue;
    find("rest",
         fmt::format(
             "queue {} has {} ready, {} in flight and {} waiting of {}, and consumer {} gets "
             "none: it holds {} of {}, {} bytes of {}",
             report.name, report.ready, report.in_flight, report.waiting, outstanding_max, id.value,
             consumer.held.size(), consumer.credit, bytes, consumer.credit_bytes));
  }
}

}  // namespace holdfast::broker::sim
