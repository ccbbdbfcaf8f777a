#include "crash/ledger.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace holdfast::crash {
namespace {

constexpr std::uint32_t kAttemptsMax = 3;

// Tells a ledger what a broker did; in every test one thing of it is wrong, or nothing.
struct Told {
  Ledger ledger{42, kAttemptsMax};

  Told() { ledger.broker_started(1); }

  void publish(const std::string& id, std::uint64_t sequence, bool duplicate = false) {
    ledger.publish_asked("letters", id);
    PublishReceipt receipt;
    receipt.id = id;
    receipt.sequence = sequence;
    receipt.duplicate = duplicate;
    ledger.publish_confirmed(id, receipt);
  }

  StoredMessage message(const std::string& id, std::uint64_t sequence, std::uint32_t attempt) {
    StoredMessage message;
    message.queue = "letters";
    message.id = id;
    message.sequence = sequence;
    message.attempt = attempt;
    message.body = ledger.body_of(id);
    message.headers = Ledger::headers_of(id);
    return message;
  }

  Ticket deliver(const std::string& id, std::uint64_t sequence, std::uint32_t attempt,
                 Life client_since = 1) {
    return ledger.delivered(message(id, sequence, attempt), client_since);
  }

  void settle(Ticket ticket, Settlement settlement, const Status& status = {}) {
    ledger.settle_asked(ticket, settlement);
    ledger.settle_ended(ticket, settlement, status);
  }

  StoredMessage letter(const std::string& id, std::uint64_t sequence, const std::string& reason,
                       std::uint32_t attempts) {
    StoredMessage letter = message(id, 1, 0);
    letter.queue = "letters.dead";
    letter.is_dead_letter = true;
    letter.provenance.source = "letters";
    letter.provenance.source_sequence = sequence;
    letter.provenance.reason = reason;
    letter.provenance.attempts = attempts;
    return letter;
  }

  void drained(const std::vector<StoredMessage>& letters = {}) {
    ledger.check_drained("letters", letters);
  }

  void finds(const std::string& words) {
    const std::vector<std::string> violations = ledger.violations();
    REQUIRE_MESSAGE(!violations.empty(), "nothing was found, expected: ", words);
    CHECK_MESSAGE(violations.front().find(words) != std::string::npos, violations.front());
  }
  void finds_nothing() {
    const std::vector<std::string> violations = ledger.violations();
    CHECK_MESSAGE(violations.empty(), violations.front());
  }
};

const Status kLost{ErrorCode::kConnectionLost, "The connection was lost."};
const Status kRefused{ErrorCode::kNotHeld, "Not held."};

TEST_CASE("a broker that keeps its promises is not accused") {
  Told told;
  told.publish("a", 1);
  told.publish("b", 2);
  told.publish("c", 3);
  told.publish("a", 1, true);
  told.settle(told.deliver("a", 1, 1), Settlement::kAck);
  told.settle(told.deliver("b", 2, 1), Settlement::kReject);
  for (std::uint32_t attempt = 1; attempt <= kAttemptsMax; ++attempt) {
    told.settle(told.deliver("c", 3, attempt), Settlement::kNack);
  }
  told.drained({told.letter("b", 2, "rejected", 1), told.letter("c", 3, "retry_limit", 3)});
  told.finds_nothing();
}

TEST_CASE("a confirmed message that never comes is found") {
  Told told;
  told.publish("a", 1);
  told.drained();
  told.finds("was confirmed and is lost");
}

TEST_CASE("a message that was delivered and then vanished is found, confirmed or not") {
  Told told;
  told.ledger.publish_asked("letters", "a");
  told.deliver("a", 1, 1);
  told.drained();
  told.finds("was durable, and is lost");
}

TEST_CASE("an unconfirmed message may exist or not") {
  Told told;
  told.ledger.publish_asked("letters", "a");
  told.ledger.publish_unanswered("a", kLost);
  told.ledger.publish_asked("letters", "b");
  told.ledger.publish_unanswered("b", kLost);
  told.settle(told.deliver("b", 7, 1), Settlement::kAck);
  told.drained();
  told.finds_nothing();
}

TEST_CASE("an ack without an answer may have happened") {
  Told told;
  told.publish("a", 1);
  told.settle(told.deliver("a", 1, 1), Settlement::kAck, kLost);
  told.drained();
  told.finds_nothing();
}

TEST_CASE("an ack that was refused did not happen") {
  Told told;
  told.publish("a", 1);
  told.settle(told.deliver("a", 1, 1), Settlement::kAck, kRefused);
  told.drained();
  told.finds("was confirmed and is lost");
}

TEST_CASE("an acked message that comes again after a restart is found") {
  Told told;
  told.publish("a", 1);
  told.settle(told.deliver("a", 1, 1), Settlement::kAck);
  told.ledger.broker_started(2);
  told.deliver("a", 1, 2, 2);
  told.finds("came again in life 2");
}

TEST_CASE("an acked message that a drain accounted for and that comes again is found") {
  Told told;
  told.publish("a", 1);
  told.settle(told.deliver("a", 1, 1), Settlement::kAck);
  told.drained();
  told.ledger.broker_started(2);
  told.deliver("a", 1, 1, 2);
  told.finds("came again in life 2");
}

TEST_CASE("a second confirmed settle after an ack is found") {
  Told told;
  told.publish("a", 1);
  Ticket first = told.deliver("a", 1, 1);
  Ticket second = told.deliver("a", 1, 2);
  told.settle(first, Settlement::kAck);
  SUBCASE("ack") { told.settle(second, Settlement::kAck); }
  SUBCASE("nack") { told.settle(second, Settlement::kNack); }
  SUBCASE("reject") { told.settle(second, Settlement::kReject); }
  SUBCASE("release") { told.settle(second, Settlement::kRelease); }
  told.finds("was settled for good, and then its");
}

TEST_CASE("a nack that was confirmed before the ack and answered after it is no fault") {
  Told told;
  told.publish("a", 1);
  Ticket first = told.deliver("a", 1, 1);
  told.ledger.settle_asked(first, Settlement::kNack);
  told.settle(told.deliver("a", 1, 2), Settlement::kAck);
  told.ledger.settle_ended(first, Settlement::kNack, {});
  told.drained();
  told.finds_nothing();
}

TEST_CASE("two acks under way at once may both be confirmed") {
  Told told;
  told.publish("a", 1);
  Ticket first = told.deliver("a", 1, 1);
  Ticket second = told.deliver("a", 1, 2);
  told.ledger.settle_asked(first, Settlement::kAck);
  told.ledger.settle_asked(second, Settlement::kAck);
  told.ledger.settle_ended(first, Settlement::kAck, {});
  told.ledger.settle_ended(second, Settlement::kAck, {});
  told.drained();
  told.finds_nothing();
}

TEST_CASE("an ack and a reject under way at once cannot both be confirmed") {
  Told told;
  told.publish("a", 1);
  Ticket first = told.deliver("a", 1, 1);
  Ticket second = told.deliver("a", 1, 2);
  told.ledger.settle_asked(first, Settlement::kAck);
  told.ledger.settle_asked(second, Settlement::kReject);
  told.ledger.settle_ended(first, Settlement::kAck, {});
  told.ledger.settle_ended(second, Settlement::kReject, {});
  told.finds("was both acked and dead-lettered");
}

TEST_CASE("an id that is stored twice is found") {
  Told told;
  SUBCASE("by a second confirm with another sequence") {
    told.publish("a", 1);
    told.publish("a", 2, true);
    told.finds("has sequence 1 and was now confirmed with 2");
  }
  SUBCASE("by a second confirm that does not say duplicate") {
    told.publish("a", 1);
    told.publish("a", 1);
    told.finds("stored twice");
  }
  SUBCASE("by a delivery with another sequence") {
    told.publish("a", 1);
    told.deliver("a", 2, 1);
    told.finds("was delivered with 2: stored twice");
  }
  SUBCASE("by a confirm that differs from the delivery before it") {
    told.ledger.publish_asked("letters", "a");
    told.deliver("a", 1, 1);
    PublishReceipt receipt;
    receipt.id = "a";
    receipt.sequence = 2;
    told.ledger.publish_confirmed("a", receipt);
    told.finds("has sequence 1 and was now confirmed with 2");
  }
}

TEST_CASE("two ids with one sequence are found") {
  Told told;
  told.publish("a", 1);
  told.publish("b", 1);
  told.finds("which is that of 'a'");
}

TEST_CASE("attempts that are not counted are found") {
  Told told;
  told.publish("a", 1);
  Ticket ticket = told.deliver("a", 1, 1);
  SUBCASE("the same number twice") {
    told.deliver("a", 1, 1);
    told.finds("an attempt was not counted");
  }
  SUBCASE("a number above the limit") {
    told.deliver("a", 1, kAttemptsMax + 1);
    told.finds("was delivered as attempt 4 of 3");
  }
  SUBCASE("but a release costs no attempt") {
    told.settle(ticket, Settlement::kRelease);
    told.deliver("a", 1, 1);
    told.finds_nothing();
    told.deliver("a", 1, 1);
    told.finds("an attempt was not counted");
  }
  SUBCASE("nor does a delivery that was dropped") {
    told.ledger.given_back(ticket);
    told.deliver("a", 1, 1);
    told.finds_nothing();
  }
}

TEST_CASE("a changed byte is found") {
  Told told;
  told.publish("a", 1);
  StoredMessage message = told.message("a", 1, 1);
  SUBCASE("in the body") { message.body += "x"; }
  SUBCASE("in a header") { message.headers[0].second = "b"; }
  told.ledger.delivered(message, 1);
  told.finds("another body or other headers");
}

TEST_CASE("a message that nobody published is found") {
  Told told;
  told.deliver("ghost", 1, 1);
  told.finds("'ghost' appeared, and nobody published it");
}

TEST_CASE("a dead letter is accounted for") {
  Told told;
  told.publish("a", 1);
  SUBCASE("a confirmed reject that is not there") {
    told.settle(told.deliver("a", 1, 1), Settlement::kReject);
    told.drained();
    told.finds("is not in the dead-letter queue");
  }
  SUBCASE("a confirmed nack of the last attempt that is not there") {
    told.settle(told.deliver("a", 1, kAttemptsMax), Settlement::kNack);
    told.drained();
    told.finds("is not in the dead-letter queue");
  }
  SUBCASE("one that was acked, too") {
    told.settle(told.deliver("a", 1, 1), Settlement::kAck);
    told.drained({told.letter("a", 1, "retry_limit", 3)});
    told.finds("was acked and is a dead letter too");
  }
  SUBCASE("one that is there twice") {
    told.drained({told.letter("a", 1, "retry_limit", 3), told.letter("a", 1, "retry_limit", 3)});
    told.finds("is in the dead-letter queue twice");
  }
  SUBCASE("dead before its limit") {
    told.drained({told.letter("a", 1, "retry_limit", 2)});
    told.finds("after 2 attempts of 3");
  }
  SUBCASE("rejected by nobody") {
    told.drained({told.letter("a", 1, "rejected", 1)});
    told.finds("nobody rejected it");
  }
  SUBCASE("of another sequence") {
    told.drained({told.letter("a", 9, "retry_limit", 3)});
    told.finds("is a dead letter of sequence 9");
  }
}

TEST_CASE("a redriven message begins anew and is owed again") {
  Told told;
  told.publish("a", 1);
  told.publish("b", 2);
  told.drained({told.letter("a", 1, "retry_limit", 3), told.letter("b", 2, "retry_limit", 3)});
  told.ledger.dead_letters_redriven("letters", {told.letter("b", 2, "retry_limit", 3)});
  told.finds_nothing();
  SUBCASE("and may be acked under its new sequence") {
    told.settle(told.deliver("a", 3, 1), Settlement::kAck);
    told.publish("a", 1, true);
    told.drained({told.letter("b", 2, "retry_limit", 3)});
    told.finds_nothing();
  }
  SUBCASE("and is missed when it does not come") {
    told.drained({told.letter("b", 2, "retry_limit", 3)});
    told.finds("'a'");
  }
}

TEST_CASE("a publish that was refused is found") {
  Told told;
  told.ledger.publish_asked("letters", "a");
  told.ledger.publish_unanswered("a", Status(ErrorCode::kStorageFull, "The disk is full."));
  told.finds("was refused: storage_full");
}

}  // namespace
}  // namespace holdfast::crash
