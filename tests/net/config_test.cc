#include "config.h"

#include <doctest/doctest.h>
#include <stdlib.h>

#include <filesystem>
#include <fstream>
#include <iterator>
#include <sstream>
#include <string>
#include <utility>

#include "schema/queue_settings.h"

namespace holdfast::broker {
namespace {

struct BadFile {
  const char* name;
  const char* text;
  const char* line;      // how the sentence begins, after the file's name
  const char* contains;  // and what it must say
};

constexpr BadFile kBadFiles[] = {
    {"no TOML", "[broker\n", ":1: ", "not TOML"},
    {"half a line", "[broker]\ndata =\n", ":2: ", "not TOML"},
    {"a setting twice", "[broker]\ndata = \"a\"\ndata = \"b\"\n", ":3: ", "not TOML"},
    {"no UTF-8", "[broker]\ndata = \"\xff\"\n", ":", "not TOML"},
    {"an unknown section", "[broker]\n[limit]\n", ":2: ", "Did you mean \"limits\"?"},
    {"an unknown section like no other", "[zzzzzzzzzz]\n", ":1: ", "no section \"zzzzzzzzzz\""},
    {"a setting outside of sections", "data = \"d\"\n", ":1: ", "no section \"data\""},
    {"a section that is a value", "limits = 3\n", ":1: ", "must be a section"},
    {"an unknown setting", "[limits]\n\n\nconnection_max = 5\n",
     ":4: ", "Did you mean \"connections_max\"?"},
    {"an unknown setting like no other", "[limits]\nqwertyuiop = 5\n",
     ":2: ", "no setting \"qwertyuiop\" in [limits]"},
    {"a setting of another section", "[limits]\nheartbeat = \"5s\"\n",
     ":2: ", "no setting \"heartbeat\" in [limits]"},
    {"a number for text", "[broker]\ndata = 5\n", ":2: ", "text in quotes"},
    {"an address without a port", "[broker]\nlisten = \"0.0.0.0\"\n",
     ":2: ", "listen is \"0.0.0.0\"; it must be HOST:PORT"},
    {"a unix socket to listen on as HOST:PORT", "[broker]\nlisten = \"unix:/s\"\n",
     ":2: ", "must be HOST:PORT"},
    {"text for a boolean", "[broker]\nallow_network_file_system = \"yes\"\n",
     ":2: ", "true or false"},
    {"text for a count", "[limits]\nqueues_max = \"many\"\n", ":2: ", "a whole number"},
    {"a fraction for a count", "[limits]\nqueues_max = 1.5\n", ":2: ", "a whole number"},
    {"a negative count", "[limits]\nqueues_max = -1\n", ":2: ", "from 1 to 10000000"},
    {"a count below its bound", "[limits]\nconnections_max = 0\n", ":2: ", "from 1 to"},
    {"a count above its bound", "[limits]\nconnections_max = 1000001\n", ":2: ", "to 1000000"},
    {"a size without sense", "[limits]\ncache_bytes_max = \"12 apples\"\n",
     ":2: ", "cache_bytes_max"},
    {"a size out of bounds", "[limits]\ncache_bytes_max = \"1KiB\"\n", ":2: ", "from \"1MiB\""},
    {"all input together less than one message", "[limits]\ninput_bytes_total_max = \"1MiB\"\n",
     ":2: ", "from \"32MiB\""},
    {"all output together less than one message", "[limits]\noutput_bytes_total_max = \"1MiB\"\n",
     ":2: ", "from \"32MiB\""},
    {"a disk that no message fits on", "[limits]\ndisk_bytes_max = 1\n",
     ":2: ", "from \"32MiB\" to \"1TiB\", or \"0\""},
    {"a disk that no message fits on, as text", "[limits]\ndisk_bytes_max = \"20\"\n",
     ":2: ", "disk_bytes_max is \"20\"; it must be from \"32MiB\""},
    {"a disk beyond its bound", "[limits]\ndisk_bytes_max = \"2TiB\"\n", ":2: ", "to \"1TiB\""},
    {"a duration without a unit", "[timeouts]\nhandshake = 5\n", ":2: ", "a duration in quotes"},
    {"a duration in quotes without a unit", "[timeouts]\nhandshake = \"5\"\n", ":2: ", "handshake"},
    {"a duration out of bounds", "[timeouts]\nheartbeat = \"2m\"\n", ":2: ", "\"1m\""},
    {"an array for a value", "[limits]\nqueues_max = [1]\n", ":2: ", "a whole number"},
    {"a zero byte in a path", "[broker]\ndata = \"a\\u0000b\"\n", ":2: ", "zero byte"},
    {"an unknown queue setting", "[queue_defaults]\nlese = \"5s\"\n",
     ":2: ", "Did you mean \"lease\"?"},
    {"a queue setting out of bounds", "[queue_defaults]\nmax-attempts = 1000000000000\n",
     ":2: ", "max-attempts"},
    {"a queue setting of the wrong type", "[queue_defaults]\nlease = [1]\n", ":2: ", "lease"},
    {"queue settings that contradict",
     "[queue_defaults]\nbackoff-min = \"10m\"\n"
     "backoff-max = \"1s\"\n",
     ":1: ", "backoff"},
};

TEST_CASE("every bad configuration file is refused with its name, its line, and what is wrong") {
  for (const BadFile& bad : kBadFiles) {
    CAPTURE(bad.name);
    const Result<Config> config = parse_config(bad.text, "holdfast.toml");
    REQUIRE_FALSE(config.ok());
    CHECK(config.status().code() == ErrorCode::kConfigInvalid);
    const std::string& message = config.status().message();
    CAPTURE(message);
    CHECK(message.starts_with(std::string("holdfast.toml") + bad.line));
    CHECK(message.find(bad.contains) != std::string::npos);
  }
}

TEST_CASE("an empty file gives the defaults") {
  const Result<Config> config = parse_config("", "empty");
  REQUIRE(config.ok());
  CHECK(config->listen == "127.0.0.1:7411");
  CHECK(config->data.empty());
  CHECK(config->connections_max == 10'000);
  CHECK(config->heartbeat_ms == 10'000);
  CHECK(config->unconfirmed_bytes_max == 4u << 20);
  CHECK(config->queue_defaults.empty());
}

TEST_CASE("a file sets what it names") {
  const Result<Config> config = parse_config(
      "[broker]\ndata = \"/var/lib/holdfast\"\nunix = \"/run/holdfast.sock\"\n"
      "allow_network_file_system = true\n"
      "[limits]\nconnections_max = 50\ncache_bytes_max = \"64MiB\"\ndisk_bytes_max = 40000000\n"
      "[timeouts]\nheartbeat = \"1.5s\"\ndrain = \"0\"\n"
      "[queue_defaults]\nlease = \"1m\"\nmax-attempts = 3\nmax-messages = \"none\"\n",
      "file");
  REQUIRE_MESSAGE(config.ok(), config.status().to_string());
  CHECK(config->data == "/var/lib/holdfast");
  CHECK(config->unix_path == "/run/holdfast.sock");
  CHECK(config->allow_network_file_system == 1);
  CHECK(config->connections_max == 50);
  CHECK(config->cache_bytes_max == 64u << 20);
  CHECK(config->disk_bytes_max == 40'000'000);
  CHECK(config->heartbeat_ms == 1'500);
  CHECK(config->drain_ms == 0);
  REQUIRE(config->queue_defaults.size() == 3);
}

TEST_CASE("a disk without a limit, or with the least that there is, is taken") {
  for (const auto& [text, bytes] :
       {std::pair{"0", 0u}, std::pair{"\"0\"", 0u}, std::pair{"33554432", 32u << 20},
        std::pair{"\"32MiB\"", 32u << 20}}) {
    const std::string file = std::string("[limits]\ndisk_bytes_max = ") + text + "\n";
    CAPTURE(file);
    const Result<Config> config = parse_config(file, "file");
    REQUIRE_MESSAGE(config.ok(), config.status().to_string());
    CHECK(config->disk_bytes_max == bytes);
  }
}

TEST_CASE("what --check-config prints reads back as the same configuration") {
  const Result<Config> config = parse_config(
      "[broker]\ndata = \"/a \\\"b\\\" \\\\ \\u0009\"\n[limits]\ndisk_bytes_max = 41234567\n"
      "[timeouts]\nslow_reader = \"1m30s\"\n[queue_defaults]\nlease = \"1m30s\"\nmax-bytes = "
      "\"5MB\"\n",
      "file");
  REQUIRE_MESSAGE(config.ok(), config.status().to_string());
  const std::string printed = format_config(*config);
  const Result<Config> again = parse_config(printed, "printed");
  REQUIRE_MESSAGE(again.ok(), again.status().to_string());
  CHECK(format_config(*again) == printed);
  CHECK(again->data == config->data);
  CHECK(again->disk_bytes_max == 41'234'567);
  CHECK(again->slow_reader_ms == 90'000);
  CHECK(again->queue_defaults.size() == 2);
}

TEST_CASE("a file that cannot be read is named") {
  for (const char* path : {"/nonexistent/holdfast.toml", "/"}) {
    const Result<Config> config = read_config_file(path);
    REQUIRE_FALSE(config.ok());
    CHECK(config.status().code() == ErrorCode::kConfigInvalid);
    CHECK(config.status().message().find(path) != std::string::npos);
  }
}

TEST_CASE("docs/OPERATIONS.md has the reference of all settings as the table declares them") {
  std::ifstream file(HOLDFAST_SOURCE_ROOT "/docs/OPERATIONS.md");
  REQUIRE(file.good());
  std::stringstream text;
  text << file.rdbuf();
  const std::string reference = config_reference();
  CAPTURE(reference);
  CHECK(text.str().find(reference) != std::string::npos);
}

}  // namespace
}  // namespace holdfast::broker
