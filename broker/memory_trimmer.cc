#include "memory_trimmer.h"

#include <malloc.h>

#include <chrono>

namespace holdfast::broker {

namespace {
constexpr std::chrono::seconds kInterval{30};
}  // namespace

MemoryTrimmer::~MemoryTrimmer() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stopping_ = true;
    changed_.notify_one();
  }
  thread_.join();
}

void MemoryTrimmer::run() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (!changed_.wait_for(lock, kInterval, [this] { return stopping_; })) {
    lock.unlock();
    ::malloc_trim(0);
    lock.lock();
  }
}

}  // namespace holdfast::broker
