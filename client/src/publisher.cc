#include "publisher.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/check.h"
#include "schema/queue_settings.h"

namespace holdfast::client {

namespace {

// A queue's turn before another queue's: long enough for confirms to come as ranges.
constexpr std::size_t kPublishesPerTurn = 512;

bool is_abandoned(const Publication& publication) {
  return publication.abandoned != nullptr && publication.abandoned->load();
}

Status nobody_waits() {
  return Status(ErrorCode::kTimeout, "The publish was given up by its caller.");
}

Status too_large(std::size_t frame_bytes, std::size_t frame_bytes_max) {
  return Status(ErrorCode::kMessageTooLarge,
                fmt::format("The message makes a frame of {} bytes; the broker takes at most {}.",
                            frame_bytes, frame_bytes_max));
}

Status outcome_unknown(const Publication& publication, const Status& refusal) {
  return Status(
      ErrorCode::kConnectionLost,
      fmt::format("The connection was lost before message \"{}\" was answered. Sent again it was "
                  "refused: {} Whether it was stored the first time is not known, because its "
                  "queue has or had no dedup window.",
                  publication.message.id(), refusal.message()));
}

}  // namespace

// ---- queues ----

Publisher::Queue& Publisher::queue_named(std::string_view name) {
  if (last_queue_ != nullptr && last_queue_->name == name) return *last_queue_;
  auto found = queues_.find(name);
  if (found == queues_.end()) {
    if (queues_.size() >= queues_max_) forget_idle_queues();
    auto queue = std::make_unique<Queue>();
    queue->name = name;
    found = queues_.emplace(queue->name, std::move(queue)).first;
  }
  last_queue_ = found->second.get();
  return *last_queue_;
}

// At least as many as are left come before the next time, so that it costs each of them little.
void Publisher::forget_idle_queues() {
  last_queue_ = nullptr;
  std::erase_if(queues_, [](const auto& entry) { return entry.second->is_idle(); });
  queues_max_ = std::max(kQueuesKept, 2 * queues_.size());
}

void Publisher::submit(std::string_view queue_name, Publication publication) {
  Queue& queue = queue_named(queue_name);
  publication.order = next_order_++;
  ++count_;
  queue.waiting.push_back(std::move(publication));
  make_ready(queue);
}

void Publisher::make_ready(Queue& queue) {
  if (queue.listed || queue.waiting.empty()) return;
  queue.listed = true;
  ready_.push_back(&queue);
}

void Publisher::open(Queue& queue) {
  queue.stage = Queue::Stage::kOpening;
  flatbuffers::FlatBufferBuilder builder(256);
  builder.Finish(wire::CreateQueueOpen(builder, builder.CreateString(queue.name)));
  Request request;
  request.type = wire::FrameType_QueueOpen;
  request.body = table_bytes(builder);
  request.when_lost = WhenLost::kAskAgain;
  request.on_frame = [this, name = queue.name](const Frame& frame) -> Result<bool> {
    const auto* info =
        frame.type == wire::FrameType_QueueInfo ? read_table<wire::QueueInfo>(frame.body) : nullptr;
    if (info == nullptr || info->queue() == 0) {
      return Status(ErrorCode::kFrameMalformed,
                    fmt::format("The broker's answer about queue \"{}\" is malformed.", name));
    }
    opened(name, *info);
    return true;
  };
  request.on_failed = [this, name = queue.name](const Status& why) { open_failed(name, why); };
  requests_.add(std::move(request));
}

void Publisher::opened(const std::string& name, const wire::QueueInfo& info) {
  Queue& queue = queue_named(name);
  queue.stage = Queue::Stage::kOpen;
  queue.id = info.queue();
  queue.knows_ids = true;
  if (info.settings() != nullptr) {
    for (const wire::SettingValue* setting : *info.settings()) {
      const bool is_window =
          setting->setting() == static_cast<std::uint16_t>(QueueSetting::kDedupWindow);
      if (is_window && setting->value() == 0) queue.knows_ids = false;
    }
  }
  make_ready(queue);
}

void Publisher::open_failed(const std::string& name, const Status& why) {
  const auto found = queues_.find(name);
  CHECK(found != queues_.end() && found->second->under_way == 0, "queue {}", name);
  const std::unique_ptr<Queue> queue = std::move(found->second);
  queues_.erase(found);
  last_queue_ = nullptr;
  take_back_returned(*queue);
  std::erase(ready_, queue.get());
  for (Publication& publication : queue->waiting) complete(publication, why);
}

// ---- sending ----

bool Publisher::pump(FrameWriter& output, const Bounds& bounds) {
  if (draining_) return false;
  while (!ready_.empty() && output.size() < bounds.output_bytes_max) {
    Queue& queue = *ready_.front();
    ready_.pop_front();
    queue.listed = false;
    if (!queue.returned.empty()) continue;  // listed again when its last frame is answered
    if (queue.stage == Queue::Stage::kUnknown) open(queue);
    if (queue.stage != Queue::Stage::kOpen) continue;  // listed again when it is open
    if (!send_some(queue, output, bounds)) {
      // The others wait as well: else a large message would never find room among small ones.
      queue.listed = true;
      ready_.push_front(&queue);
      return false;
    }
    make_ready(queue);
  }
  return !ready_.empty();
}

// The broker reads while less than its bound is unconfirmed, and counts a message when it has read
// it whole.
bool Publisher::is_read_on_after(std::size_t bytes, const Bounds& bounds) const {
  return bytes_under_way_ == 0 || bounds.unconfirmed_bytes_max == 0 ||
         bytes_under_way_ + bytes < bounds.unconfirmed_bytes_max;
}

bool Publisher::send_some(Queue& queue, FrameWriter& output, const Bounds& bounds) {
  std::size_t left = std::exchange(queue.turn_left, 0);
  if (left == 0) left = kPublishesPerTurn;
  for (; left > 0 && !queue.waiting.empty() && output.size() < bounds.output_bytes_max; --left) {
    const std::size_t bytes = queue.waiting.front().bytes();
    const std::size_t frame_bytes = sizeof(wire::PublishEnvelope) + bytes;
    const bool is_too_large = frame_bytes > bounds.frame_bytes_max;
    const bool is_sent = !is_too_large && !is_abandoned(queue.waiting.front());
    if (is_sent && !is_read_on_after(bytes, bounds)) {
      queue.turn_left = left;
      return false;
    }
    Publication publication = std::move(queue.waiting.front());
    queue.waiting.pop_front();
    if (!is_sent) {
      complete(publication,
               is_too_large ? too_large(frame_bytes, bounds.frame_bytes_max) : nobody_waits());
      continue;
    }
    const wire::PublishEnvelope envelope(queue.id, 0, publication.message.checksum);
    output.append_publish(first_correlation_ + sent_.size(), envelope, publication.message.span());
    sent_.push_back(Sent{&queue, bytes, std::move(publication)});
    ++queue.under_way;
    ++under_way_;
    bytes_under_way_ += bytes;
  }
  return true;
}

// ---- answers ----

Publisher::Sent* Publisher::find_sent(std::uint64_t correlation) {
  if (correlation < first_correlation_) return nullptr;
  const std::uint64_t index = correlation - first_correlation_;
  if (index >= sent_.size() || sent_[index].queue == nullptr) return nullptr;
  return &sent_[index];
}

Publication Publisher::answered(Sent& sent) {
  Queue& queue = *std::exchange(sent.queue, nullptr);
  --under_way_;
  bytes_under_way_ -= sent.bytes;
  // Its last frame; what came back before it can go again.
  if (--queue.under_way == 0 && !queue.returned.empty()) take_back_returned(queue);
  return std::move(sent.publication);
}

void Publisher::forget_answered() {
  while (!sent_.empty() && sent_.front().queue == nullptr) {
    sent_.pop_front();
    ++first_correlation_;
  }
}

void Publisher::on_confirm(const Frame& frame) {
  const auto* confirm = read_table<wire::Confirm>(frame.body);
  if (confirm == nullptr) return;
  // A range beyond what was sent would be a broker's mistake; it is cut off here.
  const std::uint64_t count = std::min<std::uint64_t>(confirm->count(), sent_.size());
  for (std::uint64_t i = 0; i < count; ++i) {
    Sent* const sent = find_sent(frame.correlation + i);
    if (sent == nullptr) continue;
    Publication publication = answered(*sent);
    PublishReceipt receipt;
    receipt.sequence = confirm->sequence() + i;
    receipt.duplicate = confirm->duplicate();
    if (publication.done) receipt.id = publication.message.id();
    complete(publication, std::move(receipt));
  }
  forget_answered();
}

void Publisher::on_error(const Frame& frame) {
  Sent* const sent = find_sent(frame.correlation);
  if (sent == nullptr) return;
  const auto* error = read_table<wire::Error>(frame.body);
  const ErrorCode code =
      error == nullptr ? ErrorCode::kFrameMalformed : static_cast<ErrorCode>(error->code());
  Queue& queue = *sent->queue;
  const bool queue_gone = code == ErrorCode::kQueueNotFound && !sent->publication.reopened;
  if (code == ErrorCode::kDraining || queue_gone) {
    if (queue_gone) {
      sent->publication.reopened = true;
      queue.stage = Queue::Stage::kUnknown;
    } else {
      draining_ = true;
    }
    queue.returned.push_back(std::move(sent->publication));
    answered(*sent);
  } else {
    Publication publication = answered(*sent);
    Status why = error == nullptr ? Status(code, "The broker's Error is malformed.")
                                  : Status(code, std::string(view(error->message())));
    // A queue that knows its ids would have told of the first time.
    if (publication.sent_before && (publication.sent_without_ids || !queue.knows_ids)) {
      why = outcome_unknown(publication, why);
    }
    complete(publication, std::move(why));
  }
  forget_answered();
}

// What came back goes to the head, in the order in which it was submitted.
void Publisher::take_back_returned(Queue& queue) {
  std::vector<Publication> returned = std::exchange(queue.returned, {});
  std::sort(returned.begin(), returned.end(),
            [](const Publication& a, const Publication& b) { return a.order < b.order; });
  queue.waiting.insert(queue.waiting.begin(), std::make_move_iterator(returned.begin()),
                       std::make_move_iterator(returned.end()));
  make_ready(queue);
}

void Publisher::complete(Publication& publication, Result<PublishReceipt> result) {
  completed_bytes_ += publication.bytes();
  --count_;
  if (publication.done) publication.done(std::move(result));
  for (std::size_t i = 0; i < flushes_.size();) {
    if (publication.order < flushes_[i].before_order && --flushes_[i].left == 0) {
      const auto done = std::move(flushes_[i].done);
      flushes_.erase(flushes_.begin() + static_cast<std::ptrdiff_t>(i));
      done();
    } else {
      ++i;
    }
  }
}

// ---- the whole ----

void Publisher::connection_lost() {
  for (Sent& sent : sent_) {
    if (sent.queue == nullptr) continue;
    sent.publication.sent_before = true;
    sent.publication.sent_without_ids |= !sent.queue->knows_ids;
    sent.queue->returned.push_back(std::move(sent.publication));
  }
  first_correlation_ += sent_.size();
  sent_.clear();
  under_way_ = 0;
  bytes_under_way_ = 0;
  draining_ = false;
  for (auto& [name, queue] : queues_) {
    // An id is good for one connection: the next broker at this address may be another one. While
    // the name is being asked for, the request itself is repeated.
    if (queue->stage == Queue::Stage::kOpen) queue->stage = Queue::Stage::kUnknown;
    queue->under_way = 0;
    take_back_returned(*queue);
  }
}

void Publisher::fail_all(const Status& why) {
  connection_lost();
  ready_.clear();
  last_queue_ = nullptr;
  const auto queues = std::exchange(queues_, {});
  for (const auto& [name, queue] : queues) {
    for (Publication& publication : queue->waiting) complete(publication, why);
  }
}

void Publisher::drop_abandoned() {
  for (auto& [name, queue] : queues_) {
    std::erase_if(queue->waiting, [this](Publication& publication) {
      if (!is_abandoned(publication)) return false;
      complete(publication, nobody_waits());
      return true;
    });
  }
}

void Publisher::when_done(std::function<void()> done) {
  if (count_ == 0) return done();
  flushes_.push_back(Flush{next_order_, count_, std::move(done)});
}

}  // namespace holdfast::client
