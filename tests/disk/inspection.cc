#include "disk/inspection.h"

#include <fmt/format.h>

#include <utility>

#include "core/core.h"
#include "disk/life.h"
#include "disk/messages.h"
#include "store/checker.h"
#include "store/store.h"

namespace holdfast::disk {

namespace {

using namespace holdfast::broker;

// Later than every life, and within the dedup window.
constexpr std::uint64_t kInspectedAtMs = 1'700'000'400'000;
constexpr std::uint32_t kPeekMessages = 1000;
constexpr std::string_view kDeadSuffix = ".dead";

class Inspector {
 public:
  Inspector(const std::string& directory, const Ledger& ledger)
      : directory_(directory), ledger_(ledger) {
    now_.monotonic = MonotonicTime(Milliseconds(1'000'000));
    now_.wall = from_unix_ms(kInspectedAtMs);
  }

  std::optional<std::string> run() {
    if (std::optional<std::string> finding = open()) return finding;
    list_queues();
    for (const QueueReport& report : reports_) {
      if (std::optional<std::string> finding = read_messages(report)) return finding;
    }
    if (std::optional<std::string> finding = ledger_.check(found_)) return finding;
    if (std::optional<std::string> finding = ask_ids()) return finding;
    core_.reset();
    store_->close();
    store_.reset();
    return check_store();
  }

 private:
  std::optional<std::string> open() {
    StoreOptions options;
    options.directory = directory_;
    options.map_bytes = kMapBytes;
    options.journal_bytes = kJournalBytes;
    Result<std::unique_ptr<Store>> store = Store::open(options);
    if (!store) return "The store does not open: " + store.status().message();
    store_ = std::move(*store);
    Result<StoredState> state = store_->load();
    if (!state) return "The store does not load: " + state.status().message();
    if (state->records_corrupt > 0) {
      return fmt::format("{} records are damaged", state->records_corrupt);
    }
    core_ = std::make_unique<Core>(CoreOptions());
    core_->load(*state, now_);
    const Result<std::uint64_t> corrupt =
        store_->load_dedup([this](QueueId queue, std::uint64_t time_ms, Sequence first,
                                  std::span<const MessageIdHash> hashes) {
          core_->load_dedup(queue, time_ms, first, hashes, now_);
        });
    if (!corrupt) return "The ids do not load: " + corrupt.status().message();
    if (*corrupt > 0) return fmt::format("{} records of ids are damaged", *corrupt);
    core_->session_opened(kSession, "inspector");
    // What the core reads by itself, to make the moves that are due, is not answered: only what is
    // stored is looked at.
    core_->effects().clear();
    return std::nullopt;
  }

  // Reads for the core what it asks for; what it says gathers in said().
  std::optional<std::string> answer_reads() {
    for (;;) {
      const std::vector<FetchRequest> fetches = std::exchange(core_->effects().fetches, {});
      const std::vector<IdsRequest> ids = std::exchange(core_->effects().ids_requests, {});
      if (fetches.empty() && ids.empty()) return std::nullopt;
      for (const FetchRequest& request : fetches) {
        const Result<FetchResult> result = store_->fetch_blocking(request);
        if (!result) return "A read failed: " + result.status().message();
        if (!result->unreadable.empty()) return "A block is not legible";
        core_->fetched(*result, now_);
      }
      for (const IdsRequest& request : ids) {
        const Result<IdsResult> result = store_->fetch_ids_blocking(request);
        if (!result) return "A read of ids failed: " + result.status().message();
        if (result->records_corrupt > 0) return "A record of ids is damaged";
        core_->ids_fetched(*result, now_);
      }
    }
  }

  std::vector<Effect>& said() { return core_->effects().said; }

  void list_queues() {
    core_->list_queues(ask(), false, QueueId(), now_);
    for (const Effect& effect : said()) {
      if (const auto* reply = std::get_if<QueueReply>(&effect)) reports_.push_back(*reply->report);
    }
    core_->effects().clear();
  }

  std::optional<std::string> read_messages(const QueueReport& report) {
    std::string_view name = report.name;
    const bool dead = name.ends_with(kDeadSuffix);
    if (dead) name.remove_suffix(kDeadSuffix.size());
    const std::optional<std::uint32_t> queue = queue_number(name);
    if (!queue || !ledger_.queues().contains(*queue)) {
      return fmt::format("queue '{}' was never created", report.name);
    }
    found_.queues.insert(*queue);
    std::uint64_t count = 0;
    Sequence from = 0;
    do {
      core_->peek({ask(), report.name, from, kPeekMessages}, now_);
      if (std::optional<std::string> finding = answer_reads()) return finding;
      from = 0;
      for (const Effect& effect : said()) {
        if (const auto* end = std::get_if<ListEndReply>(&effect)) from = end->next;
        const auto* const reply = std::get_if<PeekReply>(&effect);
        if (reply == nullptr) continue;
        ++count;
        const wire::Message* const message = read_message(reply->entry.message);
        const std::optional<std::uint32_t> number =
            message == nullptr ? std::nullopt : number_of(message->id()->string_view());
        if (!number) return fmt::format("message {} is not legible", reply->entry.sequence);
        const NumberedMessage& expected = message_of(*number);
        if (!std::equal(expected.bytes.begin(), expected.bytes.end(), reply->entry.message.begin(),
                        reply->entry.message.end()) ||
            reply->entry.message_checksum != expected.checksum) {
          return fmt::format("{} has other bytes than were published", expected.id);
        }
        found_.stored.push_back({*number, *queue, dead});
      }
      core_->effects().clear();
    } while (from != 0);
    if (count == report.messages) return std::nullopt;
    return fmt::format("queue '{}' counts {} messages and has {}", report.name, report.messages,
                       count);
  }

  // Publishing any of them again is answered as a duplicate at once. Nothing is committed.
  std::optional<std::string> ask_ids() {
    std::map<std::uint32_t, QueueId> ids;
    for (const QueueReport& report : reports_) {
      if (const auto number = queue_number(report.name)) ids[*number] = report.id;
    }
    const std::vector<MessageState>& messages = ledger_.messages();
    for (std::uint32_t number = 0; number < messages.size(); ++number) {
      const MessageState& one = messages[number];
      const auto queue = ids.find(one.queue);
      if (!one.confirmed || queue == ids.end()) continue;
      const NumberedMessage& message = message_of(number);
      core_->publish({.asker = ask(),
                      .queue = queue->second,
                      .id = message.id,
                      .body_bytes = message.body_bytes,
                      .message_checksum = message.checksum,
                      .message = message.bytes},
                     now_);
      if (std::optional<std::string> finding = answer_reads()) return finding;
      const ConfirmReply* confirm = nullptr;
      for (const Effect& effect : said()) {
        if (confirm == nullptr) confirm = std::get_if<ConfirmReply>(&effect);
      }
      if (confirm == nullptr || !confirm->duplicate || confirm->sequence != one.sequence) {
        return fmt::format("{} was confirmed with sequence {}, and would be stored again",
                           message.id, one.sequence);
      }
      core_->effects().clear();
    }
    return std::nullopt;
  }

  std::optional<std::string> check_store() {
    const Result<CheckReport> report = check_directory(directory_, {});
    if (!report) return "The check does not open the store: " + report.status().message();
    if (report->findings.empty()) return std::nullopt;
    const CheckFinding& first = report->findings.front();
    return fmt::format("The check finds {} faults, first: {} {}", report->findings.size(),
                       first.where, first.what);
  }

  Asker ask() { return {kSession, ++last_correlation_}; }

  static constexpr SessionId kSession{1};
  const std::string& directory_;
  const Ledger& ledger_;
  Now now_;
  std::unique_ptr<Store> store_;
  std::unique_ptr<Core> core_;
  std::uint64_t last_correlation_ = 0;
  std::vector<QueueReport> reports_;
  Found found_;
};

}  // namespace

std::optional<std::string> inspect(const std::string& directory, const Ledger& ledger) {
  return Inspector(directory, ledger).run();
}

}  // namespace holdfast::disk
