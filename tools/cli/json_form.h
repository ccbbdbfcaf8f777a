// Everything that the tool prints, as JSON. The fields of each object are a promise to scripts:
// docs/OPERATIONS.md lists them; new ones may be added, none is renamed.

#pragma once

#include <chrono>
#include <cstdint>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

#include "holdfast/admin.h"
#include "holdfast/message.h"

namespace holdfast::cli {

// Keeps the order in which fields are set.
using Json = nlohmann::ordered_json;

// Of a dead letter that of its source; the epoch if it is not known.
std::chrono::system_clock::time_point published_at(const StoredMessage& message);

// 0 if the report does not have it.
std::uint64_t setting_of(const QueueReport& report, std::string_view name);

Json receipt_json(std::string_view queue, const PublishReceipt& receipt);
// "body", or "body_base64" where the body is not UTF-8; a dead letter carries where it came from.
Json message_json(const StoredMessage& message);
// What message_json() tells, and how far it came.
Json message_json(const StoredMessage& message, const AttemptsReport& attempts);
Json queue_json(const QueueReport& report);
// Of the message at a queue's head, for whoever asks every minute: without the body.
Json oldest_json(const StoredMessage& oldest);
Json broker_json(const BrokerReport& report);
Json consumer_json(const ConsumerReport& report);
Json connection_json(const ConnectionReport& report);

// A measured number, of which no more than so many decimals are worth showing.
double rounded(double value, int decimals);

// One line, without the line's end. Bytes that are not UTF-8 become U+FFFD.
std::string dump(const Json& json);

}  // namespace holdfast::cli
