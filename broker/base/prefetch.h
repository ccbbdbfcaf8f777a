// Asks for a line of the processor's cache that will be read soon.

#pragma once

namespace holdfast {

// Changes nothing; any address will do. The empty asm statement keeps the call: GCC (seen in 12.2)
// takes a function that does nothing but __builtin_prefetch for one without an effect, and leaves
// calls of it out.
inline void prefetch(const void* address) {
  __builtin_prefetch(address);
  asm volatile("");
}

}  // namespace holdfast
