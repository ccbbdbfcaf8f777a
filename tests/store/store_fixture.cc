#include "store/store_fixture.h"

#include <doctest/doctest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

namespace holdfast::broker {

namespace {

constexpr std::uint64_t kMapBytes = 1ull << 32;
constexpr std::chrono::seconds kPatience{30};
constexpr std::uint64_t kJournalBytes = 256 << 10;

std::unique_ptr<Environment> open_environment(const std::string& directory) {
  Result<std::unique_ptr<Environment>> environment =
      Environment::open({.directory = directory + "/store", .map_bytes = kMapBytes});
  REQUIRE_MESSAGE(environment.ok(), environment.status().message());
  return std::move(*environment);
}

}  // namespace

TemporaryDirectory::TemporaryDirectory(const std::string& parent) {
  const std::filesystem::path path =
      parent.empty() ? std::filesystem::temp_directory_path() : std::filesystem::path(parent);
  std::string pattern = (path / "holdfast-store-XXXXXX").string();
  REQUIRE(::mkdtemp(pattern.data()) != nullptr);
  path_ = pattern;
}

TemporaryDirectory::~TemporaryDirectory() {
  std::error_code error;
  std::filesystem::remove_all(path_, error);
}

std::vector<std::string> names_in(const std::string& directory) {
  std::vector<std::string> names;
  for (const auto& entry : std::filesystem::directory_iterator(directory)) {
    names.push_back(entry.path().filename().string());
  }
  std::sort(names.begin(), names.end());
  return names;
}

std::string read_file(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  std::ostringstream text;
  text << file.rdbuf();
  return text.str();
}

void write_file(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file << text;
  REQUIRE(file.good());
}

std::vector<std::uint8_t> message_bytes(const std::string& id, std::size_t body_bytes, char fill) {
  flatbuffers::FlatBufferBuilder builder;
  const auto id_offset = builder.CreateString(id);
  const std::vector<std::uint8_t> body(body_bytes, static_cast<std::uint8_t>(fill));
  const auto body_offset = builder.CreateVector(body);
  wire::MessageBuilder message(builder);
  message.add_id(id_offset);
  message.add_body(body_offset);
  builder.Finish(message.Finish());
  return {builder.GetBufferPointer(), builder.GetBufferPointer() + builder.GetSize()};
}

std::shared_ptr<const Block> block_of(QueueId queue, const std::vector<Sequence>& sequences,
                                      std::size_t body_bytes) {
  BlockBuilder builder(queue);
  for (const Sequence sequence : sequences) {
    const std::vector<std::uint8_t> message = message_bytes(
        "id " + std::to_string(sequence), body_bytes, static_cast<char>('a' + sequence % 26));
    builder.append(sequence, from_unix_ms(1'700'000'000'000 + sequence), checksum(message), message,
                   {});
  }
  return builder.finish();
}

std::vector<Sequence> range(Sequence first, Sequence last) {
  std::vector<Sequence> sequences;
  for (Sequence at = first; at <= last; ++at) sequences.push_back(at);
  return sequences;
}

Bounds bounds_of(const FetchResult& result) {
  Bounds bounds;
  for (const auto& block : result.blocks) {
    bounds.emplace_back(block->first_sequence(), block->last_sequence());
  }
  return bounds;
}

Batches only(std::unique_ptr<Batch> batch) {
  Batches batches;
  batches.push_back(std::move(batch));
  return batches;
}

std::vector<Records> dump(const std::string& directory) {
  const std::unique_ptr<Environment> environment = open_environment(directory);
  Result<Transaction> transaction = environment->begin_read();
  REQUIRE(transaction.ok());
  std::vector<Records> tables(kTableCount);
  for (std::size_t i = 0; i < kTableCount; ++i) {
    Result<Cursor> cursor = transaction->cursor(static_cast<Table>(i));
    REQUIRE(cursor.ok());
    for (bool found = cursor->first(); found; found = cursor->next()) {
      tables[i].emplace_back(
          std::vector<std::uint8_t>(cursor->key().begin(), cursor->key().end()),
          std::vector<std::uint8_t>(cursor->value().begin(), cursor->value().end()));
    }
  }
  return tables;
}

void put_raw(const std::string& directory, Table table, ByteSpan key, ByteSpan value) {
  const std::unique_ptr<Environment> environment = open_environment(directory);
  std::optional<Transaction> transaction;
  REQUIRE(environment->begin_write(&transaction).ok());
  REQUIRE(transaction->put(table, key, value).ok());
  REQUIRE(transaction->commit().ok());
}

void damage(const std::string& directory, Table table, std::size_t record, std::ptrdiff_t at) {
  auto [key, value] = dump(directory)[static_cast<std::size_t>(table)].at(record);
  const std::ptrdiff_t place = at < 0 ? static_cast<std::ptrdiff_t>(value.size()) + at : at;
  value.at(static_cast<std::size_t>(place)) ^= 0x20;
  put_raw(directory, table, key, value);
}

StoreFixture::StoreFixture(StoreOptions given) : options(std::move(given)) {
  if (options.directory.empty()) options.directory = directory_.path();
  if (options.map_bytes == StoreOptions().map_bytes) options.map_bytes = kMapBytes;
  if (options.journal_bytes == StoreOptions().journal_bytes) options.journal_bytes = kJournalBytes;
}

StoreFixture::~StoreFixture() { close(); }

void StoreFixture::open() {
  Result<std::unique_ptr<Store>> opened = Store::open(options);
  REQUIRE_MESSAGE(opened.ok(), opened.status().message());
  store = std::move(*opened);
  Result<StoredState> loaded = store->load();
  REQUIRE_MESSAGE(loaded.ok(), loaded.status().message());
  state = std::move(*loaded);
  last_batch = state.batch_number;
  space_.reset();
  const auto set = [this](auto* slot, auto value) {
    const std::lock_guard<std::mutex> lock(mutex_);
    *slot = std::move(value);
    changed_.notify_one();
  };
  const auto committed = [=, this](CommitResult result) {
    set(&space_, std::nullopt);
    set(&committed_, std::move(result));
  };
  store->start(
      committed, [=, this](Status status) { set(&failed_, std::move(status)); },
      [=, this](SpaceReport report) { set(&space_, std::move(report)); });
}

void StoreFixture::close() {
  if (store != nullptr) store->close();
  store.reset();
}

CommitResult StoreFixture::commit(Batch batch) {
  batch.number = last_batch + 1;
  return commit_all(only(std::make_unique<Batch>(std::move(batch))));
}

CommitResult StoreFixture::commit_all(Batches batches) {
  last_batch = batches.back()->number;
  store->commit(std::move(batches));
  std::unique_lock<std::mutex> lock(mutex_);
  const bool done = changed_.wait_for(lock, kPatience, [this] { return committed_ || failed_; });
  REQUIRE_MESSAGE(done, "batch ", last_batch, " was not committed");
  REQUIRE_EQ(failure(), "");
  CommitResult result = std::move(*committed_);
  committed_.reset();
  CHECK_EQ(result.number, last_batch);
  return result;
}

std::string StoreFixture::failure() const { return failed_ ? failed_->message() : ""; }

Status StoreFixture::wait_for_failure() {
  std::unique_lock<std::mutex> lock(mutex_);
  REQUIRE(changed_.wait_for(lock, kPatience, [this] { return failed_.has_value(); }));
  return *failed_;
}

SpaceReport StoreFixture::wait_for_space(const std::function<bool(const SpaceReport&)>& holds) {
  std::unique_lock<std::mutex> lock(mutex_);
  REQUIRE(changed_.wait_for(lock, kPatience,
                            [&] { return (space_ && holds(*space_)) || failed_.has_value(); }));
  REQUIRE_EQ(failure(), "");
  return *std::exchange(space_, std::nullopt);
}

bool StoreFixture::reports_space_within(std::chrono::milliseconds time) {
  std::unique_lock<std::mutex> lock(mutex_);
  return changed_.wait_for(lock, time, [this] { return space_.has_value(); });
}

void StoreFixture::copy_as_if_killed(const std::string& path) const {
  std::filesystem::create_directories(path + "/store");
  // The journal first: what the tables may take in meanwhile, it holds as well.
  for (const std::string name : {"journal", "data.mdb", "format"}) {
    std::filesystem::copy_file(options.directory + "/store/" + name, path + "/store/" + name);
  }
}

FetchResult StoreFixture::fetch(QueueId queue, Sequence from, Sequence to, std::size_t bytes_max) {
  Result<FetchResult> result = store->fetch_blocking(
      {.id = FetchId(1), .queue = queue, .from = from, .to = to, .bytes_max = bytes_max});
  REQUIRE_MESSAGE(result.ok(), result.status().message());
  return std::move(*result);
}

std::vector<DedupRecord> StoreFixture::load_dedup() {
  std::vector<DedupRecord> records;
  Result<std::uint64_t> corrupt =
      store->load_dedup([&](QueueId queue, std::uint64_t time_ms, Sequence first,
                            std::span<const MessageIdHash> ids) {
        records.push_back({queue, time_ms, first, {ids.begin(), ids.end()}});
      });
  REQUIRE(corrupt.ok());
  return records;
}

CheckReport StoreFixture::check() {
  Result<CheckReport> report = check_directory(options.directory, {});
  REQUIRE_MESSAGE(report.ok(), report.status().message());
  return std::move(*report);
}

QueueRecord queue_record(std::uint32_t id, const std::string& name, std::uint32_t dead_queue) {
  QueueRecord record;
  record.id = QueueId(id);
  record.name = name;
  record.created_at = from_unix_ms(1'700'000'000'000);
  record.dead_queue = QueueId(dead_queue);
  return record;
}

QueueRecord dead_queue_record(std::uint32_t id, const std::string& name, std::uint32_t source) {
  QueueRecord record = queue_record(id, name, 0);
  record.settings = QueueSettings::for_dead_letters();
  record.source_queue = QueueId(source);
  return record;
}

SubscriptionRecord subscription_record(std::uint32_t id, std::uint32_t queue) {
  SubscriptionRecord record;
  record.id = SubscriptionId(id);
  record.queue = QueueId(queue);
  record.name = "default";
  return record;
}

}  // namespace holdfast::broker
