#include "cli/check_command.h"

#include <fmt/format.h>

#include <memory>
#include <string>

#include "cli/cell.h"
#include "cli/json_form.h"
#include "cli/session.h"
#include "store/checker.h"
#include "store/faults.h"

namespace holdfast::cli {
namespace {

Json finding_json(const broker::CheckFinding& finding) {
  Json json;
  json["where"] = finding.where;
  json["what"] = finding.what;
  return json;
}

Json report_json(const broker::CheckReport& report) {
  Json json;
  json["queues"] = report.queues;
  json["blocks"] = report.blocks;
  json["messages"] = report.messages;
  json["unsettled"] = report.unsettled;
  json["bytes"] = report.bytes;
  json["batch_number"] = report.batch_number;
  json["batches_journaled"] = report.batches_journaled;
  json["batch_cut_short"] = report.batch_cut_short;
  Json findings = Json::array();
  for (const broker::CheckFinding& finding : report.findings) {
    findings.push_back(finding_json(finding));
  }
  json["findings"] = std::move(findings);
  return json;
}

ExitCode check(Session& session, const std::string& directory) {
  broker::explain_faults("holdfast", directory);
  const Result<broker::CheckReport> report = broker::check_directory(
      directory,
      [&](std::uint64_t blocks) { session.console().progress("Blocks checked", blocks); });
  session.console().end_progress();
  if (!report.ok()) return session.fail(report.status());
  Output& output = session.output();
  if (output.format() == OutputFormat::kJson) {
    output.single(report_json(*report));
  } else {
    for (const broker::CheckFinding& finding : report->findings) {
      if (output.is_table()) {
        output.text(fmt::format("{}: {}\n", finding.where, finding.what));
      } else {
        output.single(finding_json(finding));
      }
    }
  }
  if (report->batches_journaled > 0) {
    session.console().note(
        fmt::format("Not among these: {} later batches in the journal, which the broker's next "
                    "start brings in.",
                    report->batches_journaled));
  }
  if (report->batch_cut_short > 0) {
    session.console().note(
        fmt::format("Left out by the next start: batch {} in the journal, which is not whole. A "
                    "crash cut it short before it was confirmed, or the disk damaged it since.",
                    report->batch_cut_short));
  }
  session.console().note(
      fmt::format("{} queues (with dead-letter queues), {} blocks, {} messages ({} not settled), "
                  "{}, batch {}: {}.",
                  report->queues, report->blocks, report->messages, report->unsettled,
                  size_cell(report->bytes), report->batch_number,
                  report->findings.empty() ? "nothing is wrong"
                                           : fmt::format("{} findings", report->findings.size())));
  return session.finish(report->findings.empty() ? ExitCode::kDone : ExitCode::kNothing);
}

}  // namespace

void add_check_command(const Command& tool) {
  auto directory = std::make_shared<std::string>();
  const Command command = tool.add("check", "Checks a data directory that no broker has open");
  command.take({.name = "DIR", .meaning = "The broker's data directory", .required = true},
               *directory);
  command.does([directory](Session& session) { return check(session, *directory); });
}

}  // namespace holdfast::cli
