// What the core says, as frames.
//
// A control frame has a bound (kControlFrameBytesMax), so long lists of ranges are fitted to it: a
// LeaseLost is split into several frames; in a Settled or Extended the last range is widened to
// cover what no longer fits, which tells the client that some of what it settled was refused and
// never the other way round.

#pragma once

#include <flatbuffers/flatbuffers.h>

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "core/requests.h"
#include "schema/frame.h"

namespace holdfast::broker {

// Longer sentences are cut.
inline constexpr std::size_t kErrorTextBytesMax = 4'096;

class ReplyEncoder {
 public:
  // Each appends its frame or frames to `out` and returns how many.
  std::size_t append(const ConfirmReply& reply, FrameWriter& out);
  std::size_t append(const Delivery& delivery, FrameWriter& out);
  std::size_t append(const SettledReply& reply, FrameWriter& out);
  std::size_t append(const ExtendedReply& reply, FrameWriter& out);
  std::size_t append(const LeaseLostNotice& notice, FrameWriter& out);
  std::size_t append(const ErrorReply& reply, FrameWriter& out);
  std::size_t append(const OkReply& reply, FrameWriter& out);
  std::size_t append(const SubscribedReply& reply, FrameWriter& out);
  std::size_t append(const QueueReply& reply, FrameWriter& out);
  std::size_t append(const PeekReply& reply, FrameWriter& out);
  std::size_t append(const AttemptsReply& reply, FrameWriter& out);
  std::size_t append(const ListEndReply& reply, FrameWriter& out);
  std::size_t append(const MovedReply& reply, FrameWriter& out);
  std::size_t append(const ConsumerReply& reply, FrameWriter& out);
  std::size_t append(const ConsumerEndedNotice& notice, FrameWriter& out);

  // A fatal error is the last frame of its connection.
  std::size_t append_error(std::uint64_t correlation, const Status& error, bool fatal,
                           FrameWriter& out);
  std::size_t append_goodbye(const Status& reason, Milliseconds deadline, FrameWriter& out);
  struct WelcomeFields {
    std::string_view broker_version;
    std::string_view node_id;
    std::uint32_t heartbeat_ms = 0;
    std::uint32_t frame_bytes_max = 0;
    std::uint64_t unconfirmed_bytes_max = 0;
  };
  std::size_t append_welcome(std::uint64_t correlation, const WelcomeFields& fields,
                             FrameWriter& out);

  // For frames that need no part of the core: an empty builder, and its finished table as a frame.
  flatbuffers::FlatBufferBuilder& begin();
  template <typename Table>
  std::size_t finish(wire::FrameType type, std::uint64_t correlation,
                     flatbuffers::Offset<Table> table, FrameWriter& out) {
    builder_.Finish(table);
    out.append(type, correlation, {builder_.GetBufferPointer(), builder_.GetSize()});
    return 1;
  }

 private:
  // The ranges as the wire's, at most kRangesMax.
  flatbuffers::Offset<flatbuffers::Vector<const wire::SequenceRange*>> fitted_ranges(
      std::span<const SequenceRange> ranges);

  flatbuffers::FlatBufferBuilder builder_;
  std::vector<wire::SequenceRange> ranges_;
  std::vector<wire::SettingValue> settings_;
};

}  // namespace holdfast::broker
