// How values are shown: cells, tables, JSON, exit codes.

#include <doctest/doctest.h>

#include <chrono>
#include <string>

#include "cli/base64.h"
#include "cli/cell.h"
#include "cli/exit_code.h"
#include "cli/json_form.h"
#include "cli/json_message.h"
#include "cli/table.h"
#include "holdfast/status.h"

namespace holdfast::cli {
namespace {

using std::chrono::milliseconds;
using TimePoint = std::chrono::system_clock::time_point;

TimePoint at_ms(std::int64_t unix_ms) { return TimePoint(milliseconds(unix_ms)); }

TEST_CASE("times are shown in UTC with milliseconds") {
  CHECK(timestamp(at_ms(1'772'366'400'250)) == "2026-03-01T12:00:00.250Z");
  CHECK(timestamp(at_ms(951'782'399'999)) == "2000-02-28T23:59:59.999Z");
  CHECK(timestamp(at_ms(951'782'400'000)) == "2000-02-29T00:00:00.000Z");
  CHECK(timestamp(at_ms(-1)) == "1969-12-31T23:59:59.999Z");
  CHECK(timestamp(at_ms(0)).empty());
}

TEST_CASE("texts are cut between characters") {
  CHECK(cut("short", 5) == "short");
  CHECK(cut("longer", 5) == "long…");
  CHECK(cut("größer", 4) == "grö…");
  CHECK(cut("größe", 5) == "größe");
  CHECK(cut("ab", 1) == "…");
  CHECK(cut("", 1).empty());
  CHECK(character_count("größe€😀") == 7);
}

TEST_CASE("sizes, rates and ages are rounded for reading") {
  CHECK(size_cell(0) == "0 B");
  CHECK(size_cell(1'023) == "1023 B");
  CHECK(size_cell(1'024) == "1.0 KiB");
  CHECK(size_cell(1'234'567) == "1.2 MiB");
  CHECK(size_cell((1ull << 20) - 1) == "1.0 MiB");
  CHECK(size_cell(~0ull) == "16384.0 PiB");
  CHECK(rate_cell(0) == "0/s");
  CHECK(rate_cell(12.34) == "12.3/s");
  CHECK(rate_cell(12'345.6) == "12346/s");
  CHECK(age_cell(milliseconds(1'500)) == "1.5s");
  CHECK(age_cell(milliseconds(61'999)) == "1m1s");
  CHECK(age_cell(milliseconds(93'784'000)) == "1d2h");
  CHECK(age_cell(milliseconds(-5)) == "0");
}

TEST_CASE("a table aligns numbers to the right and cuts its last column") {
  Table table({{"N", Align::kRight}, {"NAME"}, {"BODY"}}, 30);
  table.add({"1", "a", "short"});
  table.add({"1000", "größe", "0123456789012345678901234567890"});
  CHECK(table.pending_rows() == 2);
  CHECK(table.render() ==
        "   N  NAME   BODY\n"
        "   1  a      short\n"
        "1000  größe  0123456789012345…\n");
  CHECK(table.render().empty());
}

TEST_CASE("a table rendered in parts has one header and keeps its columns") {
  Table table({{"N", Align::kRight}, {"BODY"}}, 80);
  CHECK(table.render().empty());
  table.add({"100", "x"});
  CHECK(table.render() == "  N  BODY\n100  x\n");
  table.add({"7", "y"});
  CHECK(table.render() == "  7  y\n");
}

TEST_CASE("a table carries no control characters") {
  Table table({{"BODY"}}, 80);
  table.add({"a\n\x1b[31mb"});
  CHECK(table.render() == "BODY\na\\n\\x1b[31mb\n");
}

TEST_CASE("fields are aligned by their names") {
  CHECK(render_fields({{"Id", "7"}, {"Sequence", "a\tb"}}) ==
        "Id        7\n"
        "Sequence  a\\tb\n");
}

TEST_CASE("base64 is that of RFC 4648, section 10") {
  CHECK(base64("").empty());
  CHECK(base64("f") == "Zg==");
  CHECK(base64("fo") == "Zm8=");
  CHECK(base64("foo") == "Zm9v");
  CHECK(base64("foob") == "Zm9vYg==");
  CHECK(base64("fooba") == "Zm9vYmE=");
  CHECK(base64("foobar") == "Zm9vYmFy");
  CHECK(base64("\xFF\xFE\xFD") == "//79");
}

StoredMessage stored() {
  StoredMessage message;
  message.queue = "orders";
  message.sequence = 7;
  message.attempt = 2;
  message.id = "id-7";
  message.body = "{\"a\":1}";
  message.headers = {{"type", "x"}};
  message.published_at = at_ms(1'772'366'400'250);
  message.state = "ready";
  return message;
}

TEST_CASE("a message is one JSON object with its fields in their order") {
  CHECK(dump(message_json(stored())) ==
        R"({"queue":"orders","sequence":7,"id":"id-7","attempt":2,"state":"ready",)"
        R"("headers":{"type":"x"},"body":"{\"a\":1}","published_at":"2026-03-01T12:00:00.250Z"})");
}

TEST_CASE("a body that is not UTF-8 is base64, and only then") {
  StoredMessage message = stored();
  message.body = std::string("\x00\xFF", 2);
  const Json json = message_json(message);
  CHECK(!json.contains("body"));
  CHECK(json["body_base64"] == "AP8=");
  message.body = std::string("\x00z", 2);
  CHECK(message_json(message)["body"] == std::string("\x00z", 2));
}

TEST_CASE("a header name that occurs several times has an array of its values") {
  StoredMessage message = stored();
  message.headers = {{"a", "1"}, {"b", "2"}, {"a", "3"}, {"a", "4"}};
  CHECK(dump(message_json(message)["headers"]) == R"({"a":["1","3","4"],"b":"2"})");
}

TEST_CASE("headers that are not UTF-8 cannot break the JSON") {
  StoredMessage message = stored();
  message.headers = {{"a", "\xFF"}};
  CHECK(dump(message_json(message)["headers"]) == "{\"a\":\"\xEF\xBF\xBD\"}");
}

TEST_CASE("a dead letter carries where it came from and its history") {
  StoredMessage message = stored();
  message.queue = "orders.dead";
  message.is_dead_letter = true;
  message.provenance.source = "orders";
  message.provenance.source_sequence = 3;
  message.provenance.subscription = "default";
  message.provenance.reason = "retry_limit";
  message.provenance.error = "boom";
  message.provenance.attempts = 2;
  message.provenance.published_at = at_ms(1'000);
  message.provenance.dead_at = at_ms(2'000);
  message.provenance.history = {{1, "lease_expired", "worker", "", at_ms(0), at_ms(1'500)},
                                {2, "nacked", "worker", "boom", at_ms(1'600), at_ms(2'000)}};
  const Json json = message_json(message);
  CHECK(json["source"] == "orders");
  CHECK(json["source_sequence"] == 3);
  CHECK(json["reason"] == "retry_limit");
  CHECK(json["attempts"] == 2);
  CHECK(json["published_at"] == "1970-01-01T00:00:01.000Z");
  REQUIRE(json["history"].size() == 2);
  CHECK(dump(json["history"][0]) ==
        R"({"attempt":1,"cause":"lease_expired","consumer":"worker","error":"",)"
        R"("delivered_at":null,"ended_at":"1970-01-01T00:00:01.500Z"})");
  CHECK(json["history"][1]["error"] == "boom");
}

TEST_CASE("what is printed of a message is read again, byte for byte") {
  StoredMessage printed = stored();
  printed.is_dead_letter = true;
  printed.provenance.reason = "rejected";
  printed.headers = {{"a", "1"}, {"b", ""}, {"a", "größe"}};
  std::string every_byte;
  for (int i = 0; i < 256; ++i) every_byte += static_cast<char>(i);
  for (const std::string& body : {std::string(), std::string("\x00z\n\"", 4), every_byte,
                                  every_byte + "x", every_byte + "xy"}) {
    printed.body = body;
    const Result<Message> read = parse_message_json(dump(message_json(printed)));
    REQUIRE(read.ok());
    CHECK(read->id == printed.id);
    CHECK(read->body == body);
    CHECK(read->headers == Headers{{"a", "1"}, {"a", "größe"}, {"b", ""}});
  }
}

TEST_CASE("a line with nothing but a body is a message") {
  const Result<Message> read = parse_message_json(R"( {"body":"x"} )");
  REQUIRE(read.ok());
  CHECK(read->body == "x");
  CHECK(read->id.empty());
  CHECK(read->headers.empty());
}

TEST_CASE("a line that is no message is refused, and told why") {
  const auto refusal = [](std::string_view text) {
    const Result<Message> read = parse_message_json(text);
    REQUIRE(!read.ok());
    CHECK(read.status().code() == ErrorCode::kInvalidArgument);
    return read.status().message();
  };
  CHECK(refusal("") == "It is not JSON: it ends too early.");
  CHECK(refusal(R"({"body":"x")") == "It is not JSON: it ends too early.");
  CHECK(refusal(R"({"body":"x"} y)") == "It is not JSON: it breaks at byte 14.");
  CHECK(refusal("{\"body\":\"\xFF\"}") == "It is not JSON: it breaks at byte 10.");
  CHECK(refusal(R"({"body":"x","n":1e999})") == "A number in it is too large.");
  CHECK(refusal("[]") == "It is not a JSON object.");
  const std::string_view bodies = "The object must have \"body\" or \"body_base64\", and one";
  CHECK(refusal("{}").starts_with(bodies));
  CHECK(refusal(R"({"body":"x","body_base64":"eA=="})").starts_with(bodies));
  CHECK(refusal(R"({"body":7})") == "\"body\" is not a text.");
  CHECK(refusal(R"({"body_base64":null})") == "\"body_base64\" is not a text.");
  CHECK(refusal(R"({"body":"x","id":""})").starts_with("\"id\" is not a text of at least"));
  CHECK(refusal(R"({"body":"x","id":7})").starts_with("\"id\" is not a text of at least"));
  CHECK(refusal(R"({"body":"x","headers":["a"]})").starts_with("\"headers\" is not an object"));
  CHECK(refusal(R"({"body":"x","headers":{"a":1}})").starts_with("Header \"a\" is neither"));
  CHECK(refusal(R"({"body":"x","headers":{"a":["b",1]}})").starts_with("Header \"a\" is neither"));
  for (const std::string_view not_base64 :
       {"eA", "eA=", "e===", "====", "eB==", "eHl=", "e-==", "=eA=", "eA==eA==", "eA==\n"}) {
    CAPTURE(not_base64);
    CHECK(!decode_base64(not_base64));
  }
  CHECK(refusal(R"({"body_base64":"eA"})").starts_with("\"body_base64\" is not Base64"));
}

TEST_CASE("what was left of a damaged message is not sent as if it were the message") {
  StoredMessage printed = stored();
  printed.is_dead_letter = true;
  printed.provenance.reason = "corrupt";
  const Result<Message> read = parse_message_json(dump(message_json(printed)));
  REQUIRE(!read.ok());
  CHECK(read.status().code() == ErrorCode::kMessageCorrupt);
  const Result<Message> cut_short = parse_message_json(R"({"reason":"corrupt","body":"a"})");
  REQUIRE(!cut_short.ok());
  CHECK(cut_short.status().code() == ErrorCode::kMessageCorrupt);
}

TEST_CASE("a receipt is what scripts are promised") {
  CHECK(dump(receipt_json("orders", {5, "id-5", true})) ==
        R"({"queue":"orders","sequence":5,"id":"id-5","duplicate":true})");
}

TEST_CASE("every error has the exit code of its kind") {
  CHECK(exit_code_for(ErrorCode::kOk) == ExitCode::kDone);
  CHECK(exit_code_for(ErrorCode::kInvalidArgument) == ExitCode::kUsage);
  // Another program listens on the port.
  CHECK(exit_code_for(ErrorCode::kFrameMalformed) == ExitCode::kUnreachable);
  CHECK(exit_code_for(ErrorCode::kQueueNotFound) == ExitCode::kData);
  CHECK(exit_code_for(ErrorCode::kMessageTooLarge) == ExitCode::kData);
  CHECK(exit_code_for(ErrorCode::kNameInvalid) == ExitCode::kData);
  CHECK(exit_code_for(ErrorCode::kUnreachable) == ExitCode::kUnreachable);
  CHECK(exit_code_for(ErrorCode::kInternal) == ExitCode::kInternal);
  CHECK(exit_code_for(ErrorCode::kStorageFull) == ExitCode::kTryAgain);
  CHECK(exit_code_for(ErrorCode::kDraining) == ExitCode::kTryAgain);
  CHECK(exit_code_for(ErrorCode::kTimeout) == ExitCode::kTryAgain);
  CHECK(exit_code_for(ErrorCode{12'345}) == ExitCode::kInternal);
}

TEST_CASE("what makes sense to try again never exits as refused data") {
  for (std::uint16_t number = 1; number < 100; ++number) {
    const ErrorCode code{number};
    if (error_name(code) == "unknown") continue;
    CAPTURE(std::string(error_name(code)));
    CHECK(exit_code_for(code) != ExitCode::kDone);
    if (!error_is_retryable(code)) continue;
    const ExitCode exit_code = exit_code_for(code);
    CHECK((exit_code == ExitCode::kTryAgain || exit_code == ExitCode::kUnreachable));
  }
}

}  // namespace
}  // namespace holdfast::cli
