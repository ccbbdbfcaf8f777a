// The event loop of one client and the thread that runs it.
//
// A turn of the loop ends with IoTurns::turn(), right before the loop would sleep: there everything
// that callers and callbacks left to be done is done, and what is to be sent leaves in one write.

#pragma once

#include <cstdint>
#include <memory>

#include "holdfast/status.h"

struct uv_loop_s;

namespace holdfast::client {

class IoTurns {
 public:
  // Called before the loop sleeps. True: there is more to do, poll without sleeping.
  virtual bool turn() = 0;

 protected:
  ~IoTurns() = default;
};

// open(), run(), set_timer(), clear_timer(), now_ms() and close() belong to the thread that runs
// the loop (open() may come before it starts). wake() is for any thread, between open() and the
// return of run().
class IoLoop {
 public:
  explicit IoLoop(IoTurns& turns);
  ~IoLoop();
  IoLoop(const IoLoop&) = delete;
  IoLoop& operator=(const IoLoop&) = delete;

  Status open();
  // Returns once close() was called and every handle on the loop is closed.
  void run();
  void wake();
  // Monotonic, as of this turn.
  std::uint64_t now_ms() const;
  // Replaces the time at which the loop wakes for a turn if nothing else wakes it.
  void set_timer(std::uint64_t at_ms);
  void clear_timer();
  void close();

  uv_loop_s* raw();

 private:
  struct Handles;
  std::unique_ptr<Handles> handles_;
};

}  // namespace holdfast::client
