// Wakes a loop from other threads.
//
// In place of uv_async_t: that of libuv 1.44 lets the loop, once awake, spin until the thread that
// woke it has returned from its system call, which on a virtual machine takes as long as waking the
// other processor does. A twelfth of the broker's processor time went there when many producers
// waited for their confirms one message at a time.

#pragma once

#include <uv.h>

#include <functional>

namespace holdfast::broker {

class Wakeup {
 public:
  // `woken` is called on the loop's thread, at least once after each wake(): several may count as
  // one. The loop outlives the object.
  Wakeup(uv_loop_t& loop, std::function<void()> woken);
  ~Wakeup();
  Wakeup(const Wakeup&) = delete;
  Wakeup& operator=(const Wakeup&) = delete;

  // Any thread, until close().
  void wake() const;

  // The loop's thread; `woken` is not called any more. Then run the loop until closed(): only then
  // may the object be destroyed.
  void close();
  bool closed() const { return closed_; }

 private:
  int descriptor_;
  std::function<void()> woken_;
  uv_poll_t poll_;
  bool closed_ = false;
};

}  // namespace holdfast::broker
