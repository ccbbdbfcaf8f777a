// Requests that read much, peeks, redrives and discards: whose turn it is to read.
//
// Over all sessions no more than two of their reads are under way at once, half of the threads that
// read, so that the reads for deliveries and for ids do not wait for theirs, however many there
// are. Sessions take turns, a read each; what one session asks for is done in its order. One that
// may store again what it reads has no turn while commits lag, nor has what its session asked for
// after it; they keep their place.

#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <utility>

#include "core/requests.h"

namespace holdfast::broker {

class Queue;

struct LongRead {
  struct Range {
    Sequence from = 1;
    std::size_t bytes_max = 0;
  };

  Asker asker;
  QueueId queue;
  bool waits_for_commits = false;
  // What is to be read next; nothing: it is done, and was answered.
  std::function<std::optional<Range>(Queue&)> next;
  std::function<void(Queue&, const FetchResult&, Now)> done;
};

class LongReads {
 public:
  // Waits behind the others of its session.
  void wait(std::shared_ptr<const LongRead> read) {
    list_of(read->asker.session).push_back(std::move(read));
  }
  // It has had a turn and needs another one.
  void wait_again(std::shared_ptr<const LongRead> read) {
    list_of(read->asker.session).push_front(std::move(read));
  }

  // Begins the turn of the next one; null if there is none, or enough are under way.
  std::shared_ptr<const LongRead> begin_turn(bool commits_lag) {
    while (under_way_ < kUnderWayMax && !line_.empty()) {
      const SessionId session = line_.front();
      line_.pop_front();
      const auto waiting = waiting_.find(session);
      if (waiting == waiting_.end()) continue;  // closed
      if (commits_lag && waiting->second.front()->waits_for_commits) {
        held_up_.push_back(session);
        continue;
      }
      std::shared_ptr<const LongRead> read = std::move(waiting->second.front());
      waiting->second.pop_front();
      if (waiting->second.empty()) {
        waiting_.erase(waiting);
      } else {
        line_.push_back(session);
      }
      ++under_way_;
      return read;
    }
    return nullptr;
  }
  void end_turn() { --under_way_; }

  // Commits may lag no more.
  void go_on() {
    line_.insert(line_.begin(), held_up_.begin(), held_up_.end());
    held_up_.clear();
  }

  // What waits of this session; a turn that has begun must still be ended.
  void session_closed(SessionId session) { waiting_.erase(session); }

 private:
  static constexpr std::size_t kUnderWayMax = 2;

  // In which something will wait: its session is in the line then, or held up.
  std::list<std::shared_ptr<const LongRead>>& list_of(SessionId session) {
    const auto [found, is_new] = waiting_.try_emplace(session);
    if (is_new) line_.push_back(session);
    return found->second;
  }

  std::map<SessionId, std::list<std::shared_ptr<const LongRead>>> waiting_;  // never empty lists
  std::deque<SessionId> line_;  // in turn; may be gone meanwhile, like those held up
  std::deque<SessionId> held_up_;
  std::size_t under_way_ = 0;
};

}  // namespace holdfast::broker
