#include "cli/dlq_commands.h"

#include <fmt/format.h>

#include <memory>

#include "cli/arguments.h"
#include "cli/cell.h"
#include "cli/dlq_move.h"
#include "cli/interrupt.h"
#include "cli/json_form.h"
#include "cli/message_listing.h"
#include "cli/message_view.h"
#include "cli/peek.h"
#include "cli/session.h"
#include "cli/whole_file.h"
#include "holdfast/text.h"

namespace holdfast::cli {
namespace {

// ---- ls, show ----

ExitCode list_dead(Session& session) {
  const Status connected = session.connect();
  if (!connected.ok()) return session.fail(connected);
  const Result<std::vector<QueueReport>> queues = session.admin().queues(true);
  if (!queues.ok()) return session.fail(queues.status());
  Output& output = session.output();
  output.begin_list({{"QUEUE", Align::kLeft},
                     {"DEAD LETTERS", Align::kRight},
                     {"IN FLIGHT", Align::kRight},
                     {"BYTES", Align::kRight}});
  bool any = false;
  for (const QueueReport& queue : *queues) {
    if (queue.messages == 0) continue;
    any = true;
    if (!output.is_table()) {
      output.object(queue_json(queue));
      continue;
    }
    output.row({queue.source_queue, fmt::format("{}", queue.messages),
                fmt::format("{}", queue.in_flight), size_cell(queue.bytes)});
  }
  output.end_list();
  if (!any) session.console().note("There are no dead letters.");
  return session.finish();
}

ExitCode show_dead(Session& session, const std::string& queue) {
  const Status connected = session.connect_for(queue);
  if (!connected.ok()) return session.fail(connected);
  const std::string dead_queue = dead_queue_name(queue);
  const Result<QueueReport> report = session.admin().queue(dead_queue);
  if (!report.ok()) return session.fail(report.status(), dead_queue);
  // What went back is counted where it went.
  const Result<QueueReport> source = session.admin().queue(report->source_queue);
  if (!source.ok()) return session.fail(source.status(), report->source_queue);
  const Result<std::optional<StoredMessage>> oldest = oldest_message(session, dead_queue);
  if (!oldest.ok()) return session.fail(oldest.status(), dead_queue);
  const std::optional<StoredMessage>& first = *oldest;
  Output& output = session.output();
  if (!output.is_table()) {
    Json json = queue_json(*report);
    json["oldest"] = first ? message_json(*first) : Json(nullptr);
    output.single(json);
    return session.finish();
  }
  Fields fields = {
      {"Dead letters of", report->source_queue},
      {"Kept in", report->name},
      {"Messages", fmt::format("{} ({}), {} in flight", report->messages, size_cell(report->bytes),
                               report->in_flight)},
      {"Since start",
       fmt::format("{} redriven, {} discarded", source->redriven, report->discarded)},
  };
  if (first) {
    fields.emplace_back(
        "Oldest", fmt::format("sequence {}, {}, since {}", first->sequence,
                              first->provenance.reason, timestamp(first->provenance.dead_at)));
    fields.emplace_back("Its error", first->provenance.error);
  }
  output.text(render_fields(fields));
  return session.finish();
}

// ---- peek, export ----

ExitCode peek_dead(Session& session, const PeekArguments& arguments) {
  const Status connected = session.connect_for(arguments.queue);
  if (!connected.ok()) return session.fail(connected);
  return peek(session, arguments, dead_queue_name(arguments.queue), MessageColumns::kDead,
              fmt::format("Queue {} has no dead letters there.", arguments.queue));
}

struct ExportArguments {
  std::string queue;
  std::string file;
};

// A file that is begun is never left behind; of a pipe, whose reader may be stuck, one interrupt is
// enough to wait for.
Result<WholeFile> create_export(const std::string& name) {
  if (WholeFile::would_appear_whole(name)) {
    catch_interrupts();
    return WholeFile::create(name);
  }
  Result<WholeFile> file = WholeFile::create(name);
  catch_first_interrupt();
  return file;
}

ExitCode end_interrupted_export(Session& session, const ExportArguments& arguments, WholeFile& file,
                                std::uint64_t written) {
  const std::string done =
      fmt::format("{} dead letters of queue {} were written", written, arguments.queue);
  if (file.appears_whole()) {
    file.abandon();
    return session.finish_interrupted(
        done,
        fmt::format(" and are removed: file {} is as it was before.", quoted(arguments.file)));
  }
  const Status status = file.finish();
  if (!status.ok() && !file.pipe_is_closed()) return session.fail(status);
  return session.finish_interrupted(done, ", the others are not.");
}

ExitCode export_dead(Session& session, const ExportArguments& arguments) {
  const Status connected = session.connect_for(arguments.queue);
  if (!connected.ok()) return session.fail(connected);
  const std::string dead_queue = dead_queue_name(arguments.queue);
  Result<WholeFile> file = create_export(arguments.file);
  if (!file.ok()) return session.fail(file.status());
  std::uint64_t written = 0;
  const Result<std::uint64_t> exported = for_each_message(
      session, dead_queue, ~std::uint64_t{0}, 0, [&](const StoredMessage& message) {
        if (Status status = check_interrupt(); !status.ok()) return status;
        session.console().progress("Dead letters exported", ++written);
        return file->write(dump(message_json(message)) + "\n");
      });
  if (exported.status().code() == ErrorCode::kCancelled) {
    return end_interrupted_export(session, arguments, *file, written);
  }
  const Status result = exported.ok() ? file->finish() : exported.status();
  if (!result.ok()) {
    if (!file->pipe_is_closed()) return session.fail(result, dead_queue);
    session.output().note_closed_pipe();
    return ExitCode::kDone;
  }
  session.console().note(fmt::format("{} dead letters of queue {} are in {}.", *exported,
                                     arguments.queue,
                                     arguments.file == "-" ? "standard output" : arguments.file));
  return session.finish();
}

// ---- redrive, discard ----

struct MoveArguments {
  std::string queue;
  Selection selection;
  bool dry_run = false;
  bool agreed = false;
};

ExitCode redrive_dead(Session& session, const MoveArguments& arguments) {
  const Result<std::vector<std::uint64_t>> sequences = selected_sequences(arguments.selection);
  if (!sequences.ok()) return session.fail(sequences.status());
  const Status connected = session.connect_for(arguments.queue);
  if (!connected.ok()) return session.fail(connected);
  const std::string dead_queue = dead_queue_name(arguments.queue);
  const Result<QueueReport> report = session.admin().queue(dead_queue);
  if (!report.ok()) return session.fail(report.status(), dead_queue);
  return move_dead_letters(session, DeadMove::kRedrive, *report, *sequences, arguments.dry_run);
}

ExitCode discard_dead(Session& session, const MoveArguments& arguments) {
  const Result<std::vector<std::uint64_t>> sequences = selected_sequences(arguments.selection);
  if (!sequences.ok()) return session.fail(sequences.status());
  const Status askable = session.console().check_agreement(
      fmt::format("dlq discard {}", arguments.queue), arguments.agreed);
  if (!askable.ok()) return session.fail(askable);
  const Status connected = session.connect_for(arguments.queue);
  if (!connected.ok()) return session.fail(connected);
  const std::string dead_queue = dead_queue_name(arguments.queue);
  const Result<QueueReport> report = session.admin().queue(dead_queue);
  if (!report.ok()) return session.fail(report.status(), dead_queue);
  const Status agreed = session.console().ask_for_name(
      fmt::format("dlq discard removes {} dead letters of queue {}.",
                  sequences->empty() ? report->messages : sequences->size(), report->source_queue),
      report->source_queue, arguments.agreed);
  if (!agreed.ok()) return session.fail(agreed);
  return move_dead_letters(session, DeadMove::kDiscard, *report, *sequences, false);
}

void add_moves(const Command& dlq) {
  auto redriven = std::make_shared<MoveArguments>();
  const Command redrive = dlq.add("redrive", "Sends dead letters back to their queue");
  redrive.take({.name = "QUEUE", .meaning = "The queue", .required = true}, redriven->queue);
  take_selection(redrive, redriven->selection);
  redrive.take_flag("--dry-run", redriven->dry_run, "Only count what would be sent back");
  redrive.does([redriven](Session& session) { return redrive_dead(session, *redriven); });

  auto discarded = std::make_shared<MoveArguments>();
  const Command discard = dlq.add("discard", "Removes dead letters for good");
  discard.take({.name = "QUEUE", .meaning = "The queue", .required = true}, discarded->queue);
  take_selection(discard, discarded->selection);
  discard.take_flag("-y,--yes", discarded->agreed, "Do it without asking");
  discard.does([discarded](Session& session) { return discard_dead(session, *discarded); });
}

}  // namespace

void add_dlq_commands(const Command& tool) {
  const Command dlq = tool.add_group("dlq", "Shows dead letters, sends them back, removes them");
  dlq.add("ls", "Lists the queues that have dead letters").does(list_dead);

  auto shown = std::make_shared<std::string>();
  const Command show = dlq.add("show", "Shows one dead-letter queue");
  show.take({.name = "QUEUE", .meaning = "The queue", .required = true}, *shown);
  show.does([shown](Session& session) { return show_dead(session, *shown); });

  const Command peek_command = dlq.add("peek", "Shows dead letters with their story");
  const auto peeked = take_peek_arguments(peek_command);
  peek_command.does([peeked](Session& session) { return peek_dead(session, *peeked); });

  add_moves(dlq);

  auto exported = std::make_shared<ExportArguments>();
  const Command command = dlq.add("export", "Writes all dead letters as JSON lines");
  command.take({.name = "QUEUE", .meaning = "The queue", .required = true}, exported->queue);
  command.take({.name = "FILE",
                .meaning = "Where to; replaced if it exists; - for standard output",
                .required = true},
               exported->file);
  command.does([exported](Session& session) { return export_dead(session, *exported); });
}

}  // namespace holdfast::cli
