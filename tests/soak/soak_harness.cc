// Hours of steady traffic: memory and disk must stay what they are.
//
//   soak_harness --broker PATH [--minutes N] [--warm-up N] [--retry-delay SECONDS] [--dir DIR]
//
// Two brokers at once. Through one messages pass steadily while the first of them stays unsettled;
// through the other one of a hundred is nacked once and waits for its retry. After the warm-up (the
// dedup window and the retries have filled by then) the most that the last quarter of the time
// takes is compared with the most of the first. The last line is `N passed, N failed`.

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "soak/stream.h"
#include "support/checks.h"
#include "support/command_line.h"

namespace holdfast::soak {
namespace {

using Clock = std::chrono::steady_clock;

constexpr double kMegabyte = 1e6;
// What counts as growth: more than this share, and more than these bytes.
constexpr double kGrowthMax = 1.05;
constexpr double kGrowthBytes = 4 * kMegabyte;
// The data file's blocks are claimed in steps of 64 MiB: one more may be due at any time.
constexpr double kClaimStepBytes = 64 * 1024 * 1024;
constexpr double kUsedPerLiveMax = 2.0;
constexpr std::uint64_t kRssMax = 150'000'000;

struct Options {
  std::string broker;
  std::string directory = std::filesystem::temp_directory_path();
  double minutes = 60;
  double warm_up_minutes = 15;
  std::uint64_t retry_delay_s = 600;
  std::uint64_t rate = 20'000;
  std::uint64_t retrying_rate = 10'000;
};

class Soak {
 public:
  explicit Soak(const Options& options)
      : options_(options),
        directory_(std::filesystem::path(options.directory) /
                   fmt::format("holdfast-soak-{}", ::getpid())) {
    add({.name = "steady", .rate = options.rate, .keeps_first = true});
    add({.name = "retrying",
         .rate = options.retrying_rate,
         .one_retried_of = 100,
         .retry_delay = std::chrono::seconds(options.retry_delay_s)});
  }
  ~Soak() {
    streams_.clear();
    std::filesystem::remove_all(directory_);
  }
  Soak(const Soak&) = delete;
  Soak& operator=(const Soak&) = delete;

  int run() {
    if (watch()) judge();
    return checks_.finish();
  }

 private:
  void add(StreamPlan plan) {
    const std::filesystem::path directory = directory_ / plan.name;
    std::filesystem::create_directories(directory);
    streams_.push_back(std::make_unique<Stream>(std::move(plan), options_.broker, directory));
    samples_.emplace_back();
  }

  bool succeeds(const Status& status, const std::string& sentence) {
    checks_.check(status.ok(), status.ok() ? sentence : status.to_string());
    return status.ok();
  }

  bool watch() {
    for (const auto& stream : streams_) {
      if (!succeeds(stream->start(), stream->plan().name + " runs")) return false;
    }
    const Clock::time_point begin = Clock::now();
    const auto whole = std::chrono::duration<double>(options_.minutes * 60);
    const auto interval = whole / 120;
    for (int i = 1; i <= 120; ++i) {
      std::this_thread::sleep_until(begin +
                                    std::chrono::duration_cast<Clock::duration>(interval * i));
      for (std::size_t s = 0; s < streams_.size(); ++s) {
        Result<Sample> sample = streams_[s]->sample();
        if (!sample.ok()) return succeeds(sample.status(), "");
        samples_[s].push_back(*sample);
        if (i % 4 == 0) show(*streams_[s], *sample, i * options_.minutes / 120);
      }
    }
    bool done = true;
    for (const auto& stream : streams_) {
      done &= succeeds(stream->finish(std::chrono::seconds(60)),
                       stream->plan().name + ": nothing is lost, refused or changed");
    }
    return done;
  }

  static void show(const Stream& stream, const Sample& sample, double minutes) {
    fmt::print(
        "{:6.1f} min  {:8}  {} published, {} acked, {} unsettled; memory {:.1f} MB, store {:.1f} "
        "MB, live {:.1f} MB, on disk {:.1f} MB\n",
        minutes, stream.plan().name, sample.published, sample.acked, sample.messages,
        static_cast<double>(sample.rss_anon_bytes) / kMegabyte,
        static_cast<double>(sample.used_bytes) / kMegabyte,
        static_cast<double>(sample.live_bytes) / kMegabyte,
        static_cast<double>(sample.on_disk_bytes) / kMegabyte);
    std::fflush(stdout);
  }

  void judge() {
    for (std::size_t s = 0; s < streams_.size(); ++s) {
      const std::string& name = streams_[s]->plan().name;
      const std::vector<Sample>& all = samples_[s];
      const auto warm = static_cast<std::ptrdiff_t>(static_cast<double>(all.size()) *
                                                    options_.warm_up_minutes / options_.minutes);
      const std::vector<Sample> after(all.begin() + warm, all.end());
      checks_.check(all.back().acked * 10 >= all.back().published * 9 && all.back().acked > 1000,
                    fmt::format("{}: {} of {} messages were acked on the way", name,
                                all.back().acked, all.back().published));
      check_growth(name, "memory", after, &Sample::rss_anon_bytes, kGrowthBytes);
      check_growth(name, "the store", after, &Sample::used_bytes, kGrowthBytes);
      check_growth(name, "the disk", after, &Sample::on_disk_bytes, kClaimStepBytes + kGrowthBytes);
      if (streams_[s]->plan().one_retried_of == 0) {
        const std::uint64_t rss = most(after, 0, after.size(), &Sample::rss_anon_bytes);
        checks_.check(rss < kRssMax, fmt::format("{}: memory is at most {:.1f} MB", name,
                                                 static_cast<double>(rss) / kMegabyte));
        continue;
      }
      double worst = 0;
      for (const Sample& sample : after) {
        worst = std::max(
            worst, static_cast<double>(sample.used_bytes) / static_cast<double>(sample.live_bytes));
      }
      checks_.check(
          worst <= kUsedPerLiveMax,
          fmt::format("{}: the store is at most {:.2f} times what lives in it", name, worst));
    }
  }

  static std::uint64_t most(const std::vector<Sample>& samples, std::size_t begin, std::size_t end,
                            std::uint64_t Sample::*what) {
    std::uint64_t most = 0;
    for (std::size_t i = begin; i < end; ++i) most = std::max(most, samples[i].*what);
    return most;
  }

  void check_growth(const std::string& name, const std::string& what,
                    const std::vector<Sample>& samples, std::uint64_t Sample::*member,
                    double slack) {
    const std::size_t quarter = samples.size() / 4;
    const auto first = static_cast<double>(most(samples, 0, quarter, member));
    const auto last =
        static_cast<double>(most(samples, samples.size() - quarter, samples.size(), member));
    checks_.check(
        last <= std::max(first * kGrowthMax, first + slack),
        fmt::format("{}: {} does not grow: at most {:.1f} MB in the first quarter after the "
                    "warm-up, {:.1f} MB in the last",
                    name, what, first / kMegabyte, last / kMegabyte));
  }

  const Options options_;
  const std::filesystem::path directory_;
  std::vector<std::unique_ptr<Stream>> streams_;
  std::vector<std::vector<Sample>> samples_;
  test::Checks checks_;
};

}  // namespace
}  // namespace holdfast::soak

int main(int argc, char** argv) {
  holdfast::soak::Options options;
  holdfast::test::CommandLine line(
      "Steady traffic for a long time: memory and disk must stay what they are.");
  line.file("--broker", &options.broker, "The holdfastd to start");
  line.text("--dir", &options.directory, "Where the brokers keep their data");
  line.number("--minutes", &options.minutes, "Of the whole run", {.min = 0.2, .max = 100'000});
  line.number("--warm-up", &options.warm_up_minutes, "Minutes of it before anything is judged",
              {.min = 0.05, .max = 10'000});
  line.number("--retry-delay", &options.retry_delay_s, "Seconds", {.min = 1, .max = 86'400});
  line.number("--rate", &options.rate, "Messages/s of the steady queue",
              {.min = 100, .max = 1'000'000});
  line.number("--retrying-rate", &options.retrying_rate, "Messages/s of the queue with retries",
              {.min = 100, .max = 10'900});
  line.parse(argc, argv);
  if (options.warm_up_minutes >= options.minutes) {
    fmt::print(stderr, "The warm-up of {} minutes must be shorter than the whole, {} minutes.\n",
               options.warm_up_minutes, options.minutes);
    return 64;
  }
  return holdfast::soak::Soak(options).run();
}
