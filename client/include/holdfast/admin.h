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

struct QueueReport {
  std::uint32_t id = 0;
  std::string name;
  SettingList settings;
  std::string dead_queue;
  std::string source_queue;
  std::uint64_t next_sequence = 0;
  std::uint64_t floor = 0;
  std::uint64_t messages = 0, bytes = 0, ready = 0, in_flight = 0, waiting = 0, moving = 0,
                dead = 0;
  std::uint32_t consumers = 0;
  // Since the broker started.
  std::uint64_t published = 0, duplicates = 0, delivered = 0, redelivered = 0, acked = 0,
                late_acks = 0, nacked = 0, rejected = 0, released = 0, leases_expired = 0,
                deliveries_lost = 0, dead_lettered = 0, redriven = 0, discarded = 0, purged = 0,
                corrupt = 0, refused = 0;
  std::uint64_t dedup_ids = 0, dedup_cut_short = 0;
  double publish_rate = 0, deliver_rate = 0, ack_rate = 0;
  std::chrono::system_clock::time_point created_at;
};

struct BrokerReport {
  std::string broker_version, node_id, data_directory;
  std::chrono::milliseconds uptime{0};
  std::uint32_t queues = 0, connections = 0, consumers = 0, pid = 0;
  std::uint64_t ready = 0, in_flight = 0, waiting = 0, moving = 0, dead = 0;
  double publish_rate = 0, deliver_rate = 0, ack_rate = 0;
  std::uint64_t published = 0, delivered = 0, acked = 0, corrupt = 0, refused = 0;
  std::uint64_t store_bytes = 0, store_file_bytes = 0, disk_free_bytes = 0, room_bytes = 0;
  bool publishes_allowed = true, draining = false;
  std::uint64_t batch_number = 0, commits = 0;
  std::uint32_t commit_us_p50 = 0, commit_us_p99 = 0;
};

struct ConsumerReport {
  std::uint64_t id = 0, connection = 0;
  std::string queue, subscription, name;
  std::uint32_t credit_messages = 0, in_flight = 0, lease_ms = 0;
  std::uint64_t credit_bytes = 0, in_flight_bytes = 0, delivered = 0, acked = 0,
                oldest_lease_ms = 0;
};

struct ConnectionReport {
  std::uint64_t id = 0;
  std::string peer, client_name;
  std::chrono::milliseconds connected{0};
  std::uint64_t frames_in = 0, frames_out = 0, bytes_in = 0, bytes_out = 0, output_bytes = 0,
                unconfirmed_bytes = 0;
  bool reading = true;
};

struct MoveReport {
  std::uint64_t moved = 0;
  std::uint64_t skipped_in_flight = 0, not_found = 0, refused = 0;
  std::uint64_t not_found_first = 0;  // the lowest sequence of those
  std::uint64_t next = 0;             // with `all`: go on from here; 0: done
  Status first_refusal;
};

struct PeekPage {
  std::vector<StoredMessage> messages;
  std::uint64_t next = 0;  // go on from here; 0: the end was reached
};

class ClientImpl;

// What is no name of a queue is kNameInvalid, and a setting that does not exist, or more settings
// than there are, kInvalidArgument, without asking the broker. So is everything of a moved-from
// Admin.
class Admin {
 public:
  Result<QueueReport> create_queue(std::string_view name, const SettingList& settings = {},
                                   bool if_not_exists = false);
  Result<QueueReport> edit_queue(std::string_view name, const SettingList& settings);
  Result<QueueReport> queue(std::string_view name);
  // All queues, dead-letter queues among them, or those alone; by name. Asked for in pages: what is
  // made, deleted or changed meanwhile may be seen or not, and each page has the client's timeout.
  Result<std::vector<QueueReport>> queues(bool dead_only = false);
  Status delete_queue(std::string_view name);
  // The number of messages removed.
  Result<std::uint64_t> purge_queue(std::string_view name);

  // One page, at most `limit` (1 to 1,000) messages from sequence `from` (0: the oldest) on,
  // without damaged ones.
  Result<PeekPage> peek(std::string_view queue, std::uint32_t limit, std::uint64_t from = 0);
  // The message with this sequence; kMessageNotFound if it is settled, dead-lettered, or never was,
  // kMessageCorrupt if it is stored and damaged.
  Result<StoredMessage> get(std::string_view queue, std::uint64_t sequence);
  // What became of it so far, of a damaged one, too; of a dead letter, since it came to the end of
  // its queue. kMessageNotFound as get().
  Result<AttemptsReport> attempts(std::string_view queue, std::uint64_t sequence);

  // `queue` is the source queue or its dead-letter queue. At most 256 sequences a call.
  Result<MoveReport> redrive(std::string_view queue, const std::vector<std::uint64_t>& sequences,
                             bool dry_run = false);
  // One step of at most `limit` (1 to 256) from sequence `from` to sequence `to` (0: the last there
  // is); call again with `next` until it is 0. A `to` keeps out what fails again meanwhile.
  Result<MoveReport> redrive_all(std::string_view queue, std::uint64_t from, std::uint32_t limit,
                                 bool dry_run = false, std::uint64_t to = 0);
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
