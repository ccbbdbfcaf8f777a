// The command line of a harness. CLI11 stands behind it, which takes the compiler longer than most
// harnesses do.
//
//   CommandLine line("Kills a broker at random moments.");
//   line.seed(&options.seed, "Replays the choices of a run");
//   line.number("--rounds", &options.rounds, "Rounds that count", {.min = 1});
//   line.parse(argc, argv);
//
// What the options write to outlives parse(), and keeps what it holds if its option is not given.

#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace holdfast::test {

// Both are allowed.
struct Bounds {
  double min = 0;
  double max = 1e15;
};

class CommandLine {
 public:
  explicit CommandLine(const std::string& what);
  CommandLine(const CommandLine&) = delete;
  CommandLine& operator=(const CommandLine&) = delete;
  ~CommandLine();

  // --seed, by chance if it is not given.
  void seed(std::uint64_t* seed, const std::string& text);
  void number(const std::string& name, std::uint64_t* number, const std::string& text,
              Bounds bounds = {});
  void number(const std::string& name, std::uint32_t* number, const std::string& text,
              Bounds bounds = {.min = 0, .max = 4'294'967'295});
  void number(const std::string& name, double* number, const std::string& text, Bounds bounds = {});
  void text(const std::string& name, std::string* value, const std::string& text);
  void choice(const std::string& name, std::string* value, const std::vector<std::string>& choices,
              const std::string& text);
  // Of a file that is there; the option must be given.
  void file(const std::string& name, std::string* path, const std::string& text);
  void flag(const std::string& name, bool* flag, const std::string& text);

  // Ends the process after --help, with 0, and with 64 after telling what was not understood.
  void parse(int argc, char** argv);
  // After parse().
  bool is_given(const std::string& name) const;

 private:
  struct Parser;
  std::unique_ptr<Parser> parser_;
};

}  // namespace holdfast::test
