// holdfastd: reads the command line and the configuration, builds the parts, joins them, and runs
// until it is told to stop.
//
// Exit codes: 0 stopped as told; 64 command line or configuration; 65 the data directory is foreign
// or of a newer version; 69 an address is in use; 70 the store failed or an internal error; 75 the
// data directory is in use by another broker.

#include <fmt/format.h>
#include <signal.h>
#include <sys/resource.h>
#include <sysexits.h>
#include <unistd.h>
#include <uv.h>

#include <CLI/CLI.hpp>
#include <algorithm>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <latch>
#include <memory>
#include <random>
#include <sstream>
#include <string>
#include <string_view>
#include <system_error>
#include <thread>
#include <vector>

#include "base/standard_streams.h"
#include "config.h"
#include "holdfast/text.h"
#include "memory_trimmer.h"
#include "net/broker.h"
#include "net/listen_address.h"
#include "net/log.h"
#include "service_manager.h"
#include "store/faults.h"
#include "store/store.h"

namespace holdfast::broker {

namespace {

// Descriptors that are not connections: listeners, store, logs, the loop's own.
constexpr std::size_t kDescriptorsReserved = 64;
constexpr std::size_t kWorkerThreads = 4;  // of libuv's pool

int exit_code_of(const Status& status) {
  switch (status.code()) {
    case ErrorCode::kConfigInvalid:
    case ErrorCode::kInvalidArgument:
    case ErrorCode::kOperationRefused:
      return EX_USAGE;
    case ErrorCode::kDirectoryForeign:
    case ErrorCode::kDirectoryNewer:
      return EX_DATAERR;
    case ErrorCode::kAddressInUse:
      return EX_UNAVAILABLE;
    case ErrorCode::kDirectoryLocked:
      return EX_TEMPFAIL;
    default:
      return EX_SOFTWARE;
  }
}

int fail(const Status& status) {
  write_to_standard_error(fmt::format("holdfastd: {}\n", status.to_string()));
  return exit_code_of(status);
}

// To standard output.
int print(std::string_view text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0) {
    return EX_OK;
  }
  return fail(Status(ErrorCode::kInternal,
                     fmt::format("Standard output cannot be written: {}.", std::strerror(errno))));
}

// Raises the limit on open files as far as `connections_max` needs, and returns how many
// connections it has room for.
Result<std::size_t> raise_descriptor_limit(std::size_t connections_max) {
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return connections_max;
  const rlim_t wanted = connections_max + kDescriptorsReserved;
  if (limit.rlim_cur < wanted) {
    const rlim_t before = limit.rlim_cur;
    limit.rlim_cur = std::min(wanted, limit.rlim_max);
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0) limit.rlim_cur = before;
  }
  const std::size_t descriptors = limit.rlim_cur;
  if (descriptors <= kDescriptorsReserved) {
    return Status(
        ErrorCode::kLimitReached,
        fmt::format("The limit on open files is {}, and at least {} are needed: {} for the "
                    "broker itself and one for each connection. Raise it (ulimit -n).",
                    descriptors, kDescriptorsReserved + 1, kDescriptorsReserved));
  }
  return std::min(connections_max, descriptors - kDescriptorsReserved);
}

// Whether the system gives the threads that the broker has beside its loop: as many as libuv's
// pool, which reads for it and would abort, and those of the committer and the trimmer.
Status check_threads() {
  setenv("UV_THREADPOOL_SIZE", fmt::format("{}", kWorkerThreads).c_str(), 1);
  std::latch tried(1);
  std::vector<std::jthread> threads;
  Status status;
  try {
    while (threads.size() < kWorkerThreads + 2) threads.emplace_back([&tried] { tried.wait(); });
  } catch (const std::system_error& refused) {
    status = Status(ErrorCode::kLimitReached,
                    fmt::format("The system gives the broker {} threads beside its first and "
                                "refuses the next ({}); {} are needed. Raise the limit on "
                                "processes (ulimit -u), or TasksMax of its unit or the limit on "
                                "pids of its container.",
                                threads.size(), refused.code().message(), kWorkerThreads + 2));
  }
  tried.count_down();
  return status;
}

HashKey random_hash_key() {
  std::random_device device;
  const auto number = [&device] { return std::uint64_t{device()} << 32 | device(); };
  return {.a = number(), .b = number()};
}

BrokerOptions options_of(const Config& config) {
  BrokerOptions options;
  options.listen = config.listen;
  options.unix_path = config.unix_path;
  options.data_directory = config.data;
  options.core.queues_max = static_cast<std::uint32_t>(config.queues_max);
  options.core.consumers_max = static_cast<std::uint32_t>(config.consumers_max);
  options.core.cache_bytes_max = config.cache_bytes_max;
  options.core.dedup.ids_max = config.dedup_ids_max;
  options.core.hash_key = random_hash_key();
  options.session.broker_version = HOLDFAST_VERSION;
  options.session.heartbeat = Milliseconds(config.heartbeat_ms);
  options.session.unconfirmed_bytes_max = config.unconfirmed_bytes_max;
  options.session.queue_defaults = config.queue_defaults;
  options.deadlines.handshake = Milliseconds(config.handshake_ms);
  options.deadlines.frame = Milliseconds(config.frame_ms);
  options.deadlines.stall = Milliseconds(config.slow_reader_ms);
  options.limits.output_bytes_high = config.output_bytes_high;
  options.limits.output_bytes_low = config.output_bytes_high / 4;
  options.limits.output_bytes_total_max = config.output_bytes_total_max;
  options.limits.unconfirmed_bytes_total_max = config.unconfirmed_bytes_total_max;
  options.limits.answers_bytes_total_max = config.answers_bytes_total_max;
  options.limits.input_bytes_total_max = config.input_bytes_total_max;
  options.drain = Milliseconds(config.drain_ms);
  return options;
}

StoreOptions store_options_of(const Config& config) {
  StoreOptions options;
  options.directory = config.data;
  options.size_bytes_max = config.disk_bytes_max;
  options.preallocate_bytes = config.preallocate_bytes;
  options.allow_network_file_system = config.allow_network_file_system != 0;
  return options;
}

bool is_ignored(int signal_number) {
  struct sigaction action {};
  return sigaction(signal_number, nullptr, &action) == 0 && action.sa_handler == SIG_IGN;
}

// SIGTERM, SIGINT and SIGHUP: the first drains, the second stops at once. Who starts the broker may
// have had the latter two ignored, as nohup does.
class StopSignals {
 public:
  StopSignals(uv_loop_t& loop, Broker& broker) : loop_(loop) {
    const int numbers[] = {SIGTERM, SIGINT, SIGHUP};
    for (std::size_t index = 0; index < std::size(signals_); ++index) {
      uv_signal_init(&loop_, &signals_[index]);
      if (numbers[index] != SIGTERM && is_ignored(numbers[index])) continue;
      signals_[index].data = &broker;
      uv_signal_start(
          &signals_[index],
          [](uv_signal_t* handle, int) {
            // Where that fails, the start has told so.
            [[maybe_unused]] const Status told = tell_service_manager("STOPPING=1");
            static_cast<Broker*>(handle->data)->request_drain();
          },
          numbers[index]);
    }
  }
  ~StopSignals() {
    for (uv_signal_t& handle : signals_) uv_close(reinterpret_cast<uv_handle_t*>(&handle), nullptr);
    uv_run(&loop_, UV_RUN_NOWAIT);
  }
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;

 private:
  uv_loop_t& loop_;
  uv_signal_t signals_[3];
};

std::string joined(const std::vector<std::string>& words) {
  return fmt::format("{}", fmt::join(words, " and "));
}

int serve(const Config& config) {
  signal(SIGPIPE, SIG_IGN);
  signal(SIGXFSZ, SIG_IGN);  // a file that may not grow is told as an error
  // With other programs they mean "look again" and the like; here they must not end it undrained.
  signal(SIGUSR1, SIG_IGN);
  signal(SIGUSR2, SIG_IGN);
  const Result<std::size_t> connections_max = raise_descriptor_limit(config.connections_max);
  if (!connections_max.ok()) return fail(connections_max.status());
  BrokerOptions options = options_of(config);
  options.limits.connections_max = *connections_max;
  if (Status status = check_threads(); !status.ok()) return fail(status);
  explain_faults("holdfastd", config.data);
  Result<std::unique_ptr<Store>> store = Store::open(store_options_of(config));
  if (!store.ok()) return fail(store.status());

  Log log(stderr);
  if (options.limits.connections_max < config.connections_max) {
    log.warning("The limit on open files allows {} connections; connections_max is {}.",
                options.limits.connections_max, config.connections_max);
  }
  const MemoryTrimmer trimmer;
  uv_loop_t loop;
  if (const int error = uv_loop_init(&loop); error != 0) {
    return fail(Status(ErrorCode::kInternal,
                       fmt::format("The event loop cannot be made: {}.", uv_strerror(error))));
  }
  // The pool would be made with the first read, when there may be no thread left.
  uv_work_t nothing;
  uv_queue_work(
      &loop, &nothing, [](uv_work_t*) {}, [](uv_work_t*, int) {});
  int exit_code = EX_OK;
  {
    Result<std::unique_ptr<Broker>> broker = Broker::start(loop, **store, log, std::move(options));
    if (!broker.ok()) {
      exit_code = fail(broker.status());
    } else {
      const StopSignals signals(loop, **broker);
      const std::string ready =
          fmt::format("ready on {}, data in {}", joined((*broker)->addresses()), config.data);
      write_to_standard_error(fmt::format("holdfastd {} {}\n", HOLDFAST_VERSION, ready));
      if (const Status told = tell_service_manager("READY=1\nSTATUS=" + ready); !told.ok()) {
        log.warning("{}", told.message());
      }
      // Nothing may leave the process any more: not even an orderly end.
      if (const Status status = (*broker)->run(); !status.ok()) _exit(exit_code_of(status));
      log.info("Stopped.");
    }
  }
  uv_loop_close(&loop);
  return exit_code;
}

struct CommandLine {
  std::string data;
  std::string listen;
  std::string unix_path;
  std::string config_file;
  bool check_config = false;
};

// For people who were not there when the broker was started. What is given from the root on stays
// as it is written.
Result<std::string> absolute_path(const std::string& path) {
  if (path.starts_with('/')) return path;
  std::error_code error;
  const std::filesystem::path begin = std::filesystem::current_path(error);
  if (error) {
    return Status(
        ErrorCode::kConfigInvalid,
        fmt::format("The data directory {} begins in the working directory, which cannot be told: "
                    "{}. Give it from the root on.",
                    quoted(path), error.message()));
  }
  const std::filesystem::path whole = std::filesystem::weakly_canonical(begin / path, error);
  return error ? (begin / path).string() : whole.string();
}

Result<Config> configuration_of(const CommandLine& line, const CLI::App& app) {
  Config config;
  if (app.count("--config") > 0) {
    if (line.config_file.empty()) {
      return Status(ErrorCode::kConfigInvalid,
                    "--config names no file: say --config FILE, or leave it out for the defaults.");
    }
    Result<Config> read = read_config_file(line.config_file);
    if (!read.ok()) return read.status();
    config = std::move(*read);
  }
  if (app.count("--data") > 0) config.data = line.data;
  if (app.count("--listen") > 0) config.listen = line.listen;
  if (app.count("--unix") > 0) config.unix_path = line.unix_path;
  if (config.data.empty()) {
    return Status(ErrorCode::kConfigInvalid,
                  "No data directory is given: say --data DIR, or data = \"DIR\" under [broker] in "
                  "the configuration file.");
  }
  Result<std::string> data = absolute_path(config.data);
  if (!data.ok()) return data.status();
  config.data = std::move(*data);
  if (config.listen.empty() && config.unix_path.empty()) {
    return Status(ErrorCode::kConfigInvalid,
                  "There is nothing to listen on: give --listen HOST:PORT or --unix PATH.");
  }
  if (!config.unix_path.empty()) {
    if (Status status = check_unix_path(config.unix_path); !status.ok()) return status;
  }
  if (!config.listen.empty()) {
    if (auto address = resolve_listen_address(config.listen); !address.ok()) {
      return address.status();
    }
  }
  return config;
}

int run(int argc, char** argv) {
  if (const Status streams = hold_standard_streams(); !streams.ok()) return fail(streams);
  CLI::App app("The Holdfast message broker.", "holdfastd");
  CommandLine line;
  // Of an option given twice the later counts: a unit's options may be added to.
  app.option_defaults()->take_last();
  app.add_option("--data", line.data, "Directory of the store; made if it does not exist")
      ->option_text("DIR");
  app.add_option("--listen", line.listen,
                 "Address to listen on (127.0.0.1:7411); port 0: a free one")
      ->option_text("HOST:PORT");
  app.add_option("--unix", line.unix_path, "Unix socket to listen on as well")->option_text("PATH");
  app.add_option("--config", line.config_file, "Configuration file in TOML")->option_text("FILE");
  app.add_flag("--check-config", line.check_config,
               "Print the configuration as it would be used, and exit");
  app.set_version_flag("--version", std::string("holdfastd ") + HOLDFAST_VERSION);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    std::ostringstream shown;
    std::ostringstream refused;
    if (app.exit(error, shown, refused) == 0) return print(shown.str());
    write_to_standard_error(refused.str());
    return EX_USAGE;
  }
  const Result<Config> config = configuration_of(line, app);
  if (!config.ok()) return fail(config.status());
  if (line.check_config) return print(format_config(*config));
  return serve(*config);
}

}  // namespace

}  // namespace holdfast::broker

int main(int argc, char** argv) { return holdfast::broker::run(argc, argv); }
