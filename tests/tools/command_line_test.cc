// What is understood of a command line, and what is said about a wrong one.

#include "cli/command_line.h"

#include <doctest/doctest.h>

#include <chrono>
#include <string>
#include <vector>

#include "cli/arguments.h"
#include "cli/dlq_move.h"
#include "cli/receive_command.h"

namespace holdfast::cli {
namespace {

CommandLine parse(std::vector<const char*> words) {
  words.insert(words.begin(), "holdfast");
  return parse_command_line(static_cast<int>(words.size()), words.data());
}

std::string usage_error(std::vector<const char*> words) {
  const CommandLine line = parse(std::move(words));
  CHECK(!line.action);
  CHECK(line.code == ExitCode::kUsage);
  return line.text;
}

TEST_CASE("every command is understood") {
  const std::vector<std::vector<const char*>> commands = {
      {"status"},
      {"queue", "create", "q", "--lease", "30s", "--max-attempts", "10", "--backoff", "1s..10m",
       "--dedup-window", "10m", "--max-messages", "5", "--max-bytes", "1MiB", "--max-message-bytes",
       "1MiB", "--if-not-exists"},
      {"queue", "ls"},
      {"queue", "show", "q"},
      {"queue", "edit", "q", "lease=10s", "backoff=1s..1m"},
      {"queue", "rm", "q", "--yes"},
      {"queue", "purge", "q", "-y"},
      {"message", "send", "q"},
      {"message", "send", "q", ""},
      {"message", "send", "q", "-"},
      {"message", "send", "q", "--", "-5"},
      {"message", "send", "q", "[1,2]", "--id", "x", "-H", "a=b", "-H", "c=d"},
      {"message", "send", "q", "@file", "--lines"},
      {"message", "receive", "q", "-n", "5", "--wait", "1s", "--lease", "1m", "--ack"},
      {"message", "receive", "q", "--nack", "--reason", "why", "--delay", "5s"},
      {"message", "peek", "q", "-n", "3", "--from", "7"},
      {"message", "get", "q", "7"},
      {"dlq", "ls"},
      {"dlq", "show", "q"},
      {"dlq", "peek", "q", "-n", "3"},
      {"dlq", "redrive", "q", "1", "2", "--dry-run"},
      {"dlq", "redrive", "q", "--all"},
      {"dlq", "discard", "q", "--all", "--yes"},
      {"dlq", "export", "q", "-"},
      {"consumer", "ls"},
      {"consumer", "ls", "q"},
      {"connection", "ls"},
      {"check", "/tmp"},
      // Words that are commands elsewhere are names here.
      {"queue", "show", "status"},
      {"message", "send", "queue", "ls"},
  };
  for (const auto& words : commands) {
    const CommandLine line = parse(words);
    CAPTURE(words[0]);
    CAPTURE(words.back());
    CHECK_MESSAGE(line.action, line.text);
  }
}

TEST_CASE("options of all commands stand before or after the command") {
  for (const std::vector<const char*>& words :
       {std::vector<const char*>{"-u", "host:1", "-o", "jsonl", "-q", "--timeout", "5s", "queue",
                                 "show", "q"},
        std::vector<const char*>{"queue", "show", "q", "-u", "host:1", "-o", "jsonl", "-q",
                                 "--timeout", "5s"}}) {
    const CommandLine line = parse(words);
    REQUIRE_MESSAGE(line.action, line.text);
    CHECK(line.options.address == "host:1");
    CHECK(line.options.format == OutputFormat::kJsonl);
    CHECK(line.options.quiet);
    CHECK(line.options.timeout == std::chrono::seconds(5));
  }
}

TEST_CASE("a wrong command suggests the right one") {
  CHECK(usage_error({"mesage", "send"}) ==
        "There is no command holdfast \"mesage\". Did you mean message? See: holdfast --help");
  CHECK(usage_error({"message", "recieve", "q"}).find("Did you mean receive?") !=
        std::string::npos);
  CHECK(usage_error({"queue", "list"}).find("Did you mean ls?") != std::string::npos);
  CHECK(usage_error({"queue", "xyzzy"}).find("There are: create, ls, show") != std::string::npos);
  CHECK(usage_error({}).find("holdfast needs a command: status, ") != std::string::npos);
  CHECK(usage_error({"dlq"}).find("holdfast dlq needs a command: ls, ") != std::string::npos);
}

TEST_CASE("a wrong option suggests the right one") {
  CHECK(usage_error({"queue", "create", "q", "--max-atempts", "3"})
            .find("Did you mean --max-attempts?") != std::string::npos);
  CHECK(usage_error({"message", "receive", "q", "--akc"}).find("Did you mean --ack?") !=
        std::string::npos);
  CHECK(usage_error({"status", "--ouput=json"}).find("Did you mean --output?") !=
        std::string::npos);
}

TEST_CASE("what is missing or too much is named") {
  CHECK(usage_error({"queue", "show"}).find("QUEUE") != std::string::npos);
  CHECK(usage_error({"queue", "show", "a", "b"}).find("does not take \"b\"") != std::string::npos);
  CHECK(usage_error({"-o", "xml", "status"}).find("\"xml\" is no format: table, json or jsonl") !=
        std::string::npos);
  CHECK(usage_error({"message", "receive", "q", "--wait", "5"}).find("lacks a unit") !=
        std::string::npos);
  CHECK(usage_error({"message", "receive", "q", "-n", "0"}).find("0 is out of bounds") !=
        std::string::npos);
  CHECK(usage_error({"message", "get", "q", "x"}).find("\"x\" is not a number") !=
        std::string::npos);
  CHECK(usage_error({"--timeout", "0", "status"}).find("--timeout cannot be 0") !=
        std::string::npos);
}

TEST_CASE("a number below 0 or beyond 64 bits was taken for a bound that is never reached") {
  for (const char* option : {"--count", "--producers", "--window", "--size"}) {
    CAPTURE(option);
    CHECK(parse({"bench", "publish", option, "100"}).action);
    for (const char* number : {"-1", "18446744073709551616"}) {
      const std::string sentence = usage_error({"bench", "publish", option, number});
      CHECK(sentence.find(option) != std::string::npos);
      CHECK(sentence.find(number) != std::string::npos);
    }
  }
  CHECK(usage_error({"bench", "publish", "--count", "1000000000001"})
            .find("1000000000001 is out of bounds: 0 to 1000000000000") != std::string::npos);
}

TEST_CASE("help and version are printed and are no error") {
  for (const std::vector<const char*>& words :
       {std::vector<const char*>{"--help"}, std::vector<const char*>{"message", "send", "--help"},
        std::vector<const char*>{"--version"}}) {
    const CommandLine line = parse(words);
    CHECK(!line.action);
    CHECK(line.code == ExitCode::kDone);
    CHECK(!line.text.empty());
  }
  CHECK(parse({"--version"}).text.find(HOLDFAST_VERSION) != std::string::npos);
  CHECK(parse({"queue", "create", "--help"}).text.find("--max-attempts") != std::string::npos);
}

TEST_CASE("settings are read by their names, backoff for two") {
  CHECK(*parse_setting("lease", "30s") == SettingList{{"lease", 30'000}});
  CHECK(*parse_setting("max-messages", "none") == SettingList{{"max-messages", 0}});
  CHECK(*parse_setting("backoff", "1s..10m") ==
        SettingList{{"backoff-min", 1'000}, {"backoff-max", 600'000}});
}

TEST_CASE("a wrong setting is named, with the nearest right one") {
  const auto message = [](std::string_view name, std::string_view value) {
    const Result<SettingList> settings = parse_setting(name, value);
    REQUIRE(!settings.ok());
    CHECK(settings.status().code() == ErrorCode::kInvalidArgument);
    return settings.status().message();
  };
  CHECK(message("leese", "1s") == "There is no queue setting \"leese\". Did you mean lease?");
  CHECK(message("colour", "1s").find("there are lease, max-attempts") != std::string::npos);
  CHECK(message("backoff", "1s").find("e.g. 1s..10m") != std::string::npos);
  CHECK(message("backoff", "1..2").find("lacks a unit") != std::string::npos);
  CHECK(message("lease", "13h").find("100ms to 12h") != std::string::npos);
}

TEST_CASE("an assignment is split at its first equals sign") {
  CHECK(*parse_assignment("a=b=c", "header") == std::pair<std::string, std::string>("a", "b=c"));
  CHECK(*parse_assignment("a=", "header") == std::pair<std::string, std::string>("a", ""));
  for (const char* text : {"", "a", "=b"}) CHECK(!parse_assignment(text, "header").ok());
}

TEST_CASE("a selection is either sequences or all") {
  CHECK(*selected_sequences({{"3", "1"}, false}) == std::vector<std::uint64_t>{3, 1});
  CHECK(selected_sequences({{}, true})->empty());
  CHECK(!selected_sequences({{}, false}).ok());
  CHECK(!selected_sequences({{"3"}, true}).ok());
  CHECK(!selected_sequences({{"0"}, false}).ok());
  CHECK(!selected_sequences({{"x"}, false}).ok());
}

TEST_CASE("receiving takes exactly one way to settle and what goes with it") {
  ReceiveArguments arguments;
  CHECK(!check_receive_arguments(arguments).ok());
  arguments.ack = true;
  CHECK(check_receive_arguments(arguments).ok());
  arguments.reason = "why";
  CHECK(!check_receive_arguments(arguments).ok());
  arguments.ack = false;
  arguments.reject = true;
  CHECK(check_receive_arguments(arguments).ok());
  arguments.delay = std::chrono::seconds(1);
  CHECK(!check_receive_arguments(arguments).ok());
  arguments.reject = false;
  arguments.nack = true;
  CHECK(check_receive_arguments(arguments).ok());
  arguments.release = true;
  CHECK(!check_receive_arguments(arguments).ok());
}

TEST_CASE("a delay that no nack may have was refused only after the message had come") {
  ReceiveArguments arguments;
  arguments.nack = true;
  arguments.delay = std::chrono::days(7);
  CHECK(check_receive_arguments(arguments).ok());
  arguments.delay = std::chrono::days(36'500);
  const Status refused = check_receive_arguments(arguments);
  CHECK(refused.code() == ErrorCode::kInvalidArgument);
  CHECK(refused.message() ==
        "--delay 36500d is too long: a nack puts a message off by at most 7d.");
}

TEST_CASE("only what is settled step by step has no bound on its count") {
  ReceiveArguments arguments;
  arguments.count = ReceiveArguments::kKeptMax + 1;
  arguments.ack = true;
  CHECK(check_receive_arguments(arguments).ok());
  arguments.ack = false;
  arguments.release = true;
  CHECK(!check_receive_arguments(arguments).ok());
  arguments.count = ReceiveArguments::kKeptMax;
  CHECK(check_receive_arguments(arguments).ok());
}

TEST_CASE("a dead-letter queue is named by its queue or by itself") {
  CHECK(dead_queue_name("orders") == "orders.dead");
  CHECK(dead_queue_name("orders.dead") == "orders.dead");
}

}  // namespace
}  // namespace holdfast::cli
