#include "fuzz/memory_broker.h"

#include <utility>
#include <variant>

#include "fuzz/fuzz.h"
#include "fuzz/wire_tables.h"
#include "support/virtual_time.h"

namespace holdfast::fuzz {

namespace {

constexpr int kStepsMax = 100'000;

template <typename Said>
SessionId session_of(const Said& said) {
  if constexpr (requires { said.to; }) {
    return said.to.session;
  } else {
    return said.session;
  }
}

}  // namespace

MemoryBroker::MemoryBroker() {
  now_.monotonic = MonotonicTime(Milliseconds(1'000'000));
  now_.wall = from_unix_ms(1'700'000'000'000);
  options_.broker_version = "fuzz";
  options_.node_id = "memory";
  start();
}

void MemoryBroker::start() {
  core_ = std::make_unique<broker::Core>(broker::CoreOptions());
  context_ = std::make_unique<broker::SessionContext>(
      broker::SessionContext{*core_, encoder_, *this, options_, {}, {}, {}});
  core_->load(store_.load(), now_);
  store_.load_dedup(*core_, now_);
  take_effects();
}

SessionId MemoryBroker::open_session() {
  const SessionId id(++last_session_);
  sessions_.emplace(id, std::make_unique<Peer>(*context_, id));
  return id;
}

void MemoryBroker::close_session(SessionId session) {
  const auto found = sessions_.find(session);
  if (found == sessions_.end()) return;
  const bool established = found->second->session.established();
  sessions_.erase(found);
  if (established) core_->session_closed(session, now_);
  take_effects();
}

void MemoryBroker::set_session_room(SessionId session, std::uint64_t bytes) {
  const auto found = sessions_.find(session);
  if (found == sessions_.end() || !found->second->session.established()) return;
  core_->session_room(session, bytes, now_);
  take_effects();
}

void MemoryBroker::receive(SessionId session, ByteSpan bytes) {
  const auto found = sessions_.find(session);
  if (found == sessions_.end()) return;
  FrameReader& reader = found->second->reader;
  if (!bytes.empty()) std::memcpy(reader.prepare(bytes.size()).data(), bytes.data(), bytes.size());
  reader.commit(bytes.size());
  while (is_open(session)) {
    // As a connection that is not read on until something was answered.
    if (found->second->session.waits_for_much() && !settle_down()) {
      violation("answers: the broker does not come to rest");
    }
    if (found->second->session.waits_for_much()) {
      violation("answers: a session waits for answers that do not come");
    }
    const Result<std::optional<Frame>> next = reader.next();
    if (!next.ok()) return close_session(session);
    if (!next->has_value()) return;
    handle(*found->second, **next);
  }
}

void MemoryBroker::handle(Peer& peer, const Frame& frame) {
  const SessionId id = peer.session.id();
  FrameWriter out;
  const Status status = peer.session.handle(frame, out, now_);
  if (!status.ok()) {
    if (status.message().empty()) violation("errors: a conversation ends without a word");
    encoder_.append_error(frame.correlation, status, true, out);
  }
  const bool over = !status.ok() || peer.session.said_goodbye();
  say(id, out);
  take_effects();
  if (over) close_session(id);
}

void MemoryBroker::take_effects() {
  broker::Effects& effects = core_->effects();
  const std::vector<broker::Effect> said = std::move(effects.said);
  for (const broker::Effect& effect : said) {
    std::visit(
        [this](const auto& one) {
          const auto peer = sessions_.find(session_of(one));
          if (peer == sessions_.end()) return;
          peer->second->session.answered(one);
          FrameWriter out;
          encoder_.append(one, out);
          say(peer->first, out);
        },
        effect);
  }
  for (const broker::FetchRequest& request : effects.fetches) fetches_.push_back(request);
  for (const broker::IdsRequest& request : effects.ids_requests) ids_requests_.push_back(request);
  effects.clear();
}

// What a client would read out of these bytes.
void MemoryBroker::say(SessionId session, FrameWriter& out) {
  if (out.empty()) return;
  FrameReader reader(kFrameBytesMax);
  std::memcpy(reader.prepare(out.size()).data(), out.data(), out.size());
  reader.commit(out.size());
  for (;;) {
    const Result<std::optional<Frame>> next = reader.next();
    if (!next.ok()) violation("frames: the broker says no frame: " + next.status().message());
    if (!next->has_value()) break;
    if (const Status status = check_readable(**next); !status.ok()) {
      violation("bytes: the broker says what no client can read: " + status.message());
    }
    if (on_frame) on_frame(session, **next);
  }
  if (reader.pending_bytes() > 0) violation("frames: the broker says half a frame");
}

bool MemoryBroker::commit_step() {
  if (batch_ == nullptr) {
    batch_ = core_->take_batch(now_);
    return batch_ != nullptr;
  }
  if (!applied_) {
    if (on_durable) on_durable(*batch_);
    applied_ = store_.apply(*batch_);
    return true;
  }
  const broker::CommitResult result = *std::exchange(applied_, std::nullopt);
  batch_.reset();
  core_->committed(result, now_);
  take_effects();
  return true;
}

bool MemoryBroker::read_step() {
  if (!fetches_.empty()) {
    const broker::FetchRequest request = fetches_.front();
    fetches_.pop_front();
    core_->fetched(store_.fetch(request), now_);
  } else if (!ids_requests_.empty()) {
    const broker::IdsRequest request = ids_requests_.front();
    ids_requests_.pop_front();
    core_->ids_fetched(store_.fetch_ids(request), now_);
  } else {
    return false;
  }
  take_effects();
  return true;
}

bool MemoryBroker::settle_down() {
  for (int i = 0; i < kStepsMax; ++i) {
    const bool read = read_step();
    const bool committed = commit_step();
    if (!read && !committed) return true;
  }
  return false;
}

void MemoryBroker::pass(Milliseconds duration) {
  const MonotonicTime end = now_.monotonic + duration;
  while (now_.monotonic < end) {
    jump(test::next_stop(*core_, now_, end) - now_.monotonic);
  }
}

void MemoryBroker::jump(Milliseconds duration) {
  now_.wall += duration;
  now_.monotonic += duration;
  core_->advance(now_);
  take_effects();
}

void MemoryBroker::crash() {
  sessions_.clear();
  batch_.reset();
  applied_.reset();
  fetches_.clear();
  ids_requests_.clear();
  start();
}

void MemoryBroker::set_room(bool publishes_allowed) {
  store_.space.publishes_allowed = publishes_allowed;
  store_.space.reason = publishes_allowed ? "" : "The disk is full.";
  core_->space_changed(store_.space, now_);
  take_effects();
}

std::size_t MemoryBroker::append_status(std::uint64_t correlation, FrameWriter& out, Now now) {
  const broker::CoreReport report = core_->report(now);
  auto& builder = encoder_.begin();
  wire::StatusInfoBuilder status(builder);
  status.add_queues(report.queues);
  return encoder_.finish(wire::FrameType_StatusInfo, correlation, status.Finish(), out);
}

std::size_t MemoryBroker::append_connections(std::uint64_t correlation, std::uint64_t /*from*/,
                                             FrameWriter& out, Now /*now*/) {
  auto& builder = encoder_.begin();
  const auto end = wire::CreateListEnd(builder, 0, 0);
  return encoder_.finish(wire::FrameType_ListEnd, correlation, end, out);
}

}  // namespace holdfast::fuzz
