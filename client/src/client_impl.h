// One client: its I/O thread, and what lives on it.
//
// Callers leave publishes, settles and tasks in the mailbox; the I/O thread takes them once a turn,
// lets publisher, subscriptions and requests write their frames, and sends those in one write. What
// the broker answers goes to whoever asked; callbacks run in between, without a lock.

#pragma once

#include <sys/types.h>

#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "call.h"
#include "connection.h"
#include "holdfast/client.h"
#include "io_loop.h"
#include "mailbox.h"
#include "message_id.h"
#include "publisher.h"
#include "requests.h"
#include "subscriptions.h"

namespace holdfast {

namespace client {

// What a program does not choose and a test does.
struct ClientTuning {
  std::uint32_t heartbeat_ms = 0;  // 0: the broker's
  std::uint64_t handshake_ms = 10'000;
};

// A thread in which all signals are blocked: they are the program's. kLimitReached if the system
// has none to give.
Result<std::thread> start_quiet_thread(std::function<void()> body);

}  // namespace client

class ClientImpl final : public std::enable_shared_from_this<ClientImpl>,
                         private client::IoTurns,
                         private client::ConnectionEvents {
 public:
  static Result<Client> connect(ClientOptions options, const client::ClientTuning& tuning);

  ClientImpl(ClientOptions options, Address address, const client::ClientTuning& tuning);
  ~ClientImpl();

  // ---- any thread ----
  Result<PublishReceipt> publish(std::string_view queue, const Message& message);
  void publish_async(std::string_view queue, const Message& message, Client::PublishDone done);
  Status flush();
  Result<Consumer> consume(std::string_view queue, const ConsumeOptions& options, Handler handler);
  Result<std::vector<Delivery>> receive(std::string_view queue, std::uint32_t count,
                                        std::chrono::milliseconds wait,
                                        std::chrono::milliseconds lease);
  // Asks and waits. `on_frame` and `on_repeat` run on the I/O thread, possibly after this returned
  // with kTimeout. `what` begins the sentence of a time-out.
  Status ask(client::Request request, std::string_view what);
  void settle(client::SettleItem item);
  Status extend(std::shared_ptr<DeliveryImpl> delivery, std::chrono::milliseconds lease);
  void close();

  // The task runs on the I/O thread with an ok status; or on this one with kCancelled if the client
  // is closed, or kInvalidArgument after a fork.
  void run_on_io(client::Task task);
  // Likewise for what calls the program back, in this process alone; but on the I/O thread of a
  // closed client one that is asked for within another is called after it.
  void call_back(client::Task task);
  bool on_io_thread() const;
  // kInvalidArgument where waiting would be for ever: on the I/O thread, and after a fork.
  Status check_may_wait() const;
  // In a child of the process that made it: its threads are not here, and any of them may have held
  // a mutex.
  bool is_forked() const;
  // kInvalidArgument there.
  Status check_process() const;
  // For who is about to wait for handlers. Of all handlers of this client that would, one gets its
  // turn, until what is returned is destroyed: two might wait for each other.
  std::optional<std::unique_lock<std::mutex>> turn_to_wait();
  // When a synchronous call that begins now ends.
  client::SteadyTime deadline() const;
  Status connection_status() const;
  // kTimeout: "`what` took longer than …", and why there is no connection if there is none.
  Status timed_out(std::string_view what) const;

  // ---- the I/O thread ----
  client::Subscriptions& subscriptions() { return subscriptions_; }

 private:
  Status start();
  Status wait_for_first_connection();
  Result<PublishReceipt> publish_once(std::string_view queue, const Message& message,
                                      const std::string& id, client::SteadyTime deadline);
  std::vector<std::shared_ptr<ConsumerImpl>> consumers() const;
  void close_thread();
  void shut_down();

  bool turn() override;
  void take_mail();
  bool send();
  void drop_if_drained();

  void connected() override;
  void frame(const Frame& frame) override;
  void read_done() override { subscriptions_.read_done(); }
  void disconnected(const Status& why) override;
  void accepted() override;
  void attempt_failed(const Status& why) override { note_connection(why); }
  void ended(const Status& why) override;
  void goodbye(const Frame& frame);
  void note_connection(const Status& status);

  const pid_t process_;
  const ClientOptions options_;
  const Address address_;
  client::MessageIdSource ids_;
  client::IoLoop loop_;
  client::Mailbox mailbox_;
  std::thread thread_;
  const std::shared_ptr<client::Call<Status>> first_connection_;

  mutable std::mutex mutex_;  // of what follows
  Status connection_status_;  // ok while connected
  std::vector<std::weak_ptr<ConsumerImpl>> consumers_;
  bool closing_ = false;
  std::mutex handler_waits_;  // held by the handler that does
  std::mutex closing_mutex_;  // held while the thread is joined
  // Told at the end of the turn after which the I/O thread calls nobody any more.
  enum class LastTurn { kEnds, kLooksUp };
  std::promise<LastTurn> last_turn_;
  const std::shared_future<LastTurn> last_turn_told_{last_turn_.get_future()};

  // The I/O thread's.
  client::Requests requests_;
  client::Publisher publisher_;
  client::Subscriptions subscriptions_;
  client::Connection connection_;
  client::Mailbox::Contents mail_;
  Status ended_;        // why there will be no further connection; ok: there may be
  bool stood_ = false;  // there was a connection
  bool draining_ = false;
  bool shut_ = false;
  bool calls_back_ = false;               // call_back() does
  std::deque<client::Task> called_back_;  // next by it
};

}  // namespace holdfast
