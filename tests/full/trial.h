// One disk, filled until the broker refuses, settled on, killed, drained, filled again.
//
// What is checked: what was confirmed comes, once it is owed, byte for byte and with its sequence
// (I1, I2); what was acked with a confirmation, before or after the disk was full, never comes
// again (I3); what was refused never comes (I4); publishing resumes by itself; after the drain the
// queue is empty and its pages are free again (I11); what waits for a retry holds up no more of
// them than it takes.

#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <mutex>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "crash/broker_process.h"
#include "crash/random.h"
#include "full/small_disk.h"
#include "holdfast/client.h"
#include "support/checks.h"

namespace holdfast::full {

struct TrialPlan {
  std::string broker;
  DiskKind disk = DiskKind::kTmpfs;
  std::size_t body_bytes = 1'000;
  std::uint64_t seed = 0;
};

// Removed at the end, after what is mounted in it, unless it is to be looked at.
class TrialDirectory {
 public:
  explicit TrialDirectory(const TrialPlan& plan);
  ~TrialDirectory();
  TrialDirectory(const TrialDirectory&) = delete;
  TrialDirectory& operator=(const TrialDirectory&) = delete;

  const std::filesystem::path& path() const { return path_; }
  void keep() { keep_ = true; }

 private:
  const std::filesystem::path path_;
  bool keep_ = false;
};

class Trial {
 public:
  Trial(const TrialPlan& plan, test::Checks& checks);
  ~Trial();
  Trial(const Trial&) = delete;
  Trial& operator=(const Trial&) = delete;

  // Everything above. Where it cannot go on, e.g. because the broker ended, that is one failed
  // check.
  void run();

 private:
  void steps();
  double share_of_new_store() const;
  void begin();
  void start();
  void kill();
  void fill(const std::string& prefix, double share_min);
  std::uint64_t fill_at_once(const std::string& prefix);
  std::uint64_t fill_one_by_one(const std::string& prefix);
  void settle_some();
  void kill_while_settling();
  void still_full();
  void drain();
  // Both until `enough`, or nothing more comes.
  void consume_until(const std::function<bool()>& enough);
  void wait_while_delivered(const Consumer& consumer, const std::function<bool()>& enough);
  void ack(Delivery& delivery);
  void compare();
  void resume(const std::string& id);
  void retries_hold_no_space();
  void rejects_leave_room();
  void discard_dead_letters();
  void pages_are_free(const std::string& prefix);

  Result<PublishReceipt> publish(const std::string& id);
  void published(const std::string& id, const Result<PublishReceipt>& receipt);
  std::string body_of(const std::string& id) const;
  // How many messages may be settled without making enough room for publishes to go on.
  std::uint32_t few() const;
  void must(const Status& status) const;
  template <typename T>
  T must(Result<T> result) const {
    must(result.status());
    return std::move(*result);
  }

  const TrialPlan plan_;
  test::Checks& checks_;
  crash::Random random_;
  TrialDirectory directory_;
  SmallDisk disk_;
  crash::BrokerProcess broker_;
  std::optional<Client> client_;
  pid_t pid_ = 0;
  std::uint64_t store_bytes_empty_ = 0;

  std::mutex mutex_;
  std::map<std::string, std::uint64_t> owed_;  // confirmed and not settled for good → sequence
  std::set<std::string> unsure_;               // of those: an ack was asked for and not answered
  std::set<std::string> acked_;
  std::set<std::string> dead_;
  std::set<std::string> refused_;
  std::set<std::string> waiting_;  // given back, for later than the trial lasts
  std::uint64_t delivered_ = 0;
  std::vector<std::string> wrong_;  // sentences; the first few are shown
};

}  // namespace holdfast::full
