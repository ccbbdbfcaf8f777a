// The public Client: every method passes on to the implementation.

#include "holdfast/client.h"

#include <utility>

#include "client_impl.h"

namespace holdfast {

namespace {

Status moved_from() {
  return Status(ErrorCode::kInvalidArgument,
                "This Client was moved from. Use the one that it was moved to.");
}

}  // namespace

Result<Client> Client::connect(ClientOptions options) {
  return ClientImpl::connect(std::move(options), client::ClientTuning());
}

Client::Client(std::shared_ptr<ClientImpl> impl) : impl_(std::move(impl)) {}
Client::Client(Client&&) noexcept = default;

Client& Client::operator=(Client&& other) noexcept {
  if (this == &other) return *this;
  if (impl_ != nullptr) impl_->close();
  impl_ = std::move(other.impl_);
  return *this;
}

Client::~Client() {
  if (impl_ != nullptr) impl_->close();
}

Result<PublishReceipt> Client::publish(std::string_view queue, const Message& message) {
  if (impl_ == nullptr) return moved_from();
  return impl_->publish(queue, message);
}

void Client::publish_async(std::string_view queue, const Message& message, PublishDone done) {
  if (impl_ != nullptr) {
    impl_->publish_async(queue, message, std::move(done));
  } else if (done) {
    done(moved_from());
  }
}

std::future<Result<PublishReceipt>> Client::publish_future(std::string_view queue,
                                                           const Message& message) {
  const auto promise = std::make_shared<std::promise<Result<PublishReceipt>>>();
  std::future<Result<PublishReceipt>> future = promise->get_future();
  publish_async(queue, message, [promise](Result<PublishReceipt> result) {
    promise->set_value(std::move(result));
  });
  return future;
}

Status Client::flush() { return impl_ == nullptr ? moved_from() : impl_->flush(); }

Result<Consumer> Client::consume(std::string_view queue, ConsumeOptions options, Handler handler) {
  if (impl_ == nullptr) return moved_from();
  return impl_->consume(queue, options, std::move(handler));
}

Result<std::vector<Delivery>> Client::receive(std::string_view queue, std::uint32_t count,
                                              std::chrono::milliseconds wait,
                                              std::chrono::milliseconds lease) {
  if (impl_ == nullptr) return moved_from();
  return impl_->receive(queue, count, wait, lease);
}

Status Client::connection_status() const {
  return impl_ == nullptr ? moved_from() : impl_->connection_status();
}

Admin Client::admin() { return Admin(impl_); }

void Client::close() {
  if (impl_ != nullptr) impl_->close();
}

}  // namespace holdfast
