// Records: how keys and values of the tables are written and read back. docs/STORAGE.md shows them
// byte by byte.
//
// Keys are big-endian, so that their order is the order of their numbers. Every value but a block's
// ends with a checksum of itself salted with its key: a record that turns up under another key does
// not pass. A decoder returns nullopt for a record that is not to be trusted.

#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "core/records.h"
#include "schema/frame.h"

namespace holdfast::broker {

// What a data directory of this version is marked with.
inline constexpr std::uint32_t kFormatVersion = 3;

// ---- keys ----

class RecordKey {
 public:
  ByteSpan span() const { return {bytes_.data(), size_}; }
  operator ByteSpan() const { return span(); }  // NOLINT(google-explicit-constructor)

  RecordKey& add(std::uint32_t number);
  RecordKey& add(std::uint64_t number);

 private:
  std::array<std::uint8_t, 20> bytes_{};
  std::size_t size_ = 0;
};

RecordKey queue_key(QueueId queue);
RecordKey subscription_key(SubscriptionId subscription);
RecordKey block_key(QueueId queue, Sequence first);
RecordKey ack_key(SubscriptionId subscription, std::uint64_t chunk);
RecordKey retry_key(SubscriptionId subscription, Sequence sequence);
RecordKey dedup_key(QueueId queue, std::uint64_t time_ms, Sequence first);

// The queue or subscription that a key begins with; 0 if the key is too short.
std::uint32_t key_owner(ByteSpan key);

struct DedupKey {
  QueueId queue;
  std::uint64_t time_ms = 0;
  Sequence first = 0;
};
std::optional<BlockKey> read_block_key(ByteSpan key);
std::optional<AckKey> read_ack_key(ByteSpan key);
std::optional<RetryKey> read_retry_key(ByteSpan key);
std::optional<DedupKey> read_dedup_key(ByteSpan key);

// ---- values ----

// What the table meta holds, each under its name.
struct NodeRecord {
  static constexpr std::string_view kName = "node";
  std::uint32_t format = kFormatVersion;
  std::string node_id;
};
struct ProgressRecord {
  static constexpr std::string_view kName = "progress";
  std::uint64_t batch_number = 0;
  std::uint32_t next_id = 1;
  std::uint64_t owners_sum = 0;  // see OwnerSums
};
struct JournalRecord {
  static constexpr std::string_view kName = "journal";
  std::uint64_t bytes = 0;  // of the file, a multiple of 4 KiB; 0: there is none
  std::uint64_t salt = 0;   // of its checksums, chosen at random when the store was created
};
ByteSpan meta_key(std::string_view name);

// Encodes one record at a time; what encode() returns is valid until the next call.
class RecordEncoder {
 public:
  RecordEncoder();
  ~RecordEncoder();
  RecordEncoder(const RecordEncoder&) = delete;
  RecordEncoder& operator=(const RecordEncoder&) = delete;

  ByteSpan encode(ByteSpan key, const NodeRecord& record);
  ByteSpan encode(ByteSpan key, const ProgressRecord& record);
  ByteSpan encode(ByteSpan key, const JournalRecord& record);
  ByteSpan encode(ByteSpan key, const QueueRecord& record);
  ByteSpan encode(ByteSpan key, const SubscriptionRecord& record);
  ByteSpan encode(ByteSpan key, const AckRecord& record);
  ByteSpan encode(ByteSpan key, const RetryRecord& record);
  ByteSpan encode(ByteSpan key, std::span<const MessageIdHash> hashes);

 private:
  struct Builder;
  ByteSpan seal(ByteSpan key);
  void append(const void* bytes, std::size_t count);

  std::unique_ptr<Builder> builder_;
  std::vector<std::uint8_t> value_;
};

std::optional<NodeRecord> decode_node(ByteSpan key, ByteSpan value);
std::optional<ProgressRecord> decode_progress(ByteSpan key, ByteSpan value);
std::optional<JournalRecord> decode_journal(ByteSpan key, ByteSpan value);
std::optional<QueueRecord> decode_queue(ByteSpan key, ByteSpan value);
std::optional<SubscriptionRecord> decode_subscription(ByteSpan key, ByteSpan value);
std::optional<AckRecord> decode_ack(ByteSpan key, ByteSpan value);
std::optional<RetryRecord> decode_retry(ByteSpan key, ByteSpan value);

struct DedupRun {
  DedupKey key;
  // Points into the value, or into `aligned` if the value is not aligned.
  std::span<const MessageIdHash> hashes;
};
std::optional<DedupRun> decode_dedup(ByteSpan key, ByteSpan value,
                                     std::vector<MessageIdHash>* aligned);

}  // namespace holdfast::broker
