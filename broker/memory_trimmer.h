// Gives memory that was freed back to the system, twice a minute, on a thread of its own.
//
// The allocator by itself gives back only what lies at the end of its heap. After many blocks of
// all sizes came and went, or an attack by a thousand connections, that would leave the process
// several times as large as what it uses.

#pragma once

#include <condition_variable>
#include <mutex>
#include <thread>

namespace holdfast::broker {

class MemoryTrimmer {
 public:
  MemoryTrimmer() : thread_([this] { run(); }) {}
  ~MemoryTrimmer();
  MemoryTrimmer(const MemoryTrimmer&) = delete;
  MemoryTrimmer& operator=(const MemoryTrimmer&) = delete;

 private:
  void run();

  std::mutex mutex_;
  std::condition_variable changed_;
  bool stopping_ = false;  // under mutex_
  std::thread thread_;     // the last: it uses the others
};

}  // namespace holdfast::broker
