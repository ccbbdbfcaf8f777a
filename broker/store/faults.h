// Faults: what a process says when a signal stops it while it has a data file mapped.
//
// The data file is read through memory. Where the device cannot give a page of it, or the file was
// truncated, the kernel sends SIGBUS; where LMDB follows a page that is damaged in a way that
// check_pages() does not look at, it may be SIGSEGV, SIGFPE or SIGABRT. None of them says by itself
// which file it was about.

#pragma once

#include <string>
#include <string_view>

namespace holdfast::broker {

// From now on: SIGBUS is told in a sentence that names the data file, and the process exits with
// 70. The other three are told likewise and then do what they did before, so that there is a core
// dump to look at. An exception that nothing caught, as where there is no memory, is told as what
// it is. For the whole process; call it once, before the data file is opened, with a `program` that
// stays.
void explain_faults(std::string_view program, const std::string& data_directory);

}  // namespace holdfast::broker
