// One run of the tool: its options, its two ends (output and console), its connection.

#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "cli/console.h"
#include "cli/exit_code.h"
#include "cli/output.h"
#include "holdfast/client.h"
#include "holdfast/status.h"

namespace holdfast::cli {

enum class AddressSource { kDefault, kEnvironment, kCommandLine };

struct SessionOptions {
  std::string address = "127.0.0.1:7411";
  AddressSource address_source = AddressSource::kDefault;
  OutputFormat format = OutputFormat::kTable;
  bool quiet = false;
  std::chrono::milliseconds timeout{30'000};  // of each request
};

enum class Reconnect { kNo, kYes };

class Session {
 public:
  // `output` and `console` outlive the session.
  Session(SessionOptions options, Output& output, Console& console)
      : options_(std::move(options)), output_(output), console_(console) {}

  const SessionOptions& options() const { return options_; }
  Output& output() { return output_; }
  Console& console() { return console_; }

  // Connects, once and without waiting for a broker that is not there. `wait` is added to the
  // timeout of requests. With kYes a connection that is lost later is made again.
  Status connect(Reconnect reconnect = Reconnect::kNo, std::chrono::milliseconds wait = {});
  // The same, for a command about this queue, whose name is checked before.
  Status connect_for(std::string_view queue);
  // An error of connecting, with the address where it does not name it, or where that comes out of
  // the environment.
  Status with_address(const Status& status) const;
  // Whether the broker has said that it stops.
  bool broker_drains() const { return broker_drains_; }
  // Only after connect() returned ok.
  Client& client() { return *client_; }
  Admin admin() { return client_->admin(); }

  // Reports the error; for a queue that does not exist, with the nearest name that does.
  ExitCode fail(const Status& status, std::string_view queue = {});
  // Writes what is left of the output, and reports if that fails. Then `done`, a sentence, tells
  // what the command has changed: what would have told it was not written.
  ExitCode finish(ExitCode code = ExitCode::kDone, std::string_view done = {});
  // The same for a command that an interrupt cut short: `done`, which lacks its period, is said in
  // any case, with `rest` behind it, which tells of what is not done.
  ExitCode finish_interrupted(const std::string& done, std::string_view rest);

 private:
  std::string suggestion_for(std::string_view queue);

  SessionOptions options_;
  Output& output_;
  Console& console_;
  std::atomic<bool> broker_drains_{false};  // set on the client's I/O thread
  std::optional<Client> client_;
};

}  // namespace holdfast::cli
