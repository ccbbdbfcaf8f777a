// Descriptors 0, 1 and 2 of a program.

#pragma once

#include <string_view>

#include "holdfast/status.h"

namespace holdfast {

// To be called before anything is opened. Where one of the three is closed, the next file that is
// opened would get its number and be written over by what is meant for standard error. So they are
// taken by /dev/null, opened the wrong way round: what is read or written there still fails.
Status hold_standard_streams();

// As far as standard error takes it: where it cannot be written there is nobody to tell.
void write_to_standard_error(std::string_view text);

}  // namespace holdfast
