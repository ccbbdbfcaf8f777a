#include "net/system_clock.h"

#include <uv.h>

#include <chrono>

namespace holdfast::broker {

Now read_clocks() {
  const auto wall = std::chrono::system_clock::now().time_since_epoch();
  return {MonotonicTime(Milliseconds(static_cast<std::int64_t>(uv_hrtime() / 1'000'000))),
          WallTime(std::chrono::duration_cast<Milliseconds>(wall))};
}

}  // namespace holdfast::broker
