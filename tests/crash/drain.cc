#include "crash/drain.h"

#include <fmt/format.h>

#include <chrono>
#include <memory>
#include <optional>
#include <thread>

#include "crash/reach.h"
#include "crash/settler.h"

namespace holdfast::crash {

namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

// A drain in which nothing at all was delivered for so long stands still.
constexpr milliseconds kStandstill{20'000};

}  // namespace

void Drain::run(Life life) {
  std::vector<std::unique_ptr<Settler>> drains;
  for (const std::string& queue : queues_) {
    SettlerPlan plan;
    plan.name = "drain-" + queue;
    plan.queue = queue;
    plan.mood = Mood::kDrain;
    plan.life = life;
    drains.push_back(std::make_unique<Settler>(options_of_(plan.name), ledger_, plan));
    const Status status = drains.back()->start();
    if (!status.ok()) ledger_.add_violation("A drain cannot start: " + status.to_string());
  }
  std::optional<Client> client = reach(options_of_("drain-watch"), ledger_);
  if (!client) return;
  Admin admin = client->admin();
  for (const std::string& queue : queues_) {
    if (!wait_until_empty(admin, queue)) return;
  }
}

bool Drain::wait_until_empty(Admin& admin, const std::string& queue) {
  std::uint64_t delivered = ledger_.counts().delivered;
  auto deadline = steady_clock::now() + kStandstill;
  while (true) {
    const Result<QueueReport> report = admin.queue(queue);
    if (!report.ok()) {
      ledger_.add_violation(
          fmt::format("Queue {} cannot be looked at: {}", queue, report.status().to_string()));
      return false;
    }
    if (report.value().messages == 0) return true;
    if (const std::uint64_t now_delivered = ledger_.counts().delivered;
        now_delivered != delivered) {
      delivered = now_delivered;
      deadline = steady_clock::now() + kStandstill;
    }
    if (steady_clock::now() > deadline) {
      ledger_.add_violation(fmt::format(
          "Draining queue {} stands still: {} ready, {} in flight, {} waiting, and nothing was "
          "delivered for {} ms.\n{}",
          queue, report.value().ready, report.value().in_flight, report.value().waiting,
          kStandstill.count(), ledger_.story_of_waiting()));
      return false;
    }
    std::this_thread::sleep_for(milliseconds(5));
  }
}

void Drain::compare_with_ledger() {
  std::optional<Client> client = reach(options_of_("drain-compare"), ledger_);
  if (!client) return;
  Admin admin = client->admin();
  for (const std::string& queue : queues_) {
    const std::vector<StoredMessage> letters = dead_letters(admin, queue);
    ledger_.check_drained(queue, letters);
    const Result<QueueReport> report = admin.queue(queue);
    if (!report.ok()) {
      ledger_.add_violation(
          fmt::format("Queue {} cannot be looked at: {}", queue, report.status().to_string()));
    }
    if (report.ok() && report.value().dead != letters.size()) {
      ledger_.add_violation(fmt::format("Queue {} says it has {} dead letters and shows {}.", queue,
                                        report.value().dead, letters.size()));
    }
    if (report.ok() && report.value().corrupt != 0) {
      ledger_.add_violation(
          fmt::format("Queue {} counts {} corrupt messages.", queue, report.value().corrupt));
    }
  }
}

std::vector<StoredMessage> Drain::dead_letters(Admin& admin, const std::string& queue) {
  std::vector<StoredMessage> letters;
  std::uint64_t from = 0;
  do {
    Result<PeekPage> page = admin.peek(queue + ".dead", 500, from);
    if (!page.ok()) {
      ledger_.add_violation(fmt::format("The dead letters of {} cannot be looked at: {}", queue,
                                        page.status().to_string()));
      break;
    }
    for (StoredMessage& letter : page->messages) letters.push_back(std::move(letter));
    from = page->next;
  } while (from != 0);
  return letters;
}

}  // namespace holdfast::crash
