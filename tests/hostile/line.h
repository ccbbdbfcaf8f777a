// A bare connection to the broker, for doing what no client does. Nothing on it waits.

#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>

#include "schema/frame.h"

namespace holdfast::hostile {

class Line {
 public:
  // Not connected.
  Line() = default;
  // Connects to the loopback; `receive_buffer_bytes` > 0 keeps the system's buffer small. is_open()
  // tells whether it worked.
  explicit Line(std::uint16_t port, int receive_buffer_bytes = 0);
  Line(Line&& other) noexcept;
  Line& operator=(Line&& other) noexcept;
  ~Line();

  bool is_open() const { return socket_ >= 0; }
  // What the socket takes at once; a connection that the broker has closed is closed here, too.
  std::size_t send(std::string_view bytes);
  // At most so many bytes of what is there; likewise.
  std::size_t receive(void* bytes, std::size_t bytes_max);
  // Notices that the broker has closed, without reading.
  bool closed_by_peer();
  void close();
  // With a reset.
  void reset();

 private:
  int socket_ = -1;
};

// Frames, as they go over the wire.
std::string hello_frame(std::uint32_t heartbeat_ms = 0);
std::string subscribe_frame(std::string_view queue, std::uint32_t credit);
std::string open_frame(std::string_view queue);
std::string ping_frame();
// The header of a publish with a body of so many bytes, and nothing of the body.
std::string publish_header(std::uint32_t body_bytes);

}  // namespace holdfast::hostile
