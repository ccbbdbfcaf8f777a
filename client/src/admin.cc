// The public Admin: each call is one request, its answer one frame or a list.
//
// What an answer is collected in is shared with the callbacks, because an answer may come after the
// caller has given up.

#include "holdfast/admin.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <memory>
#include <utility>

#include "client_impl.h"
#include "holdfast/text.h"
#include "message_codec.h"
#include "schema/field_limits.h"
#include "schema/queue_settings.h"

namespace holdfast {

using client::Request;
using client::WhenLost;
using flatbuffers::FlatBufferBuilder;

namespace {

Status malformed_answer(const Frame& frame) {
  return Status(ErrorCode::kFrameMalformed,
                fmt::format("The broker's answer, a frame of type {}, is malformed or not the one "
                            "that was expected.",
                            static_cast<int>(frame.type)));
}

// Whoever goes on from `next` after what began at `from` comes to an end; 0 is the end.
bool goes_on(std::uint64_t next, std::uint64_t from) { return next == 0 || next > from; }

// The table of a frame of this type, or null.
template <typename Table>
const Table* table_of(const Frame& frame, wire::FrameType type) {
  return frame.type == type ? read_table<Table>(frame.body) : nullptr;
}

Request request_of(wire::FrameType type, FlatBufferBuilder* builder, WhenLost when_lost) {
  Request request;
  request.type = type;
  if (builder != nullptr) request.body = client::table_bytes(*builder);
  request.when_lost = when_lost;
  return request;
}

QueueReport decode(const wire::QueueInfo& info) {
  QueueReport report;
  report.id = info.queue();
  report.name = view(info.name());
  if (info.settings() != nullptr) {
    for (const wire::SettingValue* value : *info.settings()) {
      const QueueSettingInfo* known = find_queue_setting(value->setting());
      if (known != nullptr) report.settings.emplace_back(known->name, value->value());
    }
  }
  report.dead_queue = view(info.dead_queue());
  report.source_queue = view(info.source_queue());
  report.next_sequence = info.next_sequence();
  report.floor = info.floor();
  report.messages = info.messages();
  report.bytes = info.bytes();
  report.ready = info.ready();
  report.in_flight = info.in_flight();
  report.waiting = info.waiting();
  report.moving = info.moving();
  report.stalled = info.stalled();
  report.dead = info.dead();
  report.consumers = info.consumers();
  report.published = info.published();
  report.duplicates = info.duplicates();
  report.delivered = info.delivered();
  report.redelivered = info.redelivered();
  report.acked = info.acked();
  report.late_acks = info.late_acks();
  report.nacked = info.nacked();
  report.rejected = info.rejected();
  report.released = info.released();
  report.leases_expired = info.leases_expired();
  report.deliveries_lost = info.deliveries_lost();
  report.dead_lettered = info.dead_lettered();
  report.redriven = info.redriven();
  report.discarded = info.discarded();
  report.purged = info.purged();
  report.corrupt = info.corrupt();
  report.refused = info.refused();
  report.dedup_ids = info.dedup_ids();
  report.dedup_cut_short = info.dedup_cut_short();
  report.publish_rate = info.publish_rate();
  report.deliver_rate = info.deliver_rate();
  report.ack_rate = info.ack_rate();
  report.created_at = client::from_wire_time(info.created_at());
  return report;
}

AttemptsReport decode(const wire::AttemptsInfo& info) {
  AttemptsReport report;
  report.sequence = info.sequence();
  report.state = client::message_state_name(info.state());
  report.attempts = info.attempt_count();
  report.consumer = view(info.consumer());
  report.due_at = client::from_wire_time(info.due_at());
  report.history = client::decode_history(info);
  return report;
}

BrokerReport decode(const wire::StatusInfo& info) {
  BrokerReport report;
  report.broker_version = view(info.broker_version());
  report.node_id = view(info.node_id());
  report.data_directory = view(info.data_directory());
  report.uptime = std::chrono::milliseconds(info.uptime_ms());
  report.queues = info.queues();
  report.connections = info.connections();
  report.consumers = info.consumers();
  report.pid = info.pid();
  report.ready = info.ready();
  report.in_flight = info.in_flight();
  report.waiting = info.waiting();
  report.moving = info.moving();
  report.dead = info.dead();
  report.publish_rate = info.publish_rate();
  report.deliver_rate = info.deliver_rate();
  report.ack_rate = info.ack_rate();
  report.published = info.published();
  report.delivered = info.delivered();
  report.acked = info.acked();
  report.corrupt = info.corrupt();
  report.refused = info.refused();
  report.store_bytes = info.store_bytes();
  report.store_file_bytes = info.store_file_bytes();
  report.disk_free_bytes = info.disk_free_bytes();
  report.room_bytes = info.room_bytes();
  report.publishes_allowed = info.publishes_allowed();
  report.draining = info.draining();
  report.batch_number = info.batch_number();
  report.commits = info.commits();
  report.commit_us_p50 = info.commit_us_p50();
  report.commit_us_p99 = info.commit_us_p99();
  return report;
}

ConsumerReport decode(const wire::ConsumerInfo& info) {
  ConsumerReport report;
  report.id = info.consumer();
  report.connection = info.connection();
  report.queue = view(info.queue());
  report.subscription = view(info.subscription());
  report.name = view(info.name());
  report.credit_messages = info.credit_messages();
  report.in_flight = info.in_flight();
  report.lease_ms = info.lease_ms();
  report.credit_bytes = info.credit_bytes();
  report.in_flight_bytes = info.in_flight_bytes();
  report.delivered = info.delivered();
  report.acked = info.acked();
  report.oldest_lease_ms = info.oldest_lease_ms();
  return report;
}

ConnectionReport decode(const wire::ConnectionInfo& info) {
  ConnectionReport report;
  report.id = info.connection();
  report.peer = view(info.peer());
  report.client_name = view(info.client_name());
  report.connected = std::chrono::milliseconds(info.connected_ms());
  report.frames_in = info.frames_in();
  report.frames_out = info.frames_out();
  report.bytes_in = info.bytes_in();
  report.bytes_out = info.bytes_out();
  report.output_bytes = info.output_bytes();
  report.unconfirmed_bytes = info.unconfirmed_bytes();
  report.reading = info.reading();
  return report;
}

MoveReport decode(const wire::Moved& moved) {
  MoveReport report;
  report.moved = moved.moved();
  report.skipped_in_flight = moved.skipped_in_flight();
  report.not_found = moved.not_found();
  report.not_found_first = moved.not_found_first();
  report.refused = moved.refused();
  report.next = moved.next();
  if (moved.refused_code() != 0) {
    report.first_refusal = Status(static_cast<ErrorCode>(moved.refused_code()),
                                  std::string(view(moved.refused_message())));
  }
  return report;
}

using Asked = std::shared_ptr<ClientImpl>;

Status ask(const Asked& impl, Request request, std::string_view what) {
  if (impl != nullptr) return impl->ask(std::move(request), what);
  return Status(ErrorCode::kInvalidArgument,
                "This Admin has no client: it was moved from, or the Client that it is of. Use the "
                "one that it was moved to.");
}

// Asks for one frame.
template <typename Table, typename Report = decltype(decode(std::declval<const Table&>()))>
Result<Report> ask_for_one(const Asked& impl, Request request, wire::FrameType answer,
                           std::string_view what) {
  const auto report = std::make_shared<Report>();
  request.on_frame = [report, answer](const Frame& frame) -> Result<bool> {
    const auto* table = table_of<Table>(frame, answer);
    if (table == nullptr) return malformed_answer(frame);
    *report = decode(*table);
    return true;
  };
  if (Status status = ask(impl, std::move(request), what); !status.ok()) return status;
  return std::move(*report);
}

// Asks for a list of frames that ends with ListEnd, page by page; `request_from` makes the request
// for the page that begins with a number.
template <typename Table, typename RequestFrom,
          typename Report = decltype(decode(std::declval<const Table&>()))>
Result<std::vector<Report>> ask_for_list(const Asked& impl, RequestFrom request_from,
                                         wire::FrameType item, std::string_view what) {
  struct Page {
    std::vector<Report> reports;
    std::uint64_t next = 0;
  };
  std::vector<Report> all;
  std::uint64_t from = 0;
  do {
    Request request = request_from(from);
    const auto page = std::make_shared<Page>();
    request.on_repeat = [page] { *page = Page(); };
    request.on_frame = [page, item, from](const Frame& frame) -> Result<bool> {
      if (frame.type == wire::FrameType_ListEnd) {
        const auto* end = table_of<wire::ListEnd>(frame, wire::FrameType_ListEnd);
        if (end == nullptr || !goes_on(end->next(), from)) return malformed_answer(frame);
        page->next = end->next();
        return true;
      }
      const auto* table = table_of<Table>(frame, item);
      if (table == nullptr) return malformed_answer(frame);
      page->reports.push_back(decode(*table));
      return false;
    };
    if (Status status = ask(impl, std::move(request), what); !status.ok()) return status;
    std::move(page->reports.begin(), page->reports.end(), std::back_inserter(all));
    from = page->next;
  } while (from != 0);
  return all;
}

Status ask_for_ok(const Asked& impl, Request request, std::string_view what) {
  request.on_frame = [](const Frame& frame) -> Result<bool> {
    if (frame.type != wire::FrameType_Ok) return malformed_answer(frame);
    return true;
  };
  return ask(impl, std::move(request), what);
}

// kInvalidArgument for a name that no setting has, and for more settings than there are: a request
// that makes too large a frame costs the connection, and is asked again on the next one.
Result<std::vector<wire::SettingValue>> encode(const SettingList& settings) {
  if (settings.size() > kQueueSettingCount) {
    return Status(ErrorCode::kInvalidArgument, fmt::format("{} settings are named; a queue has {}.",
                                                           settings.size(), kQueueSettingCount));
  }
  std::vector<wire::SettingValue> values;
  for (const auto& [name, value] : settings) {
    const QueueSettingInfo* info = find_queue_setting(std::string_view(name));
    if (info == nullptr) {
      std::vector<std::string_view> names;
      for (const QueueSettingInfo& known : queue_setting_table()) names.push_back(known.name);
      const std::string_view nearest = nearest_word(name, names);
      return Status(ErrorCode::kInvalidArgument,
                    nearest.empty() ? fmt::format("A queue has no setting \"{}\".", name)
                                    : fmt::format("A queue has no setting \"{}\"; is \"{}\" meant?",
                                                  name, nearest));
    }
    values.emplace_back(static_cast<std::uint16_t>(info->setting), std::uint16_t{0},
                        std::uint32_t{0}, value);
  }
  return values;
}

Status check_limit(std::uint32_t limit, std::uint32_t limit_max) {
  if (limit >= 1 && limit <= limit_max) return Status();
  return Status(ErrorCode::kInvalidArgument,
                fmt::format("The limit is {}; it can be 1 to {}.", limit, limit_max));
}

enum class Move { kRedrive, kDiscard };

// What is moved: a step over all of them, or the named ones.
struct Moved {
  std::uint64_t from = 0;
  std::uint64_t to = 0;
  std::uint32_t limit = 0;
  const std::vector<std::uint64_t>* named = nullptr;
};

Status check_moved(const Moved& moved) {
  if (moved.named == nullptr) return check_limit(moved.limit, kLettersMax);
  if (!moved.named->empty() && moved.named->size() <= kLettersMax) return Status();
  return Status(ErrorCode::kInvalidArgument,
                fmt::format("{} sequences are named; a call takes 1 to {}.", moved.named->size(),
                            kLettersMax));
}

Result<MoveReport> move(const Asked& impl, Move kind, std::string_view queue, const Moved& moved,
                        bool dry_run) {
  if (Status checked = check_queue_name(queue); !checked.ok()) return checked;
  if (Status checked = check_moved(moved); !checked.ok()) return checked;
  FlatBufferBuilder builder(4096);
  const auto name = builder.CreateString(queue.data(), queue.size());
  const bool all = moved.named == nullptr;
  const auto list = all ? 0 : builder.CreateVector(*moved.named);
  const bool redrive = kind == Move::kRedrive;
  if (redrive) {
    builder.Finish(
        wire::CreateRedrive(builder, name, list, all, moved.from, moved.limit, dry_run, moved.to));
  } else {
    builder.Finish(
        wire::CreateDiscard(builder, name, list, all, moved.from, moved.limit, dry_run, moved.to));
  }
  const std::string what =
      fmt::format("{} dead letters of \"{}\"", redrive ? "Redriving" : "Discarding", queue);
  Result<MoveReport> report = ask_for_one<wire::Moved>(
      impl,
      request_of(redrive ? wire::FrameType_Redrive : wire::FrameType_Discard, &builder,
                 dry_run ? WhenLost::kAskAgain : WhenLost::kFailIfSent),
      wire::FrameType_Moved, what);
  if (report.ok() && all && !goes_on(report->next, moved.from)) {
    return Status(ErrorCode::kFrameMalformed,
                  fmt::format("{} does not go on: the broker says to go on from {} after {}.", what,
                              report->next, moved.from));
  }
  return report;
}

}  // namespace

// ---- queues ----

Result<QueueReport> Admin::create_queue(std::string_view name, const SettingList& settings,
                                        bool if_not_exists) {
  if (Status checked = check_queue_name(name); !checked.ok()) return checked;
  const Result<std::vector<wire::SettingValue>> values = encode(settings);
  if (!values.ok()) return values.status();
  FlatBufferBuilder builder(512);
  const auto name_string = builder.CreateString(name.data(), name.size());
  const auto list = builder.CreateVectorOfStructs(*values);
  builder.Finish(wire::CreateQueueCreate(builder, name_string, list, if_not_exists));
  return ask_for_one<wire::QueueInfo>(
      impl_,
      request_of(wire::FrameType_QueueCreate, &builder,
                 if_not_exists ? WhenLost::kAskAgain : WhenLost::kFailIfSent),
      wire::FrameType_QueueInfo, fmt::format("Creating queue \"{}\"", name));
}

Result<QueueReport> Admin::edit_queue(std::string_view name, const SettingList& settings) {
  if (Status checked = check_queue_name(name); !checked.ok()) return checked;
  const Result<std::vector<wire::SettingValue>> values = encode(settings);
  if (!values.ok()) return values.status();
  FlatBufferBuilder builder(512);
  const auto name_string = builder.CreateString(name.data(), name.size());
  const auto list = builder.CreateVectorOfStructs(*values);
  builder.Finish(wire::CreateQueueEdit(builder, name_string, list));
  return ask_for_one<wire::QueueInfo>(
      impl_, request_of(wire::FrameType_QueueEdit, &builder, WhenLost::kAskAgain),
      wire::FrameType_QueueInfo, fmt::format("Editing queue \"{}\"", name));
}

Result<QueueReport> Admin::queue(std::string_view name) {
  if (Status checked = check_queue_name(name); !checked.ok()) return checked;
  FlatBufferBuilder builder(256);
  builder.Finish(wire::CreateQueueOpen(builder, builder.CreateString(name.data(), name.size())));
  return ask_for_one<wire::QueueInfo>(
      impl_, request_of(wire::FrameType_QueueOpen, &builder, WhenLost::kAskAgain),
      wire::FrameType_QueueInfo, fmt::format("Asking about queue \"{}\"", name));
}

Result<std::vector<QueueReport>> Admin::queues(bool dead_only) {
  Result<std::vector<QueueReport>> queues = ask_for_list<wire::QueueInfo>(
      impl_,
      [dead_only](std::uint64_t from) {
        FlatBufferBuilder builder(64);
        builder.Finish(wire::CreateQueueList(builder, dead_only, static_cast<std::uint32_t>(from)));
        return request_of(wire::FrameType_QueueList, &builder, WhenLost::kAskAgain);
      },
      wire::FrameType_QueueInfo, "Listing the queues");
  if (queues.ok()) std::ranges::sort(*queues, {}, &QueueReport::name);
  return queues;
}

Status Admin::delete_queue(std::string_view name) {
  if (Status checked = check_queue_name(name); !checked.ok()) return checked;
  FlatBufferBuilder builder(256);
  builder.Finish(wire::CreateQueueDelete(builder, builder.CreateString(name.data(), name.size())));
  return ask_for_ok(impl_, request_of(wire::FrameType_QueueDelete, &builder, WhenLost::kFailIfSent),
                    fmt::format("Deleting queue \"{}\"", name));
}

Result<std::uint64_t> Admin::purge_queue(std::string_view name) {
  if (Status checked = check_queue_name(name); !checked.ok()) return checked;
  FlatBufferBuilder builder(256);
  builder.Finish(wire::CreateQueuePurge(builder, builder.CreateString(name.data(), name.size())));
  const Result<MoveReport> moved = ask_for_one<wire::Moved>(
      impl_, request_of(wire::FrameType_QueuePurge, &builder, WhenLost::kFailIfSent),
      wire::FrameType_Moved, fmt::format("Purging queue \"{}\"", name));
  if (!moved.ok()) return moved.status();
  return moved->moved;
}

// ---- messages ----

Result<PeekPage> Admin::peek(std::string_view queue, std::uint32_t limit, std::uint64_t from) {
  if (Status checked = check_queue_name(queue); !checked.ok()) return checked;
  if (Status checked = check_limit(limit, kPeekMessagesMax); !checked.ok()) return checked;
  FlatBufferBuilder builder(256);
  const auto name = builder.CreateString(queue.data(), queue.size());
  builder.Finish(wire::CreatePeek(builder, name, from, limit));
  Request request = request_of(wire::FrameType_Peek, &builder, WhenLost::kAskAgain);
  const auto page = std::make_shared<PeekPage>();
  request.on_repeat = [page] { *page = PeekPage(); };
  request.on_frame = [page, from, queue = std::string(queue)](const Frame& frame) -> Result<bool> {
    if (frame.type == wire::FrameType_PeekItem) {
      const Result<DeliverFrame> item = read_deliver(frame);
      if (!item.ok()) return item.status();
      page->messages.push_back(
          client::decode_message(*item, queue, client::message_state_name(item->envelope.state())));
      return false;
    }
    const auto* end = table_of<wire::ListEnd>(frame, wire::FrameType_ListEnd);
    if (end == nullptr || !goes_on(end->next(), from)) return malformed_answer(frame);
    page->next = end->next();
    return true;
  };
  if (Status status = ask(impl_, std::move(request), fmt::format("Peeking at \"{}\"", queue));
      !status.ok()) {
    return status;
  }
  return std::move(*page);
}

Result<StoredMessage> Admin::get(std::string_view queue, std::uint64_t sequence) {
  // What a peek leaves out is damaged if it was there before and after.
  for (bool was_held = false;; was_held = true) {
    Result<PeekPage> page = peek(queue, 1, sequence);
    if (!page.ok()) return page.status();
    if (!page->messages.empty() && page->messages.front().sequence == sequence) {
      return std::move(page->messages.front());
    }
    const Result<AttemptsReport> held = attempts(queue, sequence);
    if (!held.ok()) return held.status();
    if (was_held) {
      return Status(
          ErrorCode::kMessageCorrupt,
          fmt::format("Message {} of \"{}\" is stored and can no longer be read: it is damaged. "
                      "At its delivery it is set aside in the dead-letter queue.",
                      sequence, queue));
    }
  }
}

Result<AttemptsReport> Admin::attempts(std::string_view queue, std::uint64_t sequence) {
  if (Status checked = check_queue_name(queue); !checked.ok()) return checked;
  FlatBufferBuilder builder(256);
  const auto name = builder.CreateString(queue.data(), queue.size());
  builder.Finish(wire::CreateAttempts(builder, name, sequence));
  return ask_for_one<wire::AttemptsInfo>(
      impl_, request_of(wire::FrameType_Attempts, &builder, WhenLost::kAskAgain),
      wire::FrameType_AttemptsInfo,
      fmt::format("Asking about message {} of \"{}\"", sequence, queue));
}

// ---- dead letters ----

Result<MoveReport> Admin::redrive(std::string_view queue,
                                  const std::vector<std::uint64_t>& sequences, bool dry_run) {
  return move(impl_, Move::kRedrive, queue, {.named = &sequences}, dry_run);
}

Result<MoveReport> Admin::redrive_all(std::string_view queue, std::uint64_t from,
                                      std::uint32_t limit, bool dry_run, std::uint64_t to) {
  return move(impl_, Move::kRedrive, queue, {.from = from, .to = to, .limit = limit}, dry_run);
}

Result<MoveReport> Admin::discard(std::string_view queue,
                                  const std::vector<std::uint64_t>& sequences, bool dry_run) {
  return move(impl_, Move::kDiscard, queue, {.named = &sequences}, dry_run);
}

Result<MoveReport> Admin::discard_all(std::string_view queue, std::uint64_t from,
                                      std::uint32_t limit, bool dry_run, std::uint64_t to) {
  return move(impl_, Move::kDiscard, queue, {.from = from, .to = to, .limit = limit}, dry_run);
}

// ---- the broker ----

Result<BrokerReport> Admin::status() {
  return ask_for_one<wire::StatusInfo>(
      impl_, request_of(wire::FrameType_Status, nullptr, WhenLost::kAskAgain),
      wire::FrameType_StatusInfo, "Asking for the broker's status");
}

Result<std::vector<ConsumerReport>> Admin::consumers(std::string_view queue) {
  if (!queue.empty()) {
    if (Status checked = check_queue_name(queue); !checked.ok()) return checked;
  }
  Result<std::vector<ConsumerReport>> consumers = ask_for_list<wire::ConsumerInfo>(
      impl_,
      [queue](std::uint64_t from) {
        FlatBufferBuilder builder(256);
        const auto name = builder.CreateString(queue.data(), queue.size());
        builder.Finish(wire::CreateConsumerList(builder, name, from));
        return request_of(wire::FrameType_ConsumerList, &builder, WhenLost::kAskAgain);
      },
      wire::FrameType_ConsumerInfo, "Listing the consumers");
  // By number within a queue.
  if (consumers.ok()) std::ranges::stable_sort(*consumers, {}, &ConsumerReport::queue);
  return consumers;
}

Result<std::vector<ConnectionReport>> Admin::connections() {
  return ask_for_list<wire::ConnectionInfo>(
      impl_,
      [](std::uint64_t from) {
        FlatBufferBuilder builder(64);
        builder.Finish(wire::CreateConnectionList(builder, from));
        return request_of(wire::FrameType_ConnectionList, &builder, WhenLost::kAskAgain);
      },
      wire::FrameType_ConnectionInfo, "Listing the connections");
}

}  // namespace holdfast
