#include "cli/diskcheck_command.h"

#include <fmt/format.h>

#include <memory>
#include <string>
#include <vector>

#include "cli/cell.h"
#include "cli/disk_check.h"
#include "cli/interrupt.h"
#include "cli/json_form.h"
#include "cli/session.h"
#include "cli/table.h"

namespace holdfast::cli {
namespace {

Json check_json(const std::string& directory, const DiskCheck& check) {
  Json json;
  json["directory"] = directory;
  json["file_system"] = check.file_system;
  json["flushes"] = check.flush_us.size();
  json["median_us"] = rounded(check.median_us(), 1);
  json["p99_us"] = rounded(check.p99_us(), 1);
  json["max_us"] = rounded(check.max_us(), 1);
  json["flushes_per_second"] = rounded(check.flushes_per_second(), 1);
  json["warnings"] = check.warnings();
  return json;
}

std::string check_text(const std::string& directory, const DiskCheck& check) {
  const auto time = [](double us) { return fmt::format("{:.1f} us", us); };
  std::string text = render_fields({{"Directory", directory},
                                    {"File system", check.file_system},
                                    {"Flushes", std::to_string(check.flush_us.size())},
                                    {"Median", time(check.median_us())},
                                    {"p99", time(check.p99_us())},
                                    {"Max", time(check.max_us())},
                                    {"Rate", rate_cell(check.flushes_per_second())}});
  for (const std::string& warning : check.warnings()) text += fmt::format("Warning: {}\n", warning);
  return text;
}

ExitCode diskcheck(Session& session, const std::string& directory) {
  // An interrupt ends it, so that its file is removed.
  catch_interrupts();
  const Result<DiskCheck> check = check_disk(directory, [] { return !interrupted(); });
  if (!check.ok()) return session.fail(check.status());
  if (session.output().is_table()) {
    session.output().text(check_text(directory, *check));
  } else {
    session.output().single(check_json(directory, *check));
  }
  return session.finish(check->warnings().empty() ? ExitCode::kDone : ExitCode::kNothing);
}

}  // namespace

void add_diskcheck_command(const Command& tool) {
  auto directory = std::make_shared<std::string>();
  const Command command =
      tool.add("diskcheck", "Measures whether the disk under a directory flushes");
  command.take({.name = "DIR", .meaning = "Where the broker is to keep its data", .required = true},
               *directory);
  command.does([directory](Session& session) { return diskcheck(session, *directory); });
}

}  // namespace holdfast::cli
