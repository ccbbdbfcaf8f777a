#include "core/commit_pipeline.h"

#include <doctest/doctest.h>

#include <deque>
#include <memory>
#include <variant>
#include <vector>

namespace holdfast::broker {
namespace {

constexpr std::size_t kBatchBytes = 1000;
constexpr std::uint32_t kFastUs = 100;
constexpr std::uint32_t kSlowUs = 100'000;
constexpr std::uint64_t kStoredBatch = 7;

SpaceReport room_of(std::uint64_t bytes) {
  SpaceReport space;
  space.room_bytes = bytes;
  space.reserve_room_bytes = bytes + (256 << 10);
  return space;
}

SpaceReport full_disk(std::uint64_t reserve_bytes) {
  SpaceReport space;
  space.publishes_allowed = false;
  space.reserve_room_bytes = reserve_bytes;
  return space;
}

struct Pipeline : CommitPipeline {
  explicit Pipeline(const SpaceReport& space = room_of(1 << 30)) : CommitPipeline(kBatchBytes) {
    start(kStoredBatch, space);
  }

  // A batch that is not empty and promises something, told apart by its next_id.
  void seal_one(std::uint32_t next_id, std::size_t bytes = 100) {
    gathering().next_id = next_id;
    gathering().bytes += bytes;
    gathering().promises.said.emplace_back(OkReply{Asker{SessionId(next_id), 0}});
    Sealed next = begin_sealing();
    REQUIRE(end_sealing(next));
  }

  std::deque<Sealed> commit(std::uint64_t batch, std::uint32_t duration_us) {
    CommitResult result;
    result.number = batch;
    result.duration_us = duration_us;
    result.space = space();
    return committed(result);
  }

  std::uint32_t take_one() {
    if (!may_take()) return 0;
    const std::unique_ptr<Batch> batch = take();
    return batch == nullptr ? 0 : batch->next_id;
  }
};

TEST_CASE("batches are taken in the order of sealing, numbered on from what is stored") {
  Pipeline pipeline;
  CHECK(pipeline.committed_number() == kStoredBatch);
  CHECK(pipeline.number() == kStoredBatch + 1);
  pipeline.seal_one(1);
  pipeline.seal_one(2);
  CHECK(pipeline.number() == kStoredBatch + 3);
  CHECK(pipeline.committed_number() == kStoredBatch);

  CHECK(pipeline.take_one() == 1);
  const std::deque<Sealed> first = pipeline.commit(kStoredBatch + 1, kFastUs);
  REQUIRE(first.size() == 1);
  CHECK(first[0].number == kStoredBatch + 1);
  CHECK(pipeline.committed_number() == kStoredBatch + 1);
  CHECK_FALSE(pipeline.idle());

  CHECK(pipeline.take_one() == 2);
  CHECK(pipeline.commit(kStoredBatch + 2, kFastUs).size() == 1);
  CHECK(pipeline.idle());
  CHECK(pipeline.commits() == 2);
}

TEST_CASE("a second commit waits for the first, unless the disk is slow") {
  for (const std::uint32_t duration_us : {kFastUs, kSlowUs}) {
    Pipeline pipeline;
    for (std::uint32_t id = 1; id <= 4; ++id) pipeline.seal_one(id);
    CHECK(pipeline.take_one() == 1);
    CHECK_FALSE(pipeline.may_take());
    pipeline.commit(kStoredBatch + 1, duration_us);
    CHECK(pipeline.take_one() == 2);
    CHECK(pipeline.take_one() == (duration_us == kSlowUs ? 3 : 0));
  }
}

TEST_CASE("commits of a slow disk are not joined where room is short") {
  Pipeline pipeline(room_of(1500));
  for (std::uint32_t id = 1; id <= 3; ++id) pipeline.seal_one(id, 200);
  CHECK(pipeline.take_one() == 1);
  pipeline.commit(kStoredBatch + 1, kSlowUs);
  CHECK(pipeline.take_one() == 2);
  CHECK_FALSE(pipeline.may_take());  // 400 bytes wait, and there is not room for four times that
}

TEST_CASE("commits of a slow disk that touched many queues were joined where room was short") {
  Pipeline pipeline(room_of(64 << 10));
  for (std::uint32_t id = 1; id <= 3; ++id) {
    pipeline.gathering().queues.push_back(nullptr);
    pipeline.seal_one(id);
  }
  CHECK(pipeline.take_one() == 1);
  pipeline.commit(kStoredBatch + 1, kSlowUs);
  CHECK(pipeline.take_one() == 2);
  CHECK_FALSE(pipeline.may_take());
}

TEST_CASE("all batches of a commit are durable with it, and what each promised") {
  Pipeline pipeline;
  for (std::uint32_t id = 1; id <= 3; ++id) pipeline.seal_one(id);
  pipeline.take_one();
  pipeline.commit(kStoredBatch + 1, kSlowUs);
  pipeline.take_one();
  pipeline.take_one();
  const std::deque<Sealed> done = pipeline.commit(kStoredBatch + 3, kSlowUs);
  REQUIRE(done.size() == 2);
  for (const std::uint64_t id : {2, 3}) {
    REQUIRE(done[id - 2].promises.said.size() == 1);
    CHECK(std::get<OkReply>(done[id - 2].promises.said[0]).to.session == SessionId(id));
  }
}

TEST_CASE("what is said when all before it is durable waits for the newest that is not") {
  Pipeline pipeline;
  const auto ask = [&](std::uint32_t session) {
    Effect effect = OkReply{Asker{SessionId(session), 0}};
    return pipeline.say_when_durable(effect);
  };
  CHECK_FALSE(ask(1));
  pipeline.gathering().next_id = 1;
  CHECK(ask(1));
  CHECK(pipeline.gathering().promises.said.size() == 1);
  Sealed next = pipeline.begin_sealing();
  REQUIRE(pipeline.end_sealing(next));
  CHECK(ask(1));  // sealed
  pipeline.take_one();
  CHECK(ask(2));  // under way
  pipeline.seal_one(2);
  CHECK(ask(3));  // sealed behind it
  CHECK(pipeline.commit(kStoredBatch + 1, kFastUs)[0].promises.said.size() == 3);
  pipeline.take_one();
  CHECK(pipeline.commit(kStoredBatch + 2, kFastUs)[0].promises.said.size() == 2);
  CHECK_FALSE(ask(1));
}

TEST_CASE("the memory of what is said later is counted until it is said") {
  Pipeline pipeline;
  const auto promise = [&](Effect effect) { REQUIRE(pipeline.say_when_durable(effect)); };
  pipeline.seal_one(1);
  const std::string sentence(500, 's');
  promise(ErrorReply{Asker{SessionId(1), 0}, Status(ErrorCode::kQueueNotFound, sentence)});
  const std::uint64_t first = pipeline.answers_bytes();
  CHECK(first >= sizeof(Effect) + sentence.size());
  pipeline.take_one();
  pipeline.gathering().next_id = 2;
  auto report = std::make_shared<QueueReport>();
  report->name = std::string(200, 'q');
  promise(QueueReply{Asker{SessionId(1), 0}, report});
  promise(SettledReply{Asker{SessionId(1), 0}, 0, 0, std::vector<SequenceRange>(100)});
  CHECK(pipeline.answers_bytes() >=
        first + 2 * sizeof(Effect) + sizeof(QueueReport) + 200 + 100 * sizeof(SequenceRange));
  Sealed next = pipeline.begin_sealing();
  REQUIRE(pipeline.end_sealing(next));
  pipeline.commit(kStoredBatch + 1, kFastUs);
  CHECK(pipeline.answers_bytes() > 0);
  pipeline.take_one();
  pipeline.commit(kStoredBatch + 2, kFastUs);
  CHECK(pipeline.answers_bytes() == 0);
}

TEST_CASE("a batch that stayed empty has no number, and leaves its promises to the caller") {
  Pipeline pipeline;
  pipeline.gathering().queues.push_back(nullptr);  // touched, and as it was sealed before
  Effect effect = OkReply{Asker{SessionId(1), 0}};
  CHECK(pipeline.say_when_durable(effect));
  CHECK(pipeline.answers_bytes() > 0);
  Sealed next = pipeline.begin_sealing();
  CHECK_FALSE(pipeline.end_sealing(next));
  CHECK(next.promises.said.size() == 1);
  CHECK(pipeline.answers_bytes() == 0);
  CHECK(pipeline.gathering().promises.said.empty());
  CHECK(pipeline.number() == kStoredBatch + 1);
  CHECK(pipeline.idle());
}

TEST_CASE("what is on its way takes of the room until it is durable") {
  Pipeline pipeline(room_of(1000));
  pipeline.seal_one(1, 300);
  pipeline.seal_one(2, 300);
  pipeline.take_one();
  pipeline.gathering().bytes = 300;
  CHECK(pipeline.pending_bytes() == 900);
  CHECK(pipeline.has_room_for(100));
  CHECK_FALSE(pipeline.has_room_for(101));
  pipeline.commit(kStoredBatch + 1, kFastUs);
  CHECK(pipeline.has_room_for(400));
  CHECK_FALSE(pipeline.has_room_for(401));
}

TEST_CASE("on a full disk nothing has room, and the reserve is shared with what is on its way") {
  Pipeline pipeline(full_disk(100'000));
  CHECK_FALSE(pipeline.has_room_for(0));
  CHECK(pipeline.has_reserve_for(100'000));
  CHECK_FALSE(pipeline.has_reserve_for(100'001));
  CHECK(pipeline.retry_bytes_max() == kBatchBytes);
  pipeline.seal_one(1, 70'000);
  CHECK_FALSE(pipeline.has_reserve_for(30'001));
  CHECK(pipeline.retry_bytes_max() == 0);  // less than a step is left
}

// Acks in thousands of queues were one batch while publishes were taken, for which a small store
// had no room.
TEST_CASE("a batch is full by the queues that it touches, the sooner the less is left") {
  constexpr std::size_t kLeft = 4 << 20;
  std::size_t touched_max = 32;
  SUBCASE("when nothing is left") {}
  SpaceReport space = full_disk(0);
  SUBCASE("when some of the reserve is") {
    space = full_disk(kLeft);
    touched_max = kLeft / 4 / 8192;
  }
  SUBCASE("when there is room") {
    space = room_of(kLeft);
    touched_max = space.reserve_room_bytes / 4 / 8192;
  }
  Pipeline pipeline(space);
  for (std::size_t i = 0; i < touched_max; ++i) {
    CHECK_FALSE(pipeline.is_full());
    pipeline.gathering().queues.push_back(nullptr);
  }
  CHECK(pipeline.is_full());
  // What is appended to has asked for its pages.
  pipeline.gathering().appended = 1;
  CHECK_FALSE(pipeline.is_full());
}

TEST_CASE("what waits and asked for room leaves less to what only touches queues") {
  Pipeline pipeline(full_disk(4 << 20));
  pipeline.gathering().queues.assign(127, nullptr);
  CHECK_FALSE(pipeline.is_full());
  pipeline.seal_one(1);
  // Its pages are as many more in a moment.
  pipeline.gathering().queues.assign(127, nullptr);
  CHECK_FALSE(pipeline.is_full());
  pipeline.seal_one(2, 64 << 10);
  pipeline.gathering().queues.assign(127, nullptr);
  CHECK(pipeline.is_full());
}

// Sixteen thousand of them were one batch, for which a small store had no room.
TEST_CASE("a batch of new queues was never full") {
  const std::size_t bytes = created_queue_bytes("orders");
  Pipeline pipeline(room_of(2 * kBatchBytes));
  std::size_t created = 0;
  for (; !pipeline.is_full() && created < kBatchBytes; ++created) {
    pipeline.gathering().queues.push_back(nullptr);
    ++pipeline.gathering().created;
    pipeline.gathering().created_bytes += bytes;
  }
  CHECK(created == (kBatchBytes + bytes - 1) / bytes);
  // They take of the room, and hold up no publishes otherwise.
  CHECK(pipeline.pending_room_bytes() == created * bytes);
  CHECK(pipeline.pending_bytes() == 0);
}

TEST_CASE("on a full disk a batch moves and counts a step of the reserve and no more") {
  Pipeline pipeline(full_disk(1 << 20));
  CHECK(pipeline.may_move(500'000));
  CHECK_FALSE(pipeline.may_move((1 << 20) + 1));
  pipeline.gathering().moved_bytes = kReserveStepBytes;
  CHECK_FALSE(pipeline.may_move(1));
  CHECK(pipeline.may_count_retry());
  pipeline.gathering().retry_bytes = kRetryStepBytes;
  CHECK_FALSE(pipeline.may_count_retry());
  pipeline.set_space(room_of(1 << 20));
  CHECK(pipeline.may_move(1));
  CHECK(pipeline.may_count_retry());
}

TEST_CASE("commits lag when eight batches of what was read again wait") {
  Pipeline pipeline;
  for (std::uint32_t id = 1; id <= 8; ++id) {
    CHECK_FALSE(pipeline.lags());
    pipeline.gathering().moved_bytes = kBatchBytes / 2;
    pipeline.gathering().rewritten_bytes = kBatchBytes / 2;
    pipeline.seal_one(id);
  }
  CHECK(pipeline.lags());
  pipeline.take_one();
  CHECK(pipeline.lags());
  pipeline.commit(kStoredBatch + 1, kFastUs);
  CHECK_FALSE(pipeline.lags());
}

TEST_CASE("of commits the last 1,024 durations are known, ascending") {
  Pipeline pipeline;
  CHECK(pipeline.commit_durations_us().empty());
  constexpr std::uint32_t kCommits = 1100;
  for (std::uint32_t id = 1; id <= kCommits; ++id) {
    pipeline.seal_one(id);
    pipeline.take_one();
    pipeline.commit(kStoredBatch + id, kCommits - id);
  }
  const std::vector<std::uint32_t> durations = pipeline.commit_durations_us();
  REQUIRE(durations.size() == 1024);
  CHECK(durations.front() == 0);
  CHECK(durations.back() == 1023);
}

}  // namespace
}  // namespace holdfast::broker
