#include "io_loop.h"

#include <fmt/format.h>
#include <uv.h>

#include "base/check.h"

namespace holdfast::client {

struct IoLoop::Handles {
  explicit Handles(IoTurns& the_turns) : turns(the_turns) {}

  IoTurns& turns;
  uv_loop_t loop{};
  uv_async_t wake{};
  uv_prepare_t prepare{};
  uv_idle_t idle{};  // active while the loop must not sleep
  uv_timer_t timer{};
  std::uint64_t timer_at_ms = 0;
  bool opened = false;
};

IoLoop::IoLoop(IoTurns& turns) : handles_(std::make_unique<Handles>(turns)) {}

IoLoop::~IoLoop() {
  if (!handles_->opened) return;
  const int failure = uv_loop_close(&handles_->loop);
  CHECK(failure == 0, "the client's loop has open handles: {}", uv_strerror(failure));
}

Status IoLoop::open() {
  Handles& h = *handles_;
  if (const int failure = uv_loop_init(&h.loop); failure != 0) {
    return Status(ErrorCode::kInternal,
                  fmt::format("The client cannot make an event loop: {}.", uv_strerror(failure)));
  }
  if (const int failure = uv_async_init(&h.loop, &h.wake, [](uv_async_t*) {}); failure != 0) {
    uv_loop_close(&h.loop);
    return Status(ErrorCode::kInternal,
                  fmt::format("The client cannot open a descriptor for waking its thread: {}.",
                              uv_strerror(failure)));
  }
  h.opened = true;
  uv_prepare_init(&h.loop, &h.prepare);
  uv_idle_init(&h.loop, &h.idle);
  uv_timer_init(&h.loop, &h.timer);
  h.prepare.data = &h;
  uv_prepare_start(&h.prepare, [](uv_prepare_t* prepare) {
    auto* handles = static_cast<Handles*>(prepare->data);
    const bool more = handles->turns.turn();
    if (uv_is_closing(reinterpret_cast<uv_handle_t*>(&handles->idle)) != 0) return;
    if (more) {
      uv_idle_start(&handles->idle, [](uv_idle_t*) {});
    } else {
      uv_idle_stop(&handles->idle);
    }
  });
  return Status();
}

void IoLoop::run() { uv_run(&handles_->loop, UV_RUN_DEFAULT); }

void IoLoop::wake() { uv_async_send(&handles_->wake); }

std::uint64_t IoLoop::now_ms() const { return uv_now(&handles_->loop); }

void IoLoop::set_timer(std::uint64_t at_ms) {
  Handles& h = *handles_;
  if (h.timer_at_ms == at_ms && uv_is_active(reinterpret_cast<uv_handle_t*>(&h.timer)) != 0) return;
  h.timer_at_ms = at_ms;
  const std::uint64_t now = now_ms();
  uv_timer_start(
      &h.timer, [](uv_timer_t*) {}, at_ms > now ? at_ms - now : 0, 0);
}

void IoLoop::clear_timer() { uv_timer_stop(&handles_->timer); }

void IoLoop::close() {
  Handles& h = *handles_;
  for (uv_handle_t* handle :
       {reinterpret_cast<uv_handle_t*>(&h.wake), reinterpret_cast<uv_handle_t*>(&h.prepare),
        reinterpret_cast<uv_handle_t*>(&h.idle), reinterpret_cast<uv_handle_t*>(&h.timer)}) {
    if (uv_is_closing(handle) == 0) uv_close(handle, nullptr);
  }
}

uv_loop_s* IoLoop::raw() { return &handles_->loop; }

}  // namespace holdfast::client
