// What the program publishes, from the hand-over to the confirm.
//
// Happy path: submit() puts a message behind the others of its queue; the queue's id is asked for
// once per connection; pump() writes the frames; confirms complete them, ranges at a time.
//
// Failures: when the connection is lost, what was sent and not confirmed goes back to the head of
// its queue, in its order, and is sent again under the same message ids. A queue id that the broker
// no longer knows is asked for again once, by name. What a draining broker refuses waits for the
// next connection. Every other refusal is reported for the message it concerns.
//
// The order of the messages of one queue is kept through all this: while some of them came back and
// others are still under way, the queue sends nothing.
//
// No more is sent ahead than the broker reads ahead: past its bound on unconfirmed bytes it stops
// reading the connection, and what is not a publish (a settle, the extension of a lease) would wait
// behind publishes until the disk has caught up.
//
// Queues that have nothing to send or to be answered are forgotten when there are many, and asked
// for again when they are published to: a program may make a queue for each of its requests.
//
// Belongs to the I/O thread.

#pragma once

#include <cstdint>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "call.h"
#include "holdfast/client.h"
#include "message_codec.h"
#include "requests.h"

namespace holdfast::client {

// One message on its way. `done` may be empty.
struct Publication {
  EncodedMessage message;
  Client::PublishDone done;
  // Set when a synchronous caller has gone: what was not confirmed by then is not sent any more.
  std::shared_ptr<const std::atomic<bool>> abandoned;

  std::uint64_t order = 0;
  bool reopened = false;          // its queue's id was unknown to the broker once
  bool sent_before = false;       // on a connection that was lost before the answer
  bool sent_without_ids = false;  // then, to a queue that had no dedup window

  std::size_t bytes() const { return message.bytes.size(); }
};

class Publisher {
 public:
  explicit Publisher(Requests& requests) : requests_(requests) {}

  struct Bounds {
    std::size_t output_bytes_max = 0;
    // The broker's, from its Welcome.
    std::size_t frame_bytes_max = 0;
    std::uint64_t unconfirmed_bytes_max = 0;  // of one connection; 0: no bound
  };

  void submit(std::string_view queue, Publication publication);
  // Writes frames until `output` holds `output_bytes_max` or so much is unconfirmed that the broker
  // would not read on; one message always fits. True: there is more, and it need not wait for
  // answers.
  bool pump(FrameWriter& output, const Bounds& bounds);

  void on_confirm(const Frame& frame);
  void on_error(const Frame& frame);

  void connection_lost();
  void draining() { draining_ = true; }
  void fail_all(const Status& why);
  void drop_abandoned();
  // Calls `done` when everything submitted so far is confirmed or refused.
  void when_done(std::function<void()> done);

  // Frames that were sent and are not answered.
  std::size_t under_way() const { return under_way_; }
  bool has_completed_bytes() const { return completed_bytes_ > 0; }
  // Bytes of messages that were completed since the last call.
  std::size_t take_completed_bytes() { return std::exchange(completed_bytes_, 0); }

 private:
  struct Queue {
    std::string name;
    std::uint32_t id = 0;
    bool knows_ids = true;  // it has a dedup window
    enum class Stage { kUnknown, kOpening, kOpen } stage = Stage::kUnknown;
    std::deque<Publication> waiting;
    std::vector<Publication> returned;  // sent once, to be sent again; not necessarily in order
    std::size_t under_way = 0;
    std::size_t turn_left = 0;  // publishes; of a turn that waits for answers
    bool listed = false;        // in ready_

    // While its id is asked for it is not, whatever became of its messages.
    bool is_idle() const {
      return waiting.empty() && returned.empty() && under_way == 0 && !listed &&
             stage != Stage::kOpening;
    }
  };
  struct Sent {
    Queue* queue = nullptr;  // null: answered
    std::size_t bytes = 0;   // as the broker counts them
    Publication publication;
  };
  struct Flush {
    std::uint64_t before_order = 0;
    std::size_t left = 0;
    std::function<void()> done;
  };
  struct NameHash : std::hash<std::string_view> {
    using is_transparent = void;
  };
  static constexpr std::size_t kQueuesKept = 4'096;

  Queue& queue_named(std::string_view name);
  void forget_idle_queues();
  void make_ready(Queue& queue);
  void open(Queue& queue);
  void opened(const std::string& name, const wire::QueueInfo& info);
  void open_failed(const std::string& name, const Status& why);
  // False: the next message has to wait for answers.
  bool send_some(Queue& queue, FrameWriter& output, const Bounds& bounds);
  bool is_read_on_after(std::size_t bytes, const Bounds& bounds) const;
  void take_back_returned(Queue& queue);
  Sent* find_sent(std::uint64_t correlation);
  // Removes the frame from those under way.
  Publication answered(Sent& sent);
  void forget_answered();
  void complete(Publication& publication, Result<PublishReceipt> result);

  Requests& requests_;
  std::unordered_map<std::string, std::unique_ptr<Queue>, NameHash, std::equal_to<>> queues_;
  std::size_t queues_max_ = kQueuesKept;  // with so many the idle ones are forgotten
  Queue* last_queue_ = nullptr;           // most messages go where the one before went
  std::deque<Queue*> ready_;              // open, with something to send
  std::deque<Sent> sent_;                 // by consecutive correlations from first_correlation_ on
  std::uint64_t first_correlation_ = 1;
  std::uint64_t next_order_ = 1;
  std::size_t count_ = 0;  // not completed
  std::size_t under_way_ = 0;
  std::uint64_t bytes_under_way_ = 0;
  std::size_t completed_bytes_ = 0;
  bool draining_ = false;
  std::vector<Flush> flushes_;
};

}  // namespace holdfast::client
