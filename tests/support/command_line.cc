#include "support/command_line.h"

#include <CLI/CLI.hpp>
#include <cstdlib>
#include <random>

namespace holdfast::test {

namespace {

constexpr int kUsageError = 64;

template <typename Number>
void add_number(CLI::App& app, const std::string& name, Number* number, const std::string& text,
                const Bounds& bounds) {
  app.add_option(name, *number, text)
      ->capture_default_str()
      ->check(CLI::Range(static_cast<Number>(bounds.min), static_cast<Number>(bounds.max)));
}

}  // namespace

struct CommandLine::Parser {
  explicit Parser(const std::string& what) : app(what) {}
  CLI::App app;
};

CommandLine::CommandLine(const std::string& what) : parser_(std::make_unique<Parser>(what)) {}
CommandLine::~CommandLine() = default;

void CommandLine::seed(std::uint64_t* seed, const std::string& text) {
  *seed = std::random_device()();
  parser_->app.add_option("--seed", *seed, text);
}

void CommandLine::number(const std::string& name, std::uint64_t* number, const std::string& text,
                         Bounds bounds) {
  add_number(parser_->app, name, number, text, bounds);
}

void CommandLine::number(const std::string& name, std::uint32_t* number, const std::string& text,
                         Bounds bounds) {
  add_number(parser_->app, name, number, text, bounds);
}

void CommandLine::number(const std::string& name, double* number, const std::string& text,
                         Bounds bounds) {
  add_number(parser_->app, name, number, text, bounds);
}

void CommandLine::text(const std::string& name, std::string* value, const std::string& text) {
  parser_->app.add_option(name, *value, text)->capture_default_str();
}

void CommandLine::choice(const std::string& name, std::string* value,
                         const std::vector<std::string>& choices, const std::string& text) {
  parser_->app.add_option(name, *value, text)->capture_default_str()->check(CLI::IsMember(choices));
}

void CommandLine::file(const std::string& name, std::string* path, const std::string& text) {
  parser_->app.add_option(name, *path, text)->required()->check(CLI::ExistingFile);
}

void CommandLine::flag(const std::string& name, bool* flag, const std::string& text) {
  parser_->app.add_flag(name, *flag, text);
}

void CommandLine::parse(int argc, char** argv) {
  try {
    parser_->app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    std::exit(parser_->app.exit(error) == 0 ? EXIT_SUCCESS : kUsageError);
  }
}

bool CommandLine::is_given(const std::string& name) const { return parser_->app.count(name) > 0; }

}  // namespace holdfast::test
