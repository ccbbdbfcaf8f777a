// Standard output: data, in the format that was asked for. Talk goes elsewhere, see console.h.
//
// A command prints either one object or a list of them. In a list, table rows gather until flush()
// or until there are many; JSON lines too, so that a fast pipeline writes in large pieces.
//
// Limits: one thread at a time. After a write has failed (status() is not ok) nothing more is
// written.

#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "cli/json_form.h"
#include "cli/table.h"
#include "holdfast/status.h"

namespace holdfast::cli {

enum class OutputFormat { kTable, kJson, kJsonl };

class Output {
 public:
  // `file_descriptor` stays the caller's. `width` is that of table lines.
  Output(OutputFormat format, int file_descriptor, std::size_t width)
      : format_(format), file_descriptor_(file_descriptor), width_(width) {}

  OutputFormat format() const { return format_; }
  bool is_table() const { return format_ == OutputFormat::kTable; }
  std::size_t width() const { return width_; }

  // A list: begin, any number of rows (tables) or objects (JSON, as elements of an array, and JSON
  // lines), end.
  void begin_list(std::vector<Column> columns);
  void row(std::vector<std::string> cells);
  void object(const Json& json);
  void end_list();
  // Ends a list, if one was begun, that an error cut short: what was printed stays well-formed.
  void abandon_list();

  // Without a list: one object in its own lines, for JSON and JSON lines.
  void single(const Json& json);
  void text(std::string_view text);

  // Writes what has gathered. False if that, or an earlier write, failed.
  bool flush();
  // kStorageFailed if standard output cannot be written.
  const Status& status() const { return status_; }
  // The reader of the pipe has gone: no error worth a word.
  bool pipe_is_closed() const { return pipe_is_closed_; }
  // Waits so long, or until the reader of the pipe goes or a signal comes, and notes if it has
  // gone.
  void wait_while_read(std::chrono::milliseconds at_most);
  // Whoever wrote to standard output past this has found that.
  void note_closed_pipe() { pipe_is_closed_ = true; }

 private:
  void write_if_much();

  OutputFormat format_;
  int file_descriptor_;
  std::size_t width_;
  std::optional<Table> table_;
  bool list_is_open_ = false;
  std::size_t list_items_ = 0;
  std::string pending_;
  Status status_;
  bool pipe_is_closed_ = false;
};

}  // namespace holdfast::cli
