// What the system says about another process, and lets this one do.

#pragma once

#include <sys/types.h>

#include <cstddef>
#include <cstdint>

namespace holdfast::test {

// What the process has for itself, without the pages of its mapped file; 0 if it is gone.
std::uint64_t rss_anon_bytes(pid_t pid);
// Open descriptors; 0 if it is gone.
std::size_t descriptors(pid_t pid);
// Processor time, user and system, of all its threads.
double cpu_seconds(pid_t pid);
// Whether this child has ended. It is not reaped: its exit status is still there for wait().
bool has_ended(pid_t child);
// As many descriptors for this process as it may have.
void raise_descriptor_limit();

}  // namespace holdfast::test
