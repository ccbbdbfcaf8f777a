#include "cli/command.h"

#include <fmt/format.h>

#include <CLI/CLI.hpp>
#include <charconv>
#include <cmath>
#include <system_error>
#include <utility>

#include "holdfast/text.h"

namespace holdfast::cli {
namespace {

void describe(CLI::Option& option, const Argument& argument) {
  if (!argument.value.empty()) option.type_name(argument.value);
  option.required(argument.required);
}

Argument with_value(const Argument& argument, const std::string& value) {
  Argument named = argument;
  if (named.value.empty()) named.value = value;
  return named;
}

// A finite one, as "100" and "2.5" are.
std::optional<double> parse_decimal(const std::string& text) {
  double number = 0;
  const char* const end = text.data() + text.size();
  const auto [stopped_at, error] = std::from_chars(text.data(), end, number);
  const bool is_number = error == std::errc() && stopped_at == end && std::isfinite(number);
  return is_number ? std::optional(number) : std::nullopt;
}

}  // namespace

Command Command::add_group(const std::string& name, const std::string& meaning) const {
  const Command group = add(name, meaning);
  group.app_->require_subcommand(1);
  return group;
}

Command Command::add(const std::string& name, const std::string& meaning) const {
  return {*app_->add_subcommand(name, meaning), *chosen_};
}

void Command::does(Action action) const {
  app_->callback([chosen = chosen_, action = std::move(action)] { *chosen = action; });
}

void Command::take(const Argument& argument, std::string& target) const {
  describe(*app_->add_option(argument.name, target, argument.meaning), argument);
}

void Command::take(const Argument& argument, std::optional<std::string>& target) const {
  take_each(argument, [&target](const std::string& text) { target = text; });
}

void Command::take(const Argument& argument, std::vector<std::string>& target) const {
  CLI::Option& option = *app_->add_option(argument.name, target, argument.meaning);
  describe(option, argument);
  // An option has one value each time; what follows that stands for itself.
  if (argument.name.starts_with('-')) option.allow_extra_args(false);
}

void Command::take(const Argument& argument, double& target) const {
  const auto put = [&target](const std::string& text) {
    target = parse_decimal(text).value_or(target);
  };
  const auto refusal = [](const std::string& text) {
    return parse_decimal(text) ? std::string()
                               : fmt::format(
                                     "{} is not a number: write it in decimal digits, e.g. "
                                     "100 or 2.5.",
                                     quoted(text));
  };
  take_each(argument, put, refusal);
}

void Command::take_number(const Argument& argument, std::uint64_t& target, std::uint64_t value_min,
                          std::uint64_t value_max) const {
  take_bounded(argument, value_min, value_max,
               [&target](std::uint64_t number) { target = number; });
}

void Command::take_number(const Argument& argument, std::optional<std::uint64_t>& target,
                          std::uint64_t value_min, std::uint64_t value_max) const {
  take_bounded(argument, value_min, value_max,
               [&target](std::uint64_t number) { target = number; });
}

void Command::take_bounded(const Argument& argument, std::uint64_t value_min,
                           std::uint64_t value_max,
                           const std::function<void(std::uint64_t)>& put) const {
  const auto put_text = [put](const std::string& text) {
    const Result<std::uint64_t> number = parse_count(text);
    if (number.ok()) put(*number);
  };
  const auto refusal = [value_min, value_max](const std::string& text) {
    const Result<std::uint64_t> number = parse_count(text);
    if (!number.ok()) return number.status().message();
    if (*number >= value_min && *number <= value_max) return std::string();
    return fmt::format("{} is out of bounds: {} to {}.", text, value_min, value_max);
  };
  take_each(with_value(argument, "N"), put_text, refusal);
}

void Command::take_duration(const Argument& argument,
                            std::optional<std::chrono::milliseconds>& target) const {
  const auto put = [&target](const std::string& text) {
    const Result<std::uint64_t> duration = parse_duration_ms(text);
    if (duration.ok()) target = std::chrono::milliseconds(*duration);
  };
  const auto refusal = [](const std::string& text) {
    const Result<std::uint64_t> duration = parse_duration_ms(text);
    return duration.ok() ? std::string() : duration.status().message();
  };
  take_each(with_value(argument, "DURATION"), put, refusal);
}

void Command::take_each(const Argument& argument,
                        const std::function<void(const std::string&)>& put,
                        std::function<std::string(const std::string&)> refusal) const {
  CLI::Option& option =
      *app_->add_option_function<std::string>(argument.name, put, argument.meaning);
  describe(option, argument);
  if (refusal) option.check(std::move(refusal));
}

void Command::take_flag(const std::string& name, bool& target, const std::string& meaning) const {
  app_->add_flag(name, target, meaning);
}

}  // namespace holdfast::cli
