// Looks: the check and a broker at a data directory, each in a process of its own, which damage may
// end.

#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "corrupt/serving.h"

namespace holdfast::corrupt {

inline constexpr int kExitFindings = 1;  // of the check
inline constexpr int kExitStatus = 70;   // why is on standard error

struct Ending {
  int status = 0;  // of waitpid
  bool timed_out = false;
  std::uint64_t memory_bytes = 0;  // at most
  std::string said;                // on standard error

  bool exited_with(int code) const;
  // 0: it ended by an exit code. SIGBUS is told, and then exits, see store/faults.h.
  int signal() const;
};

class Looks {
 public:
  explicit Looks(std::string directory);
  ~Looks();
  Looks(const Looks&) = delete;
  Looks& operator=(const Looks&) = delete;

  Ending check();
  Ending serve(const ServingPlan& plan);
  // What the broker of the last serve() did.
  const ServingResult& result() const { return *result_; }

  // They end by themselves, within a minute and a bound on their memory; where they end early they
  // say why in a sentence that names the data directory.
  std::optional<std::string> judge_ending(std::string_view who, const Ending& ending,
                                          bool signal_allowed) const;

 private:
  template <typename Body>
  Ending in_child(const Body& body);

  const std::string directory_;
  ServingResult* result_;  // shared with the child
};

}  // namespace holdfast::corrupt
