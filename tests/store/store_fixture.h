// A store in a temporary directory, and verbs to work with it.

#pragma once

#include <chrono>
#include <condition_variable>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "store/checker.h"
#include "store/environment.h"
#include "store/store.h"

namespace holdfast::broker {

// A directory under the system's temporary directory, or another; removed with what it holds.
class TemporaryDirectory {
 public:
  explicit TemporaryDirectory(const std::string& parent = "");
  ~TemporaryDirectory();
  TemporaryDirectory(const TemporaryDirectory&) = delete;
  TemporaryDirectory& operator=(const TemporaryDirectory&) = delete;
  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

std::vector<std::string> names_in(const std::string& directory);
std::string read_file(const std::string& path);
void write_file(const std::string& path, const std::string& text);

// The bytes of a wire.Message; `body_bytes` of its body are `fill`.
std::vector<std::uint8_t> message_bytes(const std::string& id, std::size_t body_bytes, char fill);
// A block of such messages with these sequences; ids and fill follow from the sequence.
std::shared_ptr<const Block> block_of(QueueId queue, const std::vector<Sequence>& sequences,
                                      std::size_t body_bytes = 10);
std::vector<Sequence> range(Sequence first, Sequence last);
// The first and last sequence of each block.
using Bounds = std::vector<std::pair<Sequence, Sequence>>;
Bounds bounds_of(const FetchResult& result);

// A commit of one batch alone.
Batches only(std::unique_ptr<Batch> batch);

// Every record of a table, key and value.
using Records = std::vector<std::pair<std::vector<std::uint8_t>, std::vector<std::uint8_t>>>;
// Of a directory that no store has open.
std::vector<Records> dump(const std::string& directory);
// Changes one byte of the n-th record's value (from its end if `at` is negative).
void damage(const std::string& directory, Table table, std::size_t record, std::ptrdiff_t at);
// Puts a record as it is.
void put_raw(const std::string& directory, Table table, ByteSpan key, ByteSpan value);

class StoreFixture {
 public:
  explicit StoreFixture(StoreOptions options = {});
  ~StoreFixture();

  // Opens, loads and starts.
  void open();
  void close();
  void reopen() {
    close();
    open();
  }
  // Numbers the batch and commits it; waits for the result.
  CommitResult commit(Batch batch);
  // Whose numbers they have already.
  CommitResult commit_all(Batches batches);
  FetchResult fetch(QueueId queue, Sequence from, Sequence to, std::size_t bytes_max = 1 << 20);
  std::vector<DedupRecord> load_dedup();
  CheckReport check();
  Status wait_for_failure();
  // Waits for a report of space, beside those of commits and after the last of them, of which this
  // holds.
  SpaceReport wait_for_space(const std::function<bool(const SpaceReport&)>& holds);
  // Whether another one comes in this time.
  bool reports_space_within(std::chrono::milliseconds time);
  // Copies what a kill at this moment would leave, as the store of `path`. Not during a commit().
  void copy_as_if_killed(const std::string& path) const;

  StoreOptions options;
  std::unique_ptr<Store> store;
  StoredState state;  // as loaded
  std::uint64_t last_batch = 0;

 private:
  // What the store failed with; empty if it did not. With mutex_ held.
  std::string failure() const;

  TemporaryDirectory directory_;
  std::mutex mutex_;
  std::condition_variable changed_;
  std::optional<CommitResult> committed_;
  std::optional<Status> failed_;
  std::optional<SpaceReport> space_;  // the last one since the last commit
};

// A queue with its dead-letter queue and both default subscriptions, as the core would make them.
QueueRecord queue_record(std::uint32_t id, const std::string& name, std::uint32_t dead_queue);
QueueRecord dead_queue_record(std::uint32_t id, const std::string& name, std::uint32_t source);
SubscriptionRecord subscription_record(std::uint32_t id, std::uint32_t queue);

}  // namespace holdfast::broker
