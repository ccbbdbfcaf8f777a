// A directory that is brought from one state of a device to the next, by as few writes as can be.

#pragma once

#include <string>

#include "disk/device.h"

namespace holdfast::disk {

class Image {
 public:
  // The directory exists and is empty.
  explicit Image(std::string directory) : directory_(std::move(directory)) {}

  // What else is in the directory, but LMDB's table of readers, is removed where that matters.
  void become(const DeviceState& state);
  const std::string& directory() const { return directory_; }

 private:
  void make_anew(const DeviceState& state);
  void change_file(const std::string& path, DeviceState::Node& now,
                   const DeviceState::Node& wanted);

  std::string directory_;
  DeviceState now_;
  bool plain_ = false;  // nothing was created in it by who looked at it
};

}  // namespace holdfast::disk
