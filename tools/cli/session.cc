#include "cli/session.h"

#include <fmt/format.h>

#include <utility>
#include <vector>

#include "holdfast/text.h"

namespace holdfast::cli {

Status Session::connect(Reconnect reconnect, std::chrono::milliseconds wait) {
  ClientOptions options(options_.address);
  options.timeout = options_.timeout + wait;
  options.on_draining = [this] { broker_drains_ = true; };
  options.reconnect = false;  // connect() tries once
  Result<Client> first = Client::connect(options);
  if (!first.ok()) return with_address(first.status());
  if (reconnect == Reconnect::kNo) {
    client_.emplace(std::move(first).value());
    return Status();
  }
  options.reconnect = true;
  Result<Client> lasting = Client::connect(options);
  if (!lasting.ok()) return with_address(lasting.status());
  client_.emplace(std::move(lasting).value());
  return Status();
}

Status Session::connect_for(std::string_view queue) {
  const Status name = check_queue_name(queue);
  return name.ok() ? connect() : name;
}

Status Session::with_address(const Status& status) const {
  const bool is_of_environment = options_.address_source == AddressSource::kEnvironment;
  const bool is_named = status.message().find(options_.address) != std::string::npos;
  if (is_named && !is_of_environment) return status;
  return Status(status.code(),
                fmt::format("{} The address is {}{}.", status.message(), options_.address,
                            is_of_environment ? ", from HOLDFAST_URL" : ""));
}

ExitCode Session::fail(const Status& status, std::string_view queue) {
  output_.abandon_list();  // what is already true is printed before what went wrong
  const bool is_about_queue = status.code() == ErrorCode::kQueueNotFound && !queue.empty();
  console_.error(
      Status(status.code(), status.message() + (is_about_queue ? suggestion_for(queue) : "")));
  return exit_code_for(status.code());
}

ExitCode Session::finish(ExitCode code, std::string_view done) {
  console_.end_progress();
  if (output_.flush()) return code;
  if (output_.pipe_is_closed()) return code;
  const Status& status = output_.status();
  return done.empty() ? fail(status)
                      : fail(Status(status.code(), fmt::format("{} {}", status.message(), done)));
}

ExitCode Session::finish_interrupted(const std::string& done, std::string_view rest) {
  fail(Status(ErrorCode::kCancelled, fmt::format("Interrupted. {}{}", done, rest)));
  return finish(ExitCode::kInterrupted, done + ".");
}

std::string Session::suggestion_for(std::string_view queue) {
  if (!client_) return {};
  const Result<std::vector<QueueReport>> queues = admin().queues();
  if (!queues.ok()) return {};
  std::vector<std::string_view> names;
  for (const QueueReport& report : *queues) names.push_back(report.name);
  const std::string_view nearest = nearest_word(queue, names);
  return nearest.empty() ? std::string() : fmt::format(" Did you mean {}?", quoted(nearest));
}

}  // namespace holdfast::cli
