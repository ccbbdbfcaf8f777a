#include "network/link.h"

#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "network/proxy.h"

namespace holdfast::network {

namespace {

// Beyond this much that was not passed on, the source is not read.
constexpr std::size_t kWaitingBytesMax = 1u << 20;
constexpr std::size_t kReadBytes = 64 * 1024;
// What was held is delivered, and its answers are read, for at least so long.
constexpr std::chrono::milliseconds kDeliveringMin{50};

std::string bytes_of(const Frame& frame) {
  const auto* const begin = reinterpret_cast<const char*>(frame.body.data()) - kFrameHeaderBytes;
  return {begin, padded(kFrameHeaderBytes + frame.body.size())};
}

bool is_reply(wire::FrameType type) {
  return type == wire::FrameType_Confirm || type == wire::FrameType_Settled;
}

bool changes_something(wire::FrameType type) {
  return type == wire::FrameType_Publish || type == wire::FrameType_Settle;
}

}  // namespace

Link::Link(Proxy& proxy, const LinkPlan& plan, std::uint64_t seed, int client, int broker)
    : proxy_(proxy), plan_(plan), random_(seed), client_(client), broker_(broker) {}

Link::~Link() { close_both(); }

void Link::append_polls(std::vector<pollfd>& polls) const {
  const auto events = [](const Stream& from_here, const Stream& to_here) {
    int wanted = 0;
    if (!from_here.ended && from_here.waiting_bytes < kWaitingBytesMax) wanted |= POLLIN;
    if (to_here.blocked) wanted |= POLLOUT;
    return static_cast<short>(wanted);
  };
  // poll() passes over negative descriptors.
  polls.push_back({client_, events(up_, down_), 0});
  polls.push_back({broker_, events(down_, up_), 0});
}

Clock::time_point Link::next_due() const {
  Clock::time_point due = stage_ == Stage::kOpen ? Clock::time_point::max() : stage_ends_;
  for (const Stream* stream : {&up_, &down_}) {
    if (!stream->chunks.empty() && !stream->blocked) {
      due = std::min(due, stream->chunks.front().due);
    }
  }
  return due;
}

void Link::work(bool client_readable, bool broker_readable, Clock::time_point now) {
  if (client_readable && client_ >= 0) read(client_, up_, now);
  if (broker_readable && broker_ >= 0) read(broker_, down_, now);
  decide(now);
  write(broker_, up_, now);
  write(client_, down_, now);
  // Whoever closes has said all; the other side hears the rest of it first.
  if (stage_ == Stage::kOpen &&
      ((up_.ended && up_.chunks.empty()) || (down_.ended && down_.chunks.empty()))) {
    close_both();
  }
  if (stage_ != Stage::kOpen && down_.ended) close_both();
}

void Link::read(int side, Stream& stream, Clock::time_point now) {
  const std::span<std::uint8_t> room = stream.reader.prepare(kReadBytes);
  const ssize_t received = ::recv(side, room.data(), room.size(), MSG_DONTWAIT);
  if (received < 0 && (errno == EAGAIN || errno == EINTR)) return;
  if (received <= 0) {
    stream.ended = true;
    return;
  }
  stream.reader.commit(static_cast<std::size_t>(received));
  for (;;) {
    const Result<std::optional<Frame>> next = stream.reader.next();
    if (!next.ok()) stream.ended = true;
    if (!next.ok() || !next->has_value()) return;
    pass(**next, stream, now);
  }
}

void Link::pass(const Frame& frame, Stream& stream, Clock::time_point now) {
  const bool is_request = &stream == &up_;
  std::string bytes = bytes_of(frame);
  if (stage_ == Stage::kOpen && !proxy_.calm_ && is_the_last(frame, bytes.size(), is_request)) {
    stage_ = Stage::kLosing;
    stage_ends_ = now + plan_.last_for;
    if (plan_.fate == Fate::kMidFrame) {
      enqueue(stream, bytes.substr(0, 1 + random_.below(bytes.size() - 1)), now);
      return;
    }
  } else if (stage_ == Stage::kOpen) {
    enqueue(stream, std::move(bytes), now);
    return;
  }
  if (!is_request) return drop(frame);
  if (plan_.fate == Fate::kReplyLost) {
    enqueue(stream, std::move(bytes), now);
  } else if (plan_.fate == Fate::kOldLingers && changes_something(frame.type)) {
    held_.push_back(std::move(bytes));
    if (frame.type == wire::FrameType_Publish) ++publishes_held_;
  }
}

bool Link::is_the_last(const Frame& frame, std::size_t bytes, bool is_request) {
  switch (plan_.fate) {
    case Fate::kReplyLost:
      if (!is_request && is_reply(frame.type)) ++counted_;
      break;
    case Fate::kMidFrame:
      counted_ += bytes;
      break;
    case Fate::kOldLingers:
      if (is_request && changes_something(frame.type)) ++counted_;
      break;
  }
  return counted_ >= plan_.count;
}

void Link::drop(const Frame& frame) {
  if (stage_ != Stage::kLosing) return;  // the client has sent it again already
  if (frame.type == wire::FrameType_Settled) ++proxy_.settled_dropped_;
  if (frame.type != wire::FrameType_Confirm) return;
  const auto* const confirm = read_table<wire::Confirm>(frame.body);
  if (confirm != nullptr) proxy_.confirms_dropped_ += confirm->count();
}

void Link::enqueue(Stream& stream, std::string bytes, Clock::time_point now) {
  const auto delay = std::chrono::microseconds(
      random_.below(static_cast<std::uint64_t>(plan_.delay_max.count()) + 1));
  Clock::time_point due = now + delay;
  if (!stream.chunks.empty()) due = std::max(due, stream.chunks.back().due);
  stream.waiting_bytes += bytes.size();
  // Neighbours that are due together travel in the same segments.
  if (!stream.chunks.empty() && stream.chunks.back().due == due) {
    stream.chunks.back().bytes += bytes;
  } else {
    stream.chunks.push_back({due, std::move(bytes)});
  }
}

void Link::write(int side, Stream& stream, Clock::time_point now) {
  stream.blocked = false;
  while (!stream.chunks.empty() && stream.chunks.front().due <= now) {
    auto& [due, bytes, sent] = stream.chunks.front();
    const std::size_t segment =
        std::min<std::size_t>(bytes.size() - sent, 1 + random_.below(plan_.segment_bytes_max));
    const ssize_t written =
        side < 0 ? static_cast<ssize_t>(segment)
                 : ::send(side, bytes.data() + sent, segment, MSG_DONTWAIT | MSG_NOSIGNAL);
    if (written < 0) {
      stream.blocked = errno == EAGAIN;
      if (!stream.blocked) stream.ended = true;
      return;
    }
    sent += static_cast<std::size_t>(written);
    stream.waiting_bytes -= static_cast<std::size_t>(written);
    if (sent == bytes.size()) stream.chunks.pop_front();
  }
}

void Link::decide(Clock::time_point now) {
  if (stage_ == Stage::kOpen || now < stage_ends_) return;
  switch (stage_) {
    case Stage::kOpen:
      break;
    case Stage::kLosing:
      ++proxy_.cuts_;
      cut(client_);
      if (plan_.fate != Fate::kOldLingers) return close_both();
      stage_ = Stage::kLingering;
      stage_ends_ = now + plan_.linger;
      break;
    case Stage::kLingering:
      deliver_late(now);
      stage_ = Stage::kDelivering;
      stage_ends_ = now + kDeliveringMin;
      break;
    case Stage::kDelivering:
      stage_ends_ = now + std::chrono::milliseconds(1);
      if (up_.chunks.empty()) close_both();
      break;
  }
}

// A reset destroys what the client has not read yet; an end of the stream comes after it.
void Link::cut(int& side) const {
  if (side < 0) return;
  if (plan_.reset) {
    const linger at_once{1, 0};
    ::setsockopt(side, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  }
  ::close(side);
  side = -1;
}

void Link::close_both() {
  cut(client_);
  if (broker_ >= 0) ::close(broker_);
  broker_ = -1;
}

void Link::deliver_late(Clock::time_point now) {
  for (std::string& bytes : held_) enqueue(up_, std::move(bytes), now);
  held_.clear();
  if (broker_ >= 0) proxy_.publishes_late_ += publishes_held_;
}

}  // namespace holdfast::network
