#include "core/commit_pipeline.h"

#include <algorithm>
#include <utility>

#include "base/check.h"

namespace holdfast::broker {

namespace {

// A batch writes pages of 4 KiB anew in two tables for each queue that it touches, however little
// it appends to it.
constexpr std::size_t kTouchedQueueBytes = 2 * 4096;
// The pages that a batch writes anew are free for the second commit after its own, and an ack may
// take twice as many as are counted, one in each table: so four times as much has to be left. The
// smallest reserve has room for the least.
constexpr std::uint64_t kRoomToTouch = 4;
constexpr std::uint64_t kUnaskedBytesMin = 4 * kReserveStepBytes;
// New queues have the greatest ids: their records lie side by side, in pages that stay half empty
// when they are split.
constexpr std::size_t kCreatedQueueBytes = 512;
constexpr std::size_t kCreatedNameFactor = 2;
// A commit that takes so much longer than its bytes do, a mebibyte 2 to 4 ms, is mostly the wait
// for the device, which is the same for one batch and for many.
constexpr std::uint64_t kSlowCommitUs = 20'000;
constexpr std::uint64_t kBytesPerUs = 256;
// Batches are joined while there is room for this many times what waits: one that finds none would
// hold up those that it is joined with.
constexpr std::uint64_t kRoomToJoin = 4;
// What moves and rewrites messages reads no faster than they are stored: with so many full batches
// of them on their way it waits for the next commit.
constexpr std::size_t kBatchesAhead = 8;

std::size_t growth_of(const std::deque<Sealed>& batches) {
  std::size_t bytes = 0;
  for (const Sealed& batch : batches) bytes += batch.growth;
  return bytes;
}

std::size_t bytes_of(const QueueReport& report) {
  return sizeof report + report.name.size() + report.dead_queue.size() + report.source_queue.size();
}
std::size_t bytes_of(const AttemptsReport& report) {
  std::size_t bytes = sizeof report + report.consumer.size();
  for (const AttemptRecord& attempt : report.history) {
    bytes += sizeof attempt + attempt.consumer.size() + attempt.error.size();
  }
  return bytes;
}
std::size_t bytes_of(const ConsumerReport& report) { return sizeof report; }

// About the memory that it takes.
std::size_t bytes_of(const Effect& effect) {
  const std::size_t more = std::visit(
      [](const auto& said) -> std::size_t {
        if constexpr (requires { bytes_of(*said.report); }) return bytes_of(*said.report);
        if constexpr (requires { said.error.message(); }) return said.error.message().size();
        if constexpr (requires { said.why.message(); }) return said.why.message().size();
        if constexpr (requires { said.refused.size(); }) {
          return said.refused.size() * sizeof(SequenceRange);
        }
        return 0;
      },
      effect);
  return sizeof effect + more;
}

}  // namespace

std::size_t created_queue_bytes(std::string_view name) {
  return kCreatedQueueBytes + kCreatedNameFactor * name.size();
}

std::size_t Gathering::room_bytes() const {
  return bytes + created_bytes + (queues.size() - created) * kTouchedQueueBytes;
}

std::size_t Gathering::unasked_bytes() const {
  const std::size_t asked = std::min(queues.size(), created + appended);
  return (queues.size() - asked) * kTouchedQueueBytes;
}

void Weight::add(const Weight& other) {
  bytes += other.bytes;
  room += other.room;
  unasked += other.unasked;
  reread += other.reread;
}

void Weight::take_off(const Weight& other) {
  bytes -= other.bytes;
  room -= other.room;
  unasked -= other.unasked;
  reread -= other.reread;
}

void CommitPipeline::start(std::uint64_t batch_number, const SpaceReport& space) {
  number_ = batch_number + 1;
  space_ = space;
}

// ---- gathering and sealing ----

bool CommitPipeline::is_full() const {
  if (gathering_.bytes + gathering_.created_bytes >= batch_bytes_max_) return true;
  const std::size_t unasked = gathering_.unasked_bytes();
  return unasked >= kUnaskedBytesMin && unasked >= unasked_bytes_max();
}

// Of what others take for pages alone they give back as much, two commits later.
std::uint64_t CommitPipeline::unasked_bytes_max() const {
  const std::uint64_t asked =
      pending_room_bytes() - gathering_.unasked_bytes() - on_their_way_.unasked;
  const std::uint64_t left = space_.reserve_room_bytes - std::min(space_.reserve_room_bytes, asked);
  return std::max<std::uint64_t>(kUnaskedBytesMin, left / kRoomToTouch);
}

Sealed CommitPipeline::begin_sealing() {
  Sealed next;
  next.batch = std::make_unique<Batch>();
  next.number = next.batch->number = number_;
  next.weight = {.bytes = gathering_.bytes,
                 .room = gathering_.room_bytes(),
                 .unasked = gathering_.unasked_bytes(),
                 .reread = gathering_.reread_bytes()};
  next.batch->next_id = gathering_.next_id;
  next.batch->blocks_removed = std::move(gathering_.blocks_removed);
  next.batch->blocks = std::move(gathering_.blocks_rewritten);
  next.batch->acks_removed = std::move(gathering_.acks_removed);
  next.batch->retries_removed = std::move(gathering_.retries_removed);
  next.retry_bytes_left = retry_bytes_max();
  return next;
}

bool CommitPipeline::end_sealing(Sealed& next) {
  next.promises = std::move(gathering_.promises);
  gathering_ = Gathering();
  if (next.batch->empty()) {
    answers_bytes_ -= next.promises.answers_bytes;
    return false;
  }
  ++number_;
  next.growth = next.batch->bytes();
  on_their_way_.add(next.weight);
  sealed_.push_back(std::move(next));
  return true;
}

Promises* CommitPipeline::newest_promises() {
  if (!gathering_.empty()) return &gathering_.promises;
  if (!sealed_.empty()) return &sealed_.back().promises;
  if (!under_way_.empty()) return &under_way_.back().promises;
  return nullptr;
}

bool CommitPipeline::say_when_durable(Effect& effect) {
  Promises* const promises = newest_promises();
  if (promises == nullptr) return false;
  const std::size_t bytes = bytes_of(effect);
  promises->answers_bytes += bytes;
  answers_bytes_ += bytes;
  promises->said.push_back(std::move(effect));
  return true;
}

// ---- committing ----

bool CommitPipeline::may_take() const { return under_way_.empty() || may_join(); }

bool CommitPipeline::may_join() const {
  return disk_is_slow_ && space_.publishes_allowed &&
         pending_room_bytes() < space_.room_bytes / kRoomToJoin;
}

std::unique_ptr<Batch> CommitPipeline::take() {
  if (sealed_.empty()) return nullptr;
  if (!under_way_.empty() && growth_of(under_way_) + sealed_.front().growth > kJoinedBytesMax) {
    return nullptr;
  }
  under_way_.push_back(std::move(sealed_.front()));
  sealed_.pop_front();
  return std::move(under_way_.back().batch);
}

std::deque<Sealed> CommitPipeline::committed(const CommitResult& result) {
  std::deque<Sealed> done;
  while (!under_way_.empty() && under_way_.front().number <= result.number) {
    on_their_way_.take_off(under_way_.front().weight);
    answers_bytes_ -= under_way_.front().promises.answers_bytes;
    done.push_back(std::move(under_way_.front()));
    under_way_.pop_front();
  }
  CHECK(!done.empty() && done.back().number == result.number, "commit {} was not under way",
        result.number);
  space_ = result.space;
  durations_us_[commits_ % durations_us_.size()] = result.duration_us;
  ++commits_;
  disk_is_slow_ = result.duration_us >= kSlowCommitUs + growth_of(done) / kBytesPerUs;
  return done;
}

std::uint64_t CommitPipeline::committed_number() const {
  return number_ - 1 - sealed_.size() - under_way_.size();
}

std::vector<std::uint32_t> CommitPipeline::commit_durations_us() const {
  const std::size_t known = std::min<std::uint64_t>(commits_, durations_us_.size());
  std::vector<std::uint32_t> sorted(durations_us_.begin(),
                                    durations_us_.begin() + static_cast<std::ptrdiff_t>(known));
  std::sort(sorted.begin(), sorted.end());
  return sorted;
}

// ---- room ----

std::uint64_t CommitPipeline::pending_bytes() const {
  return gathering_.bytes + on_their_way_.bytes;
}

std::uint64_t CommitPipeline::pending_room_bytes() const {
  return gathering_.room_bytes() + on_their_way_.room;
}

bool CommitPipeline::lags() const {
  return on_their_way_.reread >= kBatchesAhead * batch_bytes_max_;
}

bool CommitPipeline::has_room_for(std::size_t bytes) const {
  return space_.publishes_allowed && pending_room_bytes() + bytes <= space_.room_bytes;
}

bool CommitPipeline::has_reserve_for(std::size_t bytes) const {
  return pending_room_bytes() + bytes <= space_.reserve_room_bytes;
}

// Of a batch that gathers those records are a part of what is pending. Those that were put off are
// not.
std::size_t CommitPipeline::retry_bytes_max() const {
  const std::uint64_t others = pending_room_bytes() - gathering_.retry_bytes;
  std::uint64_t bytes = 0;
  if (space_.publishes_allowed) bytes = space_.room_bytes - std::min(space_.room_bytes, others);
  if (others + kRetryStepBytes <= space_.reserve_room_bytes) {
    bytes = std::max<std::uint64_t>(bytes, kRetryStepBytes);
  }
  return std::min<std::uint64_t>(bytes, batch_bytes_max_);
}

bool CommitPipeline::may_move(std::size_t bytes) const {
  if (lags()) return false;
  return has_room_for(bytes) ||
         (has_reserve_for(bytes) && gathering_.reread_bytes() < kReserveStepBytes);
}

bool CommitPipeline::may_count_retry() const {
  return has_room_for(0) || (space_.retries_allowed && gathering_.retry_bytes < kRetryStepBytes);
}

}  // namespace holdfast::broker
