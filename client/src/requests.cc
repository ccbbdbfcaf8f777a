#include "requests.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace holdfast::client {

std::vector<std::uint8_t> table_bytes(flatbuffers::FlatBufferBuilder& builder) {
  return {builder.GetBufferPointer(), builder.GetBufferPointer() + builder.GetSize()};
}

std::uint64_t Requests::add(Request request) {
  const std::uint64_t token = next_token_++;
  waiting_.emplace(token, std::make_shared<const Request>(std::move(request)));
  unsent_.push_back(token);
  return token;
}

void Requests::cancel(std::uint64_t token) {
  waiting_.erase(token);
  sent_.erase(token);
}

void Requests::pump(FrameWriter& output) {
  while (!unsent_.empty()) {
    const std::uint64_t token = unsent_.front();
    unsent_.pop_front();
    const auto found = waiting_.find(token);
    if (found == waiting_.end()) continue;  // cancelled
    output.append(found->second->type, token, found->second->body);
    sent_.insert(waiting_.extract(found));
  }
}

void Requests::on_frame(const Frame& frame) {
  const auto found = sent_.find(frame.correlation);
  if (found == sent_.end()) return;
  if (frame.type != wire::FrameType_Error) {
    // The callback may add or cancel requests, and so move or end this very one.
    const std::shared_ptr<const Request> request = found->second;
    const Result<bool> last = request->on_frame(frame);
    if (!last.ok()) {
      finish(frame.correlation, last.status());
    } else if (*last) {
      sent_.erase(frame.correlation);
    }
    return;
  }
  const auto* error = read_table<wire::Error>(frame.body);
  Status status(ErrorCode::kFrameMalformed, "The broker's Error is malformed.");
  if (error != nullptr) {
    status = Status(static_cast<ErrorCode>(error->code()), std::string(view(error->message())));
  }
  if (status.code() == ErrorCode::kDraining && found->second->when_lost != WhenLost::kFail) {
    refused_.push_back(frame.correlation);
    waiting_.insert(sent_.extract(found));
  } else {
    finish(frame.correlation, status);
  }
}

void Requests::finish(std::uint64_t token, const Status& failure) {
  const auto node = sent_.extract(token);
  if (node.empty() || !node.mapped()->on_failed) return;
  node.mapped()->on_failed(failure);
}

void Requests::connection_lost(const Status& why) {
  std::vector<std::uint64_t> again = std::exchange(refused_, {});
  std::vector<std::uint64_t> failed;
  for (const auto& [token, request] : sent_) {
    (request->when_lost == WhenLost::kAskAgain ? again : failed).push_back(token);
  }
  for (const std::uint64_t token : std::exchange(unsent_, {})) {
    const auto found = waiting_.find(token);
    if (found == waiting_.end()) continue;  // cancelled
    if (found->second->when_lost == WhenLost::kFail) {
      sent_.insert(waiting_.extract(found));
      failed.push_back(token);
    } else {
      again.push_back(token);
    }
  }
  std::sort(again.begin(), again.end());
  std::sort(failed.begin(), failed.end());
  for (const std::uint64_t token : again) {
    if (auto node = sent_.extract(token); !node.empty()) {
      if (node.mapped()->on_repeat) node.mapped()->on_repeat();
      waiting_.insert(std::move(node));
    }
  }
  unsent_.assign(again.begin(), again.end());
  const Status lost(ErrorCode::kConnectionLost,
                    fmt::format("The connection was lost before the broker answered, so it is not "
                                "known whether the request was done: {}",
                                why.message()));
  for (const std::uint64_t token : failed) finish(token, lost);
}

void Requests::fail_all(const Status& why) {
  unsent_.clear();
  refused_.clear();
  auto requests = std::exchange(waiting_, {});
  requests.merge(sent_);
  sent_.clear();
  for (const auto& [token, request] : requests) {
    if (request->on_failed) request->on_failed(why);
  }
}

}  // namespace holdfast::client
