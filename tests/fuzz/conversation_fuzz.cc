// Conversations: an input is a sequence of steps, see conversation.h.

#include "fuzz/conversation.h"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace holdfast::fuzz;  // NOLINT(google-build-using-namespace)
  // A byte may be a crash, and the drain takes hours of virtual time.
  const TimeBound bound(size * 1'000 + 4'000'000);
  Input input(data, size);
  Conversation conversation;
  while (!input.empty()) conversation.step(input);
  conversation.drain();
  return 0;
}
