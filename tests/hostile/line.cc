#include "hostile/line.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace holdfast::hostile {

Line::Line(std::uint16_t port, int receive_buffer_bytes) {
  socket_ = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (socket_ < 0) return;
  if (receive_buffer_bytes > 0) {
    ::setsockopt(socket_, SOL_SOCKET, SO_RCVBUF, &receive_buffer_bytes,
                 sizeof receive_buffer_bytes);
  }
  sockaddr_in address{};
  address.sin_family = AF_INET;
  address.sin_port = htons(port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  // A full backlog makes the system try again after a second; nobody waits for that here.
  const timeval patience{0, 300'000};
  ::setsockopt(socket_, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
  if (::connect(socket_, reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0) close();
}

Line::Line(Line&& other) noexcept : socket_(std::exchange(other.socket_, -1)) {}

Line& Line::operator=(Line&& other) noexcept {
  std::swap(socket_, other.socket_);
  return *this;
}

Line::~Line() { close(); }

std::size_t Line::send(std::string_view bytes) {
  if (socket_ < 0) return 0;
  const ssize_t sent = ::send(socket_, bytes.data(), bytes.size(), MSG_DONTWAIT | MSG_NOSIGNAL);
  if (sent < 0 && errno != EAGAIN) close();
  return sent < 0 ? 0 : static_cast<std::size_t>(sent);
}

std::size_t Line::receive(void* bytes, std::size_t bytes_max) {
  if (socket_ < 0) return 0;
  const ssize_t received = ::recv(socket_, bytes, bytes_max, MSG_DONTWAIT);
  if (received == 0 || (received < 0 && errno != EAGAIN)) close();
  return received < 0 ? 0 : static_cast<std::size_t>(received);
}

bool Line::closed_by_peer() {
  if (socket_ < 0) return true;
  pollfd look{socket_, POLLRDHUP, 0};
  if (::poll(&look, 1, 0) == 1 && (look.revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0) close();
  return socket_ < 0;
}

void Line::close() {
  if (socket_ >= 0) ::close(socket_);
  socket_ = -1;
}

void Line::reset() {
  const linger at_once{1, 0};
  if (socket_ >= 0) ::setsockopt(socket_, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
  close();
}

namespace {

std::string bytes_of(const FrameWriter& frames) {
  return {reinterpret_cast<const char*>(frames.data()), frames.size()};
}

template <typename Table>
std::string control_frame(wire::FrameType type, flatbuffers::FlatBufferBuilder& builder,
                          flatbuffers::Offset<Table> table) {
  builder.Finish(table);
  FrameWriter out;
  out.append(type, 1, {builder.GetBufferPointer(), builder.GetSize()});
  return bytes_of(out);
}

}  // namespace

std::string hello_frame(std::uint32_t heartbeat_ms) {
  flatbuffers::FlatBufferBuilder builder;
  const auto name = builder.CreateString("hostile");
  return control_frame(wire::FrameType_Hello, builder,
                       wire::CreateHello(builder, 1, 1, name, heartbeat_ms));
}

std::string subscribe_frame(std::string_view queue, std::uint32_t credit) {
  flatbuffers::FlatBufferBuilder builder;
  const auto name = builder.CreateString(queue.data(), queue.size());
  return control_frame(wire::FrameType_Subscribe, builder,
                       wire::CreateSubscribe(builder, name, 0, 0, credit));
}

std::string open_frame(std::string_view queue) {
  flatbuffers::FlatBufferBuilder builder;
  const auto name = builder.CreateString(queue.data(), queue.size());
  return control_frame(wire::FrameType_QueueOpen, builder, wire::CreateQueueOpen(builder, name));
}

std::string ping_frame() {
  FrameWriter out;
  out.append_empty(wire::FrameType_Ping, 1);
  return bytes_of(out);
}

std::string publish_header(std::uint32_t body_bytes) {
  wire::FrameHeader header(body_bytes, wire::FrameType_Publish, 0, kProtocolVersion, 1, 0, 0);
  constexpr std::size_t kCheckedBytes = kFrameHeaderBytes - sizeof(std::uint64_t);
  std::string bytes(kFrameHeaderBytes, '\0');
  std::memcpy(bytes.data(), &header, kFrameHeaderBytes);
  const std::uint64_t header_checksum =
      checksum({reinterpret_cast<const std::uint8_t*>(bytes.data()), kCheckedBytes});
  std::memcpy(bytes.data() + kCheckedBytes, &header_checksum, sizeof header_checksum);
  return bytes;
}

}  // namespace holdfast::hostile
