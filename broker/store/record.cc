#include "store/record.h"

#include <flatbuffers/flatbuffers.h>

#include <algorithm>
#include <bit>
#include <cstring>

#include "base/check.h"
#include "record_generated.h"
#define XXH_INLINE_ALL
#include <xxhash.h>

namespace holdfast::broker {

namespace {

static_assert(std::endian::native == std::endian::little,
              "values are stored as they are in memory");

constexpr std::size_t kChecksumBytes = sizeof(std::uint64_t);
constexpr std::size_t kBitmapBytes = sizeof(AckRecord::bitmap);
// Tables of records: the table itself; vectors of strings do not nest deeper.
constexpr flatbuffers::uoffset_t kDepthMax = 2;
constexpr flatbuffers::uoffset_t kTablesMax = 1;

std::uint64_t record_checksum(ByteSpan key, ByteSpan value) {
  return XXH3_64bits_withSeed(value.data(), value.size(), XXH3_64bits(key.data(), key.size()));
}

// The value without its checksum, if that matches.
std::optional<ByteSpan> unseal(ByteSpan key, ByteSpan value) {
  if (value.size() < kChecksumBytes) return std::nullopt;
  const ByteSpan body = value.first(value.size() - kChecksumBytes);
  std::uint64_t stored = 0;
  std::memcpy(&stored, value.data() + body.size(), kChecksumBytes);
  if (stored != record_checksum(key, body)) return std::nullopt;
  return body;
}

template <typename Number>
Number read_number(ByteSpan bytes, std::size_t at) {
  Number number = 0;
  std::memcpy(&number, bytes.data() + at, sizeof(number));
  return number;
}

template <typename Number>
Number read_big_endian(ByteSpan bytes, std::size_t at) {
  Number number = 0;
  for (std::size_t i = 0; i < sizeof(Number); ++i) {
    number = static_cast<Number>(number << 8 | bytes[at + i]);
  }
  return number;
}

// A stored FlatBuffer. The store's pages do not align values, so it is copied first.
template <typename Table>
class StoredTable {
 public:
  StoredTable(ByteSpan key, ByteSpan value) {
    const std::optional<ByteSpan> body = unseal(key, value);
    if (!body) return;
    bytes_.reset(new std::uint8_t[body->size()]);
    std::memcpy(bytes_.get(), body->data(), body->size());
    flatbuffers::Verifier verifier(bytes_.get(), body->size(), kDepthMax, kTablesMax);
    if (!verifier.VerifyBuffer<Table>(nullptr)) return;
    const Table* const table = flatbuffers::GetRoot<Table>(bytes_.get());
    if (vectors_are_aligned(*table)) table_ = table;
  }
  explicit operator bool() const { return table_ != nullptr; }
  const Table* operator->() const { return table_; }

 private:
  std::unique_ptr<std::uint8_t[]> bytes_;
  const Table* table_ = nullptr;
};

std::string text_at(const flatbuffers::Vector<flatbuffers::Offset<flatbuffers::String>>* texts,
                    flatbuffers::uoffset_t index) {
  if (texts == nullptr || index >= texts->size()) return {};
  return std::string(view(texts->Get(index)));
}

}  // namespace

// ---- keys ----

RecordKey& RecordKey::add(std::uint32_t number) {
  for (int shift = 24; shift >= 0; shift -= 8) {
    bytes_[size_++] = static_cast<std::uint8_t>(number >> shift);
  }
  return *this;
}

RecordKey& RecordKey::add(std::uint64_t number) {
  add(static_cast<std::uint32_t>(number >> 32));
  return add(static_cast<std::uint32_t>(number));
}

RecordKey queue_key(QueueId queue) { return RecordKey().add(queue.value); }
RecordKey subscription_key(SubscriptionId subscription) {
  return RecordKey().add(subscription.value);
}
RecordKey block_key(QueueId queue, Sequence first) {
  return RecordKey().add(queue.value).add(first);
}
RecordKey ack_key(SubscriptionId subscription, std::uint64_t chunk) {
  return RecordKey().add(subscription.value).add(chunk);
}
RecordKey retry_key(SubscriptionId subscription, Sequence sequence) {
  return RecordKey().add(subscription.value).add(sequence);
}
RecordKey dedup_key(QueueId queue, std::uint64_t time_ms, Sequence first) {
  return RecordKey().add(queue.value).add(time_ms).add(first);
}

std::uint32_t key_owner(ByteSpan key) {
  return key.size() < sizeof(std::uint32_t) ? 0 : read_big_endian<std::uint32_t>(key, 0);
}

std::optional<BlockKey> read_block_key(ByteSpan key) {
  if (key.size() != 12) return std::nullopt;
  return BlockKey{QueueId(key_owner(key)), read_big_endian<std::uint64_t>(key, 4)};
}

std::optional<AckKey> read_ack_key(ByteSpan key) {
  if (key.size() != 12) return std::nullopt;
  return AckKey{SubscriptionId(key_owner(key)), read_big_endian<std::uint64_t>(key, 4)};
}

std::optional<RetryKey> read_retry_key(ByteSpan key) {
  if (key.size() != 12) return std::nullopt;
  return RetryKey{SubscriptionId(key_owner(key)), read_big_endian<std::uint64_t>(key, 4)};
}

std::optional<DedupKey> read_dedup_key(ByteSpan key) {
  if (key.size() != 20) return std::nullopt;
  return DedupKey{QueueId(key_owner(key)), read_big_endian<std::uint64_t>(key, 4),
                  read_big_endian<std::uint64_t>(key, 12)};
}

ByteSpan meta_key(std::string_view name) {
  return {reinterpret_cast<const std::uint8_t*>(name.data()), name.size()};
}

// ---- encoding ----

struct RecordEncoder::Builder {
  flatbuffers::FlatBufferBuilder buffer;
};

RecordEncoder::RecordEncoder() : builder_(std::make_unique<Builder>()) {}
RecordEncoder::~RecordEncoder() = default;

void RecordEncoder::append(const void* bytes, std::size_t count) {
  const auto* const from = static_cast<const std::uint8_t*>(bytes);
  value_.insert(value_.end(), from, from + count);
}

ByteSpan RecordEncoder::seal(ByteSpan key) {
  const std::uint64_t sum = record_checksum(key, value_);
  append(&sum, sizeof(sum));
  return value_;
}

ByteSpan RecordEncoder::encode(ByteSpan key, const NodeRecord& record) {
  value_.clear();
  append(&record.format, sizeof(record.format));
  append(record.node_id.data(), record.node_id.size());
  return seal(key);
}

ByteSpan RecordEncoder::encode(ByteSpan key, const ProgressRecord& record) {
  value_.clear();
  append(&record.batch_number, sizeof(record.batch_number));
  append(&record.next_id, sizeof(record.next_id));
  append(&record.owners_sum, sizeof(record.owners_sum));
  return seal(key);
}

ByteSpan RecordEncoder::encode(ByteSpan key, const JournalRecord& record) {
  value_.clear();
  append(&record.bytes, sizeof(record.bytes));
  append(&record.salt, sizeof(record.salt));
  return seal(key);
}

ByteSpan RecordEncoder::encode(ByteSpan key, const QueueRecord& record) {
  flatbuffers::FlatBufferBuilder& buffer = builder_->buffer;
  buffer.Clear();
  std::array<stored::SettingValue, kQueueSettingCount> settings;
  std::size_t count = 0;
  for (const QueueSettingInfo& info : queue_setting_table()) {
    settings[count++] = stored::SettingValue(static_cast<std::uint16_t>(info.setting), 0, 0,
                                             record.settings.get(info.setting));
  }
  const auto name = buffer.CreateString(record.name);
  const auto values = buffer.CreateVectorOfStructs(settings.data(), count);
  buffer.Finish(stored::CreateQueue(
      buffer, name, values, to_unix_ms(record.created_at), record.dead_queue.value,
      record.source_queue.value, record.next_sequence, record.bytes, record.trim_below,
      record.deleted, record.dedup_from_ms, record.dedup_from, record.bytes_estimated));
  value_.assign(buffer.GetBufferPointer(), buffer.GetBufferPointer() + buffer.GetSize());
  return seal(key);
}

ByteSpan RecordEncoder::encode(ByteSpan key, const SubscriptionRecord& record) {
  flatbuffers::FlatBufferBuilder& buffer = builder_->buffer;
  buffer.Clear();
  const auto name = buffer.CreateString(record.name);
  buffer.Finish(stored::CreateSubscription(buffer, record.queue.value, name, record.floor,
                                           record.delivered_to, record.paused));
  value_.assign(buffer.GetBufferPointer(), buffer.GetBufferPointer() + buffer.GetSize());
  return seal(key);
}

ByteSpan RecordEncoder::encode(ByteSpan key, const AckRecord& record) {
  value_.clear();
  append(&record.full_chunks, sizeof(record.full_chunks));
  if (record.full_chunks == 0) append(record.bitmap.data(), kBitmapBytes);
  return seal(key);
}

ByteSpan RecordEncoder::encode(ByteSpan key, const RetryRecord& record) {
  flatbuffers::FlatBufferBuilder& buffer = builder_->buffer;
  buffer.Clear();
  std::vector<stored::Attempt> history;
  std::vector<flatbuffers::Offset<flatbuffers::String>> consumers;
  std::vector<flatbuffers::Offset<flatbuffers::String>> errors;
  history.reserve(record.history.size());
  for (const AttemptRecord& attempt : record.history) {
    history.emplace_back(to_unix_ms(attempt.delivered_at), to_unix_ms(attempt.ended_at),
                         attempt.number, static_cast<std::uint8_t>(attempt.cause), std::uint8_t{0},
                         std::uint16_t{0});
    consumers.push_back(buffer.CreateString(attempt.consumer));
    errors.push_back(buffer.CreateString(attempt.error));
  }
  const auto history_offset = buffer.CreateVectorOfStructs(history);
  const auto consumers_offset = buffer.CreateVector(consumers);
  const auto errors_offset = buffer.CreateVector(errors);
  buffer.Finish(stored::CreateRetry(buffer, record.attempts, record.in_flight,
                                    to_unix_ms(record.due), history_offset, consumers_offset,
                                    errors_offset));
  value_.assign(buffer.GetBufferPointer(), buffer.GetBufferPointer() + buffer.GetSize());
  return seal(key);
}

ByteSpan RecordEncoder::encode(ByteSpan key, std::span<const MessageIdHash> hashes) {
  value_.clear();
  append(hashes.data(), hashes.size_bytes());
  return seal(key);
}

// ---- decoding ----

std::optional<NodeRecord> decode_node(ByteSpan key, ByteSpan value) {
  const std::optional<ByteSpan> body = unseal(key, value);
  if (!body || body->size() < sizeof(std::uint32_t)) return std::nullopt;
  NodeRecord record;
  record.format = read_number<std::uint32_t>(*body, 0);
  record.node_id.assign(body->begin() + sizeof(std::uint32_t), body->end());
  return record;
}

std::optional<ProgressRecord> decode_progress(ByteSpan key, ByteSpan value) {
  const std::optional<ByteSpan> body = unseal(key, value);
  if (!body || body->size() != 20) return std::nullopt;
  return ProgressRecord{.batch_number = read_number<std::uint64_t>(*body, 0),
                        .next_id = read_number<std::uint32_t>(*body, 8),
                        .owners_sum = read_number<std::uint64_t>(*body, 12)};
}

std::optional<JournalRecord> decode_journal(ByteSpan key, ByteSpan value) {
  const std::optional<ByteSpan> body = unseal(key, value);
  if (!body || body->size() != 2 * sizeof(std::uint64_t)) return std::nullopt;
  return JournalRecord{.bytes = read_number<std::uint64_t>(*body, 0),
                       .salt = read_number<std::uint64_t>(*body, sizeof(std::uint64_t))};
}

std::optional<QueueRecord> decode_queue(ByteSpan key, ByteSpan value) {
  const StoredTable<stored::Queue> table(key, value);
  if (!table || key.size() != sizeof(std::uint32_t)) return std::nullopt;
  QueueRecord record;
  record.id = QueueId(key_owner(key));
  record.name = view(table->name());
  if (table->settings() != nullptr) {
    for (const stored::SettingValue* setting : *table->settings()) {
      // Bounds may have become narrower since the value was set; then the default holds.
      static_cast<void>(record.settings.set(setting->setting(), setting->value()).ok());
    }
  }
  record.created_at = from_unix_ms(table->created_at());
  record.dead_queue = QueueId(table->dead_queue());
  record.source_queue = QueueId(table->source_queue());
  record.next_sequence = table->next_sequence();
  record.bytes = table->bytes();
  record.trim_below = table->trim_below();
  record.deleted = table->deleted();
  record.dedup_from_ms = table->dedup_from_ms();
  record.dedup_from = table->dedup_from();
  record.bytes_estimated = table->bytes_estimated();
  return record;
}

std::optional<SubscriptionRecord> decode_subscription(ByteSpan key, ByteSpan value) {
  const StoredTable<stored::Subscription> table(key, value);
  if (!table || key.size() != sizeof(std::uint32_t)) return std::nullopt;
  SubscriptionRecord record;
  record.id = SubscriptionId(key_owner(key));
  record.queue = QueueId(table->queue());
  record.name = view(table->name());
  record.floor = table->floor();
  record.delivered_to = table->delivered_to();
  record.paused = table->paused();
  return record;
}

std::optional<AckRecord> decode_ack(ByteSpan key, ByteSpan value) {
  const std::optional<AckKey> at = read_ack_key(key);
  const std::optional<ByteSpan> body = unseal(key, value);
  if (!at || !body || body->size() < sizeof(std::uint64_t)) return std::nullopt;
  AckRecord record;
  record.subscription = at->subscription;
  record.chunk = at->chunk;
  record.full_chunks = read_number<std::uint64_t>(*body, 0);
  const std::size_t bitmap_bytes = record.full_chunks == 0 ? kBitmapBytes : 0;
  if (body->size() != sizeof(std::uint64_t) + bitmap_bytes) return std::nullopt;
  std::memcpy(record.bitmap.data(), body->data() + sizeof(std::uint64_t), bitmap_bytes);
  return record;
}

std::optional<RetryRecord> decode_retry(ByteSpan key, ByteSpan value) {
  const std::optional<RetryKey> at = read_retry_key(key);
  const StoredTable<stored::Retry> table(key, value);
  if (!at || !table) return std::nullopt;
  RetryRecord record;
  record.subscription = at->subscription;
  record.sequence = at->sequence;
  record.attempts = table->attempts();
  record.in_flight = table->in_flight();
  record.due = from_unix_ms(table->due());
  if (table->history() == nullptr) return record;
  for (flatbuffers::uoffset_t i = 0; i < table->history()->size(); ++i) {
    const stored::Attempt* const stored = table->history()->Get(i);
    record.history.push_back({.number = stored->number(),
                              .cause = static_cast<wire::Cause>(stored->cause()),
                              .delivered_at = from_unix_ms(stored->delivered_at()),
                              .ended_at = from_unix_ms(stored->ended_at()),
                              .consumer = text_at(table->consumers(), i),
                              .error = text_at(table->errors(), i)});
  }
  return record;
}

std::optional<DedupRun> decode_dedup(ByteSpan key, ByteSpan value,
                                     std::vector<MessageIdHash>* aligned) {
  const std::optional<DedupKey> at = read_dedup_key(key);
  const std::optional<ByteSpan> body = unseal(key, value);
  if (!at || !body || body->size() % sizeof(MessageIdHash) != 0) return std::nullopt;
  const std::size_t count = body->size() / sizeof(MessageIdHash);
  DedupRun run{.key = *at, .hashes = {}};
  if (reinterpret_cast<std::uintptr_t>(body->data()) % alignof(MessageIdHash) == 0) {
    run.hashes = {reinterpret_cast<const MessageIdHash*>(body->data()), count};
    return run;
  }
  aligned->resize(count);
  std::memcpy(aligned->data(), body->data(), body->size());
  run.hashes = *aligned;
  return run;
}

}  // namespace holdfast::broker
