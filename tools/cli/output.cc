#include "cli/output.h"

#include <fmt/format.h>
#include <poll.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "base/check.h"

namespace holdfast::cli {
namespace {

constexpr std::size_t kPendingBytesMax = 64u << 10;
constexpr std::size_t kPendingRowsMax = 256;

}  // namespace

void Output::begin_list(std::vector<Column> columns) {
  list_items_ = 0;
  list_is_open_ = true;
  if (is_table()) table_.emplace(std::move(columns), width_);
}

void Output::row(std::vector<std::string> cells) {
  CHECK(table_.has_value());
  table_->add(std::move(cells));
  if (table_->pending_rows() >= kPendingRowsMax) flush();
}

void Output::object(const Json& json) {
  if (format_ == OutputFormat::kJson) pending_ += list_items_ == 0 ? "[\n" : ",\n";
  ++list_items_;
  pending_ += dump(json);
  if (format_ == OutputFormat::kJsonl) pending_ += '\n';
  write_if_much();
}

void Output::end_list() {
  list_is_open_ = false;
  if (format_ == OutputFormat::kJson) pending_ += list_items_ == 0 ? "[]\n" : "\n]\n";
  flush();
}

void Output::abandon_list() {
  if (list_is_open_ && list_items_ > 0) end_list();
  list_is_open_ = false;
  flush();
}

void Output::single(const Json& json) {
  if (format_ == OutputFormat::kJson) {
    pending_ += json.dump(2, ' ', false, Json::error_handler_t::replace);
  } else {
    pending_ += dump(json);
  }
  pending_ += '\n';
  write_if_much();
}

void Output::text(std::string_view text) {
  pending_ += text;
  write_if_much();
}

void Output::write_if_much() {
  if (pending_.size() >= kPendingBytesMax) flush();
}

bool Output::flush() {
  if (table_) pending_ += table_->render();
  std::string_view rest = pending_;
  while (!rest.empty() && status_.ok()) {
    const ssize_t written = ::write(file_descriptor_, rest.data(), rest.size());
    if (written >= 0) {
      rest.remove_prefix(static_cast<std::size_t>(written));
    } else if (errno != EINTR) {
      pipe_is_closed_ = errno == EPIPE;
      status_ = Status(ErrorCode::kStorageFailed,
                       fmt::format("Standard output cannot be written: {}.", std::strerror(errno)));
    }
  }
  pending_.clear();
  return status_.ok();
}

void Output::wait_while_read(std::chrono::milliseconds at_most) {
  pollfd waiting{file_descriptor_, 0, 0};
  const bool any = ::poll(&waiting, 1, static_cast<int>(at_most.count())) > 0;
  if (any && (waiting.revents & (POLLERR | POLLHUP)) != 0) note_closed_pipe();
}

}  // namespace holdfast::cli
