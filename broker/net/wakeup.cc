#include "net/wakeup.h"

#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "base/check.h"

namespace holdfast::broker {

Wakeup::Wakeup(uv_loop_t& loop, std::function<void()> woken)
    : descriptor_(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)), woken_(std::move(woken)) {
  CHECK(descriptor_ >= 0, "eventfd: {}", std::strerror(errno));
  CHECK(uv_poll_init(&loop, &poll_, descriptor_) == 0);
  poll_.data = this;
  const int error = uv_poll_start(&poll_, UV_READABLE, [](uv_poll_t* poll, int, int) {
    const Wakeup* const self = static_cast<Wakeup*>(poll->data);
    std::uint64_t count = 0;
    static_cast<void>(::read(self->descriptor_, &count, sizeof(count)));
    self->woken_();
  });
  CHECK(error == 0, "uv_poll_start: {}", uv_strerror(error));
}

Wakeup::~Wakeup() {
  CHECK(closed_, "what wakes the loop is destroyed while in use");
  ::close(descriptor_);
}

// Fails only when it was not read 2^64 - 2 times.
void Wakeup::wake() const {
  const std::uint64_t one = 1;
  static_cast<void>(::write(descriptor_, &one, sizeof(one)));
}

void Wakeup::close() {
  uv_close(reinterpret_cast<uv_handle_t*>(&poll_),
           [](uv_handle_t* handle) { static_cast<Wakeup*>(handle->data)->closed_ = true; });
}

}  // namespace holdfast::broker
