// holdfast message receive
//
// Happy path: takes deliveries in steps, prints them, writes the output out, and only then settles
// them: a message that was acked has been seen. With --ack and --reject each step is settled before
// the next, so that a long run holds few at a time; after the other ways to settle a message would
// come again at once, so they keep all deliveries to the end. What comes again all the same,
// because its lease ran out meanwhile, is given back and ends the taking. A dead letter that is
// rejected comes again, too, at the end of its queue: a run ends where that was when its first
// message came.
//
// Failures: if the output cannot be written, nothing of that step is settled; the deliveries are
// given back and cost no attempt. An interrupt ends it between two steps: what was printed is
// settled, what was not is given back.

#pragma once

#include <chrono>
#include <cstdint>
#include <optional>
#include <string>

#include "cli/command.h"
#include "holdfast/status.h"
#include "schema/field_limits.h"

namespace holdfast::cli {

struct ReceiveArguments {
  static constexpr std::uint64_t kStep = 256;
  // What --nack, --release and --hold can keep to the end.
  static constexpr std::uint64_t kKeptMax = kCreditMessagesMax;

  bool settles_each_step() const { return ack || reject; }

  std::string queue;
  std::uint64_t count = 1;
  std::optional<std::chrono::milliseconds> wait;   // none: only what is there now
  std::optional<std::chrono::milliseconds> lease;  // none: the queue's
  bool ack = false, nack = false, reject = false, release = false, hold = false;
  std::optional<std::string> reason;
  std::optional<std::chrono::milliseconds> delay;
};

// Whether exactly one way to settle was chosen, and only what goes with it, within its bounds.
// kInvalidArgument.
Status check_receive_arguments(const ReceiveArguments& arguments);

void add_receive_command(const Command& message);
ExitCode receive_messages(Session& session, const ReceiveArguments& arguments);

}  // namespace holdfast::cli
