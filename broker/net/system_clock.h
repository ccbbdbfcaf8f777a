// The one place where the broker reads the system's clocks.

#pragma once

#include "base/clock.h"

namespace holdfast::broker {

Now read_clocks();

}  // namespace holdfast::broker
