#include "disk/image.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstring>
#include <filesystem>

#include "base/check.h"

namespace holdfast::disk {

namespace {

namespace fs = std::filesystem;

constexpr std::size_t kPageBytes = 4096;

// Whether a start on it leaves these names as they are: there is a store, and nothing to clean up.
bool is_plain(const DeviceState& state) {
  return state.nodes.contains("store/data.mdb") && !state.nodes.contains("store.new");
}

bool same_names(const DeviceState& a, const DeviceState& b) {
  return std::equal(a.nodes.begin(), a.nodes.end(), b.nodes.begin(), b.nodes.end(),
                    [](const auto& x, const auto& y) { return x.first == y.first; });
}

}  // namespace

void Image::become(const DeviceState& state) {
  if (!plain_ || !is_plain(state) || !same_names(now_, state)) {
    make_anew(state);
  } else {
    for (const auto& [path, node] : state.nodes) {
      change_file(path, now_.nodes.at(path), node);
    }
  }
}

void Image::make_anew(const DeviceState& state) {
  plain_ = false;
  for (const auto& entry : fs::directory_iterator(directory_)) fs::remove_all(entry);
  now_ = {};
  // A directory comes before what is in it.
  for (const auto& [path, node] : state.nodes) {
    if (node.directory) {
      fs::create_directory(directory_ + "/" + path);
      now_.nodes[path].directory = true;
    } else {
      change_file(path, now_.nodes[path], node);
    }
  }
  plain_ = is_plain(state);
}

void Image::change_file(const std::string& path, DeviceState::Node& now,
                        const DeviceState::Node& wanted) {
  // A start brings the journal into the data file, and lengthens that.
  const bool changed_by_start = path.ends_with("data.mdb");
  if (now == wanted && plain_ && !changed_by_start) return;
  const std::string name = directory_ + "/" + path;
  const int file = ::open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0640);
  CHECK(file >= 0, "{} does not open", name);
  if (changed_by_start) {
    CHECK(::ftruncate(file, 0) == 0);
    now = {};
  }
  if (now.size != wanted.size) CHECK(::ftruncate(file, static_cast<off_t>(wanted.size)) == 0);
  // What is not among the bytes of either are zeroes.
  now.size = wanted.size;
  now.bytes.resize(std::min<std::uint64_t>(now.bytes.size(), wanted.size));
  Bytes bytes = wanted.bytes;
  bytes.resize(std::max(bytes.size(), now.bytes.size()));
  now.bytes.resize(bytes.size());
  for (std::size_t at = 0; at < bytes.size(); at += kPageBytes) {
    const std::size_t size = std::min(kPageBytes, bytes.size() - at);
    if (std::memcmp(now.bytes.data() + at, bytes.data() + at, size) == 0) continue;
    const ssize_t written = ::pwrite(file, bytes.data() + at, size, static_cast<off_t>(at));
    CHECK(written == static_cast<ssize_t>(size), "{} cannot be written", name);
  }
  now = wanted;
  ::close(file);
}

}  // namespace holdfast::disk
