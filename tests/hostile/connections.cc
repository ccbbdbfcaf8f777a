// Connections that are no conversations.

#include <thread>

#include "hostile/attack.h"
#include "hostile/bounds.h"
#include "hostile/line.h"

namespace holdfast::hostile {

namespace {

using std::chrono::milliseconds;
using std::chrono::steady_clock;

constexpr milliseconds kTick{20};

// Each says its Hello, or nothing, and then one byte of a frame now and then, for ever.
class SlowLoris final : public Attack {
 public:
  SlowLoris(const Target& target, std::uint32_t connections)
      : Attack("slow-loris: a byte of a header now and then"),
        target_(target),
        connections_(connections),
        lines_(connections),
        sent_(connections, 0) {}

  void run(const std::atomic<bool>& stop) override {
    const std::string hello = hello_frame();
    auto next_byte = steady_clock::now();
    while (!stop) {
      const bool send_now = steady_clock::now() >= next_byte;
      if (send_now) next_byte += milliseconds(200);
      for (std::size_t i = 0; i < lines_.size() && !stop; ++i) {
        if (lines_[i].closed_by_peer()) {
          lines_[i] = Line(target_.port);
          sent_[i] = 0;
          // Half of them are done with the handshake.
          if (i % 2 == 0) lines_[i].send(hello);
        }
        // The last byte of the header never comes.
        if (!send_now || sent_[i] + 1 >= kFrameHeaderBytes) continue;
        hits_ += lines_[i].send(std::string_view(hello).substr(sent_[i]++, 1));
      }
      std::this_thread::sleep_for(kTick);
    }
    lines_.clear();
  }
  std::string_view words_for_hits() const override { return "single bytes"; }
  std::uint64_t hits_min() const override { return 2 * connections_; }
  std::uint64_t memory_bytes_max() const override { return connections_ * kConnectionBytes; }

 private:
  const Target target_;
  const std::uint64_t connections_;
  std::vector<Line> lines_;
  std::vector<std::size_t> sent_;  // of the header's bytes
};

// Each announces a large publish and sends a part of it.
class HalfFrames final : public Attack {
 public:
  HalfFrames(const Target& target, std::uint32_t connections)
      : Attack("half frames"),
        target_(target),
        connections_(connections),
        lines_(connections),
        sent_(connections, 0) {}

  void run(const std::atomic<bool>& stop) override {
    const std::string opening = hello_frame() + publish_header(kBodyBytes);
    const std::string part(64 * 1024, 'h');
    while (!stop) {
      for (std::size_t i = 0; i < lines_.size() && !stop; ++i) {
        if (lines_[i].closed_by_peer()) {
          lines_[i] = Line(target_.port);
          if (lines_[i].send(opening) == opening.size()) ++hits_;
          sent_[i] = 0;
        }
        if (sent_[i] < kBodyBytes / 2) sent_[i] += lines_[i].send(part);
      }
      std::this_thread::sleep_for(kTick);
    }
    lines_.clear();
  }
  std::string_view words_for_hits() const override { return "frames begun"; }
  std::uint64_t hits_min() const override { return connections_; }
  // The bound on what is partly received is looked at once a turn and the buffers double: so twice
  // that, and the small parts, which do not count as large, of all of them.
  std::uint64_t memory_bytes_max() const override {
    return 2 * kInputBytesTotal + connections_ * (kConnectionBytes + 512 * 1024);
  }

 private:
  static constexpr std::uint32_t kBodyBytes = 1'000'000;
  const Target target_;
  const std::uint64_t connections_;
  std::vector<Line> lines_;
  std::vector<std::size_t> sent_;
};

// Connections opened and reset, some after a few words.
class Resets final : public Attack {
 public:
  Resets(const Target& target, std::uint64_t total, std::uint64_t seed)
      : Attack("connections opened and reset"), target_(target), total_(total), random_(seed) {}

  void run(const std::atomic<bool>& stop) override {
    const std::string hello = hello_frame();
    const std::string conversation = hello + subscribe_frame(kHeldQueue, kHeldMessages);
    while (!stop && hits_ < total_) {
      Line line(target_.port);
      if (!line.is_open()) {
        std::this_thread::sleep_for(milliseconds(1));
        continue;
      }
      const std::uint64_t choice = random_.below(10);
      if (choice == 0) line.send(conversation);
      if (choice == 1 || choice == 2) line.send(hello);
      if (choice == 3) line.send(std::string_view(hello).substr(0, 1 + random_.below(40)));
      line.reset();
      ++hits_;
    }
  }
  bool done() const override { return hits_ >= total_; }
  std::string_view words_for_hits() const override { return "resets"; }
  std::uint64_t hits_min() const override { return total_; }
  // As many as wait to be accepted, and as many that are being closed.
  std::uint64_t memory_bytes_max() const override { return 2 * 1'024 * kConnectionBytes; }

 private:
  const Target target_;
  const std::uint64_t total_;
  crash::Random random_;
};

class Exhaustion final : public Attack {
 public:
  Exhaustion(const Target& target, std::uint32_t connections_max)
      : Attack("descriptors exhausted"), target_(target), connections_max_(connections_max) {}

  void run(const std::atomic<bool>& stop) override {
    // A connection that says nothing would be closed after the time for the handshake.
    const std::string hello = hello_frame(60'000);
    std::vector<Line> lines;
    // When it has what it gets, it asks for little more: a broker that is busy then spins.
    for (std::uint32_t asks = connections_max_; !stop; asks = kAsksAgain) {
      std::erase_if(lines, [](Line& line) { return line.closed_by_peer(); });
      for (std::uint32_t i = 0; !stop && i < asks && lines.size() < connections_max_; ++i) {
        Line line(target_.port);
        if (line.send(hello) == 0) {
          ++hits_;
          break;
        }
        lines.push_back(std::move(line));
      }
      // What was closed at once was refused.
      std::this_thread::sleep_for(kTick);
      hits_ += static_cast<std::uint64_t>(
          std::erase_if(lines, [](Line& line) { return line.closed_by_peer(); }));
    }
  }
  std::string_view words_for_hits() const override { return "connections refused"; }
  bool is_idle() const override { return true; }
  std::uint64_t memory_bytes_max() const override { return connections_max_ * kConnectionBytes; }

 private:
  static constexpr std::uint32_t kAsksAgain = 4;  // in a tick

  const Target target_;
  const std::uint32_t connections_max_;
};

class Garbage final : public Attack {
 public:
  Garbage(const Target& target, std::uint32_t connections, std::uint64_t seed)
      : Attack("garbage on many connections"),
        target_(target),
        connections_(connections),
        lines_(connections),
        random_(seed) {}

  void run(const std::atomic<bool>& stop) override {
    std::string noise(8 * 1024, '\0');
    for (char& byte : noise) byte = static_cast<char>(random_.next());
    const std::string hello = hello_frame();
    while (!stop) {
      for (Line& line : lines_) {
        if (line.closed_by_peer()) line = Line(target_.port);
        const std::size_t from = random_.below(noise.size() / 2);
        switch (random_.below(4)) {
          case 0:  // behind a conversation that began well
            line.send(hello);
            break;
          case 1: {  // one bit of a good frame
            std::string damaged = hello;
            damaged[random_.below(damaged.size())] ^= static_cast<char>(1u << random_.below(8));
            line.send(damaged);
            break;
          }
          case 2:  // the largest length there is
            line.send(publish_header(UINT32_MAX));
            break;
          default:
            break;
        }
        if (line.send(std::string_view(noise).substr(from, 1 + random_.below(4'096))) > 0) ++hits_;
        if (stop) break;
      }
      std::this_thread::sleep_for(milliseconds(1));
    }
    lines_.clear();
  }
  std::string_view words_for_hits() const override { return "pieces of garbage"; }
  std::uint64_t hits_min() const override { return 10 * connections_; }
  // Those that are being closed linger beside the new ones.
  std::uint64_t memory_bytes_max() const override { return 16 * connections_ * kConnectionBytes; }

 private:
  const Target target_;
  const std::uint64_t connections_;
  std::vector<Line> lines_;
  crash::Random random_;
};

}  // namespace

std::unique_ptr<Attack> slow_loris(const Target& target, std::uint32_t connections) {
  return std::make_unique<SlowLoris>(target, connections);
}

std::unique_ptr<Attack> half_frames(const Target& target, std::uint32_t connections) {
  return std::make_unique<HalfFrames>(target, connections);
}

std::unique_ptr<Attack> resets(const Target& target, std::uint64_t total, std::uint64_t seed) {
  return std::make_unique<Resets>(target, total, seed);
}

std::unique_ptr<Attack> exhaustion(const Target& target, std::uint32_t connections_max) {
  return std::make_unique<Exhaustion>(target, connections_max);
}

std::unique_ptr<Attack> garbage(const Target& target, std::uint32_t connections,
                                std::uint64_t seed) {
  return std::make_unique<Garbage>(target, connections, seed);
}

}  // namespace holdfast::hostile
