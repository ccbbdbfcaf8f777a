// Looking at a broker and managing its queues. Every call is synchronous and bounded by the
// client's timeout; it may be made from any thread but the client's I/O thread.

#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "holdfast/message.h"
#include "holdfast/status.h"

namespace holdfast {

// A setting by name and in its own unit (milliseconds, bytes, count), e.g. {"lease", 30'000}. The
// names: docs/OPERATIONS.md, or QueueReport::settings.
using SettingList = std::vector<std::pair<std::string, std::uint64_t>>;

// What the fields of the reports count, and in which unit (bytes, ms, µs, per second), stands in
// docs/OPERATIONS.md, "The keys of the JSON", under the same names; what is not there, here.

struct QueueReport {
  std::uint32_t id = 0;  // the broker's number for it, never given again
  std::string name;
  SettingList settings;
  std::string dead_queue;
  std::string source_queue;
  std::uint64_t next_sequence = 0;
  std::uint64_t floor = 0;
  std::uint64_t messages = 0, bytes = 0, ready = 0, in_flight = 0, waiting = 0, moving = 0,
                dead = 0;
  // Some are ready and none is delivered: as many as outstanding-max allows are in flight, waiting
  // or moving (on a full disk, as many again may move).
  bool stalled = false;
  std::uint32_t consumers = 0;
  // Events since the broker started.
  std::uint64_t published = 0, duplicates = 0, delivered = 0, redelivered = 0, acked = 0,
                late_acks = 0, nacked = 0, rejected = 0, released = 0, leases_expired = 0,
                deliveries_lost = 0, dead_lettered = 0, redriven = 0, discarded = 0, purged = 0,
                corrupt = 0, refused = 0;
  std::uint64_t dedup_ids = 0, dedup_cut_short = 0;
  double publish_rate = 0, deliver_rate = 0, ack_rate = 0;  // per second, over the last ten
  std::chrono::system_clock::time_point created_at;
};

struct BrokerReport {
  std::string broker_version, node_id, data_directory;
  std::chrono::milliseconds uptime{0};
  std::uint32_t queues = 0, connections = 0, consumers = 0, pid = 0;
  std::uint64_t ready = 0, in_flight = 0, waiting = 0, moving = 0, dead = 0;
  double publish_rate = 0, deliver_rate = 0, ack_rate = 0;  // as of a queue, of all together
  // Since the broker started, of the queues that are there now.
  std::uint64_t published = 0, delivered = 0, acked = 0, corrupt = 0, refused = 0;
  std::uint64_t store_bytes = 0, store_file_bytes = 0, disk_free_bytes = 0, room_bytes = 0;
  bool publishes_allowed = true, draining = false;
  std::uint64_t batch_number = 0, commits = 0;
  std::uint32_t commit_us_p50 = 0, commit_us_p99 = 0;
};

struct ConsumerReport {
  std::uint64_t id = 0, connection = 0;  // the broker's numbers for them
  std::string queue, subscription, name;
  std::uint32_t credit_messages = 0, in_flight = 0, lease_ms = 0;
  std::uint64_t credit_bytes = 0, in_flight_bytes = 0, delivered = 0, acked = 0,
                oldest_lease_ms = 0;
};

struct ConnectionReport {
  std::uint64_t id = 0;
  std::string peer, client_name;
  std::chrono::milliseconds connected{0};  // for how long
  std::uint64_t frames_in = 0, frames_out = 0, bytes_in = 0, bytes_out = 0, output_bytes = 0,
                unconfirmed_bytes = 0;
  bool reading = true;
};

// What became of dead letters; in a dry run, what would.
struct MoveReport {
  std::uint64_t moved = 0;
  std::uint64_t skipped_in_flight = 0;  // held by a consumer, or moving to the end of their queue
  std::uint64_t not_found = 0;          // of the named ones
  std::uint64_t refused = 0;            // by their source; see `first_refusal`
  std::uint64_t not_found_first = 0;    // the lowest sequence of those not found
  std::uint64_t next = 0;               // of a step: go on from here; 0: done
  // Of a redrive: kMessageCorrupt (the raw bytes of a damaged message), kStorageFull, kQueueFull,
  // kMessageTooLarge (for the source's max-bytes); ok if none was refused.
  Status first_refusal;
};

struct PeekPage {
  std::vector<StoredMessage> messages;
  std::uint64_t next = 0;  // go on from here; 0: the end was reached
};

class ClientImpl;

// Every call may return what holdfast/client.h says of all that wait for the broker. What is no
// name of a queue is kNameInvalid, and a setting that does not exist, or more settings than there
// are, kInvalidArgument, without asking the broker. So is everything of a moved-from Admin.
// Wherever a queue is named that there is not, kQueueNotFound.
//
// When the connection is lost meanwhile, kConnectionLost is returned by create_queue() without
// `if_not_exists`, delete_queue(), purge_queue() and, but for dry runs, what moves dead letters:
// nobody knows whether it was done. All else is asked again.
class Admin {
 public:
  // With its dead-letter queue. By the broker: kNameInvalid (a name with .dead at its end);
  // kQueueExists, unless `if_not_exists`, which gives the queue as it is; kInvalidArgument (a value
  // out of the setting's bounds, a setting that is named twice, backoff-min above backoff-max);
  // kLimitReached (as many queues as there may be); kStorageFull.
  Result<QueueReport> create_queue(std::string_view name, const SettingList& settings = {},
                                   bool if_not_exists = false);
  // What is not named stays. By the broker: kInvalidArgument as above; kOperationRefused (a setting
  // that every dead-letter queue has alike, of one).
  Result<QueueReport> edit_queue(std::string_view name, const SettingList& settings);
  Result<QueueReport> queue(std::string_view name);
  // All queues, dead-letter queues among them, or those alone; by name. Asked for in pages: what is
  // made, deleted or changed meanwhile may be seen or not, and each page has the client's timeout.
  Result<std::vector<QueueReport>> queues(bool dead_only = false);
  // With its messages, its dead-letter queue and its consumers. By the broker: kOperationRefused (a
  // dead-letter queue, which goes together with its queue).
  Status delete_queue(std::string_view name);
  // Removes all messages, also those that are held, but no dead letters of the queue. The number of
  // messages removed.
  Result<std::uint64_t> purge_queue(std::string_view name);

  // One page, at most `limit` (1 to 1,000, else kInvalidArgument) messages from sequence `from` (0:
  // the oldest) on, without damaged ones. It may be shorter and yet not the last one: see `next`.
  Result<PeekPage> peek(std::string_view queue, std::uint32_t limit, std::uint64_t from = 0);
  // The message with this sequence; kMessageNotFound if it is settled, dead-lettered, or never was,
  // kMessageCorrupt if it is stored and damaged.
  Result<StoredMessage> get(std::string_view queue, std::uint64_t sequence);
  // What became of it so far, of a damaged one, too; of a dead letter, since it came to the end of
  // its queue. kMessageNotFound as get().
  Result<AttemptsReport> attempts(std::string_view queue, std::uint64_t sequence);

  // Back to the end of their source queue. `queue` is that or its dead-letter queue. 1 to 256
  // sequences a call, none of them 0, else kInvalidArgument. What cannot be moved is no error of
  // the call: see MoveReport.
  Result<MoveReport> redrive(std::string_view queue, const std::vector<std::uint64_t>& sequences,
                             bool dry_run = false);
  // One step of at most `limit` (1 to 256, else kInvalidArgument) from sequence `from` to sequence
  // `to` (0: the last there is); call again with `next` until it is 0. A `to` keeps out what fails
  // again meanwhile.
  Result<MoveReport> redrive_all(std::string_view queue, std::uint64_t from, std::uint32_t limit,
                                 bool dry_run = false, std::uint64_t to = 0);
  // Likewise, removed for good.
  Result<MoveReport> discard(std::string_view queue, const std::vector<std::uint64_t>& sequences,
                             bool dry_run = false);
  Result<MoveReport> discard_all(std::string_view queue, std::uint64_t from, std::uint32_t limit,
                                 bool dry_run = false, std::uint64_t to = 0);

  Result<BrokerReport> status();
  // Of all queues, if it is empty; in pages likewise.
  Result<std::vector<ConsumerReport>> consumers(std::string_view queue = {});
  Result<std::vector<ConnectionReport>> connections();

 private:
  friend class Client;
  explicit Admin(std::shared_ptr<ClientImpl> impl) : impl_(std::move(impl)) {}
  std::shared_ptr<ClientImpl> impl_;
};

}  // namespace holdfast
