#include "corrupt/image.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <memory>
#include <set>

#include "corrupt/engine.h"
#include "corrupt/messages.h"
#include "store/environment.h"
#include "store/record.h"

namespace holdfast::corrupt {

namespace {

constexpr SessionId kPublisher{1};
constexpr SessionId kConsumer{2};
constexpr int kRounds = 70;
constexpr int kRoundsWithAcks = 55;
constexpr std::uint32_t kCredit = 25;
constexpr std::size_t kPageBytes = 4096;

Status harness_fault(std::string what) { return Status(ErrorCode::kInternal, std::move(what)); }

std::string data_file_in(const std::string& directory) { return directory + "/store/data.mdb"; }

// Up to the end of the pages; behind them the file is a hole.
std::string read_file(const std::string& path) {
  constexpr std::streamoff kLastPageAt = 136;  // in a meta page
  std::ifstream file(path, std::ios::binary);
  std::uint64_t last_page = 0;
  for (const std::streamoff meta_page : {0, 1}) {
    std::uint64_t last = 0;
    file.seekg(meta_page * static_cast<std::streamoff>(kPageBytes) + kLastPageAt);
    file.read(reinterpret_cast<char*>(&last), sizeof(last));
    last_page = std::max(last_page, last);
  }
  std::string bytes((last_page + 1) * kPageBytes, '\0');
  file.seekg(0);
  file.read(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  return bytes;
}

Now start_of_time() {
  return {MonotonicTime(Milliseconds(1'000'000)), from_unix_ms(1'700'000'000'000)};
}

// Publishers, consumers and people, as the seed decides.
class Workload {
 public:
  Workload(Engine& engine, crash::Random& random, Image* image)
      : engine_(engine), random_(random), image_(image) {
    engine_.listener = [this](const broker::Effect& effect) { hear(effect); };
    engine_.core().session_opened(kPublisher, "publisher");
    engine_.core().session_opened(kConsumer, "consumer");
  }
  ~Workload() { engine_.listener = nullptr; }

  Status run(const std::string& data_file) {
    for (const char* name : {"letters", "parcels", "notes"}) create(name);
    for (const char* name : {"letters", "parcels", "notes"}) subscribe(name);
    for (int round = 0; round < kRounds && status_.ok(); ++round) {
      publish_some();
      settle_some(round < kRoundsWithAcks);
      if (round % 12 == 5) come_and_go(round);
      if (round % 10 == 9) image_->older.push_back(read_file(data_file));
      if (status_.ok()) status_ = engine_.pass(Milliseconds(1'000));
    }
    engine_.core().list_queues(engine_.ask(kPublisher), false, QueueId(), engine_.now());
    run_core();
    for (std::uint32_t i = 0; i < image_->queues.size(); ++i) {
      image_->queue_indexes[numbers_[image_->queues[i]]] = i;
      image_->next_sequences[i] = next_sequences_[image_->queues[i]];
    }
    return status_;
  }

 private:
  void hear(const broker::Effect& effect) {
    if (const auto* delivery = std::get_if<broker::Delivery>(&effect)) {
      held_[delivery->consumer].insert(delivery->entry.sequence);
      checksums_[{delivery->queue, delivery->entry.sequence}] = checksum(delivery->entry.message);
    } else if (const auto* subscribed = std::get_if<broker::SubscribedReply>(&effect)) {
      consumers_[subscribed->consumer] = subscribed->queue;
    } else if (const auto* reply = std::get_if<broker::QueueReply>(&effect)) {
      numbers_[reply->report->name] = reply->report->id;
      next_sequences_[reply->report->name] = reply->report->next_sequence;
    } else if (const auto* confirm = std::get_if<broker::ConfirmReply>(&effect)) {
      for (std::uint32_t i = 0; i < confirm->count; ++i) {
        sequences_[confirm->to.correlation + i] = confirm->sequence + i;
      }
    } else if (const auto* error = std::get_if<broker::ErrorReply>(&effect)) {
      status_ = error->error;
    } else if (const auto* settled = std::get_if<broker::SettledReply>(&effect)) {
      if (!settled->refused.empty()) status_ = harness_fault("A settle was refused.");
    }
  }

  void run_core() {
    const Status status = engine_.run();
    if (!status.ok()) status_ = status;
  }

  void create(const std::string& name) {
    std::vector<broker::SettingChange> settings{
        {static_cast<std::uint16_t>(QueueSetting::kLease), 3'600'000},
        {static_cast<std::uint16_t>(QueueSetting::kDedupWindow), name == "notes" ? 0u : 3'600'000},
        {static_cast<std::uint16_t>(QueueSetting::kMaxAttempts), name == "parcels" ? 2u : 20}};
    engine_.core().create_queue({engine_.ask(kPublisher), name, settings, false}, engine_.now());
    run_core();
  }

  void subscribe(const std::string& queue) {
    broker::SubscribeRequest request;
    request.asker = engine_.ask(kConsumer);
    request.queue = queue;
    request.credit_messages = kCredit;
    engine_.core().subscribe(request, engine_.now());
    run_core();
  }

  std::size_t body_bytes() {
    switch (random_.below(10)) {
      case 0:
        return 2'000 + random_.below(4'000);
      case 1:
        return random_.below(20'000);
      case 2:
        return 0;
      default:
        return 10 + random_.below(300);
    }
  }

  // One batch.
  void publish(const std::string& queue, std::size_t count) {
    std::vector<std::pair<std::uint64_t, std::uint64_t>> asked;  // correlation, checksum
    for (std::size_t i = 0; i < count; ++i) {
      const std::string id = fmt::format("{}-{}", queue, ++last_id_);
      const std::size_t bytes = body_bytes();
      const std::vector<std::uint8_t> message = encode_message(id, bytes);
      broker::PublishRequest request;
      request.asker = engine_.ask(kPublisher);
      request.queue = numbers_[queue];
      request.id = id;
      request.body_bytes = bytes;
      request.message_checksum = checksum(message);
      request.message = message;
      engine_.core().publish(request, engine_.now());
      image_->published[request.message_checksum] = {queue, id, 0, false};
      asked.emplace_back(request.asker.correlation, request.message_checksum);
    }
    run_core();
    for (const auto& [correlation, sum] : asked) {
      image_->published[sum].sequence = sequences_[correlation];
      if (sequences_[correlation] == 0) status_ = harness_fault("A publish was not confirmed.");
    }
  }

  void publish_some() {
    static constexpr std::array<const char*, 3> kQueues{"letters", "parcels", "notes"};
    publish(kQueues[random_.below(kQueues.size())], 1 + random_.below(9));
  }

  void settle_some(bool most) {
    for (auto& [consumer, sequences] : held_) {
      const std::vector<Sequence> held(sequences.begin(), sequences.end());
      for (const Sequence sequence : held) {
        const std::uint64_t choice = random_.below(100);
        if (choice < (most ? 45u : 5u)) {
          settle(consumer, sequence, wire::SettleKind_Ack);
        } else if (choice < (most ? 52u : 20u)) {
          settle(consumer, sequence, wire::SettleKind_Nack);
        } else if (choice < (most ? 55u : 22u)) {
          settle(consumer, sequence, wire::SettleKind_Reject);
        }
      }
    }
    run_core();
  }

  void settle(ConsumerId consumer, Sequence sequence, wire::SettleKind kind) {
    const broker::SequenceRange range{sequence, sequence};
    broker::SettleRequest request;
    request.asker = engine_.ask(kConsumer);
    request.consumer = consumer;
    request.kind = kind;
    request.ranges = {&range, 1};
    if (kind != wire::SettleKind_Ack) request.reason = "not today";
    if (kind == wire::SettleKind_Nack) {
      request.delay = Milliseconds(1'000 + random_.below(300'000));
    }
    engine_.core().settle(request, engine_.now());
    held_[consumer].erase(sequence);
    if (kind == wire::SettleKind_Ack) {
      image_->published[checksums_[{consumers_[consumer], sequence}]].ended = true;
    }
  }

  // A queue that is made, filled, purged or not, and deleted.
  void come_and_go(int round) {
    const std::string name = fmt::format("passing-{}", round);
    create(name);
    publish(name, 20);
    if (random_.once_in(2)) {
      engine_.core().purge_queue(engine_.ask(kPublisher), name, engine_.now());
      run_core();
    }
    engine_.core().delete_queue(engine_.ask(kPublisher), name, engine_.now());
    run_core();
    for (auto& [sum, message] : image_->published) {
      if (message.queue == name) message.ended = true;
    }
  }

  Engine& engine_;
  crash::Random& random_;
  Image* image_;
  Status status_;
  std::uint64_t last_id_ = 0;
  std::map<std::string, QueueId> numbers_;
  std::map<std::string, Sequence> next_sequences_;
  std::map<ConsumerId, QueueId> consumers_;
  std::map<ConsumerId, std::set<Sequence>> held_;
  std::map<std::pair<QueueId, Sequence>, std::uint64_t> checksums_;
  std::map<std::uint64_t, Sequence> sequences_;  // by correlation
};

// The last ids of each queue that remembers them.
std::vector<Republish> choose_republishes(const Image& image) {
  std::map<std::string, std::vector<Republish>> by_queue;
  for (const auto& [sum, message] : image.published) {
    if (message.queue != "letters" && message.queue != "parcels") continue;
    by_queue[message.queue].push_back({message.queue, message.id, message.sequence});
  }
  std::vector<Republish> chosen;
  for (auto& [queue, all] : by_queue) {
    std::sort(all.begin(), all.end(),
              [](const Republish& a, const Republish& b) { return a.sequence < b.sequence; });
    const std::size_t step = std::max<std::size_t>(1, all.size() / (kRepublishMax / 2));
    for (std::size_t i = 0; i < all.size() && chosen.size() < kRepublishMax; i += step) {
      chosen.push_back(all[i]);
    }
  }
  return chosen;
}

// Values point into the map, whose pages carry their numbers: so each tells where in the file it
// is.
std::size_t place_in_file(const std::uint8_t* value) {
  const auto address = reinterpret_cast<std::uintptr_t>(value);
  const std::size_t in_page = address % kPageBytes;
  std::uint64_t page = 0;
  std::memcpy(&page, value - in_page, sizeof(page));
  return page * kPageBytes + in_page;
}

Status locate_blocks(const std::string& directory, Image* image) {
  auto environment = broker::Environment::open(
      {.directory = directory + "/store", .map_bytes = 1 << 30, .read_only = true});
  if (!environment) return environment.status();
  Result<broker::Transaction> transaction = (*environment)->begin_read();
  if (!transaction) return transaction.status();
  Result<broker::Cursor> cursor = transaction->cursor(broker::Table::kBlocks);
  if (!cursor) return cursor.status();
  for (bool found = cursor->first(); found; found = cursor->next()) {
    const std::optional<broker::BlockKey> key = broker::read_block_key(cursor->key());
    if (!key) return harness_fault("A block's key is not legible.");
    const ByteSpan value = cursor->value();
    const auto block = broker::Block::from_record(key->queue, key->first, value);
    if (!block) return block.status();
    BlockPlace place;
    place.queue = key->queue;
    place.begin = place_in_file(value.data());
    place.end = place.begin + value.size();
    std::size_t last_end = sizeof(broker::BlockHeader);
    for (std::size_t i = 0; i < (*block)->entry_count(); ++i) {
      const ByteSpan raw = (*block)->raw_entry(i);
      const auto at = static_cast<std::size_t>(raw.data() - (*block)->bytes().data());
      place.entries.push_back(
          {(*block)->entry(i).sequence, place.begin + at, place.begin + at + raw.size()});
      last_end = at + raw.size();
    }
    place.table_begin = place.begin + last_end;
    if (image->file.compare(place.begin, value.size(), std::string(value.begin(), value.end())) !=
        0) {
      return harness_fault("A block is not where its page number says.");
    }
    image->blocks.push_back(std::move(place));
  }
  std::sort(image->blocks.begin(), image->blocks.end(),
            [](const BlockPlace& a, const BlockPlace& b) { return a.begin < b.begin; });
  return Status();
}

// What was published and has not ended is served once, as it was published; nothing else is.
Status check_owed(const Image& image) {
  std::set<std::uint64_t> seen;
  for (std::uint32_t i = 0; i < image.owed.served_count; ++i) {
    const Served& served = image.owed.served[i];
    const auto message = image.published.find(served.checksum);
    if (message == image.published.end() || message->second.ended ||
        !seen.insert(served.checksum).second ||
        !image.queues[served.queue].starts_with(message->second.queue)) {
      return harness_fault(
          fmt::format("The sound image serves message {} of {}, which it must not.",
                      served.sequence, image.queues[served.queue]));
    }
  }
  for (const auto& [sum, message] : image.published) {
    if (!message.ended && !seen.contains(sum)) {
      return harness_fault(fmt::format("The sound image does not serve '{}'.", message.id));
    }
  }
  const ServingResult& owed = image.owed;
  if (owed.corrupt_counted + owed.records_damaged + owed.messages_left + owed.fresh_lost > 0) {
    return harness_fault("The sound image is not served whole.");
  }
  for (std::size_t i = 0; i < image.republishes.size(); ++i) {
    const RepublishAnswer& answer = owed.republished[i];
    if (!answer.duplicate || answer.sequence != image.republishes[i].sequence) {
      return harness_fault(
          fmt::format("The sound image forgot the id '{}'.", image.republishes[i].id));
    }
  }
  return Status();
}

Status check_variety(const Image& image) {
  std::set<std::pair<broker::PageKind, std::string_view>> kinds;
  for (const broker::PageSeen& page : image.pages) kinds.emplace(page.kind, page.table);
  const bool whole = kinds.contains({broker::PageKind::kOverflow, "blocks"}) &&
                     kinds.contains({broker::PageKind::kBranch, "blocks"}) &&
                     kinds.contains({broker::PageKind::kLeaf, "retries"}) &&
                     kinds.contains({broker::PageKind::kLeaf, "acks"}) &&
                     kinds.contains({broker::PageKind::kLeaf, "dedup"}) &&
                     kinds.contains({broker::PageKind::kFree, "free"});
  if (!whole || image.owed.served_count < 50) {
    return harness_fault("The image has not something of everything; change its workload.");
  }
  return Status();
}

}  // namespace

Status put_file(const std::string& directory, const std::string& bytes) {
  std::error_code ignored;
  std::filesystem::remove(directory + "/store/lock.mdb", ignored);
  std::ofstream file(data_file_in(directory), std::ios::binary | std::ios::trunc);
  file.write(bytes.data(), static_cast<std::streamsize>(bytes.size()));
  file.close();
  if (file) return Status();
  return harness_fault(fmt::format("{} cannot be written.", data_file_in(directory)));
}

Result<Image> make_image(const std::string& directory, crash::Random& random) {
  Image image;
  image.queues = {"letters", "parcels", "notes", "letters.dead", "parcels.dead", "notes.dead"};
  {
    Result<std::unique_ptr<Engine>> engine = Engine::open(directory, start_of_time());
    if (!engine) return engine.status();
    Status status = Workload(**engine, random, &image).run(data_file_in(directory));
    if (!status.ok()) return status;
    image.now = (*engine)->now();
  }
  image.now.monotonic += Milliseconds(1'000);
  image.now.wall += Milliseconds(1'000);
  image.file = read_file(data_file_in(directory));
  image.republishes = choose_republishes(image);
  const Result<broker::PageReport> pages =
      broker::check_pages(data_file_in(directory), broker::PageScope::kAll,
                          [&](const broker::PageSeen& seen) { image.pages.push_back(seen); });
  if (!pages) return pages.status();
  if (!pages->findings.empty()) {
    return harness_fault("The sound image has a finding: " + pages->findings.front().where + " " +
                         pages->findings.front().what);
  }
  if (Status status = locate_blocks(directory, &image); !status) return status;
  const ServingPlan plan{directory, image.queues, image.republishes, image.now, false};
  auto result = std::make_unique<ServingResult>();
  if (Status status = serve(plan, result.get()); !status) return status;
  image.owed = *result;
  if (Status status = check_owed(image); !status) return status;
  if (Status status = check_variety(image); !status) return status;
  return image;
}

}  // namespace holdfast::corrupt
