#include "cli/dlq_move.h"

#include <fmt/format.h>

#include <algorithm>

#include "cli/interrupt.h"
#include "cli/json_form.h"
#include "holdfast/text.h"

namespace holdfast::cli {
namespace {

constexpr std::uint32_t kStep = 256;

void add(const MoveReport& step, MoveReport& total) {
  total.moved += step.moved;
  total.skipped_in_flight += step.skipped_in_flight;
  if (step.not_found > 0 &&
      (total.not_found == 0 || step.not_found_first < total.not_found_first)) {
    total.not_found_first = step.not_found_first;
  }
  total.not_found += step.not_found;
  total.refused += step.refused;
  if (total.first_refusal.ok()) total.first_refusal = step.first_refusal;
}

std::string_view done_word(DeadMove move, bool dry_run) {
  if (move == DeadMove::kDiscard) return "discarded";
  return dry_run ? "would be redriven" : "redriven";
}

Status move_sequences(Session& session, DeadMove move, const std::string& dead_queue,
                      const std::vector<std::uint64_t>& sequences, bool dry_run,
                      MoveReport& total) {
  for (std::size_t first = 0; first < sequences.size(); first += kStep) {
    // Each step is whole: what it was to move is moved.
    if (Status status = check_interrupt(); !status.ok()) return status;
    const auto begin = sequences.begin() + static_cast<std::ptrdiff_t>(first);
    const auto end =
        begin + static_cast<std::ptrdiff_t>(std::min<std::size_t>(kStep, sequences.size() - first));
    const std::vector<std::uint64_t> part(begin, end);
    const Result<MoveReport> step = move == DeadMove::kRedrive
                                        ? session.admin().redrive(dead_queue, part, dry_run)
                                        : session.admin().discard(dead_queue, part, dry_run);
    if (!step.ok()) return step.status();
    add(*step, total);
  }
  return Status();
}

// Up to the last dead letter of the report: what comes after it nobody has agreed to move, and what
// fails again in the meantime would be moved for ever.
Status move_all(Session& session, DeadMove move, const QueueReport& dead_queue, bool dry_run,
                MoveReport& total) {
  const std::uint64_t last = dead_queue.next_sequence - 1;
  if (last == 0) return Status();  // there never was one
  Admin admin = session.admin();
  std::uint64_t next = 0;
  do {
    if (Status status = check_interrupt(); !status.ok()) return status;
    const Result<MoveReport> step =
        move == DeadMove::kRedrive ? admin.redrive_all(dead_queue.name, next, kStep, dry_run, last)
                                   : admin.discard_all(dead_queue.name, next, kStep, dry_run, last);
    if (!step.ok()) return step.status();
    add(*step, total);
    next = step->next;
    session.console().progress(fmt::format("Dead letters {}", done_word(move, dry_run)),
                               total.moved);
  } while (next != 0 && next <= last);
  return Status();
}

std::string total_sentence(DeadMove move, const std::string& dead_queue, bool dry_run,
                           const MoveReport& total) {
  return fmt::format("{} dead letters of {} {}", total.moved, dead_queue, done_word(move, dry_run));
}

void print_total(Session& session, DeadMove move, const std::string& dead_queue, bool dry_run,
                 const MoveReport& total) {
  Output& output = session.output();
  if (output.is_table()) {
    output.text(total_sentence(move, dead_queue, dry_run, total) + "\n");
    return;
  }
  Json json;
  json["queue"] = dead_queue;
  json[move == DeadMove::kRedrive ? "redriven" : "discarded"] = total.moved;
  json["skipped_in_flight"] = total.skipped_in_flight;
  json["not_found"] = total.not_found;
  json["refused"] = total.refused;
  json["dry_run"] = dry_run;
  output.single(json);
}

// Why some were not moved, and the exit code of the first reason; kDone if all were.
ExitCode report_rest(Session& session, const std::string& dead_queue, const MoveReport& total) {
  ExitCode first = ExitCode::kDone;
  const auto report = [&](std::uint64_t count, const Status& status, ExitCode code) {
    if (count == 0) return;
    if (first == ExitCode::kDone) first = code;
    session.console().error(status);
  };
  const ErrorCode refusal =
      total.first_refusal.ok() ? ErrorCode::kOperationRefused : total.first_refusal.code();
  report(total.refused,
         Status(refusal, fmt::format("{} dead letters of {} stay where they are: {}", total.refused,
                                     dead_queue, total.first_refusal.message())),
         exit_code_for(refusal));
  report(total.not_found,
         Status(ErrorCode::kMessageNotFound,
                total.not_found == 1
                    ? fmt::format("Message {} is not in {}.", total.not_found_first, dead_queue)
                    : fmt::format("{} of the messages are not in {}, {} first of all.",
                                  total.not_found, dead_queue, total.not_found_first)),
         exit_code_for(ErrorCode::kMessageNotFound));
  report(total.skipped_in_flight,
         Status(ErrorCode::kOperationRefused,
                fmt::format("{} dead letters of {} are held by a consumer; they can be moved once "
                            "it has given them back.",
                            total.skipped_in_flight, dead_queue)),
         ExitCode::kTryAgain);
  return first;
}

}  // namespace

std::string dead_queue_name(std::string_view queue) {
  return is_dead_queue_name(queue) ? std::string(queue) : fmt::format("{}{}", queue, kDeadSuffix);
}

ExitCode move_dead_letters(Session& session, DeadMove move, const QueueReport& report,
                           const std::vector<std::uint64_t>& sequences, bool dry_run) {
  const std::string& dead_queue = report.name;
  MoveReport total;
  catch_first_interrupt();
  const Status status = sequences.empty()
                            ? move_all(session, move, report, dry_run, total)
                            : move_sequences(session, move, dead_queue, sequences, dry_run, total);
  session.console().end_progress();
  if (status.ok() || total.moved > 0) print_total(session, move, dead_queue, dry_run, total);
  const ExitCode rest = report_rest(session, dead_queue, total);
  const std::string done = total_sentence(move, dead_queue, dry_run, total);
  if (status.code() == ErrorCode::kCancelled) {
    return session.finish_interrupted(done, ", the others stay where they are.");
  }
  const ExitCode failed = status.ok() ? rest : session.fail(status, dead_queue);
  const ExitCode code = failed != ExitCode::kDone && total.moved > 0 ? ExitCode::kPartly : failed;
  return session.finish(code, done + ".");
}

}  // namespace holdfast::cli
