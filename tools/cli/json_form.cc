#include "cli/json_form.h"

#include <algorithm>
#include <cmath>
#include <cstdint>

#include "cli/base64.h"
#include "cli/cell.h"
#include "holdfast/text.h"

namespace holdfast::cli {
namespace {

Json time_json(std::chrono::system_clock::time_point time) {
  const std::string text = timestamp(time);
  return text.empty() ? Json(nullptr) : Json(text);
}

// A name that occurs several times has an array of its values.
Json headers_json(const Headers& headers) {
  Json json = Json::object();
  for (const auto& [name, value] : headers) {
    const auto found = json.find(name);
    if (found == json.end()) {
      json[name] = value;
    } else if (found->is_array()) {
      found->push_back(value);
    } else {
      *found = Json::array({*found, value});
    }
  }
  return json;
}

Json attempt_json(const AttemptReport& attempt) {
  Json json;
  json["attempt"] = attempt.number;
  json["cause"] = attempt.cause;
  json["consumer"] = attempt.consumer;
  json["error"] = attempt.error;
  json["delivered_at"] = time_json(attempt.delivered_at);
  json["ended_at"] = time_json(attempt.ended_at);
  return json;
}

Json history_json(const std::vector<AttemptReport>& history) {
  Json json = Json::array();
  for (const AttemptReport& attempt : history) json.push_back(attempt_json(attempt));
  return json;
}

void add_provenance(const Provenance& provenance, Json& json) {
  json["source"] = provenance.source;
  json["source_sequence"] = provenance.source_sequence;
  json["subscription"] = provenance.subscription;
  json["reason"] = provenance.reason;
  json["error"] = provenance.error;
  json["attempts"] = provenance.attempts;
  json["dead_at"] = time_json(provenance.dead_at);
  json["history"] = history_json(provenance.history);
}

}  // namespace

std::chrono::system_clock::time_point published_at(const StoredMessage& message) {
  return message.is_dead_letter ? message.provenance.published_at : message.published_at;
}

std::uint64_t setting_of(const QueueReport& report, std::string_view name) {
  const auto found = std::ranges::find(report.settings, name, &SettingList::value_type::first);
  return found == report.settings.end() ? 0 : found->second;
}

Json receipt_json(std::string_view queue, const PublishReceipt& receipt) {
  Json json;
  json["queue"] = queue;
  json["sequence"] = receipt.sequence;
  json["id"] = receipt.id;
  json["duplicate"] = receipt.duplicate;
  return json;
}

Json message_json(const StoredMessage& message) {
  Json json;
  json["queue"] = message.queue;
  json["sequence"] = message.sequence;
  json["id"] = message.id;
  json["attempt"] = message.attempt;
  json["state"] = message.state;
  json["headers"] = headers_json(message.headers);
  if (is_valid_utf8(message.body)) {
    json["body"] = message.body;
  } else {
    json["body_base64"] = base64(message.body);
  }
  json["published_at"] = time_json(published_at(message));
  if (message.is_dead_letter) add_provenance(message.provenance, json);
  return json;
}

Json message_json(const StoredMessage& message, const AttemptsReport& attempts) {
  Json json = message_json(message);
  json["attempt"] = attempts.attempts;
  json["state"] = attempts.state;
  json["held_by"] = attempts.consumer.empty() ? Json() : Json(attempts.consumer);
  json["due_at"] = time_json(attempts.due_at);
  json["failed"] = history_json(attempts.history);
  return json;
}

Json queue_json(const QueueReport& report) {
  Json json;
  json["queue"] = report.name;
  json["messages"] = report.messages;
  json["bytes"] = report.bytes;
  json["ready"] = report.ready;
  json["in_flight"] = report.in_flight;
  json["waiting"] = report.waiting;
  json["moving"] = report.moving;
  json["dead"] = report.dead;
  json["stalled"] = report.stalled;
  json["dead_queue"] = report.dead_queue;
  json["source_queue"] = report.source_queue;
  json["consumers"] = report.consumers;
  json["next_sequence"] = report.next_sequence;
  json["floor"] = report.floor;
  json["created_at"] = time_json(report.created_at);
  Json settings = Json::object();
  for (const auto& [name, value] : report.settings) settings[name] = value;
  json["settings"] = std::move(settings);
  json["rates"] = {{"published", report.publish_rate},
                   {"delivered", report.deliver_rate},
                   {"acked", report.ack_rate}};
  Json counts;
  counts["published"] = report.published;
  counts["duplicates"] = report.duplicates;
  counts["delivered"] = report.delivered;
  counts["redelivered"] = report.redelivered;
  counts["acked"] = report.acked;
  counts["late_acks"] = report.late_acks;
  counts["nacked"] = report.nacked;
  counts["rejected"] = report.rejected;
  counts["released"] = report.released;
  counts["leases_expired"] = report.leases_expired;
  counts["deliveries_lost"] = report.deliveries_lost;
  counts["dead_lettered"] = report.dead_lettered;
  counts["redriven"] = report.redriven;
  counts["discarded"] = report.discarded;
  counts["purged"] = report.purged;
  counts["corrupt"] = report.corrupt;
  counts["refused"] = report.refused;
  json["since_start"] = std::move(counts);
  json["dedup_ids"] = report.dedup_ids;
  json["dedup_cut_short"] = report.dedup_cut_short;
  return json;
}

Json oldest_json(const StoredMessage& oldest) {
  Json json;
  json["sequence"] = oldest.sequence;
  json["id"] = oldest.id;
  json["attempt"] = oldest.attempt;
  json["state"] = oldest.state;
  json["published_at"] = time_json(published_at(oldest));
  return json;
}

Json broker_json(const BrokerReport& report) {
  Json json;
  json["version"] = report.broker_version;
  json["node_id"] = report.node_id;
  json["pid"] = report.pid;
  json["uptime_ms"] = report.uptime.count();
  json["data_directory"] = report.data_directory;
  json["publishes_allowed"] = report.publishes_allowed;
  json["draining"] = report.draining;
  json["queues"] = report.queues;
  json["connections"] = report.connections;
  json["consumers"] = report.consumers;
  json["ready"] = report.ready;
  json["in_flight"] = report.in_flight;
  json["waiting"] = report.waiting;
  json["moving"] = report.moving;
  json["dead"] = report.dead;
  json["rates"] = {{"published", report.publish_rate},
                   {"delivered", report.deliver_rate},
                   {"acked", report.ack_rate}};
  json["since_start"] = {{"published", report.published}, {"delivered", report.delivered},
                         {"acked", report.acked},         {"corrupt", report.corrupt},
                         {"refused", report.refused},     {"commits", report.commits}};
  json["store_bytes"] = report.store_bytes;
  json["store_file_bytes"] = report.store_file_bytes;
  json["disk_free_bytes"] = report.disk_free_bytes;
  json["room_bytes"] = report.room_bytes;
  json["batch_number"] = report.batch_number;
  json["commit_us_p50"] = report.commit_us_p50;
  json["commit_us_p99"] = report.commit_us_p99;
  return json;
}

Json consumer_json(const ConsumerReport& report) {
  Json json;
  json["consumer"] = report.id;
  json["connection"] = report.connection;
  json["queue"] = report.queue;
  json["subscription"] = report.subscription;
  json["name"] = report.name;
  json["credit_messages"] = report.credit_messages;
  json["credit_bytes"] = report.credit_bytes;
  json["in_flight"] = report.in_flight;
  json["in_flight_bytes"] = report.in_flight_bytes;
  json["lease_ms"] = report.lease_ms;
  json["oldest_lease_ms"] = report.oldest_lease_ms;
  json["delivered"] = report.delivered;
  json["acked"] = report.acked;
  return json;
}

Json connection_json(const ConnectionReport& report) {
  Json json;
  json["connection"] = report.id;
  json["peer"] = report.peer;
  json["client_name"] = report.client_name;
  json["connected_ms"] = report.connected.count();
  json["reading"] = report.reading;
  json["frames_in"] = report.frames_in;
  json["frames_out"] = report.frames_out;
  json["bytes_in"] = report.bytes_in;
  json["bytes_out"] = report.bytes_out;
  json["output_bytes"] = report.output_bytes;
  json["unconfirmed_bytes"] = report.unconfirmed_bytes;
  return json;
}

double rounded(double value, int decimals) {
  const double scale = std::pow(10, decimals);
  return std::round(value * scale) / scale;
}

std::string dump(const Json& json) {
  return json.dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace holdfast::cli
