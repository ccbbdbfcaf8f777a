#include "holdfast/text.h"

#include <doctest/doctest.h>
#include <time.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <random>
#include <string>
#include <vector>

#include "support/test_seed.h"

namespace holdfast {
namespace {

std::uint64_t duration(std::string_view text) {
  const Result<std::uint64_t> result = parse_duration_ms(text);
  REQUIRE_MESSAGE(result.ok(), std::string(text), " ", result.status().message());
  return *result;
}

std::uint64_t bytes(std::string_view text) {
  const Result<std::uint64_t> result = parse_bytes(text);
  REQUIRE_MESSAGE(result.ok(), std::string(text), " ", result.status().message());
  return *result;
}

TEST_CASE("durations are read in every unit, combined and with decimals") {
  CHECK(duration("0") == 0);
  CHECK(duration("0s") == 0);
  CHECK(duration("250ms") == 250);
  CHECK(duration("30s") == 30'000);
  CHECK(duration("10m") == 600'000);
  CHECK(duration("2h") == 7'200'000);
  CHECK(duration("7d") == 604'800'000);
  CHECK(duration("1h30m") == 5'400'000);
  CHECK(duration("1.5s") == 1'500);
  CHECK(duration("0.001s") == 1);
  CHECK(duration("1m250ms") == 60'250);
  CHECK(duration("36500d") == 36'500ull * 86'400'000);
}

TEST_CASE("a duration without a unit is refused with a sentence that asks for it") {
  const Result<std::uint64_t> result = parse_duration_ms("30");
  REQUIRE(!result.ok());
  CHECK(result.status().code() == ErrorCode::kInvalidArgument);
  CHECK(result.status().message() == "\"30\" lacks a unit: write 30ms, 30s, 30m, 30h or 30d.");
}

TEST_CASE("what is no duration is refused and named") {
  for (const char* text :
       {"",      " ",    "s",       "-1s",      "+1s",    "1 s",
        "1s ",   "1x",   "1S",      "1.s",      ".5s",    "1m30",
        "30s1m", "1s1s", "1.0005s", "1.0001ms", "36501d", "99999999999999999999d",
        "1e3s",  "1m\n"}) {
    CAPTURE(text);
    const Result<std::uint64_t> result = parse_duration_ms(text);
    REQUIRE(!result.ok());
    CHECK(result.status().code() == ErrorCode::kInvalidArgument);
    CHECK(result.status().message().find(quoted(text)) != std::string::npos);
  }
}

TEST_CASE("durations are written in their largest units") {
  CHECK(format_duration_ms(0) == "0");
  CHECK(format_duration_ms(250) == "250ms");
  CHECK(format_duration_ms(1'500) == "1.5s");
  CHECK(format_duration_ms(1'005) == "1.005s");
  CHECK(format_duration_ms(90'000) == "1m30s");
  CHECK(format_duration_ms(60'250) == "1m250ms");
  CHECK(format_duration_ms(43'200'000) == "12h");
  CHECK(format_duration_ms(90'061'001) == "1d1h1m1.001s");
}

TEST_CASE("a written duration reads back as the same number") {
  std::mt19937_64 random(test::test_seed());
  for (int i = 0; i < 20'000; ++i) {
    const std::uint64_t value = (random() >> (22 + random() % 42)) % (36'500ull * 86'400'000);
    CAPTURE(value);
    REQUIRE(duration(format_duration_ms(value)) == value);
    const std::uint64_t size = random() >> (random() % 64);
    REQUIRE(bytes(format_bytes(size)) == size);
  }
}

TEST_CASE("sizes are read in binary and decimal units") {
  CHECK(bytes("0") == 0);
  CHECK(bytes("512") == 512);
  CHECK(bytes("512B") == 512);
  CHECK(bytes("10kB") == 10'000);
  CHECK(bytes("10MB") == 10'000'000);
  CHECK(bytes("64KiB") == 65'536);
  CHECK(bytes("64kib") == 65'536);
  CHECK(bytes("1MiB") == 1'048'576);
  CHECK(bytes("1.5GiB") == 1'610'612'736);
  CHECK(bytes("1PiB") == 1ull << 50);
  CHECK(bytes("18446744073709551615") == ~0ull);
}

TEST_CASE("what is no size is refused and named") {
  for (const char* text : {"", "-1", "K", "1K", "1 MiB", "1.5", "0.0001kB", "1.", "16384PiB",
                           "18446744073709551616", "1MiBs", "0x10"}) {
    CAPTURE(text);
    const Result<std::uint64_t> result = parse_bytes(text);
    REQUIRE(!result.ok());
    CHECK(result.status().message().find(quoted(text)) != std::string::npos);
  }
}

TEST_CASE("sizes are written exactly") {
  CHECK(format_bytes(0) == "0");
  CHECK(format_bytes(1'000) == "1000");
  CHECK(format_bytes(1'024) == "1KiB");
  CHECK(format_bytes(1'048'576) == "1MiB");
  CHECK(format_bytes(1'048'577) == "1048577");
  CHECK(format_bytes(3ull << 40) == "3TiB");
}

TEST_CASE("counts are decimal digits that fit into 64 bits") {
  CHECK(*parse_count("42") == 42);
  CHECK(*parse_count("18446744073709551615") == ~0ull);
  for (const char* text : {"", "-1", "1.0", "1k", " 1", "18446744073709551616"}) {
    CAPTURE(text);
    CHECK(!parse_count(text).ok());
  }
}

TEST_CASE("a mistyped word finds the nearest one, and a strange word finds none") {
  constexpr std::array<std::string_view, 9> words{"send", "receive", "peek",    "get",  "ls",
                                                  "show", "redrive", "discard", "purge"};
  CHECK(nearest_word("recieve", words) == "receive");
  CHECK(nearest_word("Send", words) == "send");
  CHECK(nearest_word("redirve", words) == "redrive");
  CHECK(nearest_word("list", words) == "ls");
  CHECK(nearest_word("rece", words) == "receive");
  CHECK(nearest_word("xyzzy", words).empty());
  CHECK(nearest_word("", words).empty());
  CHECK(nearest_word(std::string(10'000, 's'), words).empty());
  CHECK(nearest_word("send", {}).empty());
}

TEST_CASE("UTF-8 is accepted as RFC 3629 has it") {
  for (const char* text : {"", "plain", "é", "€", "😀", "\xEF\xBF\xBF", "\xF4\x8F\xBF\xBF",
                           "\xED\x9F\xBF", "\xEE\x80\x80"}) {
    CAPTURE(text);
    CHECK(is_valid_utf8(text));
  }
  CHECK(is_valid_utf8(std::string_view("a\0b", 3)));
  for (const char* text :
       {"\x80", "\xC0\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF",
        "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xFF", "\xC3", "\xE2\x82", "\xF0\x9F\x98",
        "a\xC3(b", "\xE2\x28\xA1", "\xF0\x9F\x98\x28"}) {
    CAPTURE(quoted(text));
    CHECK(!is_valid_utf8(text));
  }
}

TEST_CASE("text is cut between two characters") {
  CHECK(cut_utf8("grün", 10) == "grün");
  CHECK(cut_utf8("grün", 5) == "grün");
  CHECK(cut_utf8("grün", 4) == "grü");
  CHECK(cut_utf8("grün", 3) == "gr");
  CHECK(cut_utf8("a€", 3) == "a");
  CHECK(cut_utf8("a€", 4) == "a€");
  CHECK(cut_utf8("😀", 3).empty());
  CHECK(cut_utf8("ab", 0).empty());
}

TEST_CASE("quoted text shows what cannot be seen and is bounded") {
  CHECK(quoted("plain") == "\"plain\"");
  CHECK(quoted("a\"b\\c\n\t\x1b") == "\"a\\\"b\\\\c\\n\\t\\x1b\"");
  CHECK(quoted("é\xFF") == "\"é\\xff\"");
  CHECK(quoted(std::string(64, 'a')) == "\"" + std::string(64, 'a') + "\"");
  CHECK(quoted(std::string(65, 'a')) == "\"" + std::string(64, 'a') + "…\"");
  CHECK(quoted(std::string(64, 'a') + "\"") == "\"" + std::string(64, 'a') + "…\"");
  // Never cut inside a character.
  CHECK(quoted(std::string(63, 'a') + "é") == "\"" + std::string(63, 'a') + "…\"");
}

TEST_CASE("printable text carries nothing that a terminal obeys") {
  CHECK(printable("a \"b\" \\ é€😀") == "a \"b\" \\ é€😀");
  CHECK(printable("\r\n\t\x7f") == "\\x0d\\n\\t\\x7f");
  CHECK(printable("\xC2\x9B"
                  "31m") == "\\u009b31m");
  CHECK(printable("\xE2\x80\xAE") == "\\u202e");
  CHECK(printable("\xC2\xA0") == "\xC2\xA0");
  CHECK(printable("\xE2\x82") == "\\xe2\\x82");
}

TEST_CASE("queue names of the allowed letters and length are accepted") {
  for (const std::string& name : {std::string("a"), std::string("9"), std::string("Orders.eu_1-x"),
                                  std::string(120, 'q'), std::string(120, 'q') + ".dead"}) {
    CAPTURE(name);
    CHECK(check_queue_name(name).ok());
  }
}

TEST_CASE("every other queue name is refused with its reason") {
  const std::vector<std::pair<std::string, std::string>> refused = {
      {"", "it is empty"},
      {std::string(121, 'q'), "it has 121 bytes, the limit is 120"},
      {std::string(121, 'q') + ".dead", "it has 121 bytes, the limit is 120"},
      {".dead", "it must begin with a letter or a digit"},
      {"-x", "it must begin with a letter or a digit"},
      {"a b", "it may contain only"},
      {"a/b", "it may contain only"},
      {"größe", "it may contain only"},
      {std::string("a\0b", 3), "it may contain only"},
  };
  for (const auto& entry : refused) {
    const std::string& name = entry.first;
    const std::string& why = entry.second;
    CAPTURE(name);
    const Status status = check_queue_name(name);
    CHECK(status.code() == ErrorCode::kNameInvalid);
    CHECK(status.message().find(why) != std::string::npos);
    CHECK(status.message().find(quoted(name)) != std::string::npos);
  }
}

TEST_CASE("a dead-letter queue is known by its name") {
  CHECK(is_dead_queue_name("orders.dead"));
  CHECK(!is_dead_queue_name("orders"));
  CHECK(!is_dead_queue_name(".dead"));
  CHECK(!is_dead_queue_name("orders.dead2"));
}

TEST_CASE("error codes have names of their own") {
  std::vector<std::string> names;
  for (std::uint16_t number = 0; number < 100; ++number) {
    const std::string name(error_name(static_cast<ErrorCode>(number)));
    if (name == "unknown") continue;
    CHECK(std::find(names.begin(), names.end(), name) == names.end());
    names.push_back(name);
  }
  CHECK(names.size() >= 38);
  CHECK(error_name(ErrorCode{40}) == "storage_full");
  CHECK(error_name(ErrorCode{9}) == "not_held");
  CHECK(error_is_retryable(ErrorCode::kStorageFull));
  CHECK(!error_is_retryable(ErrorCode::kQueueNotFound));
}

// fmt takes a time_point for one to be shown in local time.
TEST_CASE("times were local where TZ is set, and said to be UTC") {
  using namespace std::chrono;
  const char* const before = std::getenv("TZ");
  const std::string kept = before == nullptr ? "" : before;
  for (const char* zone : {"UTC", "Asia/Tokyo", "XYZ-9", "XYZ+5:30"}) {
    CAPTURE(zone);
    ::setenv("TZ", zone, 1);
    ::tzset();
    CHECK(format_time(system_clock::time_point(milliseconds(1'700'000'000'123))) ==
          "2023-11-14T22:13:20.123Z");
    CHECK(format_time(system_clock::time_point(milliseconds(-1))) == "1969-12-31T23:59:59.999Z");
  }
  if (before == nullptr) {
    ::unsetenv("TZ");
  } else {
    ::setenv("TZ", kept.c_str(), 1);
  }
  ::tzset();
}

}  // namespace
}  // namespace holdfast
