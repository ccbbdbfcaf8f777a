#include "cli/command_line.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cstdlib>
#include <optional>
#include <sstream>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/bench_command.h"
#include "cli/broker_commands.h"
#include "cli/check_command.h"
#include "cli/diskcheck_command.h"
#include "cli/dlq_commands.h"
#include "cli/message_commands.h"
#include "cli/queue_commands.h"
#include "holdfast/text.h"

namespace holdfast::cli {
namespace {

constexpr const char* kFooter =
    "Data goes to standard output, everything else to standard error.\n"
    "Exit codes: 0 done; 1 nothing received, or a check found something; 3 partly done; 64 usage;\n"
    "65 no such queue or message, or refused data; 69 cannot reach the broker; 70 internal;\n"
    "75 try again later. What begins with a dash and is no option goes after --.";

void take_options(const Command& tool, SessionOptions& options,
                  std::optional<std::chrono::milliseconds>& timeout) {
  const auto put_format = [&options](const std::string& format) {
    options.format = format == "json"    ? OutputFormat::kJson
                     : format == "jsonl" ? OutputFormat::kJsonl
                                         : OutputFormat::kTable;
  };
  const auto refusal = [](const std::string& format) {
    const bool is_known = format == "table" || format == "json" || format == "jsonl";
    return is_known ? std::string()
                    : fmt::format("{} is no format: table, json or jsonl.", quoted(format));
  };
  tool.take_each({.name = "-o,--output",
                  .meaning = "How data is written (default table)",
                  .value = "table|json|jsonl"},
                 put_format, refusal);
  tool.take_flag("-q,--quiet", options.quiet, "Nothing on standard error but errors");
  tool.take_duration(
      {.name = "--timeout", .meaning = "Longest time for each request (default 30s)"}, timeout);
}

// The command that was understood last; what is wrong concerns it.
const CLI::App* deepest_command(const CLI::App& app) {
  const CLI::App* command = &app;
  for (auto parsed = command->get_subcommands(); !parsed.empty();
       parsed = command->get_subcommands()) {
    command = parsed.back();
  }
  return command;
}

std::string command_path(const CLI::App& command) {
  std::string path = command.get_name();
  for (const CLI::App* parent = command.get_parent(); parent != nullptr;
       parent = parent->get_parent()) {
    path = fmt::format("{} {}", parent->get_name(), path);
  }
  return path;
}

std::vector<std::string> command_names(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::App* sub : command.get_subcommands([](const CLI::App*) { return true; })) {
    names.push_back(sub->get_name());
  }
  return names;
}

std::vector<std::string> option_names(const CLI::App& command) {
  std::vector<std::string> names;
  for (const CLI::App* app = &command; app != nullptr; app = app->get_parent()) {
    for (const CLI::Option* option : app->get_options()) {
      for (const std::string& name : option->get_lnames()) names.push_back("--" + name);
    }
  }
  return names;
}

std::string suggestion(const std::string& word, const std::vector<std::string>& candidates) {
  const std::vector<std::string_view> views(candidates.begin(), candidates.end());
  const std::string_view nearest = nearest_word(word, views);
  return nearest.empty() ? std::string() : fmt::format(" Did you mean {}?", nearest);
}

std::string wrong_command(const CLI::App& command, const std::vector<std::string>& extras) {
  const std::vector<std::string> names = command_names(command);
  const auto word = std::find_if(extras.begin(), extras.end(),
                                 [](const std::string& text) { return !text.starts_with('-'); });
  if (word == extras.end()) {
    return fmt::format("{} needs a command: {}.", command_path(command), fmt::join(names, ", "));
  }
  const std::string nearest = suggestion(*word, names);
  return fmt::format(
      "There is no command {} {}.{}", command_path(command), quoted(*word),
      nearest.empty() ? fmt::format(" There are: {}.", fmt::join(names, ", ")) : nearest);
}

std::string usage_error(const CLI::App& app, const CLI::ParseError& error) {
  const CLI::App& command = *deepest_command(app);
  const std::vector<std::string> extras = app.remaining(true);
  const auto unknown_option = std::find_if(
      extras.begin(), extras.end(),
      [](const std::string& text) { return text.size() > 1 && text.starts_with('-'); });
  const std::string help = fmt::format(" See: {} --help", command_path(command));
  if (unknown_option != extras.end()) {
    const std::string name = unknown_option->substr(0, unknown_option->find('='));
    return fmt::format("{} has no option {}.{}{}", command_path(command), quoted(name),
                       suggestion(name, option_names(command)), help);
  }
  if (!command_names(command).empty()) return wrong_command(command, extras) + help;
  if (!extras.empty()) {
    return fmt::format("{} does not take {} there.{}", command_path(command),
                       quoted(extras.front()), help);
  }
  std::string sentence = error.what();
  if (!sentence.ends_with('.')) sentence += '.';
  return sentence + help;
}

}  // namespace

CommandLine parse_command_line(int argument_count, const char* const* arguments) {
  CommandLine line;
  std::optional<std::chrono::milliseconds> timeout;
  CLI::App app("Looks after a Holdfast message queue broker.", "holdfast");
  app.footer(kFooter);
  app.fallthrough();  // the options of all commands may also come after the command
  app.require_subcommand(1);
  app.set_version_flag("--version", "holdfast " HOLDFAST_VERSION);
  app.get_formatter()->column_width(34);
  const CLI::Option* const url =
      app.add_option("-u,--url", line.options.address,
                     "The broker (default $HOLDFAST_URL, or else 127.0.0.1:7411)")
          ->type_name("HOST:PORT|unix:PATH");
  const Command tool(app, line.action);
  take_options(tool, line.options, timeout);
  add_broker_commands(tool);
  add_queue_commands(tool);
  add_message_commands(tool);
  add_dlq_commands(tool);
  add_check_command(tool);
  add_diskcheck_command(tool);
  add_bench_command(tool);
  try {
    app.parse(argument_count, arguments);
  } catch (const CLI::ParseError& error) {
    line.action = nullptr;
    if (error.get_exit_code() == 0) {  // help or version was asked for
      std::ostringstream out;
      app.exit(error, out, out);
      line.text = out.str();
    } else {
      line.code = ExitCode::kUsage;
      line.text = usage_error(app, error);
    }
  }
  if (timeout == std::chrono::milliseconds(0)) {
    line.action = nullptr;
    line.code = ExitCode::kUsage;
    line.text = "--timeout cannot be 0: name the longest time that a request may take, e.g. 30s.";
  }
  if (timeout) line.options.timeout = *timeout;
  if (url->count() > 0) {
    line.options.address_source = AddressSource::kCommandLine;
  } else if (const char* address = std::getenv("HOLDFAST_URL"); address && *address != '\0') {
    line.options.address = address;
    line.options.address_source = AddressSource::kEnvironment;
  }
  return line;
}

}  // namespace holdfast::cli
