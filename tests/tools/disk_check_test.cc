// What is said of a disk, from how long its flushes took.

#include <doctest/doctest.h>
#include <stdlib.h>

#include <filesystem>
#include <string>

#include "cli/disk_check.h"

namespace holdfast::cli {
namespace {

DiskCheck measured(std::vector<double> flush_us) {
  DiskCheck check;
  check.file_system = "ext4";
  check.flush_us = std::move(flush_us);
  return check;
}

TEST_CASE("a disk that flushes in plausible time is not warned about") {
  CHECK(measured({47.0, 50.0, 900.0}).warnings().empty());
  CHECK(measured({kFlushUsMin}).warnings().empty());
}

TEST_CASE("a flush that is faster than any device is warned about") {
  const DiskCheck check = measured({2.0, 3.0, 5000.0});
  REQUIRE(check.warnings().size() == 1);
  CHECK(check.warnings()[0].starts_with("A write and its flush take 3.0 us"));
}

TEST_CASE("a file system in memory or on a network is warned about however slow it is") {
  DiskCheck check = measured({900.0});
  check.is_in_memory = true;
  CHECK(check.warnings().size() == 1);
  check.is_on_network = true;
  CHECK(check.warnings().size() == 2);
}

TEST_CASE("the figures of flushes are their median, 99th percentile, maximum and rate") {
  DiskCheck check = measured({});
  for (int i = 1; i <= 200; ++i) check.flush_us.push_back(i);
  CHECK(check.median_us() == doctest::Approx(101));
  CHECK(check.p99_us() == doctest::Approx(199));
  CHECK(check.max_us() == doctest::Approx(200));
  CHECK(check.flushes_per_second() == doctest::Approx(200 * 1e6 / 20'100));
}

TEST_CASE("an interrupted measurement leaves no file") {
  std::string directory = (std::filesystem::temp_directory_path() / "holdfast-XXXXXX").string();
  REQUIRE(::mkdtemp(directory.data()) != nullptr);
  int left = 3;
  const Result<DiskCheck> check = check_disk(directory, [&left] { return --left > 0; });
  REQUIRE_FALSE(check.ok());
  CHECK(check.status().code() == ErrorCode::kCancelled);
  CHECK(std::filesystem::is_empty(directory));
  std::filesystem::remove_all(directory);
}

}  // namespace
}  // namespace holdfast::cli
