// What the ledger makes of what was asked and said.

#include "disk/ledger.h"

#include <doctest/doctest.h>

#include <initializer_list>

namespace holdfast::disk {
namespace {

constexpr std::uint32_t kQueue = 1;
constexpr std::uint32_t kMessage = 2;

// Of a dead letter to which this happened, and which is then found in its queue.
std::optional<std::string> finding_after(std::initializer_list<EntryKind> happened) {
  Ledger ledger;
  const auto tell = [&](EntryKind kind) {
    ledger.tell({.kind = kind, .message = kMessage, .queue = kQueue, .sequence = 1});
  };
  for (const EntryKind kind :
       {EntryKind::kLifeBegins, EntryKind::kQueueAsked, EntryKind::kQueueCreated,
        EntryKind::kPublishAsked, EntryKind::kConfirmed, EntryKind::kRejectAsked,
        EntryKind::kRejectDone}) {
    tell(kind);
  }
  for (const EntryKind kind : happened) tell(kind);
  return ledger.check({.stored = {{kMessage, kQueue, false}}, .queues = {kQueue}});
}

TEST_CASE("a message that a redrive moves while its queue is purged was purged or was not") {
  CHECK_FALSE(
      finding_after({EntryKind::kRedriveAsked, EntryKind::kPurgeAsked, EntryKind::kPurgeDone}));
  CHECK_FALSE(finding_after({EntryKind::kRedriveAsked, EntryKind::kPurgeAsked,
                             EntryKind::kRedriveDone, EntryKind::kPurgeDone}));
}

TEST_CASE("a message that was redriven and then purged is not back") {
  CHECK(finding_after({EntryKind::kRedriveAsked, EntryKind::kRedriveDone, EntryKind::kPurgeAsked,
                       EntryKind::kPurgeDone}));
  // The redrive ended with its life.
  CHECK(finding_after({EntryKind::kRedriveAsked, EntryKind::kLifeBegins, EntryKind::kPurgeAsked,
                       EntryKind::kPurgeDone}));
}

}  // namespace
}  // namespace holdfast::disk
