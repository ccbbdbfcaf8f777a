#include "cli/receive_command.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <condition_variable>
#include <limits>
#include <memory>
#include <mutex>
#include <optional>
#include <unordered_set>
#include <utility>
#include <vector>

#include "cli/cell.h"
#include "cli/interrupt.h"
#include "cli/json_form.h"
#include "cli/message_view.h"
#include "cli/session.h"
#include "holdfast/text.h"

namespace holdfast::cli {
namespace {

using Deliveries = std::vector<Delivery>;
using Failures = std::vector<std::pair<std::uint64_t, Status>>;  // by sequence
using std::chrono::milliseconds;

Status invalid(std::string message) {
  return Status(ErrorCode::kInvalidArgument, std::move(message));
}

// What became of the deliveries that were settled together; the answers come on the I/O thread.
class Settling {
 public:
  explicit Settling(std::size_t deliveries) : waiting_(deliveries) {}

  void answer(std::uint64_t sequence, Status status) {
    const std::lock_guard lock(mutex_);
    if (!status.ok()) failures_.emplace_back(sequence, std::move(status));
    if (--waiting_ == 0) answered_.notify_all();
  }
  // False if not all were answered in time.
  bool wait_for(milliseconds timeout) {
    std::unique_lock lock(mutex_);
    return answered_.wait_for(lock, timeout, [this] { return waiting_ == 0; });
  }
  Failures failures() {
    const std::lock_guard lock(mutex_);
    return failures_;
  }
  std::size_t waiting() {
    const std::lock_guard lock(mutex_);
    return waiting_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable answered_;
  std::size_t waiting_;
  Failures failures_;
};

void settle_async(const ReceiveArguments& arguments, Delivery& delivery,
                  const std::shared_ptr<Settling>& settling) {
  const std::uint64_t sequence = delivery.message().sequence;
  Delivery::SettleDone done = [settling, sequence](Status status) {
    settling->answer(sequence, std::move(status));
  };
  const std::string reason = arguments.reason.value_or("");
  if (arguments.ack) {
    delivery.ack_async(std::move(done));
  } else if (arguments.nack) {
    delivery.nack_async(reason, arguments.delay, std::move(done));
  } else if (arguments.reject) {
    delivery.reject_async(reason, std::move(done));
  } else {
    delivery.release_async(std::move(done));
  }
}

// Messages that could not be settled for the same reason; `status` is that of the first one.
struct FailedGroup {
  std::uint64_t count = 0;
  std::uint64_t first_sequence = 0;
  std::uint64_t last_sequence = 0;
  Status status;
};

std::string name_of(const FailedGroup& group) {
  if (group.count == 1) return fmt::format("message {}", group.first_sequence);
  const bool has_gaps = group.last_sequence - group.first_sequence + 1 != group.count;
  return fmt::format("{}messages {} to {}",
                     has_gaps ? fmt::format("{} of the ", group.count) : std::string(),
                     group.first_sequence, group.last_sequence);
}

// One line for each reason: a connection that is lost is so for all of them.
void report_failures(Session& session, Failures failures) {
  std::ranges::sort(failures, {}, &Failures::value_type::first);
  std::vector<FailedGroup> groups;
  for (auto& [sequence, status] : failures) {
    const auto group = std::ranges::find_if(groups, [&status = status](const FailedGroup& known) {
      return known.status.code() == status.code();
    });
    if (group == groups.end()) {
      groups.push_back({1, sequence, sequence, std::move(status)});
    } else {
      ++group->count;
      group->last_sequence = sequence;
    }
  }
  for (const FailedGroup& group : groups) {
    session.console().error(fmt::format("{}: {}", name_of(group), group.status.to_string()));
  }
}

struct Settled {
  std::uint64_t done = 0;
  ErrorCode first_failure = ErrorCode::kOk;
};

void settle(Session& session, const ReceiveArguments& arguments, Deliveries& deliveries,
            Settled& settled) {
  const auto settling = std::make_shared<Settling>(deliveries.size());
  for (Delivery& delivery : deliveries) settle_async(arguments, delivery, settling);
  const bool is_answered = settling->wait_for(session.options().timeout);
  const Failures failures = settling->failures();
  if (!failures.empty() && settled.first_failure == ErrorCode::kOk) {
    settled.first_failure = failures.front().second.code();
  }
  report_failures(session, failures);
  const std::size_t waiting = settling->waiting();
  if (!is_answered && waiting > 0) {
    if (settled.first_failure == ErrorCode::kOk) settled.first_failure = ErrorCode::kTimeout;
    session.console().error(Status(
        ErrorCode::kTimeout,
        fmt::format(
            "{} messages were printed, but settling them was not confirmed within "
            "{}; they may be delivered again.",
            waiting,
            format_duration_ms(static_cast<std::uint64_t>(session.options().timeout.count())))));
  }
  settled.done += deliveries.size() - failures.size() - (is_answered ? 0 : waiting);
}

// Prints and writes out; false if standard output cannot be written.
bool print(Session& session, const Deliveries& deliveries) {
  for (const Delivery& delivery : deliveries) {
    print_in_list(session.output(), MessageColumns::kDelivered, delivery.message());
  }
  return session.output().flush();
}

// Until every lease has run out, an interrupt comes, the broker stops or nobody reads the output
// any more; leaves those that are still held.
void hold(Session& session, Deliveries& deliveries) {
  const auto any_is_held = [&deliveries] {
    std::erase_if(deliveries, [](const Delivery& delivery) {
      return delivery.state() != DeliveryState::kHeld;
    });
    return !deliveries.empty();
  };
  if (!any_is_held()) return;
  session.console().note(
      fmt::format("Holding {} messages until their leases run out; Ctrl-C gives them back.",
                  deliveries.size()));
  constexpr milliseconds kInterval{100};
  while (any_is_held() && !interrupted() && !session.broker_drains() &&
         !session.output().pipe_is_closed()) {
    session.output().wait_while_read(kInterval);
  }
}

// The next step, empty if nothing came or an interrupt did. Waits in pieces, to see that.
Result<Deliveries> take(Session& session, const ReceiveArguments& arguments, std::uint64_t count,
                        milliseconds wait) {
  using std::chrono::steady_clock;
  constexpr milliseconds kLookInterval{500};
  const auto lease = arguments.lease.value_or(milliseconds(0));
  const auto begin = steady_clock::now();
  while (!interrupted()) {
    const auto waited = std::chrono::duration_cast<milliseconds>(steady_clock::now() - begin);
    const milliseconds left = std::max(wait - waited, milliseconds(0));
    Result<Deliveries> step = session.client().receive(
        arguments.queue, static_cast<std::uint32_t>(count), std::min(left, kLookInterval), lease);
    if (!step.ok()) return step;
    // What came with the interrupt is given back, and was not seen.
    if (interrupted()) break;
    if (!step->empty() || left <= kLookInterval) return step;
  }
  return Deliveries();
}

// Why nothing came, and the exit code.
ExitCode report_nothing(Session& session, const std::string& queue) {
  const Result<QueueReport> report = session.admin().queue(queue);
  if (!report.ok()) return session.fail(report.status(), queue);
  session.console().note(
      report->stalled
          ? fmt::format("Queue {} has {} messages that are ready and delivers none of them: {}. "
                        "They come when some of those are settled or due again, or with a larger "
                        "one: holdfast queue edit {} outstanding-max=N",
                        queue, report->ready, stalled_cell(*report), queue)
          : fmt::format("Queue {} has no message that is ready.", queue));
  return session.finish(ExitCode::kNothing);
}

struct Received {
  std::uint64_t count = 0;                  // printed
  std::unordered_set<std::uint64_t> taken;  // the sequences of `kept`, of those lost since, too
  // Of what this run rejects, nothing comes again up to this sequence.
  std::uint64_t last_unseen = std::numeric_limits<std::uint64_t>::max();
  Settled settled;
  Deliveries kept;  // printed, to be settled at the end
  bool is_interrupted = false;
};

// A rejected dead letter goes to the end of its own queue. Where that is, is asked before the first
// is rejected.
Status note_end_of_queue(Session& session, const ReceiveArguments& arguments, Received& received) {
  const bool comes_again = arguments.reject && is_dead_queue_name(arguments.queue);
  if (!comes_again || received.count > 0) return Status();
  const Result<QueueReport> report = session.admin().queue(arguments.queue);
  if (!report.ok()) return report.status();
  received.last_unseen = report->next_sequence - 1;
  return Status();
}

// Gives back what comes a second time: true if anything did.
bool give_back_seen(Deliveries& step, const Received& received) {
  return std::erase_if(step, [&](const Delivery& delivery) {
           const std::uint64_t sequence = delivery.message().sequence;
           return sequence > received.last_unseen || received.taken.contains(sequence);
         }) > 0;
}

void keep(Deliveries& step, Received& received) {
  for (Delivery& delivery : step) {
    received.taken.insert(delivery.message().sequence);
    received.kept.push_back(std::move(delivery));
  }
}

// The next step. Where what is kept is all that the queue lets out, there is none: more would come
// only when the leases of those have run out.
Result<Deliveries> take_next(Session& session, const ReceiveArguments& arguments,
                             const Received& received) {
  if (!received.kept.empty()) {
    const Result<QueueReport> report = session.admin().queue(arguments.queue);
    if (!report.ok()) return report.status();
    if (report->stalled) return Deliveries();
  }
  const std::uint64_t left = arguments.count - received.count;
  return take(session, arguments,
              arguments.settles_each_step() ? std::min(left, ReceiveArguments::kStep) : left,
              received.count == 0 ? arguments.wait.value_or(milliseconds(0)) : milliseconds(0));
}

// Until there are as many as asked for, nothing more comes or an interrupt does. An exit code if
// the command ends with it, with all said.
std::optional<ExitCode> receive_steps(Session& session, const ReceiveArguments& arguments,
                                      Received& received) {
  while (received.count < arguments.count && received.settled.first_failure == ErrorCode::kOk) {
    Result<Deliveries> step = take_next(session, arguments, received);
    if (!step.ok()) {
      const ExitCode code = session.fail(step.status(), arguments.queue);
      return received.count > 0 ? session.finish(ExitCode::kPartly) : code;
    }
    if (step->empty()) {
      received.is_interrupted = interrupted();
      break;
    }
    const Status noted = note_end_of_queue(session, arguments, received);
    if (!noted.ok()) return session.fail(noted, arguments.queue);
    const bool is_round = give_back_seen(*step, received);
    received.count += step->size();
    if (!print(session, *step)) {
      return session.finish(ExitCode::kDone, "What was not written is given back.");
    }
    if (arguments.settles_each_step()) {
      settle(session, arguments, *step, received.settled);
    } else {
      keep(*step, received);
    }
    session.console().progress("Messages received", received.count);
    if (is_round) break;
  }
  return std::nullopt;
}

ExitCode report_settled(Session& session, const ReceiveArguments& arguments,
                        const Received& received) {
  const Settled& settled = received.settled;
  // To hold is to wait for an interrupt.
  if (received.is_interrupted && !(arguments.hold && received.count > 0)) {
    const std::string done =
        fmt::format("{} messages of queue {} are settled", settled.done, arguments.queue);
    return session.finish_interrupted(done, ", the others stay where they are.");
  }
  if (arguments.hold && settled.done > 0 && session.broker_drains() && !interrupted()) {
    session.fail(Status(ErrorCode::kDraining,
                        fmt::format("The broker is shutting down: {} messages that were held are "
                                    "given back.",
                                    settled.done)));
    return session.finish(settled.first_failure == ErrorCode::kOk
                              ? exit_code_for(ErrorCode::kDraining)
                              : ExitCode::kPartly);
  }
  const ExitCode code = settled.first_failure == ErrorCode::kOk ? ExitCode::kDone
                        : settled.done > 0                      ? ExitCode::kPartly
                                           : exit_code_for(settled.first_failure);
  return session.finish(code, fmt::format("{} messages are settled.", settled.done));
}

}  // namespace

Status check_receive_arguments(const ReceiveArguments& arguments) {
  const int chosen =
      arguments.ack + arguments.nack + arguments.reject + arguments.release + arguments.hold;
  if (chosen != 1) {
    return invalid(
        "Say what is to become of the messages: one of --ack, --nack, --reject, "
        "--release, --hold.");
  }
  if (arguments.reason && !arguments.nack && !arguments.reject) {
    return invalid("--reason goes with --nack or --reject.");
  }
  if (arguments.delay && !arguments.nack) return invalid("--delay goes with --nack.");
  const auto lease_ms = arguments.lease.value_or(milliseconds(0)).count();
  if (lease_ms != 0 && (lease_ms < kLeaseMsMin || lease_ms > kLeaseMsMax)) {
    return invalid(fmt::format("--lease {} is out of bounds: it can be {} to {}.",
                               format_duration_ms(static_cast<std::uint64_t>(lease_ms)),
                               format_duration_ms(static_cast<std::uint64_t>(kLeaseMsMin)),
                               format_duration_ms(static_cast<std::uint64_t>(kLeaseMsMax))));
  }
  // Only the nack would be refused for it, and by then the message has come and an attempt is gone.
  if (arguments.delay && arguments.delay->count() > kNackDelayMsMax) {
    return invalid(
        fmt::format("--delay {} is too long: a nack puts a message off by at most {}.",
                    format_duration_ms(static_cast<std::uint64_t>(arguments.delay->count())),
                    format_duration_ms(static_cast<std::uint64_t>(kNackDelayMsMax))));
  }
  if (!arguments.settles_each_step() && arguments.count > ReceiveArguments::kKeptMax) {
    return invalid(
        fmt::format("-n {} is out of bounds: with --nack, --release and --hold at most {}.",
                    arguments.count, ReceiveArguments::kKeptMax));
  }
  return Status();
}

ExitCode receive_messages(Session& session, const ReceiveArguments& arguments) {
  const Status checked = check_receive_arguments(arguments);
  if (!checked.ok()) return session.fail(checked);
  const Status name = check_queue_name(arguments.queue);
  if (!name.ok()) return session.fail(name);
  const Status connected =
      session.connect(Reconnect::kNo, arguments.wait.value_or(milliseconds(0)));
  if (!connected.ok()) return session.fail(connected);

  begin_messages(session.output(), MessageColumns::kDelivered);
  catch_first_interrupt();
  Received received;
  const std::optional<ExitCode> ended = receive_steps(session, arguments, received);
  if (ended) return *ended;
  session.output().end_list();
  if (received.count == 0 && !received.is_interrupted) {
    return report_nothing(session, arguments.queue);
  }
  Deliveries& kept = received.kept;
  if (arguments.hold && !received.is_interrupted) {
    hold(session, kept);
    // Their leases ran out, or the broker is gone.
    if (kept.empty()) {
      const Result<QueueReport> report = session.admin().queue(arguments.queue);
      if (!report.ok()) return session.fail(report.status(), arguments.queue);
      session.console().note("None of them is held any more.");
    }
  }
  if (!kept.empty()) settle(session, arguments, kept, received.settled);
  return report_settled(session, arguments, received);
}

void add_receive_command(const Command& message) {
  auto arguments = std::make_shared<ReceiveArguments>();
  const Command command = message.add("receive", "Takes messages, prints and settles them");
  command.take({.name = "QUEUE", .meaning = "Where from", .required = true}, arguments->queue);
  constexpr std::uint64_t kCountMax = 1'000'000'000;
  command.take_number({.name = "-n,--count", .meaning = "How many at most (default 1)"},
                      arguments->count, 1, kCountMax);
  command.take_duration(
      {.name = "--wait",
       .meaning = "How long to wait for the first message (default: what is there now)"},
      arguments->wait);
  command.take_duration({.name = "--lease", .meaning = "The lease of each (default: the queue's)"},
                        arguments->lease);
  command.take_flag("--ack", arguments->ack, "They are done");
  command.take_flag("--nack", arguments->nack, "They failed: try again later");
  command.take_flag("--reject", arguments->reject, "To the dead-letter queue at once");
  command.take_flag("--release", arguments->release, "Give them back; costs no attempt");
  command.take_flag("--hold", arguments->hold, "Keep them until the lease runs out, or Ctrl-C");
  command.take({.name = "--reason", .meaning = "Why, with --nack or --reject"}, arguments->reason);
  command.take_duration(
      {.name = "--delay",
       .meaning = "With --nack: try again after this time instead of the backoff"},
      arguments->delay);
  command.does([arguments](Session& session) { return receive_messages(session, *arguments); });
}

}  // namespace holdfast::cli
