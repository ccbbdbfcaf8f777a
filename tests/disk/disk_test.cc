// What the device has for certain.

#include <doctest/doctest.h>

#include <string>

#include "disk/device.h"

namespace holdfast::disk {
namespace {

Entry entry_of(EntryKind kind, const std::string& path) {
  Entry entry{.kind = kind};
  path.copy(entry.path.data(), entry.path.size() - 1);
  return entry;
}

// The power is lost at once, and only what is certain is left.
DeviceState left_of(const Log& log, Survival survival = Survival::kNothing) {
  Device device(Lie::kNothing);
  for (const Entry* entry : log.entries()) device.apply(*entry);
  crash::Random random(1);
  return device.state(survival, random);
}

TEST_CASE("on the device is for certain what was synced or written through, and no more") {
  Log log;
  log.append(entry_of(EntryKind::kCreate, "file"));
  log.append(entry_of(EntryKind::kSync, "."));
  log.append(entry_of(EntryKind::kWrite, "file"), "one");
  log.append(entry_of(EntryKind::kSync, "file"));
  Entry second = entry_of(EntryKind::kWrite, "file");
  second.offset = 4096;
  log.append(second, "two");
  CHECK(left_of(log).nodes.at("file").bytes == Bytes{'o', 'n', 'e'});
  CHECK(left_of(log, Survival::kEverything).nodes.at("file").bytes.size() == 4099);
  second.through = true;
  log.append(second, "TWO");
  CHECK(left_of(log).nodes.at("file").bytes.at(4096) == 'T');
}

TEST_CASE("a name is certain once its directory was synced") {
  Log log;
  log.append(entry_of(EntryKind::kMakeDirectory, "new"));
  log.append(entry_of(EntryKind::kCreate, "new/file"));
  log.append(entry_of(EntryKind::kSync, "new"));
  CHECK(left_of(log).nodes.empty());
  log.append(entry_of(EntryKind::kSync, "."));
  CHECK(left_of(log).nodes.contains("new/file"));
  Entry rename = entry_of(EntryKind::kRename, "new");
  rename.to = {'o', 'l', 'd'};
  log.append(rename);
  CHECK(left_of(log).nodes.contains("new/file"));
  CHECK(left_of(log, Survival::kEverything).nodes.contains("old/file"));
}

}  // namespace
}  // namespace holdfast::disk
