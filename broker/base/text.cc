#include "holdfast/text.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <limits>
#include <numeric>
#include <optional>
#include <vector>

namespace holdfast {
namespace {

constexpr std::uint64_t kDurationMsMax = 36'500ull * 24 * 3'600 * 1'000;
constexpr std::size_t kDecimalsMax = 3;

struct Unit {
  std::string_view name;
  std::uint64_t factor;
};

// Longest durations first, which is also the order in which they may be written.
constexpr std::array<Unit, 5> kDurationUnits{{
    {"d", 86'400'000},
    {"h", 3'600'000},
    {"m", 60'000},
    {"s", 1'000},
    {"ms", 1},
}};

constexpr std::array<Unit, 12> kByteUnits{{
    {"", 1},
    {"b", 1},
    {"kb", 1'000},
    {"mb", 1'000'000},
    {"gb", 1'000'000'000},
    {"tb", 1'000'000'000'000},
    {"pb", 1'000'000'000'000'000},
    {"kib", 1ull << 10},
    {"mib", 1ull << 20},
    {"gib", 1ull << 30},
    {"tib", 1ull << 40},
    {"pib", 1ull << 50},
}};

bool is_digit(char c) { return c >= '0' && c <= '9'; }
bool is_letter(char c) { return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'); }

char to_lower(char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c; }

std::string lower_case(std::string_view text) {
  std::string lower(text);
  std::transform(lower.begin(), lower.end(), lower.begin(), to_lower);
  return lower;
}

Status invalid(std::string message) {
  return Status(ErrorCode::kInvalidArgument, std::move(message));
}

// "12" or "1.5", as it was written.
struct Decimal {
  std::string_view whole;
  std::string_view decimals;
};

// Takes a decimal off the front of `text`; none if it does not begin with one.
std::optional<Decimal> take_decimal(std::string_view& text) {
  const auto digits = [](std::string_view from) {
    return from.substr(0, static_cast<std::size_t>(
                              std::find_if_not(from.begin(), from.end(), is_digit) - from.begin()));
  };
  Decimal decimal;
  decimal.whole = digits(text);
  if (decimal.whole.empty()) return std::nullopt;
  text.remove_prefix(decimal.whole.size());
  if (text.starts_with('.')) {
    decimal.decimals = digits(text.substr(1));
    if (decimal.decimals.empty()) return std::nullopt;
    text.remove_prefix(1 + decimal.decimals.size());
  }
  return decimal;
}

// Takes the letters off the front of `text`.
std::string_view take_letters(std::string_view& text) {
  const auto end = std::find_if_not(text.begin(), text.end(), is_letter);
  const std::string_view letters = text.substr(0, static_cast<std::size_t>(end - text.begin()));
  text.remove_prefix(letters.size());
  return letters;
}

std::optional<std::uint64_t> digits_value(std::string_view digits) {
  std::uint64_t value = 0;
  for (const char digit : digits) {
    if (__builtin_mul_overflow(value, 10u, &value) ||
        __builtin_add_overflow(value, static_cast<std::uint64_t>(digit - '0'), &value)) {
      return std::nullopt;
    }
  }
  return value;
}

// decimal × factor, exactly; none if it is no whole number or does not fit.
std::optional<std::uint64_t> scaled(const Decimal& decimal, std::uint64_t factor) {
  if (decimal.decimals.size() > kDecimalsMax) return std::nullopt;
  const std::optional<std::uint64_t> whole = digits_value(decimal.whole);
  std::uint64_t value = 0;
  if (!whole || __builtin_mul_overflow(*whole, factor, &value)) return std::nullopt;
  // At most three decimals and a factor of at most 2^50: the product fits.
  std::uint64_t divisor = 1;
  for (std::size_t i = 0; i < decimal.decimals.size(); ++i) divisor *= 10;
  const std::uint64_t part = *digits_value(decimal.decimals) * factor;
  if (part % divisor != 0 || __builtin_add_overflow(value, part / divisor, &value)) {
    return std::nullopt;
  }
  return value;
}

Status bad_duration(std::string_view text) {
  return invalid(fmt::format(
      "{} is not a duration: write a number and its unit (ms, s, m, h, d), e.g. 250ms, 30s, 1h30m.",
      quoted(text)));
}

Status bad_bytes(std::string_view text) {
  return invalid(fmt::format(
      "{} is not a size: write a number of bytes, or a number with a unit (kB, MB, GB, KiB, MiB, "
      "GiB), e.g. 64KiB.",
      quoted(text)));
}

// Optimal string alignment: insert, remove, replace, swap neighbours.
std::size_t edit_distance(std::string_view a, std::string_view b) {
  std::vector<std::size_t> before(b.size() + 1), row(b.size() + 1), next(b.size() + 1);
  std::iota(row.begin(), row.end(), std::size_t{0});
  for (std::size_t i = 1; i <= a.size(); ++i) {
    next[0] = i;
    for (std::size_t j = 1; j <= b.size(); ++j) {
      const std::size_t replace = row[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1);
      next[j] = std::min({row[j] + 1, next[j - 1] + 1, replace});
      if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
        next[j] = std::min(next[j], before[j - 2] + 1);
      }
    }
    std::swap(before, row);
    std::swap(row, next);
  }
  return row[b.size()];
}

// The length of the well-formed UTF-8 character at the front, 0 if there is none. RFC 3629,
// section 4.
std::size_t utf8_character_bytes(std::string_view bytes) {
  const auto at = [&](std::size_t i) { return static_cast<unsigned char>(bytes[i]); };
  const unsigned char lead = at(0);
  if (lead < 0x80) return 1;
  const std::size_t length = lead >= 0xC2 && lead <= 0xDF   ? 2
                             : lead >= 0xE0 && lead <= 0xEF ? 3
                             : lead >= 0xF0 && lead <= 0xF4 ? 4
                                                            : 0;
  if (length == 0 || bytes.size() < length) return 0;
  unsigned char low = 0x80, high = 0xBF;  // of the second byte
  if (lead == 0xE0) low = 0xA0;           // overlong
  if (lead == 0xED) high = 0x9F;          // surrogates
  if (lead == 0xF0) low = 0x90;           // overlong
  if (lead == 0xF4) high = 0x8F;          // above U+10FFFF
  if (at(1) < low || at(1) > high) return 0;
  for (std::size_t i = 2; i < length; ++i) {
    if (at(i) < 0x80 || at(i) > 0xBF) return 0;
  }
  return length;
}

// The code point of a well-formed character of two or three bytes.
std::uint32_t short_code_point(std::string_view character) {
  const auto at = [&](std::size_t i) {
    return static_cast<std::uint32_t>(static_cast<unsigned char>(character[i]));
  };
  return character.size() == 2 ? (at(0) & 0x1F) << 6 | (at(1) & 0x3F)
                               : (at(0) & 0x0F) << 12 | (at(1) & 0x3F) << 6 | (at(2) & 0x3F);
}

// Whether a terminal would obey this character rather than show it: the C1 controls, and the
// characters that embed, override or isolate the direction of writing.
bool acts_on_terminal(std::string_view character) {
  if (character.size() != 2 && character.size() != 3) return false;
  const std::uint32_t point = short_code_point(character);
  return (point >= 0x80 && point <= 0x9F) || point == 0x200E || point == 0x200F ||
         (point >= 0x2028 && point <= 0x202E) || (point >= 0x2066 && point <= 0x2069);
}

// Appends the first character of `text`, escaped if it cannot be shown; returns its bytes in
// `text`.
std::size_t append_printable(std::string_view text, std::string& out) {
  const auto byte = static_cast<unsigned char>(text.front());
  const std::size_t length = utf8_character_bytes(text);
  if (byte == '\n') {
    out += "\\n";
  } else if (byte == '\t') {
    out += "\\t";
  } else if (length == 0 || byte < 0x20 || byte == 0x7F) {
    fmt::format_to(std::back_inserter(out), "\\x{:02x}", byte);
  } else if (acts_on_terminal(text.substr(0, length))) {
    fmt::format_to(std::back_inserter(out), "\\u{:04x}", short_code_point(text.substr(0, length)));
  } else {
    out += text.substr(0, length);
  }
  return std::max<std::size_t>(length, 1);
}

}  // namespace

Result<std::uint64_t> parse_duration_ms(std::string_view text) {
  if (text == "0") return std::uint64_t{0};
  std::string_view rest = text;
  std::uint64_t total = 0;
  std::size_t unit_from = 0;  // units before it have had their turn
  do {
    const std::optional<Decimal> decimal = take_decimal(rest);
    if (!decimal) return bad_duration(text);
    const std::string_view name = take_letters(rest);
    if (name.empty() && rest.empty() && unit_from == 0) {
      return invalid(fmt::format("{} lacks a unit: write {}ms, {}s, {}m, {}h or {}d.", quoted(text),
                                 text, text, text, text, text));
    }
    const auto unit = std::find_if(kDurationUnits.begin(), kDurationUnits.end(),
                                   [&](const Unit& known) { return known.name == name; });
    if (unit == kDurationUnits.end()) return bad_duration(text);
    const auto index = static_cast<std::size_t>(unit - kDurationUnits.begin());
    if (index < unit_from) {
      return invalid(
          fmt::format("{} is not a duration: units go from the largest to the smallest, "
                      "each once, e.g. 1h30m.",
                      quoted(text)));
    }
    unit_from = index + 1;
    const std::optional<std::uint64_t> part = scaled(*decimal, unit->factor);
    if (!part || __builtin_add_overflow(total, *part, &total) || total > kDurationMsMax) {
      return invalid(
          fmt::format("{} is out of range: a duration is a whole number of milliseconds "
                      "with at most {} decimals of a unit, up to 36500d.",
                      quoted(text), kDecimalsMax));
    }
  } while (!rest.empty());
  return total;
}

std::string format_duration_ms(std::uint64_t duration_ms) {
  if (duration_ms == 0) return "0";
  std::string text;
  std::uint64_t rest = duration_ms;
  for (const Unit& unit : kDurationUnits) {
    const std::uint64_t count = rest / unit.factor;
    if (count == 0) continue;
    rest %= unit.factor;
    fmt::format_to(std::back_inserter(text), "{}", count);
    if (unit.name == "s" && rest != 0) {
      std::string decimals = fmt::format("{:03}", rest);
      decimals.erase(decimals.find_last_not_of('0') + 1);
      text += '.';
      text += decimals;
      rest = 0;
    }
    text += unit.name;
  }
  return text;
}

std::string format_time(std::chrono::system_clock::time_point time) {
  const auto second = std::chrono::floor<std::chrono::seconds>(time);
  const auto fraction = std::chrono::floor<std::chrono::milliseconds>(time - second);
  // As a time_point it would be taken for local time.
  const std::tm utc = fmt::gmtime(std::chrono::system_clock::to_time_t(second));
  return fmt::format("{:%FT%T}.{:03}Z", utc, fraction.count());
}

Result<std::uint64_t> parse_bytes(std::string_view text) {
  std::string_view rest = text;
  const std::optional<Decimal> decimal = take_decimal(rest);
  if (!decimal) return bad_bytes(text);
  const std::string name = lower_case(rest);
  const auto unit = std::find_if(kByteUnits.begin(), kByteUnits.end(),
                                 [&](const Unit& known) { return known.name == name; });
  if (unit == kByteUnits.end()) return bad_bytes(text);
  const std::optional<std::uint64_t> bytes = scaled(*decimal, unit->factor);
  if (!bytes) {
    return invalid(
        fmt::format("{} is out of range: a size is a whole number of bytes with at most "
                    "{} decimals of a unit, below 2^64.",
                    quoted(text), kDecimalsMax));
  }
  return *bytes;
}

std::string format_bytes(std::uint64_t bytes) {
  constexpr std::array<Unit, 5> kBinaryUnits{{{"PiB", 1ull << 50},
                                              {"TiB", 1ull << 40},
                                              {"GiB", 1ull << 30},
                                              {"MiB", 1ull << 20},
                                              {"KiB", 1ull << 10}}};
  for (const Unit& unit : kBinaryUnits) {
    if (bytes != 0 && bytes % unit.factor == 0) {
      return fmt::format("{}{}", bytes / unit.factor, unit.name);
    }
  }
  return fmt::format("{}", bytes);
}

Result<std::uint64_t> parse_count(std::string_view text) {
  if (text.empty() || !std::all_of(text.begin(), text.end(), is_digit)) {
    return invalid(
        fmt::format("{} is not a number: write decimal digits, e.g. 100.", quoted(text)));
  }
  const std::optional<std::uint64_t> value = digits_value(text);
  if (!value) {
    return invalid(fmt::format("{} is too large a number: the limit is {}.", quoted(text),
                               std::numeric_limits<std::uint64_t>::max()));
  }
  return *value;
}

std::string_view nearest_word(std::string_view word, std::span<const std::string_view> candidates) {
  constexpr std::size_t kWordBytesMax = 64;  // longer ones are no slips of the finger
  std::string_view nearest;
  if (word.empty() || word.size() > kWordBytesMax) return nearest;
  const std::string typed = lower_case(word);
  std::size_t nearest_distance = std::numeric_limits<std::size_t>::max();
  for (const std::string_view candidate : candidates) {
    if (candidate.empty() || candidate.size() > kWordBytesMax) continue;
    const std::string known = lower_case(candidate);
    // The beginning of a word is as near as one slip.
    const bool begins = typed.size() >= 3 && known.starts_with(typed);
    const std::size_t distance = begins ? 1 : edit_distance(typed, known);
    const std::size_t distance_max =
        std::max<std::size_t>(1, (std::max(typed.size(), known.size()) + 2) / 3);
    if (distance <= distance_max && distance < std::max(typed.size(), known.size()) &&
        distance < nearest_distance) {
      nearest = candidate;
      nearest_distance = distance;
    }
  }
  return nearest;
}

bool is_valid_utf8(std::string_view bytes) {
  // Most texts are ASCII, eight characters of which are seen to be so at a time.
  constexpr std::uint64_t kHighBits = 0x8080808080808080;
  std::uint64_t word = 0;
  while (bytes.size() >= sizeof(word)) {
    std::memcpy(&word, bytes.data(), sizeof(word));
    if ((word & kHighBits) != 0) break;
    bytes.remove_prefix(sizeof(word));
  }
  while (!bytes.empty()) {
    const std::size_t length = utf8_character_bytes(bytes);
    if (length == 0) return false;
    bytes.remove_prefix(length);
  }
  return true;
}

std::string_view cut_utf8(std::string_view text, std::size_t bytes_max) {
  if (text.size() <= bytes_max) return text;
  std::size_t end = bytes_max;
  while (end > 0 && (static_cast<unsigned char>(text[end]) & 0xC0u) == 0x80u) --end;
  return text.substr(0, end);
}

std::string printable(std::string_view text) {
  std::string out;
  while (!text.empty()) text.remove_prefix(append_printable(text, out));
  return out;
}

std::string Quoted::operator()(std::string_view text) const {
  constexpr std::size_t kQuotedBytesMax = 64;
  std::string out = "\"";
  std::size_t taken = 0;
  while (taken < text.size()) {
    const std::string_view rest = text.substr(taken);
    const std::size_t size_before = out.size();
    if (rest.front() == '"' || rest.front() == '\\') out += '\\';
    taken += append_printable(rest, out);
    if (taken > kQuotedBytesMax) {
      out.resize(size_before);
      out += "…";
      break;
    }
  }
  out += '"';
  return out;
}

Status check_queue_name(std::string_view name) {
  const auto refused = [&](std::string_view why) {
    return Status(ErrorCode::kNameInvalid,
                  fmt::format("{} is not a queue name: {}.", quoted(name), why));
  };
  if (name.empty()) return refused("it is empty");
  const std::size_t own_bytes =
      is_dead_queue_name(name) ? name.size() - kDeadSuffix.size() : name.size();
  if (own_bytes > kQueueNameBytesMax) {
    return refused(fmt::format("it has {} bytes, the limit is {}", own_bytes, kQueueNameBytesMax));
  }
  if (!is_letter(name.front()) && !is_digit(name.front())) {
    return refused("it must begin with a letter or a digit (A-Z a-z 0-9)");
  }
  const auto is_name_byte = [](char c) {
    return is_letter(c) || is_digit(c) || c == '.' || c == '_' || c == '-';
  };
  if (!std::all_of(name.begin(), name.end(), is_name_byte)) {
    return refused("it may contain only A-Z a-z 0-9 . _ -");
  }
  return Status();
}

bool is_dead_queue_name(std::string_view name) {
  return name.size() > kDeadSuffix.size() && name.ends_with(kDeadSuffix);
}

}  // namespace holdfast
