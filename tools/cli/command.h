// A command of the tool: what may be typed after it, and what it then does.
//
// CLI11 stands behind it. It is seen by command.cc and command_line.cc alone, because every file
// that includes it takes the compiler three times as long.

#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "cli/exit_code.h"

namespace CLI {
class App;
}

namespace holdfast::cli {

class Session;

// What a command does once the whole command line is understood.
using Action = std::function<ExitCode(Session&)>;

struct Argument {
  std::string name;        // "-n,--count" of an option; else "QUEUE", which is told by its place
  std::string meaning;     // for the help
  std::string value = {};  // what the help calls its value; empty: by its type
  bool required = false;
};

// A handle, to be copied.
class Command {
 public:
  // The whole tool. `app` and `chosen` outlive it; `chosen` becomes the action of the command that
  // is typed.
  Command(CLI::App& app, Action& chosen) : app_(&app), chosen_(&chosen) {}

  // One that has commands of its own, of which one must be typed.
  Command add_group(const std::string& name, const std::string& meaning) const;
  Command add(const std::string& name, const std::string& meaning) const;
  void does(Action action) const;

  // What is typed goes to the target, which keeps its value if nothing is. The target must be there
  // as long as the command line is parsed: `does` keeps what its action holds.
  void take(const Argument& argument, std::string& target) const;
  void take(const Argument& argument, std::optional<std::string>& target) const;
  // As often as it is typed.
  void take(const Argument& argument, std::vector<std::string>& target) const;
  void take(const Argument& argument, double& target) const;
  void take_number(const Argument& argument, std::uint64_t& target, std::uint64_t value_min,
                   std::uint64_t value_max) const;
  void take_number(const Argument& argument, std::optional<std::uint64_t>& target,
                   std::uint64_t value_min, std::uint64_t value_max) const;
  void take_duration(const Argument& argument,
                     std::optional<std::chrono::milliseconds>& target) const;
  // `refusal` of a text is empty, or a sentence that says why it cannot be.
  void take_each(const Argument& argument, const std::function<void(const std::string&)>& put,
                 std::function<std::string(const std::string&)> refusal = {}) const;
  // Without a value: true if it is typed.
  void take_flag(const std::string& name, bool& target, const std::string& meaning) const;

 private:
  // A number within these bounds; `put` is called with one that is.
  void take_bounded(const Argument& argument, std::uint64_t value_min, std::uint64_t value_max,
                    const std::function<void(std::uint64_t)>& put) const;

  CLI::App* app_;
  Action* chosen_;
};

}  // namespace holdfast::cli
