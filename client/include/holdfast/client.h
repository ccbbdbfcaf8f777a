// The Holdfast client: publish, consume, look.
//
//   auto client = holdfast::Client::connect(holdfast::ClientOptions("127.0.0.1:7411"));
//   auto receipt = client->publish("orders", holdfast::Message("hello"));
//   auto consumer = client->consume("orders", holdfast::ConsumeOptions(),
//                                   [](holdfast::Delivery delivery) { delivery.ack_async(); });
//
// A Client owns one connection and one I/O thread. When the connection is lost it reconnects with
// backoff, publishes again what was not confirmed (message ids make that safe: within the dedup
// window a message is stored once) and subscribes its consumers again.
//
// Threads: every method of Client, Consumer and Delivery may be called from any thread, several at
// a time. Callbacks of asynchronous calls run on the I/O thread and must not block or call a
// synchronous method (that returns kInvalidArgument instead of hanging); what is called after
// close() answers with kCancelled on the calling thread. An exception that leaves such a callback
// ends the program. Handlers run on the consumer's own threads and may block, call synchronous
// methods and throw. The client's threads block all signals.
//
// After fork() the child has none of them. There whatever has a Status to tell tells
// kInvalidArgument, an asynchronous call through its callback on the calling thread; what was begun
// before is never answered there, so that a future from before is not to be waited for. Destroying,
// close() and stop() return at once, and are nothing to the connection and to what is held, which
// stay the parent's. A callback or handler that forks must not return in the child.
//
// What is refused now and may succeed later (Status::retryable):
// - A lost connection and a draining broker never reach a publisher: the message waits for the next
//   connection. A request that must not happen twice and was under way when the connection was lost
//   returns kConnectionLost, because nobody knows whether it happened; any other is asked again.
// - After kTimeout nobody knows either: what was under way may still happen. So publish again only
//   with an id of the program's own (Message::id), which is stored once; a second call without one
//   makes a new id, and perhaps a second message. An ack is under way still, and its state() tells.
// - storage_full, queue_full and limit_reached (too much waits for the disk): publish() tries again
//   with backoff until `timeout`, and publish_async() reports them at once: the caller decides.
//
// Errors are values: holdfast/status.h, codes in holdfast/error_code.h. No method throws. Each
// call's comment names what it is refused with, here or by the broker. Besides, every call that
// waits for the broker may return
// - kInvalidArgument on the I/O thread, after fork(), or of a moved-from object;
// - kTimeout, and kCancelled: the client was closed;
// - kConnectionLost without `reconnect`, and kVersionUnsupported when another version of the broker
//   answers at the address: the client has ended, and every further call says so;
// - kFrameMalformed: an answer that does not keep to the protocol.

#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <future>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "holdfast/admin.h"
#include "holdfast/message.h"
#include "holdfast/status.h"

namespace holdfast {

struct ClientOptions {
  ClientOptions() = default;
  explicit ClientOptions(std::string broker_address) : address(std::move(broker_address)) {}

  std::string address = "127.0.0.1:7411";  // HOST:PORT or unix:PATH
  std::string client_name;                 // at most 128 bytes of UTF-8; empty: PROGRAM@HOST:PID
  // Above 0. Bound of every synchronous call, reconnecting included; receive() adds its `wait`, and
  // stop() and close() wait for running handlers besides. The asynchronous ones have none: see
  // `unconfirmed_bytes_max`. Until the first connection stands, connect() tries again for this
  // long; without `reconnect` it tries once.
  std::chrono::milliseconds timeout{30'000};
  std::chrono::milliseconds reconnect_min{50};     // above 0
  std::chrono::milliseconds reconnect_max{5'000};  // not below reconnect_min
  // False: a lost connection ends the client; calls return kConnectionLost from then on. That this
  // is retryable() then means another client: with this one nothing succeeds any more.
  bool reconnect = true;
  // Publishes that may be unconfirmed; past it, or while others wait for that, publish_async and
  // publish_future block their caller until there is room or the client is closed, however long
  // that takes; publish() does until `timeout`. (On the I/O thread: kLimitReached through the
  // callback.) One message always has room, however large: with 0 they go one at a time. No more of
  // them are sent ahead than the broker reads, 4 MiB if it is not set otherwise; the rest waits
  // here.
  std::size_t unconfirmed_bytes_max = 16u << 20;
  // Told when the broker says that it stops: it delivers nothing more, and what the program holds
  // is to be settled or given back now. On the I/O thread, like the callbacks of asynchronous
  // calls. May be empty.
  std::function<void()> on_draining;
  // Told when a connection stands, the first one included (ok), and when it is lost (why); not of
  // attempts that fail, nor of close(). On the I/O thread, like the callbacks of asynchronous
  // calls. May be empty.
  std::function<void(const Status&)> on_connection;
};

struct ConsumeOptions {
  ConsumeOptions() = default;

  std::uint32_t concurrency = 1;  // handlers at a time, each on a thread of its own; 1 to 1,024
  // Deliveries held at most, running ones included, up to 65,536; 0: max(4, 2 × concurrency).
  std::uint32_t prefetch = 0;
  std::uint64_t prefetch_bytes = 0;    // 0: no bound by bytes
  std::chrono::milliseconds lease{0};  // 100 ms to 12 h; 0: the queue's
  // While a handler runs, or a delivery is kept, its lease is extended at a third of its length.
  bool extend_leases = true;
  std::string consumer_name;  // at most 128 bytes of UTF-8; empty: the client's name
  // Told when the consumer ends by itself: its queue was deleted, or another broker, which does not
  // have it, answers at the address. It does not begin again. On the I/O thread, like the callbacks
  // of asynchronous calls. May be empty.
  std::function<void(const Status&)> on_ended;
};

enum class DeliveryState {
  kHeld,
  kSettled,
  kLost,  // its lease or its connection is, or with that the answer to its settle
};

class ClientImpl;
class ConsumerImpl;
class DeliveryImpl;

// One delivery, to be settled exactly once. Dropped unsettled it is given back (release): that
// costs no attempt, and it comes again at once. If the lease or the connection was lost, settling
// returns kNotHeld or kConnectionLost, and the message may come again; but an ack after a lost
// lease is still tried, also after Consumer::stop(), and succeeds if nobody else has settled the
// message, it was not rejected and is no dead letter yet, and no 16 attempts have failed since. Of
// a settle that was under way when the connection was lost (kConnectionLost) or the client was
// closed (kCancelled), nobody knows whether it was done: every later settle says so with
// kConnectionLost, and the message may have been settled, or may come again. A moved-from Delivery
// may only be assigned to or destroyed.
class Delivery {
 public:
  Delivery(Delivery&&) noexcept;
  Delivery& operator=(Delivery&&) noexcept;
  Delivery(const Delivery&) = delete;
  Delivery& operator=(const Delivery&) = delete;
  ~Delivery();

  const StoredMessage& message() const;
  const std::string& body() const { return message().body; }
  std::uint32_t attempt() const { return message().attempt; }
  DeliveryState state() const;

  // Synchronous: return once the broker has made it durable. On the I/O thread: kInvalidArgument;
  // while an earlier call is not answered: kOperationRefused. A reason is any text: of more than
  // 1,024 bytes the first are kept, and what is not UTF-8 is escaped. A delay is 0 to 7 days; with
  // any other a nack is refused, and takes place without it when the delivery is dropped.
  Status ack();
  Status nack(std::string_view reason = {},
              std::optional<std::chrono::milliseconds> delay = std::nullopt);
  Status reject(std::string_view reason = {});
  Status release();

  // Asynchronous: `done` is called on the I/O thread; may be empty. Acks that are asked for close
  // together travel as ranges in one frame.
  using SettleDone = std::function<void(Status)>;
  void ack_async(SettleDone done = {});
  void nack_async(std::string_view reason = {},
                  std::optional<std::chrono::milliseconds> delay = std::nullopt,
                  SettleDone done = {});
  void reject_async(std::string_view reason = {}, SettleDone done = {});
  void release_async(SettleDone done = {});

  // The lease ends this long from now: 100 ms to 12 h; 0: as long as it was at first. Not durable.
  // Synchronous. Not needed while extend_leases is on, which makes a longer one no shorter.
  // kInvalidArgument: it can be none of these; kNotHeld: the lease has ended, or the message is
  // settled; kOperationRefused: a settle of it is not answered yet; kConnectionLost: the connection
  // that it came on has ended.
  Status extend(std::chrono::milliseconds lease);

 private:
  friend class DeliveryImpl;
  explicit Delivery(std::shared_ptr<DeliveryImpl> impl);
  std::shared_ptr<DeliveryImpl> impl_;
};

// A handler takes the delivery. If it returns without having settled it and without having moved it
// elsewhere, the message is given back. If it throws, the message is nacked with the exception's
// text.
using Handler = std::function<void(Delivery)>;

// A running consumer. Destroying it stops it. Of a moved-from one stop() does nothing, and status()
// is kInvalidArgument.
class Consumer {
 public:
  Consumer(Consumer&&) noexcept;
  Consumer& operator=(Consumer&&) noexcept;
  Consumer(const Consumer&) = delete;
  Consumer& operator=(const Consumer&) = delete;
  ~Consumer();

  // Takes no more deliveries, gives back those not yet handed to a handler, waits for running
  // handlers and for an on_ended that runs. Idempotent. On the I/O thread: waits for nothing. From
  // a handler of this consumer: waits for no handler, so that they may run on for a while; nor from
  // one of another consumer while one more handler of the client waits in stop() or close(),
  // because they might wait for each other.
  void stop();
  // Ok while all is well; otherwise why the consumer ended (e.g. the queue was deleted).
  Status status() const;

 private:
  friend class ClientImpl;
  explicit Consumer(std::shared_ptr<ConsumerImpl> impl);
  std::shared_ptr<ConsumerImpl> impl_;
};

// Of a moved-from Client close() does nothing, and all else is refused with kInvalidArgument, also
// what its admin() is asked; callbacks run on the calling thread.
class Client {
 public:
  // Starts the I/O thread and waits for the connection. kUnreachable (also when `timeout` is over),
  // kVersionUnsupported, kInvalidArgument (address), kLimitReached (no thread to be had); without
  // `reconnect` also what the broker refused the connection with.
  static Result<Client> connect(ClientOptions options = ClientOptions());

  Client(Client&&) noexcept;
  Client& operator=(Client&&) noexcept;
  Client(const Client&) = delete;
  Client& operator=(const Client&) = delete;
  ~Client();  // close()

  // Returns once the message is durable. Refused here with kNameInvalid, kMessageIdInvalid,
  // kHeadersTooLarge, kMessageTooLarge (also of a message too large for a frame). By the broker
  // with kQueueNotFound; kOperationRefused (a dead-letter queue); kMessageTooLarge (for this
  // queue); kInvalidArgument (a header that is not UTF-8, or has no name); kMessageCorrupt (damaged
  // on its way); and, when it was still so at the last try within `timeout`, kStorageFull,
  // kQueueFull, kLimitReached. kConnectionLost: it was sent, the connection was lost, sent again it
  // was refused, and its queue, without a dedup window, cannot tell whether it was stored the first
  // time.
  Result<PublishReceipt> publish(std::string_view queue, const Message& message);

  using PublishDone = std::function<void(Result<PublishReceipt>)>;
  // In the order of the calls of one thread, for one queue. `done` may be empty; it runs on the I/O
  // thread, once. May block: see `unconfirmed_bytes_max`. Never gives up while reconnecting;
  // cancelled by close(). A `done` that publishes again whatever it is told keeps close() from
  // ending: what is not retryable() is to end. Refused as publish() is, but at once, and never with
  // kTimeout; kLimitReached also on the I/O thread when there is no room.
  void publish_async(std::string_view queue, const Message& message, PublishDone done);
  std::future<Result<PublishReceipt>> publish_future(std::string_view queue,
                                                     const Message& message);
  // Waits until everything published so far is confirmed or refused, which of the two only the
  // publishes themselves are told: kTimeout and kCancelled are its only errors but for a wrong call
  // (kInvalidArgument).
  Status flush();

  // Refused here with kNameInvalid, kInvalidArgument (an option out of its bounds, no handler) and
  // kLimitReached (no thread to be had); by the broker with kQueueNotFound and kLimitReached (it
  // has as many consumers as it may). While there is no connection, or the broker drains, it is
  // waited for the next one.
  Result<Consumer> consume(std::string_view queue, ConsumeOptions options, Handler handler);

  // Takes up to `count` (1 to 65,536) deliveries, waiting at most `wait` for the first and not for
  // more; `lease` as in ConsumeOptions. Empty: nothing came. A delivery may wait for a commit or to
  // be read from disk: if by then the broker has one that has not come yet, it is waited for up to
  // 2 seconds more, so that a `wait` of 0 takes what is ready. kConnectionLost: nothing came, and
  // there was no connection when the wait was over (with one of 0, at once), or it was lost while
  // the broker was asked whether anything comes. kTimeout: nothing came, and the broker did not
  // answer that. Refused here with kNameInvalid and kInvalidArgument (`count`, `wait` or `lease`
  // out of its bounds); by the broker with kQueueNotFound and kLimitReached. Each must be settled;
  // its lease is not extended by itself.
  Result<std::vector<Delivery>> receive(std::string_view queue, std::uint32_t count,
                                        std::chrono::milliseconds wait,
                                        std::chrono::milliseconds lease = {});

  // Ok while a connection stands; otherwise why it was lost, or what the last attempt failed with.
  // kCancelled after close(). Never waits.
  Status connection_status() const;

  // Queues, dead letters, status: see holdfast/admin.h. Synchronous.
  Admin admin();

  // Stops consumers, waits for what is being settled and given back (bounded by `timeout`), closes
  // the connection. No publish is waited for: those that have no room yet are cancelled at once,
  // the others that are not confirmed by then with the connection, and may be stored all the same;
  // so flush() first. A delivery that the program still holds, from receive() or kept by a handler,
  // is lost, which counts as an attempt. On the I/O thread: waits for nothing, so that handlers may
  // run on for a while and what they hold is lost, too; likewise from a handler while another one
  // waits in stop() or close().
  void close();

 private:
  friend class ClientImpl;
  explicit Client(std::shared_ptr<ClientImpl> impl);
  std::shared_ptr<ClientImpl> impl_;
};

}  // namespace holdfast
