#include "cli/queue_commands.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <map>
#include <memory>
#include <optional>

#include "cli/arguments.h"
#include "cli/cell.h"
#include "cli/json_form.h"
#include "cli/peek.h"
#include "cli/session.h"
#include "holdfast/text.h"
#include "schema/queue_settings.h"

namespace holdfast::cli {
namespace {

Fields fields_of(const QueueReport& report) {
  Fields fields = {
      {"Queue", report.name},
      {"Messages",
       fmt::format("{} ready, {} in flight, {} waiting{} ({})", report.ready, report.in_flight,
                   report.waiting, moving_part(report.moving), size_cell(report.bytes))},
  };
  if (report.stalled) fields.emplace_back("Stalled", stalled_cell(report));
  if (report.source_queue.empty()) {
    fields.emplace_back("Dead letters", fmt::format("{} in {}", report.dead, report.dead_queue));
  } else {
    fields.emplace_back("Dead letters of", report.source_queue);
  }
  fields.emplace_back("Consumers", fmt::format("{}", report.consumers));
  fields.emplace_back(
      "Rates", fmt::format("{} published, {} delivered, {} acked", rate_cell(report.publish_rate),
                           rate_cell(report.deliver_rate), rate_cell(report.ack_rate)));
  fields.emplace_back(
      "Since start",
      fmt::format("{} published, {} duplicates, {} refused, {} delivered, {} redelivered",
                  report.published, report.duplicates, report.refused, report.delivered,
                  report.redelivered));
  fields.emplace_back(
      "", fmt::format("{} acked ({} late), {} nacked, {} rejected, {} released", report.acked,
                      report.late_acks, report.nacked, report.rejected, report.released));
  fields.emplace_back(
      "", fmt::format(
              "{} leases expired, {} lost with their connection, {} dead-lettered, {} corrupt",
              report.leases_expired, report.deliveries_lost, report.dead_lettered, report.corrupt));
  fields.emplace_back("Next sequence", fmt::format("{}", report.next_sequence));
  fields.emplace_back("Created", timestamp(report.created_at));
  for (const auto& [name, value] : report.settings) {
    const QueueSettingInfo* info = find_queue_setting(name);
    fields.emplace_back(name, info ? format_setting_value(*info, value) : fmt::format("{}", value));
  }
  return fields;
}

void print_queue(Output& output, const QueueReport& report) {
  if (output.is_table()) {
    output.text(render_fields(fields_of(report)));
  } else {
    output.single(queue_json(report));
  }
}

// How old a backlog is tells more than how long it is.
std::string oldest_cell(const StoredMessage& oldest) {
  std::string cell = fmt::format("sequence {}, {}", oldest.sequence, oldest.state);
  const std::string published = timestamp(published_at(oldest));
  if (published.empty()) return cell;
  const auto age = std::chrono::duration_cast<std::chrono::milliseconds>(
      std::chrono::system_clock::now() - published_at(oldest));
  return cell + fmt::format(", published {}, {} ago", published, age_cell(age));
}

// ---- create, edit ----

struct CreateArguments {
  std::string queue;
  std::map<std::string, std::string, std::less<>> settings;  // as typed
  bool if_not_exists = false;
};

Result<SettingList> typed_settings(const std::map<std::string, std::string, std::less<>>& typed) {
  SettingList settings;
  for (const auto& [name, value] : typed) {
    Result<SettingList> parsed = parse_setting(name, value);
    if (!parsed.ok()) return parsed.status();
    for (auto& setting : *parsed) {
      const bool is_double = std::any_of(settings.begin(), settings.end(), [&](const auto& other) {
        return other.first == setting.first;
      });
      if (is_double) {
        return Status(ErrorCode::kInvalidArgument,
                      fmt::format("Setting {} is given twice: name it, or backoff, but not both.",
                                  setting.first));
      }
      settings.push_back(std::move(setting));
    }
  }
  return settings;
}

ExitCode create_queue(Session& session, const CreateArguments& arguments) {
  const Result<SettingList> settings = typed_settings(arguments.settings);
  if (!settings.ok()) return session.fail(settings.status());
  const Status connected = session.connect_for(arguments.queue);
  if (!connected.ok()) return session.fail(connected);
  const Result<QueueReport> report =
      session.admin().create_queue(arguments.queue, *settings, arguments.if_not_exists);
  if (!report.ok()) return session.fail(report.status());
  print_queue(session.output(), *report);
  return session.finish(ExitCode::kDone, fmt::format("Queue {} is there.", arguments.queue));
}

void add_create(const Command& queue) {
  auto arguments = std::make_shared<CreateArguments>();
  const Command command = queue.add("create", "Creates a queue and its dead-letter queue");
  command.take({.name = "QUEUE", .meaning = "Its name", .required = true}, arguments->queue);
  const auto take_setting = [&command, &arguments](const std::string& name,
                                                   const std::string& meaning, const char* value) {
    command.take_each(
        {.name = "--" + name, .meaning = meaning, .value = value},
        [arguments, name](const std::string& text) { arguments->settings[name] = text; });
  };
  for (const QueueSettingInfo& info : queue_setting_table()) {
    take_setting(std::string(info.name),
                 fmt::format("{} (default {}, if the broker sets no other)", info.meaning,
                             format_setting_value(info, info.default_value)),
                 info.unit == SettingUnit::kMilliseconds ? "DURATION"
                 : info.unit == SettingUnit::kBytes      ? "SIZE"
                                                         : "N");
  }
  take_setting("backoff", "backoff-min and backoff-max in one, e.g. 1s..10m", "MIN..MAX");
  command.take_flag("--if-not-exists", arguments->if_not_exists,
                    "A queue of this name is left as it is, and shown");
  command.does([arguments](Session& session) { return create_queue(session, *arguments); });
}

struct EditArguments {
  std::string queue;
  std::vector<std::string> assignments;
};

ExitCode edit_queue(Session& session, const EditArguments& arguments) {
  std::map<std::string, std::string, std::less<>> typed;
  for (const std::string& text : arguments.assignments) {
    const auto assignment = parse_assignment(text, "setting");
    if (!assignment.ok()) return session.fail(assignment.status());
    if (!typed.insert(*assignment).second) {
      return session.fail(Status(ErrorCode::kInvalidArgument,
                                 fmt::format("Setting {} is given twice.", assignment->first)));
    }
  }
  const Result<SettingList> settings = typed_settings(typed);
  if (!settings.ok()) return session.fail(settings.status());
  const Status connected = session.connect_for(arguments.queue);
  if (!connected.ok()) return session.fail(connected);
  const Result<QueueReport> report = session.admin().edit_queue(arguments.queue, *settings);
  if (!report.ok()) return session.fail(report.status(), arguments.queue);
  print_queue(session.output(), *report);
  return session.finish(ExitCode::kDone,
                        fmt::format("The settings of queue {} are changed.", arguments.queue));
}

void add_edit(const Command& queue) {
  auto arguments = std::make_shared<EditArguments>();
  const Command command = queue.add("edit", "Changes settings of a queue");
  command.take({.name = "QUEUE", .meaning = "Its name", .required = true}, arguments->queue);
  command.take({.name = "SETTING",
                .meaning = fmt::format("Settings: {}", fmt::join(setting_names(), ", ")),
                .value = "NAME=VALUE",
                .required = true},
               arguments->assignments);
  command.does([arguments](Session& session) { return edit_queue(session, *arguments); });
}

// ---- ls, show ----

ExitCode list_queues(Session& session) {
  const Status connected = session.connect();
  if (!connected.ok()) return session.fail(connected);
  const Result<std::vector<QueueReport>> queues = session.admin().queues();
  if (!queues.ok()) return session.fail(queues.status());
  Output& output = session.output();
  output.begin_list({{"QUEUE", Align::kLeft},
                     {"READY", Align::kRight},
                     {"IN FLIGHT", Align::kRight},
                     {"WAITING", Align::kRight},
                     {"DEAD", Align::kRight},
                     {"BYTES", Align::kRight},
                     {"CONSUMERS", Align::kRight},
                     {"PUBLISHED", Align::kRight},
                     {"ACKED", Align::kRight}});
  bool any = false;
  for (const QueueReport& queue : *queues) {
    if (!queue.source_queue.empty()) continue;  // `dlq ls` shows dead-letter queues
    any = true;
    if (!output.is_table()) {
      output.object(queue_json(queue));
      continue;
    }
    output.row({queue.name, fmt::format("{}", queue.ready), fmt::format("{}", queue.in_flight),
                fmt::format("{}", queue.waiting), fmt::format("{}", queue.dead),
                size_cell(queue.bytes), fmt::format("{}", queue.consumers),
                rate_cell(queue.publish_rate), rate_cell(queue.ack_rate)});
  }
  output.end_list();
  if (!any) session.console().note("There are no queues. Create one: holdfast queue create NAME");
  return session.finish();
}

ExitCode show_queue(Session& session, const std::string& name) {
  const Status connected = session.connect_for(name);
  if (!connected.ok()) return session.fail(connected);
  const Result<QueueReport> report = session.admin().queue(name);
  if (!report.ok()) return session.fail(report.status(), name);
  // It is read from the disk, which may be what is wrong: the report is shown all the same.
  const Result<std::optional<StoredMessage>> read = oldest_message(session, name);
  const std::optional<StoredMessage> oldest = read.ok() ? *read : std::nullopt;
  Output& output = session.output();
  if (output.is_table()) {
    Fields fields = fields_of(*report);
    if (oldest) fields.insert(fields.begin() + 2, {"Oldest", oldest_cell(*oldest)});
    output.text(render_fields(fields));
  } else {
    Json json = queue_json(*report);
    json["oldest"] = oldest ? oldest_json(*oldest) : Json(nullptr);
    output.single(json);
  }
  return read.ok() ? session.finish() : session.fail(read.status(), name);
}

// ---- rm, purge ----

struct RemoveArguments {
  std::string queue;
  bool agreed = false;
};

// Connects and asks; ok if the queue is there and its name was typed, or --yes.
Status agree_on(Session& session, const RemoveArguments& arguments, std::string_view action,
                QueueReport& report) {
  Status askable = session.console().check_agreement(fmt::format("{} {}", action, arguments.queue),
                                                     arguments.agreed);
  if (!askable.ok()) return askable;
  Status connected = session.connect_for(arguments.queue);
  if (!connected.ok()) return connected;
  Result<QueueReport> found = session.admin().queue(arguments.queue);
  if (!found.ok()) return found.status();
  report = std::move(found).value();
  return session.console().ask_for_name(
      fmt::format("{} {} removes {} messages{}.", action, report.name, report.messages,
                  report.dead > 0 && action == "queue rm"
                      ? fmt::format(" and {} dead letters", report.dead)
                      : ""),
      report.name, arguments.agreed);
}

ExitCode remove_queue(Session& session, const RemoveArguments& arguments) {
  QueueReport report;
  const Status agreed = agree_on(session, arguments, "queue rm", report);
  if (!agreed.ok()) return session.fail(agreed, arguments.queue);
  const Status removed = session.admin().delete_queue(arguments.queue);
  if (!removed.ok()) return session.fail(removed, arguments.queue);
  const std::string done = fmt::format("Queue {} is deleted.", arguments.queue);
  Output& output = session.output();
  if (output.is_table()) {
    session.console().note(done);
  } else {
    Json json;
    json["queue"] = arguments.queue;
    json["deleted"] = true;
    json["messages"] = report.messages;
    json["dead"] = report.dead;
    output.single(json);
  }
  return session.finish(ExitCode::kDone, done);
}

ExitCode purge_queue(Session& session, const RemoveArguments& arguments) {
  QueueReport report;
  const Status agreed = agree_on(session, arguments, "queue purge", report);
  if (!agreed.ok()) return session.fail(agreed, arguments.queue);
  const Result<std::uint64_t> purged = session.admin().purge_queue(arguments.queue);
  if (!purged.ok()) return session.fail(purged.status(), arguments.queue);
  const std::string done =
      fmt::format("{} messages are removed from queue {}.", *purged, arguments.queue);
  Output& output = session.output();
  if (output.is_table()) {
    session.console().note(fmt::format(
        "{}{}", done,
        report.dedup_ids == 0 ? ""
                              : " Their ids stay in its dedup window: the same messages, sent "
                                "again within it, are duplicates and are not stored."));
  } else {
    Json json;
    json["queue"] = arguments.queue;
    json["purged"] = *purged;
    output.single(json);
  }
  return session.finish(ExitCode::kDone, done);
}

void add_removal(const Command& queue, const std::string& name, const std::string& meaning,
                 ExitCode (*run)(Session&, const RemoveArguments&)) {
  auto arguments = std::make_shared<RemoveArguments>();
  const Command command = queue.add(name, meaning);
  command.take({.name = "QUEUE", .meaning = "Its name", .required = true}, arguments->queue);
  command.take_flag("-y,--yes", arguments->agreed, "Do it without asking");
  command.does([arguments, run](Session& session) { return run(session, *arguments); });
}

}  // namespace

void add_queue_commands(const Command& tool) {
  const Command queue = tool.add_group("queue", "Creates, shows, changes and deletes queues");
  add_create(queue);
  queue.add("ls", "Lists the queues").does(list_queues);
  auto shown = std::make_shared<std::string>();
  const Command show = queue.add("show", "Shows one queue: contents, counts, settings");
  show.take({.name = "QUEUE", .meaning = "Its name", .required = true}, *shown);
  show.does([shown](Session& session) { return show_queue(session, *shown); });
  add_edit(queue);
  add_removal(queue, "rm", "Deletes a queue with its messages and dead letters", remove_queue);
  add_removal(queue, "purge", "Removes all messages of a queue, not its dead letters", purge_queue);
}

}  // namespace holdfast::cli
