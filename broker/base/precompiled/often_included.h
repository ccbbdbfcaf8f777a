// What many sources include and what takes the compiler longest to read: meson precompiles it for
// each target that has `cpp_pch: often_included`, for which that is worth it from about eight
// sources on. It comes before each source of the target, but no source may count on it: each
// includes what it uses, which .ci/run's tidy sees to.

#include <flatbuffers/flatbuffers.h>
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <thread>
#include <unordered_map>
#include <utility>
#include <variant>
#include <vector>
